"""GECO, the algorithm of *Taming VAEs*: VAEs trained under constraints and compared with the exact theory.

Examples
--------
>>> multiplier = Multiplier(threshold=0.5)
>>> for _ in range(5000):  # a network that adapts at once, with an error of 1 / lambda
...     loss = multiplier.penalty(1 / multiplier.value)
...     multiplier.step()
>>> round(multiplier.value, 3)
2.0
"""

from .evaluation import Evaluation
from .history import History
from .multiplier import Multiplier
from .networks import VAE
from .placement import Placement
from .reports import Feasibility
from .runs import Run
from .schedules import Ramp
from .starts import natural_multiplier
from .threshold_table import Thresholds, thresholds
from .trainer import train

__all__ = [
    "VAE",
    "Evaluation",
    "Feasibility",
    "History",
    "Multiplier",
    "Placement",
    "Ramp",
    "Run",
    "Thresholds",
    "natural_multiplier",
    "thresholds",
    "train",
]
