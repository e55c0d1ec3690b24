"""Status of a solution (how its iteration ended), and the warning for solutions that have not converged."""

from __future__ import annotations

from enum import Enum


class Status(Enum):
    """How an iteration ended. The value is a text that says what happened and what to try.

    Examples
    --------
    >>> Status.MET.converged, Status.BUDGET_USED.converged
    (True, False)
    """

    CONVERGED = "converged: the estimated error is below the tolerance"
    SADDLE_LEFT = "converged, after leaving a saddle along its unstable axis"
    DEAD_TILES = "converged; some tiles have zero posterior mass (holes), and their reconstructions are arbitrary"
    CRITICAL = (
        "stopped at the accuracy of the arithmetic, with the estimated error above the tolerance: the solution is too "
        "close to a transition, or on a saddle without a measurable descent direction, or beta is too small for the "
        "precision; change beta, or accept the error estimate"
    )
    BUDGET_USED = "stopped before convergence: raise max_maps or time_limit, loosen tol, or use another accelerator"
    STOPPED = "stopped by the callback"
    INTERRUPTED = "interrupted: the result is the last point"
    LOST = "stopped, since the cluster with the data was lost: the result is the last point, at which a run can start"
    NOT_FINITE = (
        "stopped at the last finite point, since the objective overflowed: check the scale of beta, sigma and the data"
    )
    MET = "met: every constraint holds, those with a positive multiplier with equality"
    SLACK = "slack: every constraint holds at rate zero, and all multipliers are zero"
    UNREACHABLE = (
        "unreachable with these tiles: on the annealed branch a constraint does not hold with any multiplier; `least` "
        "has the smallest values seen; relax the constraint, or use more tiles or free masses"
    )
    JUMP = (
        "jump: a first-order transition skips a threshold; `sides` has the solutions on both sides, of which this one "
        "violates the constraints less"
    )

    @property
    def converged(self) -> bool:
        """Whether the estimated error is below the tolerance and, for `solve_constrained`, all constraints hold."""
        return self in (Status.CONVERGED, Status.SADDLE_LEFT, Status.DEAD_TILES, Status.MET, Status.SLACK)


class NotConvergedWarning(UserWarning):
    """A solution did not reach its tolerance; the message says why and what to try.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     s = cv.solve([[-1.0], [1.0]], beta=0.5, n_tiles=2, max_maps=2)
    >>> [w.category.__name__ for w in caught]
    ['NotConvergedWarning']
    """
