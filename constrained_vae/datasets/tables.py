"""Data sets from tables: which columns are features, which one has the classes, and what becomes of missing cells."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._utils.checks import check_choice, check_flag, check_text, shown
from .._utils.columns import Table, counts_rows, lacking_rows
from .._utils.frames import table_of
from .data_set import DataSet


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is taken from a table: the options of `from_table`, of which `load` and the command line have the same."""

    columns: Sequence[Any] | str | None = None
    drop: Sequence[Any] | str = ()
    labels: Any = None
    standardize: bool = False
    missing: str = "error"

    def __post_init__(self) -> None:
        check_choice(self.missing, "missing", ("error", "drop"))
        check_flag(self.standardize, "standardize")

    @property
    def trivial(self) -> bool:
        """Whether everything is taken as it is."""
        return self == Choice()


def from_table(
    frame: Any,
    *,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    labels: str | None = None,
    standardize: bool = False,
    missing: str = "error",
    name: str = "table",
) -> DataSet:
    """The data set of a data frame: a point per row, a feature per column, under the names of the columns.

    Parameters
    ----------
    frame : data frame, mapping or (N, D) array
        A data frame of pandas or polars, a table of PyArrow or of another library with `__dataframe__`, a mapping from
        names to columns, or an array. Truth values become 0 and 1. The index of a data frame is no feature.
    columns : sequence of str, optional
        The columns that are features, in this order, by their names, or by their numbers counted from 1; by default
        all but `drop` and `labels`.
    drop : sequence of str
        Columns that are left out.
    labels : str, optional
        The column that has the classes, as whole numbers or as texts; it is no feature.
    standardize : bool
        Whether every feature is divided by its standard deviation, after its mean is subtracted; `DataSet.original`
        leads back. Do so where features have different units, since squared distances add them up.
    missing : {"error", "drop"}
        What happens if a cell of these columns is missing: ValueError, or the row is left out.
    name : str
        Name of the set.

    Returns
    -------
    DataSet
        The data set.

    Raises
    ------
    ValueError
        If there is no such column, or a cell is missing or no finite number; the message names the column and the row.

    Warns
    -----
    UserWarning
        If a feature counts the rows (n, n + 1, n + 2, ...), which an index does and a feature rarely.

    Examples
    --------
    >>> frame = {"width": [1.0, 2.0, None], "height": [5, 6, 7], "kind": ["a", "b", "a"]}
    >>> data = from_table(frame, labels="kind", missing="drop")
    >>> data.columns, data.x.tolist(), data.labels.tolist(), data.classes
    (('width', 'height'), [[1.0, 5.0], [2.0, 6.0]], [0, 1], ('a', 'b'))
    """
    choice = Choice(columns, drop, labels, standardize, missing)
    return chosen(table_of(frame), choice, check_text(name, "name"))


def chosen(table: Table, choice: Choice, name: str, **fields: Any) -> DataSet:
    """The data set of the chosen columns of a table; `fields` has weights and labels that belong to all its rows."""
    label = None if choice.labels is None else table.find(choice.labels, "labels")
    dropped = {table.find(wanted, "drop") for wanted in _listed(choice.drop, "drop")} - {label}
    if choice.columns is None:
        used = [j for j in range(len(table.columns)) if j not in (label, table.index) and j not in dropped]
    else:
        used = [table.find(wanted, "columns") for wanted in _listed(choice.columns, "columns")]
        used = [j for j in dict.fromkeys(used) if j not in dropped and j != label]
    if not used:
        raise ValueError("columns must leave at least one feature, got none: all are left out, or hold the labels")
    everything = used if label is None else [*used, label]
    lacking = lacking_rows(table, everything, choice.missing)
    whole = table
    if lacking.any():
        whole, kept = table.left_out(lacking), ~lacking
        rowwise = {name: fields[name] for name in ("weights", "labels") if fields.get(name) is not None}
        fields |= {name: np.asarray(values)[kept] for name, values in rowwise.items()}
        if fields.get("weights") is not None and fields["weights"].any():
            fields["weights"] = fields["weights"] / fields["weights"].sum()
    x = np.stack([whole.numbers(j) for j in used], axis=1)
    _warn_of_counts(whole, used)
    names = None if whole.names is None else tuple(whole.names[j] for j in used)
    if label is not None:
        fields["labels"], fields["classes"] = whole.classes(label)
    data = DataSet(x, name, columns=names, **fields)
    return standardized(data) if choice.standardize else data


def rechosen(data: DataSet, choice: Choice) -> DataSet:
    """The same choice from a data set, whose columns may have no names."""
    fields: dict[str, Any] = {"weights": data.weights, "labels": data.labels}
    table = Table(list(data.x.T), data.columns)
    found = chosen(table, dataclasses.replace(choice, standardize=False), data.name, **fields)
    kept: dict[str, Any] = {"classes": data.classes} if choice.labels is None else {}
    if found.x.shape[1] == data.x.shape[1]:
        kept["image_shape"] = data.image_shape
    found = dataclasses.replace(found, **kept)
    return standardized(found) if choice.standardize else found


def standardized(data: DataSet) -> DataSet:
    """The data with mean 0 and standard deviation 1 in every column; a column that is constant becomes 0.

    Examples
    --------
    >>> data = standardized(DataSet([[0.0, 7.0], [4.0, 7.0]], "mine"))
    >>> data.x.tolist(), data.original([[1.0, 0.0]]).tolist()
    ([[-1.0, 0.0], [1.0, 0.0]], [[4.0, 7.0]])
    """
    rho = np.full(len(data), 1 / len(data)) if data.weights is None else data.weights
    centre = data.x[0] + rho @ (data.x - data.x[0])
    deviation = data.x - centre
    largest = np.abs(deviation).max(axis=0)
    constant = largest <= 8 * np.finfo(np.float64).eps * np.abs(centre)  # up to the rounding of the mean
    unit = np.where(constant, 1.0, largest)
    scale = np.where(constant, 1.0, unit * np.sqrt(rho @ np.square(deviation / unit)))
    x = np.where(constant, 0.0, deviation / scale)
    if data.centre is not None and data.scale is not None:  # it is standardised already
        centre, scale = data.centre + data.scale * centre, data.scale * scale
    return dataclasses.replace(data, x=x, centre=centre, scale=scale, critical_beta=None)


def _listed(wanted: Any, name: str) -> list[Any]:
    """Names or numbers of columns; a single name is a list of one."""
    if isinstance(wanted, (str, int, np.integer)):
        return [wanted]
    try:
        return list(wanted)
    except TypeError:
        raise ValueError(f"{name} must be names of columns, got {shown(wanted)}") from None


def _warn_of_counts(table: Table, used: Sequence[int]) -> None:
    """Warn of features that count the rows, unless one is all there is."""
    if len(used) < 2:
        return
    for column in used:
        if counts_rows(table.columns[column]):
            first = table.columns[column][0]
            name = table.called(column).removeprefix("column ")
            warnings.warn(
                f"{table.called(column)} counts the rows ({first:g}, {first + 1:g}, {first + 2:g}, ...): if it is an "
                f"index, leave it out with drop=[{name}] (in a shell --drop)",
                stacklevel=3,
            )
