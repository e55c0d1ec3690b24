"""Classifiers and features of other libraries: pipelines of scikit-learn, and modules of PyTorch."""

import re
import warnings

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, RobustScaler, StandardScaler

import constrained_vae as cv

DATA = cv.datasets.four_clusters(seed=0)
OFFSET = np.array([1e4, -30.0])
X = 50 * DATA.x + OFFSET


@pytest.mark.parametrize(
    "steps",
    [
        [StandardScaler()],
        [MinMaxScaler(), PCA(2)],
        [RobustScaler(), "passthrough"],
        [],
    ],
    ids=lambda steps: "-".join(map(str, steps)),
)
def test_a_pipeline_of_linear_steps_is_a_softmax_of_linear_scores(steps):
    pipeline = make_pipeline(*steps, LogisticRegression(max_iter=2000)).fit(X, DATA.labels)
    found = cv.ClassProbabilities.of(pipeline)
    points = X + np.random.default_rng(0).normal(size=X.shape) * 100
    np.testing.assert_allclose(found(points), pipeline.predict_proba(points), rtol=1e-7, atol=1e-10)
    np.testing.assert_array_equal(found.classes, pipeline.classes_)


def test_a_pipeline_is_a_classifier_of_cla():
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, DATA.labels)
    met = cv.solve_constrained(X, [cv.RE(60.0), cv.CLA(0.85, pipeline, DATA.labels)], n_tiles=8)
    assert met.status.name == "MET"
    reached = (met.encoder @ pipeline.predict_proba(met.decoder))[np.arange(len(X)), DATA.labels].mean()
    assert reached == pytest.approx(0.85, abs=1e-6)


def test_a_pipeline_of_a_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b"])
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, DATA.labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cv.ClassProbabilities.of(pipeline)
    np.testing.assert_allclose(found(X), pipeline.predict_proba(frame), rtol=1e-7, atol=1e-10)


def test_other_pipelines_are_refused():
    curved = make_pipeline(PolynomialFeatures(2), LogisticRegression(max_iter=10**4)).fit(DATA.x, DATA.labels)
    with pytest.raises(ValueError, match="pipeline of linear steps and a LogisticRegression, but PolynomialFeatures"):
        cv.CLA(0.9, curved, DATA.labels)
    with pytest.raises(ValueError, match=re.escape("classifier must be fitted: call fit(x, labels)")):
        cv.CLA(0.9, make_pipeline(StandardScaler(), LogisticRegression()), DATA.labels)


# --- PyTorch ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_a_linear_module_is_the_classifier_that_it_says(torch):
    classifier = LogisticRegression().fit(DATA.x, DATA.labels)
    module = torch.nn.Linear(2, 4)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(classifier.coef_))
        module.bias.copy_(torch.from_numpy(classifier.intercept_))
    exact = cv.solve_constrained(DATA.x, [cv.RE(1.0), cv.CLA(0.9, classifier, DATA.labels)], n_tiles=8)
    for given in (module, torch.nn.Sequential(module, torch.nn.Softmax(dim=1))):  # scores, and probabilities
        met = cv.solve_constrained(DATA.x, [cv.RE(1.0), cv.CLA(0.9, given, DATA.labels)], n_tiles=8)
        for name, value in exact.multipliers.items():
            assert met.multipliers[name] == pytest.approx(value, rel=1e-5)  # the weights are rounded to float32


def test_a_network_has_its_own_gradients(torch):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2))
    x, df = np.random.default_rng(0).normal(size=(5, 3)), np.random.default_rng(1).normal(size=(5, 2))
    constraint = cv.FRE(0.5, module)
    f = constraint.features
    assert module.training  # it is as it was
    assert next(module.parameters()).dtype == torch.float32
    np.testing.assert_array_equal(f(x), f(x))  # no dropout
    h, slopes = 1e-6, np.empty_like(x)
    for d in range(3):
        kick = h * np.eye(3)[d]
        slopes[:, d] = ((f(x + kick) - f(x - kick)) * df).sum(axis=1) / (2 * h)
    np.testing.assert_allclose(f.pullback(x, df), slopes, rtol=1e-6, atol=1e-8)
    before = f(x)
    with torch.no_grad():
        next(module.parameters()).zero_()  # later training
    np.testing.assert_array_equal(f(x), before)
    # The same numbers by hand.
    weights = [part.detach().double().numpy() for part in f._module.parameters()]
    np.testing.assert_allclose(before, np.tanh(x @ weights[0].T + weights[1]) @ weights[2].T + weights[3], rtol=1e-12)


def test_one_score_is_that_of_the_second_of_two_classes(torch):
    module = torch.nn.Linear(1, 1)
    constraint = cv.CLA(0.9, module, labels=[0, 1])
    p = constraint.classifier(np.array([[0.3], [-2.0]]))
    score = float(module.weight.detach()) * np.array([0.3, -2.0]) + float(module.bias.detach())
    np.testing.assert_allclose(p[:, 1], 1 / (1 + np.exp(-score)), rtol=1e-6)
    np.testing.assert_allclose(p.sum(axis=1), 1)


def test_modules_that_fail_say_so_in_one_line(torch):
    with pytest.raises(ValueError, match=r"the module Conv2d fails on a tensor of shape \(2, 2\)") as caught:
        cv.solve_constrained(DATA.x, [cv.RE(1.0), cv.FRE(0.5, torch.nn.Conv2d(1, 2, 3))])
    assert "\n" not in str(caught.value)
    images = torch.nn.Sequential(torch.nn.Unflatten(1, (1, 8, 8)), torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten())
    assert cv.FRE(0.5, images).features(cv.datasets.digits(3).x).shape == (3, 72)
