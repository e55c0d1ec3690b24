"""CPU kernel for squared distances at low temperature in any dimension: lists of the tiles that can count for a row.

The pair of row i and tile a counts if log pi_a - H_ia >= t_i - cut, where t_i is the largest of the row, and
cut >= log(K / tol). The sums are those over the pairs that count. So a row loses at most the share tol of Z_i, and F
and E lose as little as `pruning` proves. With tol = 2^-56 (float32: 2^-33) that is below their rounding. A tile of less
than 2^-8 of the average mass could lose a share of it that is visible: the sums of such tiles are computed again, over
all rows and without a cut.

Lists only save work. They exclude pairs that are proven not to count, so that the sums have the same bits without them.
When all tiles were last looked at, with reconstructions psi0, a row wrote down the tiles nearest to it with their
distances d0, and a bound below which no other tile lay. By the triangle inequality a distance is now at least
d0 - ||psi_a - psi0_a||. And t_i is at least log pi_b - lambda (d_b + s_b)^2, where b was the best tile in the last map,
d_b its distance, and s_b is its step since then. A map

- measures how far every tile is from its psi0. The few tiles that are farthest are compared with all rows by a matrix
  product, so that the other tiles have moved little;
- evaluates, for every row, the tiles of its list that may count, and with them t_i;
- looks at all tiles for the rows whose bound on the tiles outside of their list does not suffice.

Every map checks this for every row with its own psi, masses and lambda. So lists can be old, or come from another
temperature or from a point that was rejected. They are made anew when products with far tiles and looks at rows have
cost as much as new lists. If too many pairs count, or lists do not last for a map, the kernel of all tiles does the
map.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._utils.arrays import Array
from .arithmetic import frozen
from .neighbour_kernels import BLOCK, columns_parallel, map_parallel

_SMALL = 2**20  # N K below which lists do not pay
_FEWEST = 512  # rows below which lists do not pay
_MOST_TILES = 2**16 - 1  # tiles have numbers of 16 bits
_SAMPLES = 64  # rows that are looked at to estimate how many pairs count
_DENSE = 1 / 16  # share of the pairs that count from which the kernel of all tiles is faster
_LIGHT = 2.0**-8  # share of the average mass below which a tile is summed over all rows
_MOST_LIGHT = 1 / 32  # share of the tiles that may be light
_RENEW = 0.7  # looks and products since the lists were made, in units of their cost, at which new ones are made
_PATIENCE = 4  # after n failures in a row, n <= 4, the kernel of all tiles does 2^n - 1 maps
_CHUNKS, _MEMORY = 16, 2**24  # largest number of chunks, and bytes of their accumulators


class Neighbours:
    """Lists of the tiles near every row of some statistics, which one map hands on to the next.

    A map takes the lists out while it works on them. So a map in another thread finds none and makes its own, and a map
    that is interrupted leaves none. Pickles and copies have none.

    Parameters
    ----------
    phi : (N, S) array
        Statistics, float64 or float32, which must not change.
    """

    def __init__(self, phi: Array) -> None:
        self.phi = phi
        self._lists: list[_Lists] = []
        self._failures = self._waiting = 0  # lists in a row that were of no use, and maps until the next attempt

    def __reduce__(self) -> tuple[Any, ...]:
        return Neighbours, (self.phi,)

    def _taken(self) -> _Lists | None:
        try:
            return self._lists.pop()  # one step, also where several threads take turns
        except IndexError:
            return None

    def expectations(self, rho: Array, psi: Array, log_pi: Array, lam: Any) -> tuple[Array, Array, Array] | None:
        """The sums of a map with energies lambda ||phi_i - psi_a||^2, or None if lists would not pay.

        Parameters
        ----------
        rho : (N,) array
            Weights, non-negative, float64.
        psi : (K, S) array
            Reconstructions in the precision of phi.
        log_pi : (K,) array
            Log masses, at most zero.
        lam : float
            Multiplier lambda > 0.

        Returns
        -------
        ((K,) array, (K, S) array, (2,) array) or None
            Mass and sums in float64; free energy and energy in nats.
        """
        (N, _), K = self.phi.shape, len(psi)
        if N * K < _SMALL or N < _FEWEST or not 8 <= K <= _MOST_TILES:
            return None
        if not (np.isfinite(psi).all() and -np.inf < log_pi.max() < np.inf and 0 < self.phi.dtype.type(lam) < np.inf):
            return None
        if self._waiting > 0:
            self._waiting -= 1
            return None
        found, lists = None, self._taken()
        plan = lists.plan(psi) if lists is not None and lists.centres.shape == psi.shape else None
        tiles = _Tiles(self.phi, psi, log_pi, lam)
        if plan is None:
            useless, lists = lists is not None and lists.maps == 1, None
            needed = tiles.needed(self.phi)
            if needed > _DENSE * K:
                return None
            if not useless:
                lists, plan = _Lists(self.phi, psi, needed), np.empty(0, np.intp)
        if lists is not None and plan is not None:
            found = lists.expectations(rho, tiles, plan)
        if lists is None or found is None:
            self._failures = min(self._failures + 1, _PATIENCE)
            self._waiting = 2**self._failures - 2
            return None
        if lists.maps > 1:
            self._failures = 0
        self._lists[:] = [lists]
        return found


class _Tiles:
    """Reconstructions, masses and lambda of one map, as the kernels take them."""

    def __init__(self, phi: Array, psi: Array, log_pi: Array, lam: Any) -> None:
        (_, S), K, real = phi.shape, len(psi), phi.dtype.type
        self.psi, self.log_pi, self.lam = frozen(psi, real), frozen(log_pi, real), real(lam)
        self.top = float(log_pi.max())
        self.gap = (self.top - log_pi).astype(real)
        self.slack = (S + 16) * float(np.finfo(real).eps)
        self.squares = np.append(squares := _squares(self.psi, self.slack), squares.max())
        self.cut = math.ceil(math.log(K) + (33 if real is np.float32 else 56) * math.log(2))

    @property
    def arrays(self) -> tuple[Array, ...]:
        return self.psi, self.squares, self.log_pi, self.gap

    def needed(self, phi: Array) -> float:
        """How many tiles count for a row, on the average of some rows."""
        rows = np.linspace(0, len(phi) - 1, min(_SAMPLES, len(phi)), dtype=np.intp)
        x = phi[rows].astype(np.float64)
        psi = self.psi.astype(np.float64)
        d2 = (x * x).sum(axis=1)[:, None] + (psi * psi).sum(axis=1) - 2 * x @ psi.T
        logits = self.log_pi - float(self.lam) * np.maximum(d2, 0)
        return float(np.count_nonzero(logits >= logits.max(axis=1, keepdims=True) - self.cut) / len(rows))


class _Lists:
    """Lists of all rows, which the first map makes with its reconstructions, `centres`; and what the last map found.

    They take 6 bytes per entry, with about 28 + 1.6 n entries for a row of which n tiles count, K / 4 at most, and 50
    bytes per row.
    """

    def __init__(self, phi: Array, psi: Array, needed: float) -> None:
        N, K = len(phi), len(psi)
        self.phi = frozen(phi, phi.dtype.type)
        self.squares = _squares(phi, (phi.shape[1] + 16) * float(np.finfo(phi.dtype).eps))
        self.length, self.first = np.full(N, -1, np.int32), np.zeros(N, np.int64)
        self.beyond, self.margin, self.reach = (np.zeros(N, np.float32) for _ in range(3))
        self.best = np.zeros(N, np.uint16)
        self.peak, self.factor = np.zeros(N, phi.dtype), np.zeros(N)
        width = min(K // 4, math.ceil(28 + 1.6 * needed))
        self.ids, self.distances = np.empty(N * width, np.uint16), np.empty(N * width, np.float32)
        self.centres, self.last, self.spent, self.maps = psi, psi, 0.0, 0

    def plan(self, psi: Array) -> Array | None:
        """The tiles that are compared with all rows, or None if new lists cost less than this and the looks at rows."""
        K, N = len(psi), len(self.phi)
        moved = _lengths(psi - self.centres)
        order = np.argsort(-moved, kind="stable")
        best, cost = 0, np.inf
        for count in {0, *(K >> shift for shift in range(3, 9))}:
            looks = np.count_nonzero(self.margin <= moved[order[count]]) / N
            if looks + count / K < cost:
                best, cost = count, looks + count / K
        if self.spent + cost > _RENEW:
            return None
        return np.sort(order[:best])

    def expectations(self, rho: Array, tiles: _Tiles, mobile: Array) -> tuple[Array, Array, Array] | None:
        """The sums of a map; None if too many pairs count or too many tiles are light."""
        (N, S), K, psi = self.phi.shape, len(tiles.psi), tiles.psi
        moved, step = _lengths(psi - self.centres), _lengths(psi - self.last)
        skipped = np.isneginf(tiles.log_pi)
        skipped[mobile] = True
        rest = float(moved[~skipped].max(initial=0.0))
        moved[skipped] = -np.inf
        chunks = 2 ** (max(1, min(_CHUNKS, N // BLOCK, N // K, _MEMORY // (8 * K * (S + 1)))).bit_length() - 1)
        sums, mass, totals = np.zeros((chunks, K, S)), np.zeros((chunks, K)), np.zeros((chunks, 4))
        map_parallel(
            (self.phi, self.squares, frozen(rho, np.float64)),
            tiles.arrays,
            (self.first, self.length, self.beyond, self.ids, self.distances),
            (self.margin, self.reach, self.best, self.peak, self.factor),
            (moved, step, mobile, np.ascontiguousarray(psi[mobile])),
            (rest, float(tiles.lam), float(tiles.cut), tiles.top, tiles.slack),
            self.maps == 0,
            sums,
            mass,
            totals,
        )
        free_energy, energy, looks, overflows = totals.sum(axis=0).tolist()
        if overflows or not (math.isfinite(free_energy) and math.isfinite(energy)):
            return None
        self.spent += looks / N + len(mobile) / K if self.maps else 0.0
        self.maps, self.last = self.maps + 1, psi
        found, total = mass.sum(axis=0), sums.sum(axis=0)
        light = np.flatnonzero((found < _LIGHT * rho.sum() / K) & ~np.isneginf(tiles.log_pi))
        if len(light) > _MOST_LIGHT * K:
            return None
        if len(light):
            sums, mass = np.zeros((chunks, len(light), S)), np.zeros((chunks, len(light)))
            columns_parallel(self.phi, psi, tiles.log_pi, tiles.lam, light, self.peak, self.factor, sums, mass)
            found[light], total[light] = mass.sum(axis=0), sums.sum(axis=0)
        return found, total, np.array([free_energy, energy])


def _squares(x: Array, slack: float) -> Array:
    """||x||^2 (n,), so much too small that ||x||^2 + ||y||^2 - 2 x . y is a lower bound of ||x - y||^2."""
    return ((1 - slack) * np.einsum("ij,ij->i", x, x)).astype(x.dtype)


def _lengths(x: Array) -> Array:
    """Norms (n,) of vectors, rounded up to float32."""
    return (np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64)) * (1 + 2.0**-20) + 1e-35).astype(np.float32)
