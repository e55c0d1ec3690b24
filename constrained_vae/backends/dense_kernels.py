"""The dense kernels of the CPU backend, which other kernels contain: all tiles of every row, on one thread.

`numba` describes them.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from .._utils.arrays import Array
from .arithmetic import add, exp, maximum, multiply_add
from .compilation import jit

Arrays: TypeAlias = tuple[Array, ...]


@jit
def few(
    phi: Array, s: Array, rho: Array, tiles: Array, b: Array, log_pi: Array, lam: float, sums: Array, totals: Array
) -> None:
    """Add the rows phi (n, S) into sums (S + 1, K), the mass last, and totals (2,); tiles are psi or v, (S, K)."""
    (N, S), K = phi.shape, len(b)
    one = phi.dtype.type(1)
    x = np.zeros(len(tiles), phi.dtype)  # phi_i, padded to pairs
    q = np.zeros((4, K), phi.dtype)  # H_ia, later q_ia up to a factor, of four rows, which are summed together below
    scaled = np.empty((4, S + 1), phi.dtype)  # this factor times rho_i (phi_i, 1)
    for start in range(0, N, 4):
        for r in range(4):
            i, H = start + r, q[r]
            if i >= N:  # the rows that fill up the last group of four have weight zero
                scaled[r] = 0
                continue
            for d in range(S):
                x[d] = phi[i, d]
            if lam > 0:  # H_ia = lambda ||phi_i - psi_a||^2
                scale = lam if S <= 2 else one  # with S <= 2 the first loop is the last one
                for a in range(K):
                    y, z = x[0] - tiles[0, a], x[1] - tiles[1, a]
                    H[a] = scale * multiply_add(z, z, y * y)
                for d in range(2, S, 2):
                    for a in range(K):
                        y, z = x[d] - tiles[d, a], x[d + 1] - tiles[d + 1, a]
                        H[a] = multiply_add(z, z, multiply_add(y, y, H[a]))
                if S > 2:
                    for a in range(K):
                        H[a] *= lam
            else:  # H_ia = s_i - b_a - phi_i . v_a
                for a in range(K):
                    H[a] = multiply_add(-x[1], tiles[1, a], multiply_add(-x[0], tiles[0, a], s[i] - b[a]))
                for d in range(2, S, 2):
                    for a in range(K):
                        H[a] = multiply_add(-x[d + 1], tiles[d + 1, a], multiply_add(-x[d], tiles[d, a], H[a]))
            scaled[r, S] = encode(H, log_pi, rho[i], totals)
            for d in range(S):
                scaled[r, d] = scaled[r, S] * x[d]
        for d in range(S + 1):
            w0, w1, w2, w3 = scaled[0, d], scaled[1, d], scaled[2, d], scaled[3, d]
            for a in range(K):
                two = multiply_add(w1, q[1, a], w0 * q[0, a])
                sums[d, a] += multiply_add(w3, q[3, a], multiply_add(w2, q[2, a], two))


@jit
def many(data: Arrays, tiles: Arrays, scratch: Arrays, sums: Array, totals: Array) -> None:
    """Like `few`; tiles are v (S, K), b, log pi; scratch is q (rows, K), scaled (rows, S + 1), product (S + 1, K).

    The factor of a row multiplies its encoder or its statistics, whichever are fewer.
    """
    (phi, s, rho), (v, b, log_pi), (q, scaled, product) = data, tiles, scratch
    (N, S), K = phi.shape, len(b)
    narrow, mass = K <= S, product[S]
    blocks = -(-N // len(q))
    for block in range(blocks):
        start, stop = block * N // blocks, (block + 1) * N // blocks
        n = stop - start
        mass[:] = 0
        np.dot(phi[start:stop], v, q[:n])  # q holds phi_i . v_a, later H_ia, later q_ia up to a factor
        for r in range(n):
            i, H = start + r, q[r]
            for a in range(K):
                H[a] = (s[i] - b[a]) - H[a]
            factor = encode(H, log_pi, rho[i], totals)
            if narrow:
                for a in range(K):
                    H[a] *= factor
                    mass[a] += H[a]
            else:  # scaled is this factor times (phi_i, 1)
                scaled[r, S] = factor
                for d in range(S):
                    scaled[r, d] = factor * phi[i, d]
        if narrow:
            np.dot(phi[start:stop].T, q[:n], product[:S])
        else:
            np.dot(scaled[:n].T, q[:n], product)
        for d in range(S + 1):
            for a in range(K):
                sums[d, a] += product[d, a]


@jit
def encode(H: Array, log_pi: Array, rho: float, totals: Array) -> Any:
    """One row of (T1): replace H_a by q_a Z / e^t, t the largest of log pi_a - H_a, and return rho e^t / Z.

    Add -rho log Z to the free energy, totals[0], and rho sum_a q_a H_a to the energy, totals[1].
    """
    real, K = H.dtype.type, len(H)
    t = real(-np.inf)
    for a in range(K):
        t = maximum(t, log_pi[a] - H[a])
    Z = energy = real(0)
    for a in range(K):
        h = H[a]
        q = exp((log_pi[a] - h) - t)  # the same rounding as above, so that the largest is exp(0) = 1 for any H
        Z = add(Z, q)
        energy = add(energy, q * h if q > 0 else real(0))
        H[a] = q
    totals[0] -= rho * (np.float64(t) + math.log(np.float64(Z)))
    totals[1] += rho * (np.float64(energy) / np.float64(Z))
    return real(rho / Z)
