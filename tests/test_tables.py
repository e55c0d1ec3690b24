"""Data frames, data sets and tensors wherever data are accepted; names of columns in results."""

import logging
import re

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae import datasets

X = datasets.four_clusters(seed=0).x
NAMES = ("width", "height")


def columns():
    return dict(zip(NAMES, X.T, strict=True))


def pandas_frame():
    return pytest.importorskip("pandas").DataFrame(columns())


def polars_frame():
    return pytest.importorskip("polars").DataFrame(columns())


def arrow_table():
    return pytest.importorskip("pyarrow").table(columns())


FRAMES = {
    "mapping": columns,
    "records": lambda: np.rec.fromarrays(X.T, names=list(NAMES)),
    "pandas": pandas_frame,
    "polars": polars_frame,
    "pyarrow": arrow_table,
}


@pytest.mark.parametrize("make", FRAMES.values(), ids=FRAMES)
def test_frames_become_data_sets(make):
    data = datasets.from_table(make(), name="mine")
    assert (data.columns, data.name) == (NAMES, "mine")
    np.testing.assert_array_equal(data.x, X)
    assert repr(data) == "DataSet('mine', N=200, D=2, columns: width, height)"
    assert datasets.from_table(make(), columns=["height"], standardize=True).x.std() == pytest.approx(1)


def tensor(torch, **more):
    return torch.tensor(X, **more)


DOORS = {
    "DataSet": lambda: datasets.from_table(columns()),
    "pandas": pandas_frame,
    "polars": polars_frame,
    "pyarrow": arrow_table,
    "longdouble": lambda: X.astype(np.longdouble),
    "tensor": lambda: tensor(pytest.importorskip("torch")),
    "tensor with a gradient": lambda: tensor(pytest.importorskip("torch"), requires_grad=True),
    "JAX": lambda: pytest.importorskip("jax.numpy").asarray(X),
}


@pytest.mark.parametrize("make", DOORS.values(), ids=DOORS)
def test_what_is_accepted_as_data(make):
    x, tol = make(), 1e-4 if "jax" in str(type(make())) else 1e-12
    s, expected = cv.solve(x, beta=0.5, n_tiles=4), cv.solve(X, beta=0.5, n_tiles=4)
    np.testing.assert_allclose(s.decoder, expected.decoder, atol=tol)
    named = hasattr(x, "columns")
    assert s.names == (NAMES if named else None)
    assert list(s._columns)[-2:] == (list(NAMES) if named else ["psi[0]", "psi[1]"])
    np.testing.assert_allclose(s.encode(x), s.encoder, atol=tol)
    assert cv.FixedPointVAE(0.5, n_tiles=4).fit(x).transform(x).shape == (200, len(s.distinct))


def test_a_data_set_is_data_for_every_function(tmp_path):
    data = datasets.from_table(columns())
    weighted = datasets.DataSet(X, "w", weights=np.arange(1, 201) / np.arange(1, 201).sum(), columns=NAMES)
    assert cv.first_critical_beta(weighted) == cv.first_critical_beta(X, weights=weighted.weights)
    assert cv.default_betas(data)[0] == cv.default_betas(X)[0]
    assert cv.sweep(data, betas=[10.0], n_tiles=2)[0].names == NAMES
    assert cv.transitions(data, limit=1, n_tiles=2)[0].beta == pytest.approx(9.015625)
    assert cv.nucleation_beta(data) == cv.nucleation_beta(X)
    assert cv.rate_distortion(data, [10.0]).rate == pytest.approx(0)
    assert cv.global_solution(data, beta=10.0).names == NAMES
    assert cv.solve_constrained(data, cv.RE(3.0), n_tiles=2).names == NAMES
    assert cv.first_split(weighted).agreement == cv.first_split(X, weights=weighted.weights).agreement
    assert cv.geco.thresholds(weighted, 1).squared_error[0] == pytest.approx(
        cv.geco.thresholds(X, 1, weights=weighted.weights).squared_error[0]
    )
    assert cv.geco.train(data, cv.RE(1.0), latent_dim=1, hidden=(3,), steps=2).evaluate(data).rate >= 0
    s = cv.solve(weighted, beta=0.5, n_tiles=4)
    np.testing.assert_allclose(s.weights, weighted.weights, rtol=1e-15)
    s.save(tmp_path / "s.npz")
    assert cv.FixedPoint.load(tmp_path / "s.npz").names == NAMES
    assert cv.plotting.reconstructions(s).get_xlabel() == "width"
    assert cv.plotting.reconstructions(s).get_ylabel() == "height"
    assert "width" in s._repr_html_()


