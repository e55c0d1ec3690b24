"""The estimator: scikit-learn's own checks, the solution it wraps, and what its score means."""

import logging
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import constrained_vae as cv
from constrained_vae.backends import reference
from constrained_vae.testing import curie_weiss, naive_bernoulli, naive_expectations


@pytest.fixture(scope="module")
def data():
    return cv.datasets.four_clusters(seed=0)


def own_checks(estimator):
    """Scikit-learn's checks of an estimator, none exempted, as parameters of a test."""
    return [pytest.param(*case, id=case[1].func.__name__) for case in estimator_checks_generator(estimator)]


# One of them skips itself unless SCIPY_ARRAY_API is set, and then passes.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(("instance", "check"), own_checks(cv.FixedPointVAE()))
def test_scikit_learns_own_checks(instance, check):
    check(instance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("instance", "check"),
    [
        p
        for kw in ({"masses": "fixed"}, {"start": "data"}, {"start": "anneal"})
        for p in own_checks(cv.FixedPointVAE(**kw))
    ],
)
def test_scikit_learns_own_checks_with_other_parameters(instance, check):
    check(instance)


@pytest.mark.parametrize("masses", ["fixed", "free"])
@pytest.mark.parametrize("start", ["mean", "data", "anneal"])
def test_it_is_the_solution_of_the_functions(data, masses, start):
    """Labels, reconstructions and posterior masses are those of `solve` and `sweep`."""
    vae = cv.FixedPointVAE(0.5, sigma=1.1, n_tiles=16, masses=masses, start=start, random_state=3).fit(data.x)
    common = {"tiling": cv.Tiling.uniform(16), "masses": masses}
    if start == "anneal":
        s = cv.sweep(data.x, cv.ELBO(sigma=1.1), betas=[0.5], **common)[0]
    else:
        seed = np.random.RandomState(3).randint(2**31 - 1)
        kind = None if start == "mean" else start
        s = cv.solve(data.x, cv.ELBO(0.5, 1.1), seed=seed, start=kind, **common)
    assert vae.solution_.free_energy == s.free_energy
    order = np.square(vae.cluster_centers_[:, None] - s.distinct.decoder).sum(axis=2).argmin(axis=1)
    assert sorted(order) == list(range(len(s.distinct)))
    np.testing.assert_array_equal(vae.cluster_centers_, s.distinct.decoder[order])
    np.testing.assert_array_equal(order[vae.labels_], s.labels)
    q = np.stack([s.encoder[:, s.distinct.index == a].sum(axis=1) for a in order], axis=1)
    np.testing.assert_allclose(vae.transform(data.x), q, rtol=0, atol=1e-15)  # sums in another order


def test_labels_do_not_depend_on_the_start(data):
    """Clusters come in the order of their coordinates, where rounding makes no difference: two here are one above
    the other, and far apart in the noise of their abscissae.
    """
    vaes = [cv.FixedPointVAE(0.5, n_tiles=8, masses="free", random_state=seed).fit(data.x) for seed in range(4)]
    centres = vaes[0].cluster_centers_
    assert (np.diff(centres[:, 0].round(3)) >= 0).all()
    for vae in vaes[1:]:
        np.testing.assert_allclose(vae.cluster_centers_, centres, atol=1e-8)
        np.testing.assert_array_equal(vae.labels_, vaes[0].labels_)


def test_new_points(data, rng):
    """Posterior masses by Bayes's rule (T1), labels and expected reconstructions that follow from them."""
    vae = cv.FixedPointVAE(0.4, n_tiles=16).fit(data.x)
    x, psi = rng.normal(scale=3, size=(20, 2)), vae.cluster_centers_
    nearest = np.square(psi[:, None] - vae.solution_.distinct.decoder).sum(axis=2).argmin(axis=1)
    density = vae.solution_.distinct.masses[nearest] * np.exp(-np.square(x[:, None] - psi).sum(axis=2) / 0.8)
    q = vae.transform(x)
    np.testing.assert_allclose(q, density / density.sum(axis=1, keepdims=True), atol=1e-9)  # sites merged to 1e-10
    np.testing.assert_array_equal(vae.predict(x), q.argmax(axis=1))
    np.testing.assert_allclose(vae.inverse_transform(q), q @ psi)


