"""Lagrangians of constraints on small random problems, with their energies as naive loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from hypothesis import strategies as st

import constrained_vae as cv
from constrained_vae.testing import (
    EPS,
    Naive,
    naive_class_error,
    naive_correlation_error,
    naive_feature_error,
    naive_from_energies,
    naive_squared_error,
)

IMAGE = (2, 3)  # every constraint has something to say of rows of such images
KINDS = ("RE", "FRE", "linear FRE", "CLA", "PNCC")


@dataclass(frozen=True, eq=False)
class Mixture:
    """A Lagrangian of some constraints on a small problem, with its energies as loops over points and tiles.

    x (N, 6) in [0, 1], weights (N,), masses (K,), start (K, 6); `energies` maps reconstructions to (C, N, K), those of
    the constraints at multiplier one and, where there is one, of the anchor; `values` are their multipliers.
    """

    x: np.ndarray
    weights: np.ndarray
    masses: np.ndarray
    start: np.ndarray
    lagrangian: cv.Lagrangian
    energies: Callable[[np.ndarray], np.ndarray]

    @property
    def values(self) -> np.ndarray:
        return np.append(self.lagrangian.values, [self.lagrangian.anchor] if self.lagrangian.anchor else [])

    def naive(self, psi: np.ndarray, masses: np.ndarray | None = None) -> Naive:
        """The equations as loops, with the points as vectors to be averaged."""
        H = np.tensordot(self.values, self.energies(psi), axes=1)
        return naive_from_energies(H, self.x, self.weights, np.log(self.masses if masses is None else masses))

    @property
    def rounding(self) -> float:
        """Of a free energy: eps of its terms lambda (|phi|^2 + |v|^2) and of their sums, and of the inner minimisation.

        Those terms are at most four times the largest energy at the start and that of an accidental perfect match.
        """
        terms = 4 * float(self.values @ (self.energies(self.start).max(axis=(1, 2)) + 1))
        return 64 * EPS * (1 + len(self.x) + terms)


def mixture(seed: int, kinds: tuple[str, ...], kept: str | None = None, n: int = 6, k: int = 3) -> Mixture:
    """A random one; `kept` is "box", "anchor" or None."""
    rng = np.random.default_rng(seed)
    dim = IMAGE[0] * IMAGE[1]
    x = rng.uniform(size=(n, dim))
    labels, A, a = rng.permutation(n) % 3, rng.normal(size=(3, dim)) * 3, rng.normal(size=3)
    map_matrix = rng.normal(size=(dim, dim))
    W, c = rng.normal(size=(8, dim)), rng.uniform(0, 2 * np.pi, size=8)

    def waves(p: np.ndarray) -> np.ndarray:
        return 0.5 * np.cos(W @ p + c)

    def probabilities(p: np.ndarray) -> np.ndarray:
        scores = np.exp(A @ p + a)
        return scores / scores.sum()

    table = {
        "RE": (cv.RE(0.3), 3.0, lambda psi: naive_squared_error(x, psi)),
        "FRE": (cv.FRE(0.3, cv.FourierFeatures(W, c)), 6.0, lambda psi: naive_feature_error(waves, x, psi)),
        "linear FRE": (
            cv.FRE(0.3, map_matrix, name="linear FRE"),
            1.0,
            lambda psi: naive_feature_error(lambda p: map_matrix @ p, x, psi),
        ),
        "CLA": (
            cv.CLA(0.9, cv.ClassProbabilities(A, a), labels),
            5.0,
            lambda psi: naive_class_error(probabilities, labels, psi),
        ),
        "PNCC": (cv.PNCC(0.9, IMAGE, 2, stride=1), 5.0, lambda psi: naive_correlation_error(x, psi, IMAGE, (2, 2), 1)),
    }
    chosen = [table[kind] for kind in kinds]
    multipliers = [typical * float(rng.uniform(0.3, 3)) for _, typical, _ in chosen]
    lagrangian = cv.Lagrangian(
        [constraint for constraint, _, _ in chosen],
        multipliers,
        box=(0.2, 0.8) if kept == "box" else None,
        anchor=0.1 if kept == "anchor" else 0.0,
    )
    loops = [energy for _, _, energy in chosen]
    if kept == "anchor":
        loops.append(table["RE"][2])
    start = rng.uniform(0.2, 0.8, size=(k, dim))
    weights, masses = (rng.uniform(0.2, 1, size=size) for size in (n, k))

    def energies(psi: np.ndarray) -> np.ndarray:
        return np.array([energy(psi) for energy in loops])

    return Mixture(x, weights / weights.sum(), masses / masses.sum(), start, lagrangian, energies)


def ways_to_keep(kinds: tuple[str, ...]) -> tuple[str | None, ...]:
    """What may keep reconstructions of these constraints from infinity; None, nothing, where one of them does.

    (Four linear features of six pixels hold nothing where class scores push.)
    """
    free = set(kinds) <= {"CLA", "PNCC"} or set(kinds) == {"CLA", "linear FRE"}
    return ("box", "anchor") if free else (None, "box", "anchor")


def all_kinds() -> list[tuple[str, ...]]:
    """Every constraint alone, and all pairs."""
    return [*((kind,) for kind in KINDS), *combinations(KINDS, 2)]


def mixtures(kinds: tuple[str, ...]) -> st.SearchStrategy[Mixture]:
    seeds = st.integers(0, 2**32 - 1)
    return st.builds(mixture, seeds, st.just(kinds), st.sampled_from(ways_to_keep(kinds)))
