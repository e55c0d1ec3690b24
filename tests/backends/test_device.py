"""The whole solver on a strict stand-in for a GPU: the same bits as on the host, and hardly anything crosses."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae._utils import memory
from constrained_vae._utils.device import check_on_host, numbers, to_host
from constrained_vae.backends import get_backend, reference
from constrained_vae.solvers import split_condition
from constrained_vae.solvers.loop import ACCELERATORS
from tests.helpers.device import DeviceArray, recorded, upload
from tests.helpers.marks import slow

BACKEND = SimpleNamespace(expectations=reference.expectations, to_device=upload, free_memory=lambda: 2**40)
SMALL = SimpleNamespace(expectations=reference.expectations, to_device=upload, free_memory=lambda: 0)

on_every_accelerator = pytest.mark.parametrize("accelerate", ACCELERATORS)
either_masses = pytest.mark.parametrize("masses", ["fixed", "free"])
either_likelihood = pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
either_dtype = pytest.mark.parametrize("dtype", [np.float64, np.float32])


@pytest.fixture
def x(rng):
    """Three clouds in the unit cube."""
    return np.concatenate([0.07 * rng.normal(size=(20, 3)) + centre for centre in (0.2, 0.5, 0.8)]).clip(0, 1)


@pytest.fixture
def use(monkeypatch):
    """A function that puts a backend in the place of all others."""
    return lambda backend: monkeypatch.setattr("constrained_vae.problems.problem.get_backend", lambda name: backend)


def objective(likelihood, beta=1.0):
    return cv.ELBO({"gaussian": 0.02, "bernoulli": 0.2}[likelihood] * beta, likelihood=likelihood)


def betas(likelihood):
    """Four temperatures across the first transitions."""
    return np.geomspace(*{"gaussian": (0.02, 0.25), "bernoulli": (0.2, 1.1)}[likelihood], 4)


def assert_same(one, two):
    """Every field of two solutions or branches, to the bit, and on the host."""
    if isinstance(one, tuple | cv.Branch):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert_same(a, b)
        return
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, cv.Tiling):
            a, b = a.masses, b.masses
        if isinstance(a, cv.Frame):
            a, b = (*a.centre, a.scale), (*b.centre, b.scale)
        if field.name == "objective":
            a, b = repr(a.settings()), repr(b.settings())
        assert not isinstance(b, DeviceArray), field.name
        assert type(a) is type(b), field.name
        np.testing.assert_array_equal(a, b, err_msg=field.name)


def on_both(use, run, backend=BACKEND):
    """What a function gives on the host and on the device, and the traffic of the latter."""
    use(reference)
    expected = run()
    use(backend)
    with recorded() as traffic:
        result = run()
    assert_same(expected, result)
    return result, traffic


# --- the same bits ----------------------------------------------------------------------------------------------------


@on_every_accelerator
@either_masses
@either_likelihood
def test_a_solution_on_the_device_is_that_on_the_host(use, x, accelerate, masses, likelihood):
    seen = []

    def run():
        return cv.solve(
            x,
            objective(likelihood),
            n_tiles=6,
            weights=np.arange(1, 61),
            masses=masses,
            accelerate=accelerate,
            max_maps=400,
            record=True,
            callback=lambda iterate: seen.append((iterate.n_maps, iterate.error_estimate, iterate.decoder.sum())),
            on_failure="return",
        )

    solution, _ = on_both(use, run)
    assert solution.n_maps > 10
    half = len(seen) // 2
    np.testing.assert_array_equal(seen[:half], seen[half:])


@either_masses
def test_soft_modes_on_the_device(use, masses):
    """A hexagon just below its first transition: Newton's method with the dense Hessian."""
    angles = 2 * np.pi * np.arange(6) / 6
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    options = {"beta": 0.4995, "tiling": cv.Tiling.uniform(5), "masses": masses, "on_failure": "return"}
    solution, _ = on_both(use, lambda: cv.solve(x, max_maps=600, **options))
    assert solution.n_maps > 150


def lagrangians():
    """Of every kind of constraint, alone or in pairs; linear ones, and such as want an inner minimisation."""
    labels = np.arange(60) // 20
    classifier = cv.ClassProbabilities(10 * np.array([[-1.0, 0, 0], [0, 0.1, 0], [1, 0, 0]]), [3.0, 0, -7])
    features = cv.FourierFeatures.random(3, 8, gamma=5.0)
    return {
        "RE": cv.Lagrangian(cv.RE(0.1), 30.0),
        "RE, linear FRE": cv.Lagrangian([cv.RE(0.1), cv.FRE(0.1, np.eye(3)[:2])], [20.0, 10.0]),
        "FRE": cv.Lagrangian(cv.FRE(0.1, features), 100.0),
        "CLA in a box": cv.Lagrangian(cv.CLA(0.9, classifier, labels), 5.0, box=(0, 1)),
        "RE, PNCC": cv.Lagrangian([cv.RE(0.1), cv.PNCC(0.9, (1, 3), (1, 3))], [20.0, 2.0]),
    }


