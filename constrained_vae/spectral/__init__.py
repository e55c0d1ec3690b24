"""Spectral clustering beside the solutions, from the first split on (T18), (T19); `__init__.pyi` lists the names.

Examples
--------
>>> from constrained_vae import solve
>>> from constrained_vae.spectral import eigengap, spectrum, walk
>>> s = solve([[-2.0], [-1.0], [3.0]], beta=0.5, n_tiles=4)
>>> eigengap(spectrum(s)), walk(s).shape
(2, (3, 3))
"""

from .._utils.lazy import attach as _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)