def test_at_a_transition_the_number_of_clusters_changes(data):
    """With equal masses, from one side of an exact critical temperature to the other."""
    for transition in cv.transitions(data.x, n_tiles=16):
        assert transition.kind == "continuous"
        for side, count in ((1.01, transition.n_before), (0.99, transition.n_after)):
            vae = cv.FixedPointVAE(side * transition.beta, masses="fixed", n_tiles=16, start="anneal").fit(data.x)
            assert len(vae.cluster_centers_) == count


@pytest.mark.parametrize("relative_beta", [0.3, 0.9, 1.5])
def test_score_of_two_points(relative_beta):
    """-ELBO at beta = 1 is R + D / (2 sigma^2) + log(2 pi sigma^2) / 2, with R and D of the closed form (T3)."""
    problem, exact = curie_weiss(1.3, relative_beta, sigma=0.7)
    vae = cv.FixedPointVAE(problem.beta, sigma=0.7, n_tiles=2, masses="fixed").fit(problem.x)
    expected = -exact.rate - exact.distortion / (2 * 0.7**2) - math.log(2 * math.pi * 0.7**2) / 2
    # The bound at beta = 1 is not stationary in the reconstructions, so that their tolerance of 1e-10 carries over.
    assert vae.score(problem.x) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_score_of_points_held_out(data, rng, masses):
    """Against the naive loops: the encoder of the temperature fitted at, the bound of beta = 1."""
    vae = cv.FixedPointVAE(2.0, sigma=0.8, n_tiles=7, masses=masses).fit(data.x)
    x, rho = rng.normal(scale=3, size=(15, 2)), rng.uniform(size=15)
    psi, pi = vae.solution_.decoder, vae.solution_.tiling.masses
    q = naive_expectations(x, rho, psi, pi, 0.8**2 * 2.0).encoder
    gaussian = np.square(x[:, None] - psi).sum(axis=2) / (2 * 0.8**2) + math.log(2 * math.pi * 0.8**2)
    each = -(q * (np.log(np.maximum(q, 1e-300)) - np.log(pi) + gaussian)).sum(axis=1)
    assert vae.score(x, sample_weight=rho) == pytest.approx(np.average(each, weights=rho), rel=1e-12)
    assert vae.score(x) == pytest.approx(each.mean(), rel=1e-12)


def test_score_of_a_bernoulli_decoder(rng):
    x = (rng.uniform(size=(40, 3)) < np.array([[0.9, 0.2, 0.5], [0.1, 0.8, 0.5]])[rng.integers(2, size=40)]).astype(
        float
    )
    train, held_out = x[:30], x[30:]
    vae = cv.FixedPointVAE(0.8, likelihood="bernoulli", n_tiles=4).fit(train)
    psi, pi = vae.solution_.decoder, vae.solution_.tiling.masses
    q = naive_bernoulli(held_out, np.ones(10), psi, pi, 0.8).encoder
    probability = np.where(held_out[:, None] == 1, psi, 1 - psi).prod(axis=2)
    each = (q * (np.log(probability) - np.log(np.maximum(q, 1e-300)) + np.log(pi))).sum(axis=1)
    assert vae.score(held_out) == pytest.approx(each.mean(), rel=1e-12)


@pytest.mark.parametrize("n", [1, 1000])
def test_a_bernoulli_decoder_scores_what_it_excludes_as_impossible(n):
    """A coordinate that is 0, or 1, in all points of the fit has that reconstruction: its logarithm is infinite."""
    x = np.array([[0, 0, 1, 1.0], [0, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 0], [0, 1, 1, 1]])
    vae = cv.FixedPointVAE(beta=0.9, likelihood="bernoulli", n_tiles=4).fit(np.repeat(x, n, axis=0))
    assert np.isfinite(vae.score(x))
    for point in ([1, 0, 1, 1], [0, 0, 0, 1], [0.5, 1, 1, 1], [0, 1, 0.999, 1]):
        assert vae.score([point]) == -np.inf
        assert vae.score(np.vstack([x, point])) == -np.inf
        both = vae.score(np.vstack([x, point]), sample_weight=[1, 1, 1, 1, 1, 0])
        assert both == pytest.approx(vae.score(x), rel=1e-12)