def test_standardised_data_lead_back():
    data = datasets.from_table(columns(), standardize=True)
    np.testing.assert_allclose(data.x.mean(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(data.x.std(axis=0), 1, rtol=1e-14)
    np.testing.assert_allclose(data.original(data.x), X, atol=1e-13)
    constant = datasets.from_table({"a": [1.0, 3.0], "b": [0.1, 0.1]}, standardize=True)
    assert constant.x.tolist() == [[-1, 0], [1, 0]]
    far = datasets.from_table({"a": 1e9 + X[:, 0], "b": 1e-200 * X[:, 1]}, standardize=True)
    np.testing.assert_allclose(far.x, data.x, atol=1e-6)  # 1e9 leaves digits of 1e-7


def test_images_are_flattened_and_keep_their_shape():
    images = datasets.digits(5).x.reshape(5, 8, 8)
    assert datasets.DataSet(images, "digits").image_shape == (8, 8)
    with pytest.raises(ValueError, match=re.escape("for images pass x.reshape(len(x), -1), or datasets.DataSet(x, ")):
        cv.solve(images)


WRONG = {
    "text": ({"a": [1.0, 2.0], "b": ["x", "y"]}, {}, "got 'x' at row 0 (counted from 0), column 'b'"),
    "infinite": ({"a": [1.0, np.inf]}, {}, "got np.float64(inf) at row 1 (counted from 0), column 'a'"),
    "missing": ({"a": [1.0, None]}, {}, "a cell is missing at row 1 (counted from 0), column 'a', and 1 of 2 rows"),
    "unknown": ({"a": [1.0, 2.0]}, {"columns": ["b"]}, "columns must name columns of the table, got 'b': a, or"),
    "no list": ({"a": [1.0, 2.0]}, {"drop": 1.5}, "drop must be names of columns, got 1.5"),
    "policy": ({"a": [1.0]}, {"missing": "mean"}, "missing must be one of ('error', 'drop'), got 'mean'"),
    "flag": ({"a": [1.0]}, {"standardize": "yes"}, "standardize must be True or False, got 'yes'"),
    "ragged": ({"a": [1.0], "b": [1.0, 2.0]}, {}, "columns must be equally long, got 1, 2"),
    "no frame": ("table.csv", {}, "frame must be a data frame, a mapping from names to columns, or an (N, D) array"),
    "empty": ({}, {}, "frame must have at least one row and one column"),
}


@pytest.mark.parametrize(("frame", "options", "message"), WRONG.values(), ids=WRONG)
def test_wrong_frames_are_refused_in_one_line(frame, options, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        datasets.from_table(frame, **options)
    assert "\n" not in str(caught.value)


def test_messages_of_solvers_name_the_column():
    pandas = pytest.importorskip("pandas")
    for column, message in (
        (["a", "b"], "got 'a' at row 0, column 'kind'"),
        ([1.0, None], "nan at row 1, column 'kind'"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            cv.solve(pandas.DataFrame({"width": [1.0, 2.0], "kind": column}))


def test_sparse_tensors_are_refused_with_what_to_do():
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match=re.escape("make it dense with .to_dense()")):
        cv.solve(torch.eye(3).to_sparse())


def test_what_is_left_out_is_logged(caplog):
    with caplog.at_level(logging.INFO, logger="constrained_vae"):
        datasets.from_table({"a": [1.0, None, 3.0], "b": [1.0, 2.0, 4.0]}, missing="drop")
    assert caplog.messages == ["1 of 3 rows with missing cells are left out"]
