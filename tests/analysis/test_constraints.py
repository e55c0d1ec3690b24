"""analysis.constraints from outside: matched rates, curves, table, Ctrl-C."""

import itertools

import numpy as np
import pytest

import constrained_vae as cv
from analysis import constraints as figure
from tests.helpers.figures import SMALL, run

RATE = float(SMALL[figure][SMALL[figure].index("--rate") + 1])


@pytest.fixture
def small(drawn):
    return drawn(figure)[:3]


def test_settings(small):
    _, _, settings = small
    assert settings["solved"] == ["RE", "FRE", "CLA", "PNCC"]
    assert (settings["n_points"], settings["n_tiles"]) == (40, 3)


def test_rates_are_matched(small):
    _, arrays, _ = small
    for name in figure.NAMES:
        assert not arrays[f"{name}_skipped"]
        assert arrays[f"{name}_rates"][-1] == pytest.approx(RATE, abs=figure._MATCHED)
        assert (arrays[f"{name}_rates"][:-1] < RATE).all()


def test_re_alone_is_the_elbo(small):
    """lambda = D / (2 beta) for the error per pixel: the same branch on cooling, whoever computes it (T3)."""
    _, arrays, _ = small
    x, solution = cv.datasets.digits(40).x, None
    multipliers, kappa = arrays["RE_curve0"].T
    on_branch = multipliers != arrays["RE_first"][0]
    assert arrays["RE_first"][0] == pytest.approx(32 / cv.first_critical_beta(x))
    rates = []
    for multiplier in multipliers[on_branch][:-1]:
        start = np.repeat(x.mean(axis=0)[None], 3, axis=0) if solution is None else solution
        objective = cv.ELBO(beta=32 / multiplier)
        solution = cv.solve(x, objective, n_tiles=3, start=start)
        rates.append(solution.rate)
    assert rates[-1] > 0.1
    # Far more than the tolerance of the solutions, 1e-6 of the radius, makes of a rate.
    assert arrays["RE_rates"][:-1] == pytest.approx(rates, abs=1e-4)
    assert kappa[-2] == pytest.approx(np.sqrt(solution.distortion / 64), rel=1e-4)


def test_curves_begin_at_the_first_transition_and_end_at_the_matched_rate(small):
    _, arrays, _ = small
    for name, about in [("RE", ["RE"]), ("FRE", ["FRE"]), ("CLA", ["RE", "CLA"]), ("PNCC", ["RE", "PNCC"])]:
        for number, constraint in enumerate(about):
            multipliers, kappa = arrays[f"{name}_curve{number}"].T
            assert (np.diff(multipliers) > 0).all()
            first = arrays[f"{name}_first"][number]
            assert kappa[multipliers <= first] == pytest.approx(kappa[0])
            assert first in multipliers
            assert multipliers[-1] == arrays[f"{name}_multipliers"][number]
            # The library's E[C] at the end of the curve, and what the encoder and decoder have it.
            score = arrays[f"{name}_scores"][figure.NAMES.index(constraint)]
            assert kappa[-1] == pytest.approx(score, abs=1e-9)
            better = kappa[-1] - kappa[0] if constraint in ("CLA", "PNCC") else kappa[0] - kappa[-1]
            assert better > 0


def test_shares_hold_at_the_mean():
    data = cv.datasets.digits(60)
    judge = figure.Judge.of(data, 32, 4, None, 0)
    mean = data.x.mean(axis=0)
    for name in figure.NAMES:
        lagrangian = judge.lagrangian(name, 0.3, {})
        energies = []
        for value, constraint in zip(lagrangian.multipliers, lagrangian.constraints, strict=True):
            energy = constraint.in_frame(cv.Frame.identity(data.x.shape[1]))
            phi, s = energy.statistics(data.x, slice(0, 60))
            v, b = energy.readout(mean[None])
            energies.append(value * (s - b - phi @ v[0]).mean())
        assert energies == pytest.approx([0.7, 0.3] if len(energies) == 2 else [1.0])


