"""Verify a proof of how good a code is. This file stands alone: copy it, and read it before you believe it.

    pip install numpy python-flint
    python verify.py proof.json DATA            # DATA: .npy, .npz with an array x, or .csv, a point per row

F* is the least of R + lambda D over all codes of the points x_i with weights rho_i, R the mutual information in nats
and D the expected squared distance. A code of reconstructions psi_a with masses pi_a gives two bounds of it:

    F* <= F = -sum_i rho_i log Z_i,                  Z_i = sum_a pi_a exp(-lambda |x_i - psi_a|^2) / sum_a pi_a,
    F* >= F - max(0, sup_y log c(y)),                c(y) = sum_i (rho_i / Z_i) exp(-lambda |x_i - y|^2).

The supremum is that over the bounding box of the points: outside of it, the nearest point of the box is nearer to all
of them. The proof lists boxes that cover it, each with a bound of log c. What is checked here: the boxes leave nothing
out; every bound holds; F and the bounds give what is claimed. All numbers are balls that hold the true value (Arb,
python-flint), so that rounding is included. Floating-point numbers of the file and of the data are taken as exact.

One of two bounds of log c in a box is used: without a shift, the sum whose terms have the least distances from the box;
with a shift s, an expansion. Let y = y_0 + t, y_0 the centre of the box and r the largest |t| in it, and let E be means
over the responsibilities of the points at y_0, m = E x - y_0, S the covariance, e = x - E x and X = 2 lambda t.e. Then

    log c(y_0 + t) = log c(y_0) + 2 lambda m.t - lambda |t|^2 + log E exp X,

and log E exp X is at most Var X / 2 = 2 lambda^2 t.St, plus a sixth of the largest third cumulant of X under weights
proportional to exp(z X), 0 <= z <= 1. Their normalisation E exp(z X) is at least 1, because E X = 0. With
M_k = E (2 lambda r |e|)^k exp(2 lambda r |e|), the mean of X under them is at most M_2 in size, that of |X|^3 at most
M_3, and the cumulant at most (M_3^(1/3) + M_2)^3. If A = (2 lambda + s) I - 4 lambda^2 S is positive definite, s >= 0,

    log c(y_0 + t) <= log c(y_0) + 2 lambda^2 m.A^-1 m + s r^2 / 2 + (M_3^(1/3) + M_2)^3 / 6.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from flint import arb, ctx

MOST_DIMENSIONS = 3
_FAR = 45.0  # points whose share of c in a box is below e^-45 are bounded together


class NotProved(Exception):
    """Something in the proof does not hold, or is out of the reach of this program; the message says what."""


def data_hash(x: Any) -> str:
    """SHA-256 of points (N, D): of "N D" and of the numbers as little-endian float64, row by row; -0 counts as 0."""
    x = np.ascontiguousarray(np.asarray(x, dtype="<f8") + 0.0)
    return hashlib.sha256(f"{x.shape[0]} {x.shape[1]}\n".encode() + x.tobytes()).hexdigest()


def verify(proof: Any, x: Any, weights: Any | None = None) -> tuple[float, float]:
    """The proved bounds (lower, upper) of F*; NotProved if anything fails, or the weights of the data are others."""
    try:
        return _verified(proof, np.asarray(x, dtype=np.float64), weights)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise NotProved(f"the file is not such a proof: {type(error).__name__}: {error}") from None


def _verified(proof: Any, x: Any, weights: Any | None) -> tuple[float, float]:
    """Read what the proof says, and check it at the precision that it needs."""
    _need(proof["kind"] == "constrained_vae proof" and proof["format"] == 2, "the file is no proof in format 2")
    dim, objective, code, cover = proof["data"]["dimensions"], proof["objective"], proof["code"], proof["cover"]
    _need(1 <= dim <= MOST_DIMENSIONS, f"{dim} dimensions: this program verifies proofs in 1 to {MOST_DIMENSIONS}")
    _need(x.ndim == 2 and x.size > 0 and bool(np.isfinite(x).all()), "the data must be finite points, one per row")
    same = x.shape[1] == dim and proof["data"]["sha256"] == data_hash(x)
    _need(same, "these data are not those of the proof: their hash differs")
    psi, masses = _numbers(code["reconstructions"], (None, dim)), _numbers(code["masses"], (None,))
    boxes, bounds = _numbers(cover["boxes"], (None, 2 * dim)), _numbers(cover["bounds"], (None,))
    _need(len(psi) == len(masses) > 0 and bool((masses > 0).all()), "every reconstruction must have a positive mass")
    rho = np.ones(len(x)) if proof["weights"] is None else _numbers(proof["weights"], (len(x),))
    given = rho if weights is None else np.asarray(weights, dtype=np.float64)
    same = given.shape == rho.shape and np.allclose(given / given.sum(), rho / rho.sum(), rtol=1e-12, atol=0)
    _need(same, "the weights of the data are not those of the proof")
    _need(bool((rho >= 0).all() and rho.sum() > 0), "weights must not be negative, and not all be zero")
    x, rho, lam = x[rho > 0], rho[rho > 0], arb(float(_numbers(objective["multiplier"], ())))
    _need(objective["energy"] == "squared error" and lam > 0, "lambda must be the positive one of a squared error")

    # The unit is a power of two near the extent of the data: this changes no digit, and keeps squares in range.
    unit = math.frexp(max(float(np.abs(x - x[0]).max()), float(np.abs(psi - x[0]).max()), 1e-290))[1]
    lam *= arb(2) ** (2 * unit)
    scaled = [np.ldexp(a, -unit) for a in (x, psi, boxes)]
    exact = all((np.ldexp(b, unit) == a).all() for a, b in zip((x, psi, boxes), scaled, strict=True))
    _need(exact, "the data leave the range of float64")
    # The exponents need as many more bits as they have before the point.
    with ctx.workprec(80 + max(math.ceil(float(lam.log()) / math.log(2)), 0)):
        F, mixture = _mixture(scaled[0], scaled[1], rho, masses, lam)
        upper, lower = (float(_numbers(proof[name], ())) for name in ("upper", "lower"))
        _need(F <= upper, f"upper is {upper}, but F of the code is {F.str(17)}")
        cells = scaled[2].reshape(-1, 2, dim)
        _check_cover(cells[:, 0], cells[:, 1], scaled[0].min(axis=0), scaled[0].max(axis=0))
        for k, ((low, high), bound, shift) in enumerate(zip(cells, map(float, bounds), cover["shifts"], strict=True)):
            found = mixture.bound(low, high, bound, None if shift is None else float(_numbers(shift, ())))
            _need(found <= bound, f"in box {k}, {boxes[k].tolist()}, log c is at most {found.str(10)}, not {bound}")
        _need(F - max(float(bounds.max()), 0.0) >= lower, f"lower is {lower}, above F minus the largest bound")
    return lower, upper


def _mixture(x: Any, psi: Any, rho: Any, masses: Any, lam: arb) -> tuple[arb, _Mixture]:
    """F of a code, and c(y) as a mixture."""
    points, code = [_balls(row) for row in x], [_balls(row) for row in psi]
    rho, masses, F, w = _balls(rho), _balls(masses), arb(0), []
    weight, mass = sum(rho, arb(0)), sum(masses, arb(0))
    for point, share in zip(points, rho, strict=True):
        Z = sum((m * (-lam * _squared(point, y)).exp() for m, y in zip(masses, code, strict=True)), arb(0)) / mass
        F -= share / weight * Z.log()
        w.append(share / weight / Z)
    return F, _Mixture(x, points, w, lam)


class _Mixture:
    """c(y), of which boxes have bounds."""

    def __init__(self, x: Any, points: list[list[arb]], w: list[arb], lam: arb) -> None:
        self.x, self.points, self.w, self.lam = x, points, w, lam
        self.log_w, self.least_lam = np.array([_above(v.log()) for v in w]), float(lam.mid()) * (1 - 1e-12)

    def bound(self, low: Any, high: Any, claim: float, shift: float | None) -> arb:
        """A bound of log c in a box, by the corners if there is no shift, else by the centre."""
        # What is far from the box is bounded in float64: the squared distance has a relative error below 1e-14.
        apart = np.square(np.maximum(np.maximum(low - self.x, self.x - high), 0.0)).sum(axis=1) * (1 - 1e-12)
        logs = self.log_w - self.least_lam * apart
        logs += 1e-12 * (np.abs(self.log_w) + np.abs(logs))
        near = np.flatnonzero(logs > claim - _FAR - math.log(len(logs)))
        far = len(logs) - len(near)
        rest = far * arb(float(np.delete(logs, near).max())).exp() if far else arb(0)
        if not len(near):
            return rest.log()
        if shift is None:
            return sum((self._term(i, _balls(np.clip(self.x[i], low, high))) for i in near), rest).log()
        y, corners = _balls((low + high) / 2), itertools.product(*zip(_balls(low), _balls(high), strict=True))
        found = self._expanded(near, y, functools.reduce(arb.max, (_squared(c, y) for c in corners)), arb(shift))
        return (found.exp() + rest).log() if far else found

    def _term(self, i: Any, y: Sequence[arb]) -> arb:
        return self.w[i] * (-self.lam * _squared(self.points[i], y)).exp()

    def _expanded(self, near: Any, y: Sequence[arb], square: arb, shift: arb) -> arb:
        """The bound by the expansion about the centre y of a box, for |t|^2 at most a square."""
        dim, steep, lam2 = len(y), 2 * self.lam * square.sqrt(), 2 * self.lam
        d = [[a - b for a, b in zip(self.points[i], y, strict=True)] for i in near]
        u = [self._term(i, y) for i in near]
        mass, M2, M3, S = sum(u, arb(0)), arb(0), arb(0), [[arb(0)] * dim for _ in range(dim)]
        if not (mass > 0 and shift >= 0):
            return arb("inf")
        m = [sum((p * row[j] for p, row in zip(u, d, strict=True)), arb(0)) / mass for j in range(dim)]
        for p, row in zip(u, d, strict=True):
            e = [a - b for a, b in zip(row, m, strict=True)]
            t = steep * sum((a * a for a in e), arb(0)).sqrt()
            tilted = p * t * t * t.exp()
            M2 += tilted
            M3 += tilted * t
            for j, k in itertools.combinations_with_replacement(range(dim), 2):
                S[k][j] += p * e[j] * e[k]
        skew = (M3 / mass).root(3) + M2 / mass
        A = [[(lam2 + shift if j == k else 0) - lam2 * lam2 / mass * S[j][k] for k in range(j + 1)] for j in range(dim)]
        form, v = arb(0), list(m)  # m^T A^-1 m, by elimination from the last row up
        for j in reversed(range(dim)):
            if not A[j][j] > 0:
                return arb("inf")
            form += v[j] * v[j] / A[j][j]
            for k in range(j):
                factor = A[j][k] / A[j][j]
                v[k] -= factor * v[j]
                for i in range(k + 1):
                    A[k][i] -= factor * A[j][i]
        return mass.log() + lam2 * self.lam * form + shift * square / 2 + skew * skew * skew / 6


def _check_cover(low: Any, high: Any, start: Any, end: Any) -> None:
    """Raise NotProved unless the boxes cover the region: cut at an edge of a box until a box holds every part."""
    stack, steps = [(start, end, np.arange(len(low)))], 0
    while stack:
        a, b, among = stack.pop()
        steps += 1
        _need(steps <= 100 * len(low) + 1000, "the boxes do not divide the bounding box of the data into halves")
        among = among[((low[among] <= b) & (high[among] >= a)).all(axis=1)]
        if ((low[among] <= a) & (high[among] >= b)).all(axis=1).any():
            continue
        edges = np.concatenate([low[among], high[among]])
        inside = (edges > a) & (edges < b)
        _need(bool(inside.any()), f"no box covers the part from {a} to {b}, in units of a power of two near the extent")
        axis = np.where(inside.any(axis=0), b - a, -1.0).argmax()
        choice = edges[inside[:, axis], axis]
        cut, here = choice[np.abs(choice - (a[axis] + b[axis]) / 2).argmin()], np.arange(len(a)) == axis
        stack += [(a, np.where(here, cut, b), among), (np.where(here, cut, a), b, among)]


def _squared(a: Sequence[arb], b: Sequence[arb]) -> arb:
    return sum(((u - v) ** 2 for u, v in zip(a, b, strict=True)), arb(0))


def _balls(values: Any) -> list[arb]:
    return [arb(float(value)) for value in values]


def _above(value: arb) -> float:
    """A float64 number that is not below a ball."""
    found = math.nextafter(float(value.upper()), math.inf)
    _need(value <= found, f"a number has lost its digits: {value}")
    return found


def _numbers(values: Any, shape: tuple[int | None, ...]) -> Any:
    array = np.array(values, dtype=np.float64)
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    _need(fits and bool(np.isfinite(array).all()), f"a list must have the shape {shape} and finite numbers")
    return array


def _need(condition: bool, otherwise: str) -> None:
    if not condition:
        raise NotProved(otherwise)


def _read(path: str) -> tuple[Any, Any | None]:
    """Points (N, D), and weights if the file has any."""
    csv = path.endswith(".csv")
    found: Any = np.loadtxt(path, delimiter=",", ndmin=2) if csv else np.load(path, allow_pickle=False)
    x, weights = (found["x"], found.get("weights")) if path.endswith(".npz") else (found, None)
    return (x[:, None] if x.ndim == 1 else x), weights


def main(arguments: list[str]) -> int:
    """Verify the proof of a file for the data of a file: 0 if it is proved, 1 if not, 2 if it cannot be read."""
    try:
        with open(arguments[0], encoding="utf-8") as file:
            proof = json.load(file)
        lower, upper = verify(proof, *_read(arguments[1]))
    except NotProved as reason:
        print(f"not proved: {reason}")
        return 1
    except (OSError, ValueError, LookupError) as error:
        print(f"python verify.py proof.json DATA: cannot be read: {error}", file=sys.stderr)
        return 2
    print(f"proved: F* is between {lower!r} and {upper!r} nats, at lambda = {proof['objective']['multiplier']!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
