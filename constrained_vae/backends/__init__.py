"""Backends: the pass over the data that takes nearly all of the computing time, implemented once per kind of machine.

A backend is a module of this package with the function

    expectations(statistics, offset, weights, v, b, log_masses, quadratic=None) -> Expectations

Its arguments define the energies in the linear form (T4), H_ia = s_i - b_a - phi_i . v_a:

    statistics (N, S), offset (N,), weights (N,)   phi, s and rho of the data points
    v (K, S), b (K,), log_masses (K,)              readout of the reconstructions; logarithms of the prior masses
    quadratic (float or None)                      the multiplier lambda if the energy is a squared distance

If `quadratic` is given, s_i = lambda ||phi_i||^2 and b_a = -||v_a||^2 / (4 lambda). Then the function may compute the
same energies as H_ia = lambda ||phi_i - v_a / (2 lambda)||^2, which is more accurate. The result has the sums over all
rows that `constrained_vae.equations.Expectations` documents. The function must

- pass over the rows in blocks, so that no (N, K) array is stored;
- return the same bits in every run;
- accept a log mass of minus infinity: such a tile gets posterior mass zero.

A backend has four more functions for the coverage (T14), whose arrays are on the host:

    coverage(statistics, offset, log_shares, v, b, quadratic=None, with_means=True) -> log c (n,), means (n, S) or None
    proof_rows(statistics, log_shares, lam) -> ProofRows
    expansions(rows, points, half) -> Expansions
    polynomials(rows, points, half, degree) -> Polynomials

`coverage` is the E-step with the roles of data and reconstructions exchanged: log c is the log-sum-exp over the data of
log_shares_i - H_i, with the energies of n points that v (n, S) and b (n,) define, and the means are those of the
statistics under the terms of the sum. Where `equations.is_steep`, energies must be computed from differences. Besides
the rounding of energies and log shares, log c must be good to (512 + N / 64) eps, and to 8 eps of its own size.
`proof_rows` prepares rows of an energy lambda ||x - y||^2 once for all boxes of a proof, in up to three dimensions; the
reference, in any number.
`expansions` describes log c in boxes with centres `points` (n, D) and half sides `half` (D,), and `polynomials` gives c
as a polynomial there, in up to two dimensions. The results are documented in `constrained_vae.backends.expansions`.

A backend may have ten more functions:

    to_device(array) -> array           moves an array to the device; without it the backend computes on the host
    free_memory() -> int                free bytes on the device; data are streamed in row blocks if they need more
    order(phi) -> indices or None       the order of the rows that the kernel prefers; called once for data in memory,
                                        and by searches that need an order of their own
    keep(phi) -> object or None         what one map hands on to the next, for data in memory: the argument `kept` of
                                        `expectations`; a result must not depend on what it has been through
    are_quick(N, K, S) -> bool          whether a map is so small that the function `steps` saves time
    steps(data, lam, ...) -> Steps      several accelerated steps in one call, see `constrained_vae.backends.descent`
    are_few(N, K, S) -> bool            whether a map is so small that the function `deviation_moments` saves time
    deviation_moments(phi, ...)         covariances of tiles, see `constrained_vae.backends.moments`
    log_sums(phi, log_shares, ...)      log c of rows and points that are both in an order as of `order`
    overlaps(phi, ...)                  sums of products of affinities, see `constrained_vae.backends.overlaps`

Results lie on the device, like the arrays that `to_device` returns. Such arrays have a method `get`, which returns a
copy on the host, and `array_api_compat.array_namespace` finds their namespace, which has the functions of NumPy.

Examples
--------
>>> from constrained_vae import backends
>>> backends.get_backend("reference").expectations.__name__
'expectations'
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from types import ModuleType

from .._utils.checks import check_choice
from .._utils.interrupts import deferred_interrupts

NAMES = ("reference", "numba", "cupy")


class BackendNotAvailableError(ImportError):
    """The library or the device of the requested backend is missing or switched off.

    Examples
    --------
    >>> issubclass(BackendNotAvailableError, ImportError)
    True
    """


def get_backend(name: str = "auto") -> ModuleType:
    """Import and return a backend.

    "auto" means "numba". The CuPy backend is used only if it is named, because its kernels have not been run on a GPU.

    Parameters
    ----------
    name : {"auto", "reference", "numba", "cupy"}
        Name of the backend.

    Returns
    -------
    module
        The backend.

    Raises
    ------
    ValueError
        If there is no backend of that name.
    BackendNotAvailableError
        If CuPy is not installed or finds no GPU, or Numba is told not to compile.

    Examples
    --------
    >>> get_backend("reference").__name__
    'constrained_vae.backends.reference'
    """
    name = check_choice(name, "backend", ("auto", *NAMES))
    if name == "auto":
        name = "numba"
    known = f"{__name__}.{name}" in sys.modules
    # A library whose import was cut short cannot be imported again.
    with contextlib.nullcontext() if known else deferred_interrupts():
        trouble = _TROUBLES[name]() if name in _TROUBLES else None
        if trouble is not None:
            raise BackendNotAvailableError(trouble)
        return importlib.import_module(f".{name}", __name__)


def compiled() -> ModuleType:
    """The numba backend, or the reference where it cannot run.

    Returns
    -------
    module
        One of ``constrained_vae.backends``.

    Examples
    --------
    >>> compiled() in (get_backend("numba"), get_backend("reference"))
    True
    """
    try:
        return get_backend("numba")
    except BackendNotAvailableError:
        return get_backend("reference")


def _numba_trouble() -> str | None:
    """The reason why the Numba backend cannot run, as a sentence; None if it can."""
    import numba

    if numba.config.DISABLE_JIT:
        return "Numba compiles nothing where NUMBA_DISABLE_JIT=1 is set: unset it, or choose backend='reference'"
    return None


def _cupy_trouble() -> str | None:
    """The reason why the CuPy backend cannot run on this machine, as a sentence; None if it can."""
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


_TROUBLES = {"numba": _numba_trouble, "cupy": _cupy_trouble}