def test_the_picture_has_its_rows_and_axes(small):
    _, arrays, _ = small
    drawn = figure.draw(arrays)
    titles = [ax.get_title(loc="left") for ax in drawn.axes[:5]]
    assert "0.5" in titles[0]
    for name, title in zip(figure.NAMES, titles[1:], strict=True):
        assert name in title
        assert f"{arrays[f'{name}_scores'][0]:.3f}" in title
    labels = [(ax.get_xlabel(), ax.get_ylabel()) for ax in drawn.axes[5:]]
    assert len(labels) == 3
    assert all("kappa" in x and "nats" in y for x, y in labels)
    assert [[text.get_text() for text in ax.get_legend().get_texts()] for ax in drawn.axes[5:]] == [
        ["RE", "CLA with RE", "PNCC with RE"],
        ["FRE", "first transition", "0.500 nats"],
        ["CLA", "PNCC"],
    ]


def test_the_table_tells_what_was_not_met(small):
    _, arrays, _ = small
    lines = figure.table(arrays).splitlines()
    assert [line.split()[0] for line in lines] == ["lambda", *figure.NAMES]
    assert all("0.5000" in line or "0.4999" in line for line in lines[1:])
    lines = figure.table(
        {**arrays, "RE_skipped": np.array(True), "FRE_converged": np.array([True, False])}
    ).splitlines()
    assert "no solution of 0.50000 nats was found: this is the nearest" in lines[2]
    assert "1 of 2 temperatures did not converge" in lines[4]


@pytest.mark.parametrize("when", ["RE", "FRE"])
def test_ctrl_c_keeps_what_there_is(tmp_path, monkeypatch, capsys, when):
    solve = cv.solve

    def interrupted(x, objective, **options):
        if when in objective.names:
            raise KeyboardInterrupt
        return solve(x, objective, **options)

    monkeypatch.setattr(cv, "solve", interrupted)
    status, arrays, settings = run(figure, tmp_path)
    assert status == 130
    assert "interrupted" in capsys.readouterr().err
    if when == "RE":
        assert arrays is None
        return
    assert settings["interrupted"]
    assert settings["solved"] == ["RE"]
    assert "FRE_scores" not in arrays


def test_ctrl_c_inside_a_solution_is_one_too(tmp_path, monkeypatch):
    """The library hands back the last point and says so in its status."""
    from constrained_vae.backends import reference

    expectations, calls = reference.expectations, itertools.count()

    def interrupted(*arguments):
        if next(calls) == 20:
            raise KeyboardInterrupt
        return expectations(*arguments)

    monkeypatch.setattr(reference, "expectations", interrupted)
    assert run(figure, tmp_path, "--backend", "reference")[:2] == (130, None)


def test_a_rate_that_no_solution_has_is_approached_from_the_nearer_side(monkeypatch):
    """A first-order transition: where the rate jumps from 0 to 1 nat none is of 0.3, and 0 is nearer."""

    class Fake:
        status, converged = cv.Status.CONVERGED, True

        def __init__(self, beta):
            self.beta, self.rate = beta, float(beta < 1) - 0.01 * np.log(beta)

    data = cv.datasets.digits(20)
    common = {"tiling": cv.Tiling.uniform(4), "backend": "auto"}
    starts = []

    def solve(x, objective, *, start, **options):
        starts.append(start)
        return Fake(objective.beta)

    monkeypatch.setattr(cv, "solve", solve)
    lagrangian = cv.Lagrangian(cv.RE(0.0), 1.0)
    for rate, side in [(0.3, 0), (0.7, 1)]:
        annealing = figure._Annealing(data.x, lagrangian, common, 0.8, False, "RE")
        cooling, matched = annealing.to_rate(rate)
        assert starts[1 : len(cooling)] == cooling[:-1]  # on cooling, each from the one before
        starts.clear()
        assert annealing.skipped
        assert matched.rate == pytest.approx(side, abs=1e-6)
        assert matched.beta == pytest.approx(1, abs=2 * figure._RESOLUTION)
