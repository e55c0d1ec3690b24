"""The public names, listed once: `__init__.py` reads them from here."""

from . import (
    backends as backends,
    datasets as datasets,
    diagnostics as diagnostics,
    equations as equations,
    geco as geco,
    image_models as image_models,
    plotting as plotting,
    spectral as spectral,
    testing as testing,
)
from ._utils.checks import TooLargeError as TooLargeError
from .backends import BackendNotAvailableError as BackendNotAvailableError
from .data.frame import Frame as Frame
from .data.rows import RowBlocks as RowBlocks
from .diagnostics import Blur as Blur, Report as Report, report as report
from .effort import Effort as Effort, Estimate as Estimate, estimate as estimate
from .equations import Expectations as Expectations, bits as bits
from .estimator import FixedPointVAE as FixedPointVAE
from .exploring.explore import Explorer as Explorer, explore as explore
from .frontier.certificate import Certificate as Certificate
from .frontier.curve import RateDistortionCurve as RateDistortionCurve
from .frontier.distance_to_optimum import certify as certify
from .frontier.excess import Excess as Excess
from .frontier.excess_parts import ExcessParts as ExcessParts, excess_parts as excess_parts
from .frontier.kmeans import KMeansBound as KMeansBound
from .frontier.nucleation import hysteresis_interval as hysteresis_interval, nucleation_beta as nucleation_beta
from .frontier.optimum import CertifiedFixedPoint as CertifiedFixedPoint, global_solution as global_solution
from .frontier.population import PopulationBounds as PopulationBounds
from .frontier.rate_distortion import rate_distortion as rate_distortion
from .frontier.support_changes import SupportChange as SupportChange
from .latent.sites import Sites as Sites
from .latent.tiling import Tiling as Tiling
from .multipliers.constrained_fixed_point import ConstrainedFixedPoint as ConstrainedFixedPoint
from .multipliers.dual import solve_constrained as solve_constrained
from .objectives.constraints import CLA as CLA, FRE as FRE, PNCC as PNCC, RE as RE, Constraint as Constraint
from .objectives.elbo import ELBO as ELBO
from .objectives.features import (
    ClassProbabilities as ClassProbabilities,
    FeatureMap as FeatureMap,
    Features as Features,
    FourierFeatures as FourierFeatures,
    LinearFeatures as LinearFeatures,
    MissingProductError as MissingProductError,
    NormalisedPatches as NormalisedPatches,
)
from .objectives.lagrangian import Lagrangian as Lagrangian, NoMinimiserError as NoMinimiserError
from .phases.branch import Branch as Branch
from .phases.criticality import (
    NearestSplit as NearestSplit,
    first_critical_beta as first_critical_beta,
    nearest_split as nearest_split,
)
from .phases.jacobian import Eigenpairs as Eigenpairs, Jacobian as Jacobian
from .phases.peaks import Peak as Peak
from .phases.suggest import Plateau as Plateau, Suggestions as Suggestions, suggest as suggest
from .phases.sweep import default_betas as default_betas, sweep as sweep
from .phases.tangent import Tangent as Tangent, tangent as tangent
from .phases.transition_list import (
    Transition as Transition,
    Transitions as Transitions,
    match_peaks as match_peaks,
)
from .phases.transitions import transitions as transitions
from .problems.block_expectations import block_expectations as block_expectations
from .results.fixed_point import FixedPoint as FixedPoint, NotConvergedError as NotConvergedError
from .results.status import NotConvergedWarning as NotConvergedWarning, Status as Status
from .solvers.options import Iterate as Iterate
from .solvers.solve import solve as solve
from .spectral.comparison import compare_spectral as compare_spectral
from .spectral.partitions import BranchComparison as BranchComparison, SpectralComparison as SpectralComparison
from .spectral.relaxation import FirstSplit as FirstSplit, first_split as first_split

__version__: str
__all__: list[str]

def __dir__() -> list[str]: ...
