"""History: the numbers measured at every step of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._utils.arrays import FloatArray, PickledByFields
from .._utils.checks import check_choice, check_positive
from ..objectives.constraints import RE, Constraint


def column_name(kind: str, name: str) -> str:
    """Name of the column that holds one kind of number of one constraint, such as "multiplier RE"."""
    return f"{kind} {name}"


def columns_of(kind: str, columns: Sequence[str]) -> dict[str, str]:
    """The columns that hold one kind of number, by the names of their constraints: the inverse of `column_name`."""
    start = column_name(kind, "")
    return {column.removeprefix(start): column for column in columns if column.startswith(start)}


@dataclass(frozen=True, eq=False, repr=False)
class History(PickledByFields):
    """Batch means at every step, measured before the network changes; in nats, units of x and of the constraints.

    Attributes
    ----------
    columns : tuple of str
        Names of the columns of the table.
    table : (T, n) array
        A row per step, or per k-th step.
    dim : int
        Dimension of the data.
    sigma : float
        Standard deviation of the Gaussian decoder, from which likelihoods and equivalent beta are computed.
    scales : dict of float
        For every constraint on the squared error, by name: total squared error per unit of the constraint.
    steps : (T,) array
        The step of every row, from 0.

    Examples
    --------
    >>> from constrained_vae import RE, geco
    >>> run = geco.train([[-2.0], [2.0]], RE(1.0), latent_dim=1, hidden=(), steps=40)
    >>> len(run.history), run.history.table.shape[0]
    (40, 40)
    """

    columns: tuple[str, ...]
    table: FloatArray
    dim: int
    sigma: float
    scales: dict[str, float]
    steps: npt.NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, part: slice) -> History:
        return History(self.columns, self.table[part], self.dim, self.sigma, self.scales, self.steps[part])

    def __repr__(self) -> str:
        return f"History({len(self)} steps of {', '.join(self.columns)})"

    @property
    def last(self) -> int:
        """The step of the last row."""
        return int(self.steps[-1])

    def tail(self, share: float = 0.1) -> History:
        """The last rows of the history, by default the last tenth."""
        return self[len(self) - max(1, round(min(check_positive(share, "share"), 1.0) * len(self))) :]

    def column(self, name: str) -> FloatArray:
        """A column (T,) by its name; raises ValueError if there is none of that name.

        Raises
        ------
        ValueError
            If there is no such column.
        """
        check_choice(name, "name", self.columns)
        return self.table[:, self.columns.index(name)]

    @property
    def kl(self) -> FloatArray:
        """KL(q(z | x) || prior), (T,)."""
        return self.column("kl")

    @property
    def kl_of_steps(self) -> FloatArray:
        """The parts of the KL by the steps of a model that has several, (T, steps); (T, 0) for other models."""
        return np.stack([*self._each("kl").values()], axis=1) if self._each("kl") else self.table[:, :0]

    @property
    def distortion(self) -> FloatArray:
        """Total squared error ||x - g(z)||^2 with sampled z, (T,)."""
        return self.column("distortion")

    @property
    def per_dimension(self) -> FloatArray:
        """Squared error per dimension (T,); the paper's kappas for images are thresholds of its root."""
        return self.distortion / self.dim

    @property
    def nll(self) -> FloatArray:
        """Negative log-likelihood -log p(x | z), (T,), in nats."""
        return self.column("nll")

    @property
    def learning_rate(self) -> FloatArray:
        """Learning rate of Adam (T,)."""
        return self.column("learning_rate")

    @property
    def multipliers(self) -> dict[str, FloatArray]:
        """The multiplier lambda (T,) by constraint; "ELBO" for the multiplier of the likelihood."""
        return self._each("multiplier")

    @property
    def averages(self) -> dict[str, FloatArray]:
        """The moving average C_ma (T,) by constraint with a learned multiplier; NaN before the end of the burn-in."""
        return self._each("average")

    @property
    def values(self) -> dict[str, FloatArray]:
        """The batch mean of C (T,) by constraint."""
        return self._each("batch")

    @property
    def bounds(self) -> dict[str, FloatArray]:
        """-1 where lambda is at its lower bound, 1 where it is at its upper bound, else 0, (T,), by constraint."""
        return self._each("bound")

    @property
    def step_sizes(self) -> dict[str, FloatArray]:
        """The step size nu of log lambda (T,) by constraint."""
        return self._each("nu")

    @property
    def final_multipliers(self) -> dict[str, float]:
        """Means of the multipliers over the last tenth, by name; NaN before the first step."""
        return {name: _mean(values) for name, values in self.tail().multipliers.items()}

    @property
    def final_multiplier(self) -> float:
        """Mean of lambda of the total squared error over the last tenth; NaN if the loss has no such error."""
        return _mean(1 / (2 * self.sigma**2 * self.tail().equivalent_beta))

    @property
    def equivalent_beta(self) -> FloatArray:
        """Temperature (T,) of the beta-VAE with the same weight of the squared error, 1 / (2 sigma^2 lambda).

        For an RE of the mean over D dimensions lambda is divided by D. For an ELBO it is the beta of the step. It is
        NaN if no constraint is on the squared error.
        """
        if "beta" in self.columns:
            return self.column("beta")
        if not self.scales:
            return np.full(len(self), np.nan)
        total = sum(self.multipliers[name] / scale for name, scale in self.scales.items())
        return np.asarray(1 / (2 * self.sigma**2 * total))

    def _each(self, kind: str) -> dict[str, FloatArray]:
        return {name: self.column(column) for name, column in columns_of(kind, self.columns).items()}


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def make_history(
    columns: tuple[str, ...],
    rows: Sequence[Sequence[float]],
    *,
    dim: int,
    sigma: float,
    constraints: tuple[Constraint, ...],
    every: int = 1,
) -> History:
    """The history of a training run from its rows, one for every so many steps, of numbers in the columns' order."""
    scales = {c.name: dim if c.reduction == "mean" else 1.0 for c in constraints if isinstance(c, RE)}
    table = np.array(rows, dtype=np.float64).reshape(len(rows), len(columns))
    steps = every * np.arange(len(rows))
    for array in (table, steps):
        array.setflags(write=False)
    return History(columns, table, dim, sigma, scales, steps)
