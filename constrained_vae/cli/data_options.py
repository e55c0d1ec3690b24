"""The options that say what is taken from a table, for the command line and the figures.

This module imports nothing heavy, so that `--help` is fast.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..datasets import DataSet

DATA = (
    "a data set by name (four_clusters, digits, ...), a table with a point per row (.csv, .tsv, .txt, also .gz, "
    ".parquet, .xlsx), a .npy or .npz file, a folder of Parquet files or of a Zarr array, which is read in blocks, or "
    "images: a .npz file, an IDX file, a folder of pictures or of CIFAR-10"
)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that reads data."""
    group = parser.add_argument_group("tables")
    group.add_argument("--columns", metavar="NAME,...", help="the features, by name or number from 1 (all)")
    group.add_argument("--drop", metavar="NAME,...", help="columns that are left out")
    group.add_argument("--labels", metavar="NAME", help="the column of the classes, which is no feature")
    group.add_argument("--standardize", action="store_true", help="features of mean 0 and standard deviation 1")
    group.add_argument("--missing", choices=("error", "drop"), default="error", help="rows with missing cells (error)")


def choice_of(args: argparse.Namespace) -> Mapping[str, Any]:
    """The options as keyword arguments of `datasets.find`."""
    return {
        "columns": _names(args.columns, "--columns"),
        "drop": _names(args.drop, "--drop") or (),
        "labels": args.labels,
        "standardize": args.standardize,
        "missing": args.missing,
    }


def data_of(args: argparse.Namespace, source: str | None = None) -> DataSet:
    """The data set of the options `--data`, `--seed` and those of this module; or of another source with these."""
    from . import folders

    given = args.data if source is None else source
    kind = folders.kind_of(Path(given))
    if kind is not None:
        return folders.read(Path(given), kind, choice_of(args))  # type: ignore[return-value]
    from ..datasets import find

    return find(args.data if source is None else source, seed=args.seed, **choice_of(args))


def _names(text: str | None, option: str) -> list[str] | None:
    """Names separated by commas; one with a comma in it stands in quotes."""
    if text is None:
        return None
    try:
        (names,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (ValueError, csv.Error):
        raise ValueError(f"{option} wants names of columns separated by commas, got {text[:80]!r}") from None
    return [name.strip() for name in names]
