"""GECO, the algorithm of *Taming VAEs*: training under constraints, and learned models against the exact theory."""

from .evaluation import Evaluation
from .history import History
from .multiplier import Multiplier
from .networks import VAE
from .reports import Feasibility
from .runs import Placement, Run
from .schedules import Ramp
from .trainer import train

__all__ = ["VAE", "Evaluation", "Feasibility", "History", "Multiplier", "Placement", "Ramp", "Run", "train"]
