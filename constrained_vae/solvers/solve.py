"""solve(): fixed points of encoder and decoder at one temperature; the iteration itself is in `loop`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .._utils import deadline
from .._utils.checks import check_choice, check_data, check_seed, check_time_limit
from ..data.rows import RowBlocks, check_reach
from ..latent.sites import Sites
from ..latent.tiling import Tiling
from ..objectives.base import Objective
from ..problems.problem import is_homogeneous
from ..results.fixed_point import FixedPoint, NotConvergedError
from ..results.status import NotConvergedWarning, Status
from .loop import iterate
from .options import Iterate, Options
from .pose import Posed, pose

_JITTER = 1e-2  # noise of the default start, in units of the data's radius: less noise leaves symmetric saddles


def solve(
    x: npt.ArrayLike | RowBlocks,
    objective: Objective | None = None,
    *,
    beta: float | None = None,
    sigma: float | None = None,
    n_tiles: int | None = None,
    tiling: Tiling | None = None,
    weights: npt.ArrayLike | None = None,
    masses: str = "fixed",
    start: npt.ArrayLike | FixedPoint | None = None,
    accelerate: str = "lbfgs",
    tol: float = 1e-10,
    max_maps: int = 100_000,
    time_limit: float | None = None,
    backend: str = "auto",
    dtype: npt.DTypeLike | None = None,
    seed: int = 0,
    progress: bool = False,
    callback: Callable[[Iterate], Any] | None = None,
    record: bool = False,
    on_failure: str = "warn",
) -> FixedPoint:
    """Solve the fixed-point equations (T1)-(T2) for encoder and decoder.

    Each map is a step of majorisation-minimisation (deterministic annealing at one temperature; Blahut-Arimoto with a
    moving reproduction alphabet), so that the free energy never rises. The solution is a local minimum; annealing with
    `sweep` may find a better one. For a quick look at 1e4 points or more, take ``n_tiles=16, tol=1e-4``.

    Parameters
    ----------
    x : (N, D) array_like, memory map, RowBlocks, or Dask array or dataframe
        Data. Memory maps and RowBlocks are streamed; blocks of Dask are summed over where they are.
    objective : Objective, optional
        `ELBO()` by default.
    beta : float, optional
        Temperature; short for `objective.at(beta)`.
    sigma : float, optional
        Standard deviation of the Gaussian decoder, in units of x; short for an ELBO with it. 1 by default.
    n_tiles : int, optional
        Number of latent tiles of equal prior mass; 64 by default.
    tiling : Tiling, optional
        Tiles of other masses, or with positions, in place of `n_tiles`.
    weights : (N,) array_like, optional
        Data weights, normalised to sum to 1; uniform by default. Points of weight zero are ignored.
    masses : {"fixed", "free"}
        Whether the prior masses are optimised too, pi <- m ("mass-constrained" annealing). The tiling is then part of
        the solution.
    start : None, "data", (K, D) array_like or FixedPoint, optional
        Initial reconstructions: the mean with noise of 1e-2 of the data's radius (None), random data points ("data"),
        or the given ones. With free masses and equal tiles, None starts at the mean without noise: all reconstructions
        past their split condition (T9) split at once, until none is or no tile is spare.
    accelerate : {"lbfgs", "anderson", "squarem", "plain"}
        Acceleration scheme. A proposal of the scheme is accepted only if the free energy does not rise. With free
        masses, or where sites are about to separate, SQUAREM can take many times the maps of the first two schemes.
    tol : float
        Tolerance on the error estimate, relative to the root-mean-square radius of the data; in float32 about 1e-5 at
        least.
    max_maps : int
        Budget of evaluations of the map.
    time_limit : float, optional
        Budget in seconds. It is kept to within a pass over the data; imports and the compilation of kernels do not
        count.
    backend : {"auto", "numba", "cupy", "reference"}
        Backend that computes.
    dtype : {float64, float32}, optional
        Precision of the passes over the data; float64 by default. With float32, energies have a relative error of 6e-8
        times radius^2 / (sigma^2 beta), and reconstructions an error of about 1e-5 of the radius.
    seed : int
        Seed of the random starts; of no effect where the start is the mean without noise.
    progress : bool
        Show a progress bar.
    callback : callable, optional
        Called with an `Iterate` after every accepted point; a true return value stops the iteration.
    record : bool
        Keep every iterate in `.trajectory` (n, K, D).
    on_failure : {"warn", "raise", "return"}
        What to do if the iteration does not converge. After Ctrl-C the last point is returned, or with "raise"
        KeyboardInterrupt is raised.

    Returns
    -------
    FixedPoint
        A local minimum of the free energy. Without convergence it is the last point; its status says why.

    Raises
    ------
    ValueError
        For bad input.
    NotConvergedError
        If the iteration does not converge, with ``on_failure="raise"``.

    Examples
    --------
    >>> s = solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)
    >>> round(float(abs(s.decoder[0, 0])), 6)  # m = tanh(m / 0.5) (docs/theory.md section 5)
    0.957504
    """
    seed = check_seed(seed)
    posed = pose(
        x,
        objective,
        beta=beta,
        sigma=sigma,
        n_tiles=n_tiles,
        tiling=tiling,
        weights=weights,
        masses=masses,
        backend=backend,
        dtype=dtype,
        on_failure=on_failure,
    )
    options = Options(
        posed.free, accelerate, tol, max_maps, callback, record, progress, generations=in_generations(posed, start)
    )
    with deadline.within(check_time_limit(time_limit)):
        sites = initial_sites(posed, start, seed)
        solution, *_ = iterate(posed.problem, posed.tiling, sites, options)
    report_failure(solution, on_failure, stacklevel=3)
    return solution


def in_generations(posed: Posed, start: npt.ArrayLike | FixedPoint | None) -> bool:
    """Whether all tiles start at the mean, and split in generations."""
    masses = posed.tiling.masses
    return posed.free and start is None and posed.problem.bregman and bool((masses == masses[0]).all())


def initial_sites(posed: Posed, start: npt.ArrayLike | FixedPoint | None, seed: int) -> Sites:
    """Initial sites in the frame; reconstructions that are exactly equal are tied."""
    problem, tiling = posed.problem, posed.tiling
    rows, k = problem.data.rows, len(tiling)
    dim = rows.dim
    tile_masses = tiling.masses
    if start is None:
        noise = np.random.default_rng(seed).standard_normal((k, dim)) / np.sqrt(dim)
        start_at, size = problem.framed.coordinates(problem.data.mean), problem.data.radius
        if is_homogeneous(problem.objective):  # coordinates are in another unit than the data
            size = min(size, float(np.linalg.norm(start_at)))
        psi = problem.framed.reconstructions(
            start_at + (0.0 if in_generations(posed, start) else _JITTER) * size * noise
        )
    elif isinstance(start, str):
        check_choice(start, "start", ("data",))
        chosen = np.random.default_rng(seed).choice(len(rows), size=k, p=rows.weights)
        psi = rows.take(np.sort(chosen))
    else:
        given = start.decoder if isinstance(start, FixedPoint) else check_data(start, "start")
        if given.shape != (k, dim):
            raise ValueError(f"start must have shape ({k}, {dim}), one reconstruction per tile, got {given.shape}")
        check_reach(given, rows.frame, "start")
        problem.objective.check(given)
        psi = rows.frame.inward(np.asarray(given, dtype=np.float64))
        if posed.free and isinstance(start, FixedPoint):  # masses are part of its solution
            tile_masses = start.tiling.masses
    if getattr(problem.framed, "box", None) is not None:
        psi = problem.framed.reconstructions(psi)  # the nearest point of the box
    return Sites.of_tiles(psi, tile_masses)


def report_failure(solution: FixedPoint, on_failure: str, stacklevel: int) -> None:
    """Warn or raise if a solution did not converge."""
    if solution.status is Status.INTERRUPTED and on_failure == "raise":
        raise KeyboardInterrupt
    if solution.converged or on_failure == "return":
        return
    message = f"beta={solution.beta:.6g}: {solution.ending} ({solution.accuracy})"
    if on_failure == "raise":
        raise NotConvergedError(message, solution)
    warnings.warn(message, NotConvergedWarning, stacklevel=stacklevel)
