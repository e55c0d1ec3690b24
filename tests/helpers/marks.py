"""Parameters of tests of which some cases are slow."""

import pytest


def slow(*values):
    """A case that `make test-slow` runs alone."""
    return pytest.param(*values, marks=pytest.mark.slow)


# For what does not depend on the backend and takes long with the reference: that both agree is tested elsewhere.
fastest_backend = pytest.mark.parametrize(
    "backend", ["numba", slow("reference"), pytest.param("cupy", marks=pytest.mark.gpu)], indirect=True
)