@pytest.mark.parametrize("name", lagrangians())
@either_masses
def test_a_lagrangian_on_the_device(use, x, name, masses):
    """Data and passes stay there, with what is derived from x; the small inner minimisations run on the host."""

    def run():
        objective = lagrangians()[name]
        return cv.solve(x, objective, n_tiles=6, masses=masses, max_maps=300, on_failure="return")

    solution, _ = on_both(use, run)
    assert solution.n_maps > 5
    assert len(solution.distinct) > 1


def test_multipliers_on_the_device(use, x):
    def run():
        return cv.solve_constrained(x, [cv.RE(0.2), cv.FRE(0.3, np.eye(3)[:2])], n_tiles=3)

    solution, _ = on_both(use, run)
    assert solution.converged


@either_masses
@either_likelihood
@either_dtype
def test_a_sweep_through_transitions(use, x, masses, likelihood, dtype):
    """Splits on the way down; sites that meet, and with free masses die, on the way up."""

    def run():
        return cv.sweep(
            x,
            objective(likelihood),
            betas=betas(likelihood),
            direction="both",
            n_tiles=5,
            masses=masses,
            dtype=dtype,
            on_failure="return",
        )

    (down, up), _ = on_both(use, run)
    assert down.n_distinct[-1] > 1
    assert up.n_distinct[-1] == 1
    assert max(s.n_maps for s in (*down, *up)) < 2000  # in float32 too, where parts may not stay parted


@either_masses
def test_dead_tiles(use, x, masses):
    """A tile without prior mass, and one too far away to have any posterior mass; free masses give them up."""
    start = np.vstack([x[[0, 20, 40]], [[0.9, 0.1, 0.9]], [[1e3, 0, 0]]])
    tiling = cv.Tiling(np.array([0.3, 0.3, 0.2, 0.0, 0.2]))
    solution, _ = on_both(
        use, lambda: cv.solve(x, beta=0.02, tiling=tiling, start=start, masses=masses, on_failure="return")
    )
    assert (solution.marginal == 0).sum() == (2 if masses == "fixed" else 0)


@pytest.mark.parametrize("kept", [0, 2**26])
def test_many_dimensions(use, rng, monkeypatch, kept):
    """Beyond the dimensions in which covariances are formed: Lanczos, its vectors on the host."""
    monkeypatch.setattr(memory, "KEPT", kept)
    monkeypatch.setattr(split_condition, "_MAX_DENSE_DIM", 8)
    clouds = np.concatenate([rng.normal(size=(15, 12)) + 3 * rng.normal(size=12) for _ in range(3)])
    on_both(use, lambda: cv.sweep(clouds, betas=[2.0, 5.0, 30.0], n_tiles=4))


def test_the_default_grid_and_first_critical_beta(use, x):
    use(reference)
    expected = cv.default_betas(x), cv.first_critical_beta(x)
    use(BACKEND)
    np.testing.assert_array_equal(cv.default_betas(x), expected[0])
    assert cv.first_critical_beta(x) == expected[1]


def test_parts_of_the_rows(use, x):
    """What is public comes to the host."""
    use(BACKEND)
    result = cv.block_expectations(x, x[:4], cv.ELBO(0.1))
    use(reference)
    expected = cv.block_expectations(x, x[:4], cv.ELBO(0.1))
    for name in ("mass", "sums", "free_energy", "energy"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name), strict=True)
    assert isinstance(result.energy, float)


# --- what crosses -----------------------------------------------------------------------------------------------------


