"""Data sets by name or by path."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from .._utils.checks import check_count, check_path, check_seed, check_shape, shown
from .._utils.columns import Table
from .._utils.files import naming
from .._utils.points import KINDS, SUFFIXES, read_points, read_table, suffix_of
from .data_set import DataSet
from .familiar import digits, mnist, patches
from .image_files import reader_of
from .image_sets import has_test_part, image_set, images
from .tables import Choice, chosen, rechosen
from .toy import exponential, four_clusters, gaussian, moons, rings, simplex, two_points

_SETS: dict[str, Callable[..., DataSet]] = {
    make.__name__: make
    for make in (digits, exponential, four_clusters, gaussian, mnist, moons, patches, rings, simplex, two_points)
}


def find(
    source: str | PathLike[str],
    *,
    seed: int = 0,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    labels: str | None = None,
    standardize: bool = False,
    missing: str = "error",
) -> DataSet:
    """A set of this package, by its name and with its default arguments, or the points or images of a file.

    Parameters
    ----------
    source : str or path-like
        "two_points", "four_clusters", "digits" and so on, or a file or folder as for `load`.
    seed : int
        Seed of the set; ignored by sets without a seed.
    columns, drop, labels, standardize, missing
        As for `load`.

    Returns
    -------
    DataSet
        Points ``x`` (N, D), with labels where the source has them.

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
    choice = Choice(columns, drop, labels, standardize, missing)
    if isinstance(source, str) and source in _SETS:
        make = _SETS[source]
        made = make(seed=seed) if "seed" in inspect.signature(make).parameters else make()
        return made if choice.trivial else rechosen(made, choice)
    if not path.suffix and not path.exists():
        raise ValueError(
            f"source must name a data set, got {shown(source)}: give {KINDS}, images, or one of {', '.join(_SETS)}"
        )
    return _load(path, choice)


def held_out(source: str | PathLike[str], *, size: int | None = None) -> DataSet | None:
    """The test images beside the training images that `find` reads; None if the source has no test part.

    Parameters
    ----------
    source : str or path-like
        As for `find`.
    size : int, optional
        Height and width to which every image is made smaller, see `resized`.

    Returns
    -------
    DataSet or None
        Test images as points ``x`` (n, D).

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


def load(
    path: str | PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    labels: str | None = None,
    standardize: bool = False,
    missing: str = "error",
) -> DataSet:
    r"""Points from a file, with a point per row: a table of text, .parquet or .xlsx, an array .npy or .npz; or images.

    Parameters
    ----------
    path : path-like
        The file. Text (.csv, .tsv, .txt, also packed with gzip as .csv.gz): cells are separated by commas, semicolons,
        tabs, bars or spaces, may be in quotes, and the first row may be a header; what separates, and whether there is
        a header, is found from the rows. A first column without a name is an index and left out. NA, NaN, null, ? and
        empty cells are missing. Where semicolons separate, 1,5 is a number. The files .parquet and .xlsx (its first
        sheet) need the extra `tables`. A .npz file has its points as `x`, `X` or `data`, and may contain `weights` and
        `labels` (also as `y` or `target`) in addition, as files of saved solutions do, or a single array of any name. A
        one-dimensional array or a single column gives one feature. If an array has three or four axes it holds images.
        These, and every other file or folder, are read as by `images`.
    columns : sequence of str, optional
        The columns that are features, by their names, or by their numbers counted from 1; by default all but `drop`
        and `labels`.
    drop : sequence of str
        Columns that are left out.
    labels : str, optional
        The column that has the classes, as whole numbers or as texts.
    standardize : bool
        Whether features get mean 0 and standard deviation 1; see `from_table`.
    missing : {"error", "drop"}
        What happens if a cell of these columns is missing: ValueError, or the row is left out.

    Returns
    -------
    DataSet
        Points ``x`` (N, D), with labels and names of columns where the file has them.

    Raises
    ------
    ValueError
        If the file contains anything other than a table of finite numbers or images, or has another suffix. The message
        names the row, counted from 1 like a spreadsheet, and the column.
    OSError
        If the file cannot be read.
    ImportError
        If a file needs a package that is not installed.

    Warns
    -----
    UserWarning
        If a feature counts the rows (n, n + 1, n + 2, ...), which an index does and a feature rarely.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "x.csv").write_text("width;height;kind\n0,5;1,5;a\n;2;b\n")
    ...     load(Path(folder, "x.csv"), labels="kind", missing="drop")
    DataSet('x', N=1, D=2, columns: width, height)
    """
    return _load(check_path(path), Choice(columns, drop, labels, standardize, missing))


def _load(path: Path, choice: Choice) -> DataSet:
    if reader_of(path) is not None:
        return _rechosen(images(path), path, choice)
    suffix = suffix_of(path)
    if suffix in SUFFIXES and suffix not in (".npy", ".npz"):
        table, fields = read_table(path), {}
    else:
        fields = read_points(path, missing=True)
        x = fields.pop("x")
        if x.ndim in (3, 4):
            return _rechosen(image_set(x, path, **fields), path, choice)
        table = _table_of(x, path)
    with naming(str(path)):
        return chosen(table, choice, path.name.removesuffix(suffix), **fields)


def _rechosen(data: DataSet, path: Path, choice: Choice) -> DataSet:
    with naming(str(path)):
        return data if choice.trivial else rechosen(data, choice)


def _table_of(x: Any, path: Path) -> Table:
    """The table of an array (N,) or (N, D) of a file."""
    with naming(str(path)):
        x = check_shape(x[:, None] if x.ndim == 1 else x, "x")
    return Table(list(x.T.astype(np.float64)), rows=np.arange(1, len(x) + 1))