def test_a_grid_search_over_beta_finds_the_temperature_of_the_data(rng):
    """Points about four centres with deviation 0.5: of theta = sigma^2 beta around 0.25 the nearest scores best.

    The decoder's sigma is the same for all, so the score differs by the reconstructions and the encoder alone; colder
    ones fit the noise of 48 points, warmer ones blur.
    """
    centres = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0], [0.0, -3.0]])
    x = np.repeat(centres, 12, axis=0) + 0.5 * rng.normal(size=(48, 2))
    search = GridSearchCV(
        cv.FixedPointVAE(sigma=0.5, n_tiles=24), {"beta": [0.1, 1.0, 10.0]}, cv=4, error_score="raise"
    )
    search.fit(rng.permutation(x))
    scores = search.cv_results_["mean_test_score"]
    assert search.best_params_ == {"beta": 1.0}
    assert np.isfinite(scores).all()
    # Nothing scores above the entropy of the mixture that the points are from, but for the noise of 48 of them (its
    # standard deviation is 1 / sqrt(48) nats: log densities of a plane Gaussian have variance 1).
    entropy = math.log(4) + 1 + math.log(2 * math.pi * 0.25)
    assert scores.max() < -entropy + 3 / math.sqrt(48)


def test_pipeline_clone_and_pickle(data):
    pipeline = make_pipeline(StandardScaler(), cv.FixedPointVAE(0.1, n_tiles=8))
    labels = pipeline.fit_predict(data.x)
    copies = clone(pipeline).fit(data.x), pickle.loads(pickle.dumps(pipeline))
    for copy in copies:
        np.testing.assert_array_equal(copy.predict(data.x), labels)
        np.testing.assert_array_equal(copy.transform(data.x), pipeline.transform(data.x))
        assert copy.score(data.x) == pipeline.score(data.x)
    back = pipeline.inverse_transform(pipeline.transform(data.x))  # through the scaler: in units of the data
    assert back.shape == data.x.shape
    assert (
        np.square(back - data.x).sum(axis=1).mean() < 0.5 * np.square(data.x - data.x.mean(axis=0)).sum(axis=1).mean()
    )


def test_data_frames(data):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(data.x, columns=["width", "height"], index=np.arange(len(data.x)) + 100)
    vae = cv.FixedPointVAE(0.5, n_tiles=8).set_output(transform="pandas").fit(frame)
    assert vae.feature_names_in_.tolist() == ["width", "height"]
    assert vae.n_features_in_ == 2
    posterior = vae.transform(frame)
    assert posterior.columns.tolist() == vae.get_feature_names_out().tolist() == [f"fixedpointvae{a}" for a in range(3)]
    assert (posterior.index == frame.index).all()
    assert vae.inverse_transform(posterior).shape == data.x.shape
    with pytest.raises(ValueError, match="feature names"):
        vae.predict(frame.rename(columns={"width": "depth"}))


def test_sample_weights(data, rng):
    """A point of weight two is two points, one of weight zero none."""
    counts = rng.integers(0, 3, size=len(data.x))
    weighted = cv.FixedPointVAE(0.5, n_tiles=8).fit(data.x, sample_weight=counts)
    repeated = cv.FixedPointVAE(0.5, n_tiles=8).fit(np.repeat(data.x, counts, axis=0))
    np.testing.assert_allclose(weighted.transform(data.x), repeated.transform(data.x), atol=1e-8)
    assert weighted.score(data.x, sample_weight=counts) == pytest.approx(
        repeated.score(np.repeat(data.x, counts, axis=0)), abs=1e-9
    )


