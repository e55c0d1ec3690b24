"""The bound of every k-means: never above the exact optimum, by enumeration and by a dynamic programme."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

import constrained_vae as cv


def error(x, w, labels):
    """Mean squared error (m,) of the best words of partitions, labels (m, n)."""
    total = np.zeros(len(labels))
    for k in range(labels.max() + 1):
        member = w * (labels == k)
        mass = member.sum(axis=1)
        mean = (member @ x) / np.maximum(mass, 1e-300)[:, None]
        total += member @ np.square(x).sum(axis=1) - mass * np.square(mean).sum(axis=1)
    return total / w.sum()


def optimum(x, w, K):
    """The least error of K words, by enumeration of all partitions; the first point has the label 0."""
    rest = np.array(list(itertools.product(range(K), repeat=len(x) - 1)))
    return error(x, w, np.concatenate([np.zeros((len(rest), 1), dtype=int), rest], axis=1)).min()


@pytest.mark.parametrize(("seed", "unit", "offset"), [(0, 1.0, 0.0), (1, 1000.0, 1e5)])
def test_never_above_the_optimum_of_eight_points(seed, unit, offset):
    rng = np.random.default_rng(seed)
    x, w = unit * rng.normal(size=(8, 2)), rng.uniform(0.5, 1.5, 8)
    betas = cv.nucleation_beta(x, weights=w) * np.geomspace(1, 0.02, 9)
    curve = cv.rate_distortion(x + offset, betas, weights=w, gap=1e-3)
    bound = curve.kmeans_bound([1, 2, 3, 4, 8, 100])
    best = [optimum(x, w, K) for K in (1, 2, 3, 4)]
    assert bound.rigorous.all()
    assert (bound.distortion[:4] <= best).all()
    assert bound.distortion[0] >= 0.995 * best[0]  # one word: the variance
    assert (bound.distortion[1:4] >= 0.2 * np.array(best[1:])).all()
    assert (bound.distortion[4:] == 0).all()
    assert (np.diff(bound.distortion) <= 0).all()


def test_never_above_the_dynamic_programme_on_the_line(rng):
    x = np.sort(rng.exponential(size=40))
    betas = cv.nucleation_beta(x[:, None]) * np.geomspace(1, 1e-3, 9)
    curve = cv.rate_distortion(x[:, None], betas, gap=1e-3)
    cost = np.full((41, 41), np.inf)
    for i, j in itertools.combinations(range(41), 2):
        cost[i, j] = np.square(x[i:j] - x[i:j].mean()).sum() / 40
    least = np.where(np.arange(41) > 0, np.inf, 0.0)
    for K, bound in enumerate(curve.kmeans_bound(np.arange(1, 21)).distortion, 1):
        least = np.array([(least[: j + 1] + np.append(cost[:j, j], np.inf)).min() for j in range(41)])
        assert bound <= least[-1], K
        assert bound > 0 or K > 10  # the curve ends before log K


def test_the_text_says_whether_it_is_proven(rng):
    curve = cv.rate_distortion(np.eye(12), [0.1, 0.05, 0.02])
    bound = curve.kmeans_bound([1, 2, 3, 12, 13])
    assert "rigorous at some" in repr(bound)
    assert "heuristic" in bound._repr_html_()
    assert "heuristic" in repr(curve.kmeans_bound([1, 2]))
    assert bound.rigorous.tolist() == [False, False, False, True, True]  # that it is at least 0 is known
    assert json.dumps(curve.kmeans_bound(2).distortion.tolist())


@pytest.mark.parametrize("K", [0, -1, 1.5, "two", None, [], [2, 0], [[1, "a"]], np.nan])
def test_bad_input(K):
    curve = cv.rate_distortion([[-1.0], [1.0]], [0.5])
    with pytest.raises(ValueError, match="K"):
        curve.kmeans_bound(K)
