"""Fixtures and options shared by every test."""

import functools
import os

import numpy as np
import pytest
from hypothesis import settings

from constrained_vae.backends import BackendNotAvailableError, get_backend

SEED = 20181001

# Their assertions show what was compared, as those of tests do; for that they must not have been imported before.
pytest.register_assert_rewrite("tests.helpers")

# Set before anything imports Matplotlib, and inherited by the subprocesses of tests.
os.environ["MPLBACKEND"] = "Agg"

# The default draws the same examples in every run; the thorough profile draws new ones and prints how to repeat a
# failure. No deadlines: compiling a kernel inside an example is not a failure.
settings.register_profile("default", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("thorough", deadline=None, derandomize=False, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser):
    parser.addoption("--require-gpu", action="store_true", help="fail GPU tests, rather than skip them, without a GPU")


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") is None or (reason := gpu_trouble()) is None:
        return
    if item.config.getoption("--require-gpu"):
        pytest.fail(f"a GPU is required, but {reason}", pytrace=False)
    pytest.skip(reason)


@functools.cache
def gpu_trouble():
    """Why the CuPy backend cannot run here; None where it can."""
    try:
        get_backend("cupy")
    except BackendNotAvailableError as error:
        return str(error)
    return None


@pytest.fixture
def rng():
    """A generator in the same state at the start of every test."""
    return np.random.default_rng(SEED)


# Of session scope, so that Hypothesis tests may use it: a name cannot go stale between examples.
@pytest.fixture(scope="session", params=["reference", "numba", pytest.param("cupy", marks=pytest.mark.gpu)])
def backend(request):
    """The name of each backend in turn."""
    return request.param
