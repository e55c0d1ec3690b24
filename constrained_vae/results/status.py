"""How an iteration ended."""

from __future__ import annotations

from enum import Enum


class Status(Enum):
    """How an iteration ended: what happened, and what to try.

    Examples
    --------
    >>> Status.MET.converged, Status.BUDGET_USED.converged
    (True, False)
    """

    CONVERGED = "converged: the estimated error is below the tolerance"
    SADDLE_LEFT = "converged, after leaving a saddle along its unstable axis"
    DEAD_TILES = "converged; some tiles hold no posterior mass (holes), their reconstructions are arbitrary"
    CRITICAL = (
        "stopped at the accuracy of the arithmetic, with the estimated error above the tolerance: the solution is too "
        "close to a transition, or on a saddle with no visible way down, or beta is too small for the precision; move "
        "beta, or accept the error estimate"
    )
    BUDGET_USED = "stopped before convergence: raise max_maps or time_limit, loosen tol, or use another accelerator"
    STOPPED = "stopped by the callback"
    INTERRUPTED = "interrupted: the last point is kept"
    NOT_FINITE = (
        "stopped at the last finite point, the objective overflowed: check the scale of beta, sigma and the data"
    )
    MET = "met: every constraint holds, those that are paid for as equalities"
    SLACK = "slack: every constraint holds at rate zero, none is paid for"
    UNREACHABLE = (
        "unreachable with these tiles: on the annealed branch a constraint does not hold, however much is paid for it; "
        "`least` has the least values seen; relax it, or use more tiles or free masses"
    )
    JUMP = (
        "jump: a first-order transition skips a threshold; `sides` has the solutions on both sides, of which this one "
        "breaks the constraints less"
    )

    @property
    def converged(self) -> bool:
        """Whether the estimated error is below the tolerance, and constraints that were to be met are."""
        return self in (Status.CONVERGED, Status.SADDLE_LEFT, Status.DEAD_TILES, Status.MET, Status.SLACK)


class NotConvergedWarning(UserWarning):
    """A solution did not reach its tolerance; the text says why and what to try.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     s = cv.solve([[-1.0], [1.0]], beta=0.5, tiling=cv.Tiling.uniform(2), max_maps=2)
    >>> [w.category.__name__ for w in caught]
    ['NotConvergedWarning']
    """
