"""Whether there is a GPU."""

import functools

from constrained_vae.backends import BackendNotAvailableError, get_backend


@functools.cache
def gpu_trouble():
    """Why the CuPy backend cannot run here; None where it can."""
    try:
        get_backend("cupy")
    except BackendNotAvailableError as error:
        return str(error)
    return None