def test_single_precision_data(data):
    x = data.x.astype(np.float32)
    vae = cv.FixedPointVAE(0.5, n_tiles=8).fit(x)
    assert vae.solution_.x is x  # not copied
    assert vae.transform(x).dtype == np.float64
    assert vae.score(x) == pytest.approx(cv.FixedPointVAE(0.5, n_tiles=8).fit(x.astype(float)).score(x), abs=1e-9)


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"beta": 0}, "beta must be positive"),
        ({"sigma": -1}, "sigma must be positive"),
        ({"n_tiles": 2.5}, "n_tiles must be a whole number"),
        ({"masses": "uniform"}, "masses must be one of"),
        ({"start": "here"}, "start must be one of"),
        ({"likelihood": "laplace"}, "likelihood must be one of"),
        ({"likelihood": "bernoulli"}, r"Bernoulli likelihood wants data in \[0, 1\]"),
        ({"backend": "abacus"}, "abacus"),
    ],
)
@pytest.mark.parametrize("start", ["mean", "anneal"])
def test_bad_parameters(data, parameters, match, start):
    with pytest.raises(ValueError, match=match):
        cv.FixedPointVAE(**{"start": start, **parameters}).fit(data.x)


def test_bad_input(data):
    vae = cv.FixedPointVAE(0.5, n_tiles=8)
    for method in (vae.predict, vae.transform, vae.inverse_transform, vae.score):
        with pytest.raises(NotFittedError):
            method(data.x)
    vae.fit(data.x)
    with pytest.raises(ValueError, match="one mass for each of the 3 reconstructions"):
        vae.inverse_transform(np.ones((1, 2)))
    with pytest.raises(ValueError, match="sample_weight must have one entry per data point"):
        vae.fit(data.x, sample_weight=np.ones(3))
    with pytest.raises(ValueError, match="sample_weight must be non-negative"):
        vae.score(data.x, sample_weight=-np.ones(len(data.x)))


@pytest.mark.parametrize("start", ["mean", "anneal"])
def test_without_convergence_it_warns_here(data, start):
    with pytest.warns(cv.NotConvergedWarning, match="raise max_maps") as caught:
        cv.FixedPointVAE(1.5, max_maps=2, n_tiles=8, start=start).fit(data.x)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("start", ["mean", "anneal"])
def test_ctrl_c_ends_a_search(data, monkeypatch, start):
    """An interrupted solution is none: or else a grid search would go on with the next."""
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return reference.expectations(*arguments)

    monkeypatch.setattr(
        "constrained_vae.problems.problem.get_backend", lambda name: SimpleNamespace(expectations=interrupted)
    )
    vae = cv.FixedPointVAE(1.0, n_tiles=4, start=start)
    with pytest.raises(KeyboardInterrupt):
        vae.fit(data.x)
    assert len(calls) == 3
    assert not hasattr(vae, "solution_")


def test_predict_proba_is_transform_under_the_name_of_classifiers(data):
    vae = cv.FixedPointVAE(0.5, n_tiles=8).fit(data.x)
    np.testing.assert_array_equal(vae.predict_proba(data.x), vae.transform(data.x))
    np.testing.assert_array_equal(vae.predict_proba(data.x).argmax(axis=1), vae.predict(data.x))
    pipeline = make_pipeline(StandardScaler(), cv.FixedPointVAE(0.1, n_tiles=8)).fit(data.x)
    np.testing.assert_allclose(pipeline.predict_proba(data.x).sum(axis=1), 1)


@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_a_warm_start_begins_at_the_last_solution(data, masses):
    vae = cv.FixedPointVAE(0.5, n_tiles=8, masses=masses, warm_start=True).fit(data.x)
    first = vae.solution_
    again = vae.fit(data.x).solution_
    np.testing.assert_allclose(again.decoder, first.decoder, atol=1e-8)  # tol 1e-10 of a radius of 3.2
    assert again.n_maps < first.n_maps / 2
    colder = vae.set_params(beta=0.45).fit(data.x).solution_
    expected = cv.solve(data.x, beta=0.45, n_tiles=8, masses=masses, start=again)
    np.testing.assert_array_equal(colder.decoder, expected.decoder)
    vae.set_params(warm_start=False).fit(data.x)
    assert vae.solution_.n_maps > again.n_maps


