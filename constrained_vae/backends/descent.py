"""Several accelerated steps of a small problem in one call, compiled by Numba.

A map of a few hundred rows takes about ten microseconds, and the Python code around it five times as long. Here the map
of a squared distance, the proposal of L-BFGS and the test that F does not rise are compiled together, and make steps as
long as every proposal is accepted at once. All else is left to `constrained_vae.solvers`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .._utils.arrays import Array
from .arithmetic import assign, frozen
from .compilation import jit
from .dense_kernels import Arrays, few, many

_PAIRS = 8  # pairs of changes from which L-BFGS proposes, as in `solvers.acceleration`
_MOST_LOG_STEP = 10.0  # as in `solvers.point`
_REJECTED, _NO_PROPOSAL = 1, 2  # why the steps ended


class Steps(NamedTuple):
    """What `steps` found.

    Attributes
    ----------
    accepted : int
        Number of accepted points.
    u, r, du, dr : (., n) arrays
        Points, residuals and their changes: those of the history, then the accepted ones.
    residuals : (accepted,) array
        Root-mean-square steps of the plain map at the accepted points.
    last, rejected : tuple of arrays, or None
        Reconstructions (K, S), log masses, mass, sums, their image T, and (F, energy), of the last accepted point
        and of a proposal that was rejected.
    """

    accepted: int
    u: Array
    r: Array
    du: Array
    dr: Array
    residuals: Array
    last: Arrays
    rejected: Arrays | None

    @property
    def maps(self) -> int:
        """Number of maps."""
        return self.accepted + (self.rejected is not None)


def steps(
    data: Arrays,
    lam: float,
    rows: int,
    history: Arrays,
    metric: Array,
    masses: Arrays,
    free: bool,
    limits: tuple[float, float, float, float],
    count: int,
) -> Steps | None:
    """Steps of L-BFGS, of which each proposal is accepted; None if there is no proposal. The first of all is plain.

    Parameters
    ----------
    data : (N, S), (N,), (N,) arrays
        Statistics, offset and weights, in float64.
    lam : float
        Multiplier of the squared distance.
    rows : int
        Rows of a matrix product; 0 for few statistics, which take none.
    history : (h, n) arrays u, r, du, dr
        The accepted points, the last one last; the first changes are not used.
    metric : (n,) array
        The metric at the last point.
    masses : (K,), (K,) arrays
        Log masses and marginal posterior at the last point; if they are free, log masses are a part of u.
    free : bool
    limits : (F, noise, low, high)
        F at the last point; rounding of F relative to 1 + |F|; residuals at or below which, and above which, the steps
        end.
    count : int
        Largest number of steps.
    """
    phi, s, rho = (frozen(array, np.float64) for array in data)
    S, K, h = phi.shape[1], len(masses[0]), len(history[0])
    buffers = tuple(np.empty((h + count, len(metric))) for _ in range(4))
    for buffer, known in zip(buffers, history, strict=True):
        buffer[:h] = known
    states = (
        np.empty((2, K, S)), np.empty((2, K)), np.empty((2, K)), np.empty((2, K, S)), np.empty((2, K, S)),
        np.empty((2, 2)),
    )  # fmt: skip
    residuals = np.empty(count)
    states[1][:], states[2][0] = masses
    found, here, end = _steps((phi, s, rho), lam, rows, buffers, h, metric, free, limits, states, residuals)
    if not found and end == _NO_PROPOSAL:
        return None
    last, other = (tuple(array[slot] for array in states) for slot in (here, 1 - here))
    u, r, du, dr = (buffer[: h + found] for buffer in buffers)
    return Steps(found, u, r, du, dr, residuals[:found], last, other if end == _REJECTED else None)


@jit
def _steps(
    data: Arrays,
    lam: float,
    rows: int,
    buffers: Arrays,
    h: int,
    metric: Array,
    free: bool,
    limits: tuple[float, float, float, float],
    states: Arrays,
    residuals: Array,
) -> tuple[int, int, int]:
    """Number of accepted points, the place of the last one in the states, and why the steps ended."""
    (u, r, du, dr), (psi, log_pi, mass, sums, updated, totals) = buffers, states
    free_energy, noise, low, high = limits
    (K, S), n = psi.shape[1:], len(metric)
    here, proposed, added = 0, np.empty(n), np.empty((S + 1, K))
    after, metric_after, residual_after = np.empty(n), np.empty(n), 0.0
    metric = metric.copy()
    for count in range(len(residuals)):
        last = h + count - 1
        first = max(0, last - _PAIRS) + 1
        plain = last == 0  # the plain step, which descends, gives the first pair
        if plain:
            assign(proposed, r[0])
        elif not _propose(du[first : last + 1], dr[first : last + 1], metric, r[last], proposed):
            return count, here, _NO_PROPOSAL
        there = 1 - here
        for i in range(n):
            proposed[i] += u[last, i]
        for a in range(K):
            for d in range(S):
                psi[there, a, d] = proposed[a * S + d]
        if free:
            _limit_masses(proposed[K * S :], log_pi[here], mass[here], log_pi[there])
        else:
            assign(log_pi[there], log_pi[here])
        _map(data, lam, rows, psi[there], log_pi[there], added, totals[there])
        for a in range(K):
            mass[there, a] = added[S, a]
            for d in range(S):
                sums[there, a, d] = added[d, a]
                updated[there, a, d] = added[d, a] / added[S, a] if added[S, a] > 0 else psi[there, a, d]
        square = 0.0
        for a in range(K):
            for d in range(S):
                i = a * S + d
                after[i] = updated[there, a, d] - psi[there, a, d]
                metric_after[i] = 2 * lam * mass[there, a]
                square += metric_after[i] * after[i] * after[i]
            if free:
                i, alive = K * S + a, mass[there, a] > 0
                proposed[i] = log_pi[there, a] if alive else 0.0
                after[i] = math.log(mass[there, a]) - log_pi[there, a] if alive else 0.0
                metric_after[i] = mass[there, a]
                square += metric_after[i] * after[i] * after[i]
        residual_after = math.sqrt(square / (2 * lam))
        rise = totals[there, 0] - free_energy
        if abs(rise) <= noise * (1 + abs(free_energy)):
            rise = 0.0
            for i in range(n):
                rise -= (metric[i] * r[last, i] + metric_after[i] * after[i]) * (proposed[i] - u[last, i])
        if not ((rise <= 0 or plain) and math.isfinite(residual_after) and math.isfinite(totals[there, 0])):
            return count, here, _REJECTED
        here, free_energy, residuals[count] = there, totals[there, 0], residual_after
        for i in range(n):
            u[last + 1, i], r[last + 1, i], metric[i] = proposed[i], after[i], metric_after[i]
            du[last + 1, i], dr[last + 1, i] = u[last + 1, i] - u[last, i], r[last + 1, i] - r[last, i]
        if not low < residual_after <= high:
            return count + 1, here, 0
    return len(residuals), here, 0


@jit
def _map(data: Arrays, lam: float, rows: int, psi: Array, log_pi: Array, sums: Array, totals: Array) -> None:
    """Sums (S + 1, K) of the rows, the mass last, and (F, energy) at reconstructions psi (K, S)."""
    phi, s, rho = data
    K, S = psi.shape
    sums[:], totals[:] = 0.0, 0.0
    b = np.zeros(K)
    if not rows:
        tiles = np.zeros((S + S % 2, K))
        for a in range(K):
            for d in range(S):
                tiles[d, a] = psi[a, d]
        few(phi, s, rho, tiles, b, log_pi, lam, sums, totals)
        return
    v = np.empty((S, K))
    for a in range(K):
        for d in range(S):
            v[d, a] = 2 * psi[a, d] * lam
            b[a] -= psi[a, d] * psi[a, d]
        b[a] *= lam
    scratch = np.empty((rows, K)), np.empty((rows, S + 1)), np.empty((S + 1, K))
    many((phi, s, rho), (v, b, log_pi), scratch, sums, totals)


@jit
def _propose(du: Array, dr: Array, metric: Array, r: Array, step: Array) -> bool:
    """The step of L-BFGS from pairs of changes (m, n), see `solvers.acceleration.lbfgs`; whether there is one."""
    scaled_du, scaled_dr = du * metric, dr * metric
    ss, sy, yy = np.dot(scaled_du, du.T), np.dot(scaled_du, dr.T), np.dot(scaled_dr, dr.T)  # -s . y
    along_s, along_y = np.dot(scaled_du, r), np.dot(scaled_dr, r)  # -y . r
    kept = [j for j in range(len(du)) if sy[j, j] < 0 and sy[j, j] ** 2 > 1e-28 * ss[j, j] * yy[j, j]]
    m = len(kept)
    if m == 0:
        return False
    p, q = np.empty(m), np.empty(m)
    for i in range(m - 1, -1, -1):
        p[i] = along_s[kept[i]]
        for j in range(i + 1, m):
            p[i] += sy[kept[i], kept[j]] * p[j]
        p[i] /= -sy[kept[i], kept[i]]
    for i in range(m):
        q[i] = along_y[kept[i]] - sy[kept[i], kept[i]] * p[i]
        for j in range(m):
            q[i] += yy[kept[i], kept[j]] * p[j]
    for i in range(m):
        for j in range(i):
            q[i] += sy[kept[j], kept[i]] * q[j]
        q[i] /= -sy[kept[i], kept[i]]
    assign(step, r)
    for i in range(m):
        for j in range(len(r)):
            step[j] += q[i] * du[kept[i], j] + p[i] * dr[kept[i], j]
    return True


@jit
def _limit_masses(proposed: Array, here: Array, mass: Array, log_pi: Array) -> None:
    """Normalised log masses from proposed ones; each step is limited, and dead sites stay dead."""
    top = -np.inf
    for a in range(len(here)):
        limited = min(max(proposed[a], here[a] - _MOST_LOG_STEP), here[a] + _MOST_LOG_STEP)
        log_pi[a] = limited if mass[a] > 0 else -np.inf
        top = max(top, log_pi[a])
    total = 0.0
    for a in range(len(here)):
        total += math.exp(log_pi[a] - top)
    for a in range(len(here)):
        log_pi[a] -= top + math.log(total)