@on_every_accelerator
@either_masses
@either_likelihood
def test_a_handful_of_numbers_per_map(use, rng, accelerate, masses, likelihood):
    """Free energy and residual; inner products of up to 17 vectors; their coefficients. Never anything of the tiles."""
    use(BACKEND)
    x, start, maps = rng.uniform(size=(90, 2)), rng.uniform(0.1, 0.9, size=(400, 2)), 60
    options = {"tiling": cv.Tiling.uniform(400), "start": start, "masses": masses, "accelerate": accelerate}
    few = 17**2
    assert few < len(start)
    crossed = []
    for count in (maps, 2 * maps):
        with recorded() as traffic:
            s = cv.solve(x, objective(likelihood, 0.3), max_maps=count, on_failure="return", **options)
        assert s.n_maps == count
        crossed.append((traffic.uploads, traffic.downloads))
    for (one, two), most in zip(zip(*crossed, strict=True), (1, 4), strict=True):  # uploads, downloads per map
        assert len(two) - len(one) <= most * maps
        assert sorted(size for size in one if size > few) == sorted(size for size in two if size > few)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_data_are_uploaded_once_in_a_sweep(use, x, dtype):
    use(BACKEND)
    with recorded() as traffic:
        branch = cv.sweep(x, betas=betas("gaussian"), n_tiles=5, dtype=dtype, tol=1e-5)
    assert traffic.uploads.count(x.size) == 1
    assert traffic.uploads.count(len(x)) == 1
    assert sum(s.n_maps for s in branch) > 3 * len(branch)
    assert sorted(traffic.uploads)[-3] <= 17  # reconstructions (5, 3), and coefficients of 17 vectors


@pytest.mark.parametrize("likelihood", ["poisson", "categorical"])
@either_masses
@either_dtype
def test_counts_and_compositions(use, x, likelihood, masses, dtype):
    """The same bits as on the host; with a column of zeros."""
    counts = np.round(9 * np.column_stack([x, 0 * x[:, 0]]))
    rows = counts + np.array([1, 1, 1, 0])
    data = counts if likelihood == "poisson" else rows / rows.sum(axis=1)[:, None]
    beta = {"poisson": 1.0, "categorical": 0.05}[likelihood]
    options = {"n_tiles": 4, "masses": masses, "dtype": dtype, "max_maps": 60, "on_failure": "return"}
    on_both(use, lambda: cv.solve(data, cv.ELBO(beta, likelihood=likelihood), **options))


def test_data_beyond_the_memory_of_the_device_stream_in_blocks(use, x, monkeypatch, tmp_path):
    """Once per map, in the blocks in which a memory map is read: the same bits as from one."""
    monkeypatch.setattr("constrained_vae._utils.memory.BLOCK", 51)  # seventeen rows at a time
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    options = {"tiling": cv.Tiling.uniform(4), "max_maps": 40, "on_failure": "return", "start": x[:4]}
    for likelihood in ("gaussian", "bernoulli"):
        use(reference)
        expected = cv.solve(mapped, objective(likelihood), **options)
        for data, backend in [(mapped, BACKEND), (x, SMALL)]:
            use(backend)
            with recorded() as traffic:
                result = cv.solve(data, objective(likelihood), **options)
            np.testing.assert_array_equal(result.decoder, expected.decoder)
            assert result.free_energy == expected.free_energy
            assert x.size not in traffic.uploads
            assert traffic.uploads.count(51) >= 3 * expected.n_maps


def test_rows_may_be_put_in_another_order_once(use, x):
    """The hook for a backend that likes its rows sorted."""
    calls = []

    def order(phi):
        calls.append(phi.shape)
        return np.argsort(phi[:, 0])

    use(reference)
    options = {"betas": betas("gaussian"), "tiling": cv.Tiling.uniform(4), "weights": np.arange(1, 61)}
    expected = cv.sweep(x, **options)
    use(SimpleNamespace(expectations=reference.expectations, order=order))
    result = cv.sweep(x, **options)
    assert calls == [x.shape]
    np.testing.assert_allclose(result.free_energy, expected.free_energy, rtol=1e-12)
    np.testing.assert_array_equal(result[0].labels, expected[0].labels)


# --- arrays in the wrong place ----------------------------------------------------------------------------------------


def test_kernels_refuse_arrays_from_elsewhere(x):
    arguments = (x, np.zeros(60), np.full(60, 1 / 60), x[:4], np.zeros(4), np.zeros(4))
    names = ("statistics", "offset", "weights", "v", "b", "log_masses")
    expected = reference.expectations(*arguments)
    there = reference.expectations(*map(upload, arguments))
    np.testing.assert_array_equal(there.sums.get(), expected.sums)
    for n, name in enumerate(names):
        mixed = [upload(array) if i == n else array for i, array in enumerate(arguments)]
        with pytest.raises(ValueError, match=rf"must lie together.* and {name} on a device.*\.get\(\)"):
            reference.expectations(*mixed)
        where = rf"{name} lies on a device \(tests.helpers.device.DeviceArray\).*\.get\(\)"
        with pytest.raises(ValueError, match=where):
            check_on_host(**dict(zip(names, mixed, strict=True)))
    check_on_host(**dict(zip(names, arguments, strict=True)))


