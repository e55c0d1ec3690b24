"""Kept working space: results are no views of it, and the bits are the same."""

import threading

import numpy as np
import pytest

from constrained_vae._utils import scratch
from constrained_vae.backends import numba


def test_memory_is_handed_out_again_only_within_the_call():
    def addresses():
        shapes = ((40, 3), (40, 3), (10, 2))
        return [scratch.empty("a", shape, float).ctypes.data for shape in shapes]

    assert len(set(scratch.with_scratch(addresses))) == 1
    assert scratch.empty("a", (9,), float).base is None

    def other_thread():
        mine, theirs = scratch.empty("a", (9,), float), []
        thread = threading.Thread(target=lambda: theirs.append(scratch.empty("a", (9,), float)))
        thread.start()
        thread.join()
        assert not np.shares_memory(mine, theirs[0])

    scratch.with_scratch(other_thread)


def test_a_larger_array_takes_new_memory():
    def grown():
        small = scratch.empty("a", (4,), np.float32)
        large = scratch.empty("a", (9,), np.float64)
        return small, large

    small, large = scratch.with_scratch(grown)
    assert small.dtype == np.float32
    assert large.shape == (9,)
    assert not np.shares_memory(small, large)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("count", "dim"), [(1, 9), (5, 12), (40, 10)])
def test_results_of_a_kernel_outlive_its_working_space(count, dim, dtype, rng):
    """Among them those of one tile, whose sums are contiguous as they are."""
    x, rho = rng.standard_normal((700, dim)).astype(dtype), np.full(700, 1 / 700)
    readouts = [2 * rng.standard_normal((count, dim)) for _ in range(2)]

    def maps():
        found = []
        for v in readouts:
            arguments = v.astype(dtype), -(v * v).sum(axis=1).astype(dtype) / 4, np.zeros(count, dtype)
            found.append(numba.expectations(x, (x * x).sum(axis=1), rho, *arguments))
        return found

    for one, other in zip(maps(), scratch.with_scratch(maps), strict=True):
        assert np.array_equal(one.mass, other.mass)
        assert np.array_equal(one.sums, other.sums)
        assert one.free_energy == other.free_energy
