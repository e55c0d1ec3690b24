"""Parts of the lone program that verifies proofs, beside naive sums; and proofs by hand that it must take or refuse."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math

import numpy as np
import pytest
from scipy.special import logsumexp

pytest.importorskip("flint", reason="proofs are verified with python-flint")

from flint import arb, ctx

from constrained_vae.frontier import verify as verifier
from constrained_vae.frontier.verify import NotProved, verify

# --- bounds of log c --------------------------------------------------------------------------------------------------


def mixture(rng, n, dim, lam):
    """Points (n, D) and log weights (n,), and c(y) of them."""
    x, log_w = rng.normal(size=(n, dim)), rng.normal(size=n)
    points = [[arb(float(v)) for v in row] for row in x]
    return x, log_w, verifier._Mixture(x, points, [arb(float(v)).exp() for v in log_w], arb(lam))


def expanded(x, log_w, lam, low, high, shift):
    """The bound by an expansion, in NumPy."""
    y, square = (low + high) / 2, np.square((high - low) / 2).sum()
    logs = log_w - lam * np.square(x - y).sum(axis=1)
    u = np.exp(logs - logsumexp(logs))
    m = u @ x - y
    e = x - u @ x
    S = (u[:, None] * e).T @ e
    t = 2 * lam * np.sqrt(square) * np.linalg.norm(e, axis=1)
    M2, M3 = u @ (t**2 * np.exp(t)), u @ (t**3 * np.exp(t))
    A = (2 * lam + shift) * np.eye(len(y)) - 4 * lam**2 * S
    form = 2 * lam**2 * m @ np.linalg.solve(A, m)
    return logsumexp(logs) + form + shift * square / 2 + (np.cbrt(M3) + M2) ** 3 / 6


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(("lam", "shift"), [(0.02, 0.0), (0.1, 0.3), (0.4, 2.5)])
def test_the_expansion_is_that_of_the_head_of_the_file(dim, lam, shift, rng):
    x, log_w, c = mixture(rng, 6, dim, lam)
    low = rng.normal(size=dim)
    high = low + np.array([0.3, 0.1, 0.2])[:dim]
    found = float(c.bound(low, high, 0.0, shift))
    assert found == pytest.approx(expanded(x, log_w, lam, low, high, shift), abs=1e-12)
    y = low + (high - low) * rng.uniform(size=(200, 1, dim))
    assert logsumexp(log_w - lam * np.square(x - y).sum(axis=2), axis=1).max() <= found


def test_there_is_no_expansion_with_a_negative_shift_or_a_form_that_is_not_positive(rng):
    _, _, c = mixture(rng, 6, 2, 0.1)
    low, high = np.zeros(2), np.full(2, 0.1)
    assert not c.bound(low, high, 0.0, -1e-9).is_finite()
    x = np.array([[-3.0, -3.0], [3.0, 3.0]])  # A is positive along the last axis alone
    steep = verifier._Mixture(x, [[arb(v) for v in row] for row in x.tolist()], [arb(1), arb(1)], arb(1))
    assert not steep.bound(np.full(2, -0.1), np.full(2, 0.1), 0.0, 1.0).is_finite()
    assert not steep.bound(np.full(2, -0.1), np.full(2, 0.1), 0.0, 20.0).is_finite()
    assert steep.bound(np.full(2, -0.1), np.full(2, 0.1), 0.0, 80.0).is_finite()


@pytest.mark.parametrize("dim", [1, 3])
def test_a_wide_box_has_the_least_distances_of_its_points(dim, rng):
    x, log_w, c = mixture(rng, 9, dim, 0.7)
    low, high = np.full(dim, -0.2), np.full(dim, 0.6)
    logs = log_w - 0.7 * np.square(x - np.clip(x, low, high)).sum(axis=1)
    assert float(c.bound(low, high, 0.0, None)) == pytest.approx(logsumexp(logs), abs=1e-12)


def test_points_far_from_a_box_are_bounded_by_the_largest_of_them(rng):
    x, log_w, c = mixture(rng, 9, 2, 3.0)
    low, high = np.array([5.0, 4.0]), np.array([6.0, 4.5])
    logs = log_w - 3.0 * np.square(x - np.clip(x, low, high)).sum(axis=1)
    all_far = c.bound(low, high, 1000.0, None)
    assert float(all_far) == pytest.approx(math.log(9) + logs.max(), abs=1e-8)
    assert float(all_far) > math.log(9) + logs.max()
    assert c.least_lam < 3.0 - 1e-12


@pytest.mark.parametrize("shift", [None, 0.5])
def test_near_and_far_points_together(shift):
    """Two points near a box, and three whose share is below e^-45 of a claim: they add it, although it is tiny."""
    x, weights = np.array([[0.0], [0.1], [10.0], [11.0], [12.0]]), [arb(1)] * 2 + [arb(2)] * 3
    low, high = np.array([0.0]), np.array([0.1])
    with ctx.workprec(400):
        all_points, near = (
            verifier._Mixture(x[:n], [[arb(float(v))] for v in x[:n, 0]], weights[:n], arb(1)).bound(
                low, high, 0.0, shift
            )
            for n in (5, 2)
        )
        rest = float(all_points.exp() - near.exp())
    assert float(near) == pytest.approx(expanded(x[:2], np.zeros(2), 1.0, low, high, shift) if shift else math.log(2))
    assert rest == pytest.approx(3 * 2 * math.exp(-(9.9**2)), rel=1e-9, abs=0)


def test_what_is_far_is_bounded_in_spite_of_the_rounding_of_its_logarithm():
    """By 1e-12 of the size of the weight and of the term."""
    log_w = -1000.0
    c = verifier._Mixture(np.zeros((1, 1)), [[arb(0)]], [arb(log_w).exp()], arb(1))
    found = c.bound(np.zeros(1), np.zeros(1), 0.0, None)
    assert float(found) - log_w == pytest.approx(2e-12 * 1000, rel=1e-3)
    c = verifier._Mixture(np.full((1, 1), 1e3), [[arb(1e3)]], [arb(1)], arb(1))
    found = c.bound(np.zeros(1), np.zeros(1), 0.0, None)
    assert float(found) + 1e6 == pytest.approx(3e-12 * 1e6, rel=1e-3)  # of lambda, of the distance and of the term


def test_a_point_is_near_up_to_45_nats_and_the_logarithm_of_the_number_of_points():
    offsets = math.log(4) + 45 + np.array([-0.01, 0.01, -1.0, 1.0])
    x = np.zeros((4, 1))
    c = verifier._Mixture(x, [[arb(0)]] * 4, [(-arb(float(v))).exp() for v in offsets], arb(1))
    taken = []
    c._term = lambda i, y: taken.append(int(i)) or arb(1)
    c.bound(np.zeros(1), np.zeros(1), 0.0, None)
    assert taken == [0, 2]


def test_F_and_the_weights_of_a_code(rng):
    x, psi, lam = rng.normal(size=(5, 2)), rng.normal(size=(3, 2)), 0.8
    rho, masses = rng.uniform(1, 3, 5), rng.uniform(1, 3, 3)
    energies = lam * np.square(x[:, None] - psi).sum(axis=2)
    log_Z = logsumexp(np.log(masses / masses.sum()) - energies, axis=1)
    F, found = verifier._mixture(x, psi, rho, masses, arb(lam))
    assert float(F) == pytest.approx(-(rho / rho.sum()) @ log_Z, abs=1e-13)
    np.testing.assert_allclose([float(v.log()) for v in found.w], np.log(rho / rho.sum()) - log_Z, atol=1e-13)
    np.testing.assert_allclose(found.log_w, np.log(rho / rho.sum()) - log_Z, atol=1e-10)


@pytest.mark.parametrize("value", ["0", "1", "-1", "1e250", "-1e250", "0.1", "-3.7e-20"])
def test_a_number_above_a_ball(value):
    ball = arb(value) + arb("0 +/- 1e-320")
    assert verifier._above(ball) > ball
    assert verifier._above(ball) <= float(arb(value)) + 4e-16 * abs(float(arb(value))) + 2e-320


def test_a_number_above_a_wide_ball():
    """Also where the middle is near 0, as the logarithm of a number near 1 is."""
    assert 1.1 < verifier._above(arb("1 +/- 0.1")) < 1.1001
    near = arb("3e-16 +/- 1e-24")
    assert near <= verifier._above(near) < 3.0001e-16
    with pytest.raises(NotProved, match="lost its digits"):
        verifier._above(arb("nan"))


# --- boxes that cover a region ----------------------------------------------------------------------------------------


def covers(low, high, start, end):
    try:
        verifier._check_cover(*(np.array(a, dtype=float) for a in (low, high, start, end)))
    except NotProved:
        return False
    return True


def test_boxes_that_cover_and_boxes_that_do_not():
    low, high = [[0, 0], [2, 0], [2, 1], [0, 3]], [[2, 3], [4, 1], [4, 3], [4, 5]]
    assert covers(low, high, [0, 0], [4, 5])
    for k in range(4):
        assert not covers(low[:k] + low[k + 1 :], high[:k] + high[k + 1 :], [0, 0], [4, 5])
    assert not covers(low, high, [0, 0], [4, 5.1])
    assert not covers(low, high, [-0.1, 0], [4, 5])
    assert covers([[0.0]], [[0.0]], [0.0], [0.0])
    assert not covers([[0.0]], [[0.0]], [0.0], [0.1])


# --- proofs by hand ---------------------------------------------------------------------------------------------------


def by_hand(x, psi, masses, lam, weights=None, cuts=()):
    """A proof with boxes between cuts along the first axis, by the least distances."""
    rho = np.ones(len(x)) if weights is None else np.array(weights)
    rho = rho / rho.sum()
    kept = rho > 0
    energies = lam * np.square(x[:, None] - psi).sum(axis=2)
    log_Z = logsumexp(np.log(masses / np.sum(masses)) - energies, axis=1)
    F = float(-rho @ log_Z)
    edges, low, high = [x[kept, 0].min(), *cuts, x[kept, 0].max()], x[kept].min(axis=0), x[kept].max(axis=0)
    boxes, bounds = [], []
    for a, b in itertools.pairwise(edges):
        start, end = np.append(a, low[1:]), np.append(b, high[1:])
        near = x[kept] - np.clip(x[kept], start, end)
        logs = np.log(rho[kept]) - log_Z[kept] - lam * np.square(near).sum(axis=1)
        boxes.append([*start.tolist(), *end.tolist()])
        bounds.append(float(logsumexp(logs)) + 1e-9)
    return {
        "kind": "constrained_vae proof",
        "format": 2,
        "data": {"sha256": verifier.data_hash(x), "points": len(x), "dimensions": x.shape[1]},
        "weights": weights,
        "objective": {"energy": "squared error", "multiplier": lam},
        "code": {"reconstructions": np.array(psi).tolist(), "masses": np.array(masses).tolist()},
        "upper": F + 1e-9,
        "lower": F - 1e-9 - max(bounds),
        "cover": {"boxes": boxes, "bounds": bounds, "shifts": [None] * len(boxes)},
    }


X = np.array([[0.0, 0.0], [4.0, 1.0], [1.0, 2.0]])
PSI, MASSES = np.array([[0.5, 0.8], [3.8, 1.0]]), [2.0, 1.0]


def proof(**options):
    return by_hand(X, PSI, MASSES, 0.5, cuts=[2.0], **options)


def changed(made, *path, to):
    made = copy.deepcopy(made)
    holder = made
    for part in path[:-1]:
        holder = holder[part]
    holder[path[-1]] = to
    return made


def test_proofs_by_hand_hold():
    made = proof()
    assert verify(made, X) == (made["lower"], made["upper"])
    start = by_hand(X, X[:1], [1.0], 0.5, cuts=[2.0])  # a code of one point, with no extent of its own
    assert verify(start, X) == (start["lower"], start["upper"])
    one = by_hand(np.array([[2.0]]), np.array([[2.0]]), [1.0], 0.5)
    lower, upper = verify(one, [[2.0]])
    assert -1e-8 < lower < 0 < upper < 1e-8


def test_a_proof_for_a_steep_energy_holds():
    """Lambda times a squared distance is near 1e120, and nothing overflows."""
    x = np.array([[0.0], [0.1], [0.7]])
    made = by_hand(x, x, [2.0, 1.0, 1.0], 2.0**400, cuts=[0.05, 0.3])
    assert made["upper"] == pytest.approx(math.log(32) / 3, abs=1e-8)
    assert verify(made, x) == (made["lower"], made["upper"])


@pytest.mark.parametrize("power", [520, -510])
def test_squares_of_another_unit_may_leave_the_range_of_float64(power):
    """The bounds are those of the same proof in a unit in which squares are numbers."""
    made, x = proof(), X * 2.0**power
    for path in (("code", "reconstructions"), ("cover", "boxes")):
        values = np.array(made[path[0]][path[1]]) * 2.0**power
        made = changed(made, *path, to=values.tolist())
    made = changed(made, "data", "sha256", to=verifier.data_hash(x))
    made = changed(made, "objective", "multiplier", to=math.ldexp(0.5, -2 * power))
    assert verify(made, x) == (made["lower"], made["upper"])
    for k, bound in enumerate(made["cover"]["bounds"]):
        with pytest.raises(NotProved, match=f"in box {k}"):
            verify(changed(made, "cover", "bounds", k, to=bound - 1e-6), x)


@pytest.mark.parametrize("part", ["x", "psi", "boxes"])
def test_digits_below_the_range_of_float64_are_refused(part):
    """The unit is near the extent of the data, here 2^1000, of which 2^-100 is no number."""
    x, tiny = np.array([[0.0], [1.0], [3.0]]), 2.0**-100
    made = by_hand(x, x[:2], [1.0, 1.0], 0.5)
    large = lambda values: [[v * 2.0**1000 for v in row] for row in np.array(values).tolist()]  # noqa: E731
    x, psi, boxes = large(x), large(x[:2]), large(made["cover"]["boxes"])
    {"x": x, "psi": psi, "boxes": boxes}[part][0][0] = tiny
    made = changed(made, "data", "sha256", to=verifier.data_hash(x))
    made = changed(changed(made, "code", "reconstructions", to=psi), "cover", "boxes", to=boxes)
    with pytest.raises(NotProved, match="leave the range"):
        verify(changed(made, "objective", "multiplier", to=2.0**-1070), x)


def test_weights_by_hand():
    made = proof(weights=[0.25, 0.1, 0.0])
    assert verify(made, X) == verify(made, X, [0.5, 0.2, 0.0])
    for others in ([0.25, 0.1, 1e-3], [0.25, 0.11, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0]):
        with pytest.raises(NotProved, match="the weights of the data are not"):
            verify(made, X, others)
    with pytest.raises(NotProved, match="must not be negative"):
        verify(changed(made, "weights", 2, to=-0.1), X)
    with pytest.raises(NotProved, match="weights"), np.errstate(invalid="ignore"):
        verify(changed(made, "weights", to=[0.0, 0.0, 0.0]), X)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("kind",), "another", "no proof in format 2"),
        (("format",), 1, "no proof in format 2"),
        (("data", "dimensions"), 0, "0 dimensions"),
        (("data", "dimensions"), 4, "4 dimensions"),
        (("data", "dimensions"), 1, "hash differs"),
        (("data", "sha256"), "0", "hash differs"),
        (("objective", "energy"), "absolute error", "lambda must be the positive one"),
        (("objective", "multiplier"), -0.5, "lambda must be the positive one"),
        (("objective", "multiplier"), 0.0, "lambda must be the positive one"),
        (("code", "masses"), [2.0, 0.0], "must have a positive mass"),
        (("code", "masses"), [2.0, 1.0, 1.0], "must have a positive mass"),
        (("code", "masses"), [2.0, math.nan], "a list must have the shape"),
        (("code", "reconstructions"), [[0.5], [4.0]], "a list must have the shape"),
        (("cover", "shifts"), [None], "not such a proof"),
        (("cover", "shifts"), [None, -1.0], "in box 1"),
        (("cover", "bounds"), [0.0, 9.0], "in box 0"),
        (("cover", "bounds"), [9.0, 0.0], "in box 1"),
        (("cover", "bounds"), [9.0, 9.0], "lower is"),
        (("cover", "boxes"), [[0.0, 0.0, 2.0, 2.0], [2.1, 0.0, 4.0, 2.0]], "no box covers"),
    ],
)
def test_each_fault_by_hand_is_named(path, value, message):
    with pytest.raises(NotProved, match=message):
        verify(changed(proof(), *path, to=value), X)


def test_claims_beyond_the_bounds_are_refused():
    made = proof()
    F, largest = made["upper"] - 1e-9, max(made["cover"]["bounds"])
    assert largest > min(made["cover"]["bounds"]) + 0.01
    for lower in (F - largest + 1e-6, F - min(made["cover"]["bounds"]), F, F + 0.9 * largest):
        with pytest.raises(NotProved, match="lower is"):
            verify(changed(made, "lower", to=lower), X)
    with pytest.raises(NotProved, match="upper is"):
        verify(changed(made, "upper", to=F - 1e-9), X)


def test_a_cover_of_very_many_boxes_holds():
    low = np.arange(3000.0)[:, None]
    assert covers(low, low + 1, [0.0], [3000.0])
    assert not covers(low, low + 1, [0.0], [3000.5])


@pytest.mark.parametrize("side", range(4))
def test_boxes_of_the_code_alone_are_refused(side):
    """The supremum is over the box of the data, which is wider than that of the code."""
    made = proof()
    boxes = np.array(made["cover"]["boxes"])
    edge = np.concatenate([PSI.min(axis=0), PSI.max(axis=0)])[side]
    boxes[:, side] = np.maximum(boxes[:, side], edge) if side < 2 else np.minimum(boxes[:, side], edge)
    with pytest.raises(NotProved, match="no box covers"):
        verify(changed(made, "cover", "boxes", to=boxes.tolist()), X)


def test_points_that_are_no_finite_rows_are_refused():
    for x in (X[0], np.zeros((0, 2)), [[0.0, math.inf]], X[None]):
        with pytest.raises(NotProved, match="must be finite points"):
            verify(proof(), x)


def test_the_hash_is_of_shape_and_digits():
    x = np.array([[-0.0, 1.5], [2.0, -3.0]])
    text = b"2 2\n" + np.array([0.0, 1.5, 2.0, -3.0], dtype="<f8").tobytes()
    assert verifier.data_hash(x) == hashlib.sha256(text).hexdigest()


# --- the program ------------------------------------------------------------------------------------------------------


def test_the_program_in_this_process(tmp_path, capsys):
    line = np.array([[0.0], [1.0], [3.0]])
    made = by_hand(line, np.array([[0.4], [3.0]]), [1.0, 1.0], 0.5, weights=[1.0, 2.0, 1.0])
    (tmp_path / "proof.json").write_text(json.dumps(made))
    np.savez(tmp_path / "x.npz", x=line[:, 0], weights=[1.0, 2.0, 1.0])
    np.save(tmp_path / "x.npy", line)
    np.savetxt(tmp_path / "x.csv", line, delimiter=",")
    np.savez(tmp_path / "others.npz", x=line, weights=[1.0, 1.0, 1.0])
    for name in ("x.npz", "x.npy", "x.csv"):
        assert verifier.main([str(tmp_path / "proof.json"), str(tmp_path / name)]) == 0
        assert "proved: F* is between" in capsys.readouterr().out
    assert verifier.main([str(tmp_path / "proof.json"), str(tmp_path / "others.npz")]) == 1
    assert "not proved: the weights" in capsys.readouterr().out
    np.save(tmp_path / "pickled.npy", line.astype(object), allow_pickle=True)  # reading it could run a program
    for arguments in (["none.json", "x.npy"], ["proof.json", "pickled.npy"]):
        assert verifier.main([str(tmp_path / name) for name in arguments]) == 2
    assert verifier.main([str(tmp_path / "proof.json")]) == 2
    assert "cannot be read" in capsys.readouterr().err