def test_the_stand_in_is_strict(x):
    """What CuPy refuses, and what it would wait for in silence."""
    there = upload(x)
    for mix in (
        lambda: there + x,
        lambda: x * there,
        lambda: x.T @ there,
        lambda: np.sqrt(x, out=there),
        lambda: np.add(there, x[0, 0:1]),
        lambda: np.asarray(there),
        lambda: np.concatenate([there, there]),
        lambda: list(there),
        lambda: there.__array_namespace__().where(there > 0, x, there),
        lambda: there.__setitem__(0, x[0]),
    ):
        with pytest.raises(TypeError):
            mix()
    for index in (x[:, 0] > 0, there[:, 0] > 0, [0, 1]):
        with pytest.raises(AssertionError):
            there[index]
    with recorded() as traffic:
        assert float((2.0 * there / np.float64(3.0)).sum()) == (2.0 * x / 3.0).sum()
        assert numbers(there[0, 0], there[0, 1]) == tuple(x[0, :2])
        np.testing.assert_array_equal(to_host(there), x)
    assert (traffic.uploads, traffic.downloads) == ([], [1, 2, x.size])


# --- with the CUDA kernels, run on the CPU ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("masses", "likelihood"),
    [
        ("free", "gaussian"),  # the others take as long, and the kernels are the same
        slow("fixed", "gaussian"),
        slow("fixed", "bernoulli"),
        slow("free", "bernoulli"),
    ],
)
def test_solutions_by_the_cuda_kernels(emulated, use, x, masses, likelihood):
    """Through a transition, to the tolerance: 1e-10 of the radius, of two points that converged each its own way."""

    def run():
        hottest = betas(likelihood)[-2:]
        return cv.sweep(x, objective(likelihood), betas=hottest, n_tiles=4, masses=masses)

    use(reference)
    expected = run()
    assert expected.n_distinct[0] == 1 < expected.n_distinct[1]
    use(emulated)
    with recorded() as traffic:
        branch = run()
    assert traffic.uploads.count(x.size) == 1
    assert branch.converged
    np.testing.assert_allclose(branch.free_energy, expected.free_energy, rtol=1e-12)
    for one, two in zip(branch, expected, strict=True):
        np.testing.assert_allclose(one.decoder, two.decoder, rtol=0, atol=1e-9)
        np.testing.assert_allclose(one.marginal, two.marginal, rtol=0, atol=1e-8)


def test_streamed_solutions_by_the_cuda_kernels(emulated, use, x, monkeypatch):
    monkeypatch.setattr("constrained_vae._utils.memory.BLOCK", 51)
    monkeypatch.setattr(emulated.cupy.cuda.runtime, "memGetInfo", lambda: (100, 1000))
    use(emulated)
    with recorded() as traffic:
        solution = cv.solve(x, beta=0.02, n_tiles=4, seed=1)
    assert traffic.uploads.count(51) >= 3 * solution.n_maps
    use(reference)
    expected = cv.solve(x, beta=0.02, n_tiles=4, seed=1)
    assert solution.free_energy == pytest.approx(expected.free_energy, rel=1e-12)
    np.testing.assert_allclose(solution.decoder, expected.decoder, rtol=0, atol=1e-9)


def test_the_free_memory_of_the_device(emulated, monkeypatch):
    pool = SimpleNamespace(free_bytes=lambda: 30, used_bytes=lambda: 50, get_limit=lambda: 0)
    monkeypatch.setattr(emulated.cupy, "get_default_memory_pool", lambda: pool)
    monkeypatch.setattr(emulated.cupy.cuda.runtime, "memGetInfo", lambda: (100, 1000))
    assert emulated.free_memory() == 130
    pool.get_limit = lambda: 90
    assert emulated.free_memory() == 40


def test_the_compiled_kernel_refuses_arrays_from_a_device(x):
    arguments = (x, np.zeros(60), np.full(60, 1 / 60), x[:4], np.zeros(4), np.zeros(4))
    with pytest.raises(ValueError, match="v lies on a device"):
        get_backend("numba").expectations(*arguments[:3], upload(arguments[3]), *arguments[4:])


def test_data_on_a_device_come_to_the_host_at_the_door():
    """Once, whatever the backend; so do weights and starts."""
    x = np.random.default_rng(0).normal(size=(30, 2))
    options = {"beta": 0.3, "tiling": cv.Tiling.uniform(3)}
    expected = cv.solve(x, start=x[:3], weights=np.full(30, 1 / 30), **options)
    lent = cv.solve(upload(x), start=upload(x[:3]), weights=upload(np.full(30, 1 / 30)), **options)
    np.testing.assert_array_equal(lent.decoder, expected.decoder)
    assert isinstance(lent.x, np.ndarray)
