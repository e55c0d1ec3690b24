"""Signatures tell data sets apart, and not two forms of one."""

from __future__ import annotations

import numpy as np
import pytest

from constrained_vae.data import signature


def uniform(x):
    return signature.of(x, np.full(len(x), 1 / len(x)))


def test_forms_of_one_data_set_have_one_signature(rng, monkeypatch):
    x = rng.standard_normal((50, 3))
    own = uniform(x)
    assert own[0] == pytest.approx(np.sqrt(x.var(axis=0).sum()))
    weights = np.concatenate([np.full(49, 1 / 51), [2 / 51]])
    twice = np.concatenate([x, x[-1:]])
    assert not signature.difference(signature.of(x, weights), uniform(twice))
    for same in (x[::-1], x + 100, x.astype(np.float32)):
        assert not signature.difference(own, uniform(same))
    assert signature.of(x, np.full(50, 0.02), 2.0)[0] == pytest.approx(uniform(2 * x)[0])
    monkeypatch.setattr("constrained_vae._utils.memory.BLOCK", 10)  # three rows
    np.testing.assert_allclose(uniform(x), own, rtol=1e-12, atol=1e-15)


def test_other_data_differ(rng):
    x = rng.standard_normal((50, 3))
    mirrored = x * [1, 1, -1]
    assert signature.difference(uniform(x), uniform(mirrored)) == "other data of the same variance"
    assert signature.difference(uniform(x), uniform(2 * x)).startswith("the variances ")
    changed = x.copy()
    changed[7, 1] += 0.1
    assert signature.difference(uniform(x), uniform(changed))


def test_a_part_that_is_mirrored():
    """Two triangles about one centre, of which one is turned over: cosines alone do not see it."""
    angles = 2 * np.pi * np.arange(3) / 3
    one = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert signature.difference(uniform(np.concatenate([one, 2 * one])), uniform(np.concatenate([one, -2 * one])))


def test_coincident_points():
    assert not signature.difference(uniform(np.ones((3, 2))), uniform(np.ones((5, 2))))
