"""Data sets by name or by path."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from os import PathLike

from .._utils.checks import check_count, check_path, check_seed, shown
from .._utils.files import naming
from .._utils.points import read_points
from .data_set import DataSet
from .familiar import digits, mnist, patches
from .image_files import reader_of
from .image_sets import has_test_part, image_set, images
from .toy import exponential, four_clusters, gaussian, moons, rings, simplex, two_points

_SETS: dict[str, Callable[..., DataSet]] = {
    make.__name__: make
    for make in (digits, exponential, four_clusters, gaussian, mnist, moons, patches, rings, simplex, two_points)
}


def find(source: str | PathLike[str], *, seed: int = 0) -> DataSet:
    """A set of this package, by its name and with its default arguments, or the points or images of a file.

    Parameters
    ----------
    source : str or path-like
        "two_points", "four_clusters", "digits" and so on, or a file or folder as for `load`.
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
    if isinstance(source, str) and source in _SETS:
        make = _SETS[source]
        return make(seed=seed) if "seed" in inspect.signature(make).parameters else make()
    if not path.suffix and not path.exists():
        raise ValueError(
            f"source must name a data set, got {shown(source)}: give a .npy, .npz or .csv file, images, "
            f"or one of {', '.join(_SETS)}"
        )
    return load(source)


def held_out(source: str | PathLike[str], *, size: int | None = None) -> DataSet | None:
    """The test images beside the training images that `find` reads; None if the source has no test part.

    Parameters
    ----------
    source : str or path-like
        As for `find`.
    size : int, optional
        Height and width to which every image is made smaller, see `resized`.

    Raises
    ------
    ValueError, OSError
        If the test part cannot be read.

    Examples
    --------
    >>> held_out("digits") is None
    True
    """
    path, size = check_path(source, "source"), None if size is None else check_count(size, "size")
    if (isinstance(source, str) and source in _SETS) or not has_test_part(path):
        return None
    return images(path, part="test", size=size)


def load(path: str | PathLike[str]) -> DataSet:
    """Points from a file: a .npy array, a .npz with `x`, or a .csv without a header, with a point per row; or images.

    Parameters
    ----------
    path : path-like
        The file. A one-dimensional array or a single column gives one feature. A .npz file may contain `weights` and
        `labels` in addition to `x`, as files of saved solutions do, or a single array of any name. If x has three or
        four axes it holds images. These, and every other file or folder, are read as by `images`.

    Raises
    ------
    ValueError
        If the file contains anything other than a finite table of numbers or images, or has another suffix.
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
    if reader_of(path) is not None:
        return images(path)
    fields = read_points(path)
    x = fields.pop("x")
    if path.suffix == ".npz" and x.ndim in (3, 4):
        return image_set(x, path, **fields)
    with naming(str(path)):
        return DataSet(x[:, None] if x.ndim == 1 else x, path.stem, **fields)
