"""`single_threaded` limits the threads of BLAS while it runs, and restores them whatever happens."""

import os
import random
import signal
import sys
import threading

import numpy as np
import pytest
import threadpoolctl

from constrained_vae._utils.blas import blas_libraries, single_threaded
from tests.helpers.linear_form import make


def threads():
    """Numbers of threads of all libraries."""
    return {library.num_threads for library in blas_libraries()}


@pytest.fixture(autouse=True)
def two_threads():
    """Two threads before and after every test, on any machine."""
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        assert threads() == {2}
        yield
        assert threads() == {2}


def test_one_thread_inside_and_as_before_outside():
    assert single_threaded(threads) == {1}
    assert threads() == {2}
    assert single_threaded(single_threaded, threads) == {1}
    assert single_threaded(max, 3, 4, key=lambda n: -n) == 3
    with pytest.raises(ZeroDivisionError):
        single_threaded(divmod, 1, 0)


def test_a_map_with_matrix_products_restores_the_threads():
    make("gaussian", 9, 50, 5, 10).solve("numba")


def test_of_calls_that_overlap_in_two_threads_the_last_one_restores():
    entered, leave, seen = threading.Event(), threading.Event(), []

    def wait():
        entered.set()
        leave.wait()
        seen.append(threads())

    other = threading.Thread(target=single_threaded, args=(wait,))

    def overlap():
        other.start()
        entered.wait()

    single_threaded(overlap)
    assert threads() == {1}
    leave.set()
    other.join()
    assert seen == [{1}]


def test_ctrl_c_at_any_place_restores_the_threads():
    """Timers from one to sixty microseconds interrupt a call, which takes about twenty."""
    draw, a, interrupted, left = random.Random(0), np.ones((30, 30)), 0, 0
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for _ in range(3000):
            try:
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-6, 6e-5))
                single_threaded(lambda: a @ a)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
            try:
                left += threads() != {2}
            except KeyboardInterrupt:  # another thread of the process took the signal, and was slow
                left += threads() != {2}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert left == 0
    assert interrupted > 100


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of forks beside threads
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("inside", [False, True])
def test_a_fork_does_not_inherit_the_calls_of_other_threads(inside):
    """The child has as many threads as before; or one, until the call that forked has returned there too."""
    if "jax" in sys.modules:
        pytest.skip("JAX, which another test has imported, refuses forks by a warning")
    entered, leave = threading.Event(), threading.Event()
    other = threading.Thread(target=single_threaded, args=(lambda: (entered.set(), leave.wait()),))
    other.start()
    entered.wait()

    def fork():
        child = os.fork()
        if child == 0 and threads() != ({1} if inside else {2}):
            os._exit(1)
        return child

    child = single_threaded(fork) if inside else fork()
    if child == 0:
        os._exit(threads() != {2})
    leave.set()
    other.join()
    assert os.waitpid(child, 0)[1] == 0
