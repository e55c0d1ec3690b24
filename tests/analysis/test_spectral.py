"""analysis.spectral from outside: curves, partitions, table, Ctrl-C."""

import re

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

import constrained_vae as cv
from analysis import spectral as figure
from analysis._spectral_picture import _runs
from tests.helpers.figures import run


@pytest.fixture
def small(drawn):
    """All four sets, with few points each, and kernels of two widths."""
    return drawn(figure).arrays, drawn(figure).settings


def test_all_sets_are_drawn(small):
    assert small[1]["sets"] == list(small[0]["sets"]) == ["four_clusters", "rings", "moons", "digits"]


def test_curves_are_those_of_the_library(small):
    arrays, settings = small
    data = cv.datasets.four_clusters(10)
    betas = np.geomspace(1 / 50, 1.25, 4) * cv.first_critical_beta(data.x)
    branch = cv.sweep(data.x, betas=betas, n_tiles=6, tol=figure._TOL)
    expected = cv.compare_spectral(branch, labels=data.labels)
    np.testing.assert_allclose(arrays["four_clusters_betas"], expected.betas)
    np.testing.assert_allclose(arrays["four_clusters_eigenvalues"], expected.eigenvalues, atol=1e-9)
    np.testing.assert_array_equal(arrays["four_clusters_eigengap"], expected.eigengap_k)
    for method in ("solution", "posterior", "rbf", "kmeans", "mixture"):
        np.testing.assert_allclose(arrays[f"four_clusters_ari_{method}"], expected.true_ari[method], atol=1e-12)
        np.testing.assert_allclose(arrays[f"four_clusters_ami_{method}"], expected.true_ami[method], atol=1e-12)
    np.testing.assert_allclose(arrays["four_clusters_agreement"], 1)
    found = cv.transitions(data.x, beta_range=(betas[0], betas[-1]), n_tiles=6, limit=3)
    np.testing.assert_allclose(arrays["four_clusters_critical"], [t.beta for t in found])
    # The whole curve of every set, to the last temperature.
    for name in figure.SETS:
        assert len(arrays[f"{name}_ami_solution"]) == len(arrays[f"{name}_betas"]) == settings["count"]


def test_partitions_are_matched_to_the_classes_and_scored(small):
    arrays, _ = small
    for name, classes in (("four_clusters", 4), ("rings", 2), ("moons", 2), ("digits", 10)):
        truth = arrays[f"{name}_partition_truth"]
        assert len(np.unique(truth)) == classes
        for method in figure.METHODS:
            if (key := f"{name}_partition_{method}") not in arrays:
                assert (name, method) == ("digits", "feature space")
                continue
            labels = arrays[key]
            scores = adjusted_rand_score(truth, labels), adjusted_mutual_info_score(truth, labels)
            np.testing.assert_allclose(arrays[f"{name}_scores_{method}"], scores, atol=1e-12)
            # No other numbering of two parts has more points in common with the classes.
            if classes == 2:
                assert np.mean(labels == truth) >= 0.5
    np.testing.assert_array_equal(arrays["four_clusters_partition_solution"], arrays["four_clusters_partition_truth"])


def test_matching_numbers_parts_beyond_the_classes():
    truth = np.repeat([0, 1], 6)
    labels = np.array([7, 7, 7, 7, 3, 3, 5, 5, 5, 5, 5, 5])
    np.testing.assert_array_equal(figure._matched(labels, truth), [0, 0, 0, 0, 2, 2, 1, 1, 1, 1, 1, 1])


def test_a_wide_kernel_sees_what_the_data_space_does():
    """Its features are linear in x, so that the partition is that of the data; a narrow one is another thing."""
    data = cv.datasets.moons(120)
    distances = figure.cdist(data.x, data.x)
    options = {"backend": "auto", "tol": 1e-8}
    beta = figure._DEPTH * cv.first_critical_beta(data.x)
    plain = cv.sweep(data.x, betas=[beta], n_tiles=2)[0].labels
    wide = figure.in_feature_space(distances, 30.0, 2, options)
    assert adjusted_rand_score(plain, wide) == 1
    # In between there is one that parts the moons better than the space of the data does.
    scores = [adjusted_rand_score(data.labels, figure.in_feature_space(distances, w, 2, options)) for w in (0.2, 0.3)]
    assert max(scores) > adjusted_rand_score(data.labels, plain) + 0.3


def test_features_have_the_distances_of_the_kernel(monkeypatch):
    data = cv.datasets.rings(40)
    distances = figure.cdist(data.x, data.x)
    seen = []
    monkeypatch.setattr(figure.cv, "first_critical_beta", lambda f, **options: seen.append(f) or 1.0)
    monkeypatch.setattr(figure, "_whole", lambda branch, count: branch)
    figure.in_feature_space(distances, 0.5, 2, {"backend": "auto", "tol": 1e-4, "on_failure": "return"})
    (f,) = seen
    gram = np.exp(-2 * distances**2)
    expected = np.diag(gram)[:, None] + np.diag(gram) - 2 * gram
    # What is left out are eigenvalues below 1e-6 of the first, of which there are at most 40.
    np.testing.assert_allclose(np.square(f[:, None] - f).sum(axis=2), expected, atol=4 * 40 * 1e-6 * 40)


def test_table(small):
    text = figure.table(small[0])
    lines = text.splitlines()
    for name in figure.SETS:  # few points, of which some sets are near to symmetric: but for those all agree
        agreement, second = small[0][f"{name}_first_split"]
        assert agreement == 1 or second > 0.99
    assert re.search(r"^moons +100.0% \(second eigenvalue 0\.\d+ of the first\); in feature space", text, re.MULTILINE)
    assert [line.split()[0] for line in lines[2:6]] == ["four_clusters", "rings", "moons", "digits"]
    assert lines[2].count("*") == 12  # on four clusters all win
    for line in lines[3:6]:
        pairs = re.findall(r"(-?\d\.\d+)(\*?)\s*/\s*(-?\d\.\d+)(\*?)", line)
        assert len(pairs) >= 5
        for values in ([(float(p[0]), p[1]) for p in pairs], [(float(p[2]), p[3]) for p in pairs]):
            best = max(value for value, _ in values)
            assert all((mark == "*") == (value == best) for value, mark in values)


def test_intervals_of_a_mask():
    betas = np.array([1.0, 10.0, 100.0, 1000.0])
    found = _runs(betas[::-1], np.array([True, False, True, True]))
    np.testing.assert_allclose(found, [(1.0, 10**1.5), (10**2.5, 1000.0)])
    assert _runs(betas, np.zeros(4, dtype=bool)) == []


def test_interrupted(monkeypatch, tmp_path, capsys):
    """The sets that are done are drawn; without any there is nothing."""
    real = figure.one_set

    def stop_at(name):
        def one_set(set_name, **options):
            if set_name == name:
                raise KeyboardInterrupt
            return real(set_name, **{**options, "n": 16})

        return one_set

    monkeypatch.setattr(figure, "one_set", stop_at("rings"))
    status, arrays, _ = run(figure, tmp_path, "--n-tiles", "4", "--count", "5")
    assert status == 130
    assert arrays["sets"].tolist() == ["four_clusters"]
    assert "interrupted: this is what had been computed" in capsys.readouterr().err
    monkeypatch.setattr(figure, "one_set", stop_at("four_clusters"))
    status, arrays, _ = run(figure, tmp_path / "none")
    assert (status, arrays) == (130, None)


def test_an_unknown_set_is_refused(tmp_path):
    with pytest.raises(SystemExit):
        run(figure, tmp_path, "--sets", "iris")
