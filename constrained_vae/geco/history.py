"""History: what was measured at every step of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._utils.arrays import FloatArray
from .._utils.checks import check_positive
from ..objectives.constraints import RE, Constraint


def column_name(kind: str, name: str) -> str:
    """Name of the column that holds one kind of number of one constraint, such as "multiplier RE"."""
    return f"{kind} {name}"


def columns_of(kind: str, columns: Sequence[str]) -> dict[str, str]:
    """The columns that hold one kind of number, by the names of their constraints: the inverse of `column_name`."""
    start = column_name(kind, "")
    return {column.removeprefix(start): column for column in columns if column.startswith(start)}


@dataclass(frozen=True, eq=False, repr=False)
class History:
    """Batch means at every step, before the step of the network; nats, and units of x and of the constraints.

    Attributes
    ----------
    columns : tuple of str
        What the columns of the table are.
    table : (T, n) array
    dim : int
        Dimension of the data.
    sigma : float
        Standard deviation of the Gaussian decoder with which likelihoods and equivalent beta are computed.
    scales : dict of float
        By the names of the constraints on the squared error: that error, in total, per unit of the constraint.
    """

    columns: tuple[str, ...]
    table: FloatArray
    dim: int
    sigma: float
    scales: dict[str, float]

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, part: slice) -> History:
        return History(self.columns, self.table[part], self.dim, self.sigma, self.scales)

    def __repr__(self) -> str:
        return f"History({len(self)} steps of {', '.join(self.columns)})"

    def tail(self, share: float = 0.1) -> History:
        """The last steps, a tenth of all by default."""
        return self[len(self) - max(1, round(min(check_positive(share, "share"), 1.0) * len(self))) :]

    def column(self, name: str) -> FloatArray:
        """One column (T,) by its name."""
        return self.table[:, self.columns.index(name)]

    @property
    def kl(self) -> FloatArray:
        """KL(q(z | x) || prior), (T,)."""
        return self.column("kl")

    @property
    def distortion(self) -> FloatArray:
        """||x - g(z)||^2 in total, (T,), z sampled."""
        return self.column("distortion")

    @property
    def per_dimension(self) -> FloatArray:
        """Squared error per dimension (T,); its root is what the paper's kappas for images are compared with."""
        return self.distortion / self.dim

    @property
    def nll(self) -> FloatArray:
        """-log p(x | z), (T,), nats."""
        return self.column("nll")

    @property
    def learning_rate(self) -> FloatArray:
        """Length of the steps of Adam (T,)."""
        return self.column("learning_rate")

    @property
    def multipliers(self) -> dict[str, FloatArray]:
        """lambda (T,) in force, by constraint; "ELBO" for the multiplier of the likelihood."""
        return self._each("multiplier")

    @property
    def averages(self) -> dict[str, FloatArray]:
        """C_ma (T,) by constraint; NaN before the end of the burn-in, and where no multiplier is learned."""
        return self._each("average")

    @property
    def values(self) -> dict[str, FloatArray]:
        """Batch means of C (T,), by constraint."""
        return self._each("batch")

    @property
    def bounds(self) -> dict[str, FloatArray]:
        """-1, 0 or 1 (T,), by constraint: whether lambda is held at its lower or upper bound."""
        return self._each("bound")

    @property
    def step_sizes(self) -> dict[str, FloatArray]:
        """nu (T,) by constraint."""
        return self._each("nu")

    @property
    def equivalent_beta(self) -> FloatArray:
        """beta (T,) of the beta-VAE with the same weight of the squared error, 1 / (2 sigma^2 lambda); NaN without.

        With an RE of the mean over D dimensions its lambda / D counts. Of an ELBO it is the beta in force.
        """
        if "beta" in self.columns:
            return self.column("beta")
        if not self.scales:
            return np.full(len(self), np.nan)
        total = sum(self.multipliers[name] / scale for name, scale in self.scales.items())
        return np.asarray(1 / (2 * self.sigma**2 * total))

    def _each(self, kind: str) -> dict[str, FloatArray]:
        return {name: self.column(column) for name, column in columns_of(kind, self.columns).items()}


def make_history(
    columns: tuple[str, ...],
    rows: Sequence[Sequence[float]],
    *,
    dim: int,
    sigma: float,
    constraints: tuple[Constraint, ...],
) -> History:
    """The history of a training run from its rows, one per step, of numbers in the order of the columns."""
    scales = {c.name: dim if c.reduction == "mean" else 1.0 for c in constraints if isinstance(c, RE)}
    table = np.array(rows, dtype=np.float64).reshape(len(rows), len(columns))
    table.setflags(write=False)
    return History(columns, table, dim, sigma, scales)
