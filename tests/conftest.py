"""Fixtures and options shared by every test."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import settings

from tests.helpers.gpu import gpu_trouble

SEED = 20181001

# Set before anything imports Matplotlib, and inherited by the subprocesses of tests.
os.environ["MPLBACKEND"] = "Agg"

# The default draws the same examples in every run; the thorough profile draws new ones and prints how to repeat a
# failure. No deadlines: compiling a kernel inside an example is not a failure.
settings.register_profile("default", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("thorough", deadline=None, derandomize=False, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser):
    parser.addoption("--require-gpu", action="store_true", help="fail GPU tests, rather than skip them, without a GPU")


def pytest_configure(config):
    """As many processes as cores shall not wait for each other's threads; these settings are inherited by them all.

    The kernels have their threads even so, where the work is large enough to be shared.
    """
    # A shell that runs the tests in the background has them ignore Ctrl-C, which some tests send to themselves.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if several_processes(config):
        for name, value in (("OPENBLAS_NUM_THREADS", "1"), ("OMP_NUM_THREADS", "1"), ("OMP_WAIT_POLICY", "PASSIVE")):
            os.environ.setdefault(name, value)


def pytest_sessionstart(session):
    """Before several processes run the tests, compile every kernel once; a warm cache costs a second."""
    if several_processes(session.config):
        side_by_side = ("sums",), ("pruned_sums", "proofs")
        commands = [[sys.executable, "-m", "tests.helpers.compilation", *families] for families in side_by_side]
        for process in [subprocess.Popen(command, cwd=session.config.rootpath) for command in commands]:
            process.wait()  # where kernels do not compile, it says so, and the tests will too


def several_processes(config):
    """Whether this is pytest-xdist's process that has the tests run by others."""
    return bool(config.getoption("numprocesses", None)) and not hasattr(config, "workerinput")


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") is None or (reason := gpu_trouble()) is None:
        return
    if item.config.getoption("--require-gpu"):
        pytest.fail(f"a GPU is required, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def rng():
    """A generator in the same state at the start of every test."""
    return np.random.default_rng(SEED)


# Of session scope, so that Hypothesis tests may use it: a name cannot go stale between examples.
@pytest.fixture(scope="session", params=["reference", "numba", pytest.param("cupy", marks=pytest.mark.gpu)])
def backend(request):
    """The name of each backend in turn."""
    return request.param
