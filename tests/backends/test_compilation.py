"""Kernels are compiled as a whole, and kept on disk where that is possible."""

import importlib
import random
import signal
import sys
import warnings
from types import SimpleNamespace

import numba
import pytest
from numba.core.caching import CacheImpl

from constrained_vae import backends
from constrained_vae._utils import deadline
from constrained_vae.backends import compilation, numba as kernels
from tests.helpers.linear_form import make

SOURCE = """
import signal
import numpy as np
from numba import prange
from numba.extending import overload
from constrained_vae.backends.compilation import ParallelKernel, jit

def twice(x): ...

@overload(twice)
def _(x):
    INTERRUPT()
    return lambda x: 2 * x

def INTERRUPT(): ...

@jit
def kernel(x):
    return twice(x) + 1

@ParallelKernel
def parallel(x):
    found = np.empty(2)
    for i in prange(2):
        found[i] = x + 2
    return found[1]
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A function that loads a module with kernels anew, as a new session does."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "kernels_example.py").write_text(SOURCE)

    def loaded():
        sys.modules.pop("kernels_example", None)
        return importlib.import_module("kernels_example")

    yield loaded
    sys.modules.pop("kernels_example", None)


def test_a_compilation_does_not_count_towards_a_time_limit(load, monkeypatch):
    module, now = load(), [0.0]
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: now[0]))
    module.INTERRUPT = lambda: now.__setitem__(0, 10.0)
    with deadline.within(1.0):
        assert module.kernel(1) == 3
        assert not deadline.passed()
        now[0] = 11.0
        assert deadline.passed()


def test_ctrl_c_during_a_compilation_is_raised_after_it(load):
    module = load()
    module.INTERRUPT = lambda: signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        module.kernel(1)
    module.INTERRUPT = None  # there is nothing left to compile
    assert module.kernel(1) == 3


def test_a_kernel_is_found_in_the_cache_until_the_sources_that_it_includes_change(load, monkeypatch):
    def from_cache():
        kernel = load().kernel
        assert kernel(1) == 3
        return sum(kernel.stats.cache_hits.values())

    assert [from_cache(), from_cache()] == [0, 1]
    monkeypatch.setattr(compilation, "_stamp", lambda: "other")
    assert [from_cache(), from_cache()] == [0, 1]


def test_kernels_in_threads_and_on_one_thread_have_separate_entries(load):
    kernel = load().parallel
    assert kernel(1) == kernel.on_one_thread(1) == 3
    assert not kernel.on_one_thread.stats.cache_hits
    again = load().parallel
    assert again(1) == again.on_one_thread(1) == 3
    assert again.in_threads.stats.cache_hits
    assert again.on_one_thread.stats.cache_hits


def test_damaged_files_and_entries_of_other_types_are_compiled_anew(load, tmp_path):
    load().kernel(1)
    (entry,) = (tmp_path / "__pycache__").glob("*kernel*.nbc")
    whole = entry.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2]):
        entry.write_bytes(damaged)
        assert load().kernel(1) == 3
    load().kernel(1.5)
    numbers = sorted((tmp_path / "__pycache__").glob("*kernel*.nbc"))
    numbers[1].write_bytes(numbers[0].read_bytes())  # as two processes can do that write at the same time
    assert load().kernel(1.5) == 4.0


@pytest.mark.parametrize("trouble", ["no folder", "full disk"])
def test_without_a_cache_kernels_are_compiled_with_one_warning(load, monkeypatch, trouble):
    monkeypatch.setattr(compilation, "_warned", False)
    if trouble == "no folder":
        monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    else:

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(compilation.IndexDataCacheFile, "save", full)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = load()
        assert module.kernel(1) == module.parallel(1) == 3
    assert ["NUMBA_CACHE_DIR" in str(warning.message) for warning in caught] == [True]


def test_ctrl_c_during_a_small_map_is_raised_as_such():
    """Numba loses an exception in the Python functions that it calls itself, such as those that make a new array."""
    arguments, draw, interrupted = make("linear", 0, 200, 60, 2).arguments, random.Random(0), 0
    kernels.expectations(*arguments)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for _ in range(1000):
            try:
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-6, 1e-4))
                while True:
                    kernels.expectations(*arguments)
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interrupted == 1000


def test_without_compilation_the_backend_names_the_way_out(monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    with pytest.raises(backends.BackendNotAvailableError, match=r"NUMBA_DISABLE_JIT=1.*backend='reference'$"):
        backends.get_backend()
    backends.get_backend("reference")