def test_a_warm_start_of_another_shape_is_refused(data):
    vae = cv.FixedPointVAE(0.5, n_tiles=8, warm_start=True).fit(data.x)
    with pytest.raises(ValueError, match="warm_start wants 8 tiles and 2 features as in the last fit, got n_tiles=4"):
        vae.set_params(n_tiles=4).fit(data.x)
    with pytest.raises(ValueError, match="and 1 features"):
        vae.set_params(n_tiles=8).fit(data.x[:, :1])


def test_there_is_no_partial_fit_and_the_docstring_says_why():
    assert not hasattr(cv.FixedPointVAE, "partial_fit")
    assert "There is no `partial_fit`" in cv.FixedPointVAE.__doc__


def test_threads_are_obeyed_and_change_no_bits(monkeypatch):
    import numba

    from constrained_vae._utils import blas
    from constrained_vae._utils.threads import thread_limit

    numba.get_num_threads()  # launches the threads
    asked, limits = [], set()
    monkeypatch.setattr("numba.get_num_threads", lambda: 8)
    monkeypatch.setattr("numba.set_num_threads", asked.append)
    solve = cv.estimator.solve

    def watched(*args, **options):
        limits.add((thread_limit(), max(library.get_num_threads() for library in blas.blas_libraries())))
        return solve(*args, **options)

    monkeypatch.setattr("constrained_vae.estimator.solve", watched)
    before = [library.get_num_threads() for library in blas.blas_libraries()]
    x = cv.datasets.gaussian((4.0, 1.0), n=4000).x  # so many that a pass over them has threads
    one = cv.FixedPointVAE(3.0, n_tiles=16, threads=1, tol=1e-4, backend="numba").fit(x)
    assert limits == {(1, 1)}
    assert set(asked) == {1, 8}  # around every kernel, and back
    assert [library.get_num_threads() for library in blas.blas_libraries()] == before
    assert thread_limit() is None
    asked.clear()
    free = cv.FixedPointVAE(3.0, n_tiles=16, tol=1e-4, backend="numba").fit(x)
    assert asked == []
    np.testing.assert_array_equal(one.solution_.decoder, free.solution_.decoder)


@pytest.mark.parametrize("threads", [0, 1.5, True, "all"])
def test_other_numbers_of_threads_are_refused(data, threads):
    with pytest.raises(ValueError, match="threads must be a whole number of at least 1"):
        cv.FixedPointVAE(0.5, threads=threads).fit(data.x)


def test_names_of_columns(data):
    pandas = pytest.importorskip("pandas")
    named = cv.datasets.from_table({"width": data.x[:, 0], "height": data.x[:, 1]})
    frame = pandas.DataFrame(named.x, columns=["width", "height"], index=np.arange(5, 205))
    vae = cv.FixedPointVAE(0.5, n_tiles=8).fit(named).set_output(transform="pandas")
    assert vae.feature_names_in_.tolist() == ["width", "height"]
    found = vae.transform(frame)
    assert found.columns.tolist() == vae.get_feature_names_out().tolist()
    assert found.index.tolist() == frame.index.tolist()
    with pytest.raises(ValueError, match="feature names"):
        vae.transform(frame[["height", "width"]])
    assert vae.solution_.names == ("width", "height")


def test_a_data_set_brings_its_weights(data):
    weights = np.arange(1, 201) / np.arange(1, 201).sum()
    weighted = cv.datasets.DataSet(data.x, "weighted", weights=weights)
    one, two = cv.FixedPointVAE(0.5).fit(weighted), cv.FixedPointVAE(0.5).fit(data.x, sample_weight=weights)
    np.testing.assert_array_equal(one.cluster_centers_, two.cluster_centers_)


def test_a_fit_is_logged(data, caplog):
    with caplog.at_level(logging.INFO, logger="constrained_vae"):
        cv.FixedPointVAE(20.0, n_tiles=2).fit(data.x)
    assert caplog.messages[-1].startswith("FixedPoint(beta=20")
