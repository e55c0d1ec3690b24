"""Pickles and copies of results: equal bits, arrays as read-only as before, and nothing left of what was cached."""

import copy
import pickle
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae import geco
from constrained_vae._utils.arrays import PickledByFields

X = cv.datasets.four_clusters(4).x
WAYS = {"pickle": lambda value: pickle.loads(pickle.dumps(value)), "deepcopy": copy.deepcopy, "copy": copy.copy}


def used_run():
    run = geco.train(X, cv.RE(1.2), latent_dim=1, hidden=(3,), steps=6)
    assert run.evaluation.rate >= 0  # fills the caches of run and model
    return run


def used_solution():
    s = cv.solve(X, beta=0.4, tiling=cv.Tiling.gaussian(6), record=True)
    assert len(s.labels) == len(s.encoder) == len(X)
    return s


RESULTS = {
    "FixedPoint": used_solution,
    "ConstrainedFixedPoint": lambda: cv.solve_constrained(X, cv.RE(1.0), n_tiles=4),
    "CertifiedFixedPoint": lambda: cv.global_solution(X, beta=5.0),
    "Tiling": lambda: cv.Tiling.gaussian(6),
    "DataSet": lambda: cv.datasets.four_clusters(4),
    "Sites": lambda: used_solution().distinct,
    "Frame": lambda: used_solution().frame,
    "Branch": lambda: cv.sweep(X, betas=[12.0, 5.0, 0.4], n_tiles=6),
    "RateDistortionCurve": lambda: cv.rate_distortion(X, betas=[12.0, 5.0, 0.4]),
    "PopulationBounds": lambda: cv.rate_distortion(X, betas=[12.0], held_out=np.repeat(X, 8, axis=0)).population,
    "Certificate": lambda: cv.certify(used_solution()),
    "Jacobian": lambda: cv.Jacobian.at(used_solution()),
    "Report": lambda: cv.report(used_solution()),
    "Lagrangian": lambda: cv.Lagrangian(cv.FRE(0.5, np.eye(2)), 1.0),
    "Transitions": lambda: cv.transitions(X, beta_range=(5, 20), n_tiles=2),
    "Run": used_run,
    "VAE": lambda: used_run().model,
    "History": lambda: used_run().history,
    "Evaluation": lambda: used_run().evaluation,
    "Multiplier": lambda: geco.Multiplier(0.5),
}


def assert_same(one, two):
    """Equal values of all fields, and arrays that can be written to where they could be."""
    assert type(one) is type(two)
    if isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, two, strict=True)
        assert one.flags.writeable == two.flags.writeable
    elif is_dataclass(one):
        for field in (f for f in fields(one) if not f.name.startswith("_")):
            assert_same(getattr(one, field.name), getattr(two, field.name))
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert_same(a, b)
    elif isinstance(one, dict):
        assert list(one) == list(two)
        assert_same(list(one.values()), list(two.values()))
    elif isinstance(one, float | int | str | type(None)):
        assert one == two or (one != one and two != two)


@pytest.mark.parametrize("name", RESULTS)
def test_results_survive_pickles_and_copies(name):
    result = RESULTS[name]()
    for way in WAYS.values():
        again = way(result)
        assert_same(result, again)
        assert repr(again) == repr(result)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_computed_from_a_copy_has_the_same_bits(way):
    s, run = used_solution(), used_run()
    again, other = WAYS[way](s), WAYS[way](run)
    np.testing.assert_array_equal(again.encoder, s.encoder)
    np.testing.assert_array_equal(again.labels, s.labels)
    with pytest.raises(ValueError, match="read-only"):
        again.decoder[0] = 0.0
    assert_same(other.evaluate(seed=3), run.evaluate(seed=3))
    options = {"latent_dim": 1, "hidden": (3,), "steps": 9}
    longer = geco.train(X, cv.RE(1.2), resume=other, **options).model
    np.testing.assert_array_equal(longer.parameters, geco.train(X, cv.RE(1.2), **options).model.parameters)
    # The weights of the layers are views of the parameters, also in a copy.
    assert all(np.shares_memory(weights, other.model.parameters) for weights, _ in other.model.layers)
    vector = np.ones((len(s.distinct), 2))
    jacobian = cv.Jacobian.at(s)
    for one, two in zip(jacobian.product(vector), WAYS[way](jacobian).product(vector), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("way", [*WAYS, "own"])
def test_copies_of_transitions_say_how_complete_they_are(way):
    found = cv.transitions(X, beta_range=(5, 20), n_tiles=2)
    again = {**WAYS, "own": lambda value: value.copy()}[way](found)
    assert type(again) is type(found)
    assert (again.complete_to, again.ended) == (found.complete_to, found.ended)
    assert len(again) == len(found) > 0


def test_only_arrays_that_were_read_only_are_so_again_and_nothing_cached_is_kept():
    @dataclass(frozen=True, eq=False)
    class Result(PickledByFields):
        own: np.ndarray
        given: np.ndarray

        @cached_property
        def library(self):
            return np

    own = np.zeros(2)
    own.setflags(write=False)
    result = Result(own, np.zeros(2))
    assert result.library is np
    again = copy.deepcopy(result)
    assert not again.own.flags.writeable
    assert again.given.flags.writeable
    assert set(vars(again)) == {"own", "given"}
