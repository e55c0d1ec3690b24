"""The hot kernel, once per kind of machine.

A backend is a module with one function,

    expectations(statistics, offset, weights, v, b, log_masses, quadratic=None) -> Expectations

with statistics phi (N, S), offset s (N,), weights rho (N,), readout v (K, S), b (K,) and log_masses (K,), all in the
linear form (T4) H_ia = s_i - b_a - phi_i . v_a. Where the energy is a squared distance, `quadratic` is its multiplier
lambda: then s_i = lambda ||phi_i||^2, b_a = -||v_a||^2 / (4 lambda), and a kernel may compute the same H_ia as
lambda ||phi_i - v_a / (2 lambda)||^2. It streams over rows, stores no (N, K) array, and gives the same bits run after
run. Three more are optional:

    to_device(array) -> array                      the array where the backend computes; without it that is the host
    free_memory() -> int                           bytes that are free there; data that need more stream in row blocks
    order(phi) -> indices or None                  once per data set in memory: an order of rows that the kernel prefers

Arrays that went through `to_device`, and results, stay there. Such arrays have a method `get` that brings a copy to the
host, and a namespace that `array_api_compat.array_namespace` finds, with the functions of NumPy.

Examples
--------
>>> from constrained_vae import backends
>>> backends.get_backend("reference").expectations.__name__
'expectations'
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

NAMES = ("reference", "numba", "cupy")


class BackendNotAvailableError(ImportError):
    """A backend was asked for by name whose library or device is missing.

    Examples
    --------
    >>> issubclass(BackendNotAvailableError, ImportError)
    True
    """


def get_backend(name: str = "auto") -> ModuleType:
    """The backend of that name, imported on first use; "auto" is Numba.

    (CuPy must be asked for by name as long as its kernels have not been run on a GPU.)

    Parameters
    ----------
    name : {"auto", "reference", "numba", "cupy"}

    Raises
    ------
    ValueError
        For any other name.
    BackendNotAvailableError
        If CuPy is not installed, or finds no GPU.

    Examples
    --------
    >>> get_backend("reference").__name__
    'constrained_vae.backends.reference'
    """
    if name == "auto":
        name = "numba"
    if name not in NAMES:
        raise ValueError(f"backend must be one of {('auto', *NAMES)}, got {name!r}")
    if name == "cupy" and (trouble := _cupy_trouble()):
        raise BackendNotAvailableError(trouble)
    return importlib.import_module(f".{name}", __name__)


def _cupy_trouble() -> str | None:
    """Why the CuPy backend cannot run here, as a sentence; None where it can."""
    if importlib.util.find_spec("cupy") is None:
        return (
            "CuPy is not installed: pip install 'constrained-vae[gpu-cuda12]' or 'constrained-vae[gpu-cuda13]', "
            "or choose backend='numba'"
        )
    import cupy

    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy finds no usable GPU ({error}): choose backend='numba'"
    return None if count else "CuPy finds no GPU: choose backend='numba'"
