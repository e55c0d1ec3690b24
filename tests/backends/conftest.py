"""Fixtures of the CUDA kernels, compiled for the CPU."""

import functools
import shutil

import pytest

from tests.helpers.cuda_emulation import load_backend


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where kernels are compiled, each once."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed, with which the kernels are compiled for the CPU")
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="session")
def load(folder):
    """A function that loads the backend over a fake CuPy, with the order in which threads take their turns."""
    return functools.partial(load_backend, folder)


@pytest.fixture(scope="module")
def emulated(load):
    """The CUDA backend, whose kernels run on the CPU."""
    return load()
