"""Fixtures of the tests of figures."""

import functools

import pytest

from tests.helpers import figures


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A function that gives the run of a figure with its small options, made when first asked for."""
    return functools.cache(lambda figure: figures.drawn(figure, tmp_path_factory.mktemp(figures.title(figure))))


@pytest.fixture
def shortened():
    """Little is computed of what the options of a command cannot shorten."""
    with figures.shortened():
        yield
