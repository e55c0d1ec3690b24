"""Branch: the solutions along a sweep of the temperature, and quantities derived from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from .._utils import tables
from .._utils.arrays import FloatArray
from .._utils.checks import check_choice, check_count, check_flag, check_positive
from .._utils.files import naming
from .._utils.pictures import picture
from ..objectives.base import Objective
from ..results import storage
from ..results.fixed_point import FixedPoint
from .peaks import Peak, find_kinks


@dataclass(frozen=True, eq=False, repr=False)
class Branch:
    """Solutions along a sweep of the temperature, in the order in which they were solved.

    Attributes
    ----------
    solutions : tuple of FixedPoint
        One solution per temperature.
    direction : {"down", "up"}
        "down" for cooling (annealing), "up" for heating.
    restarts : int
        Option of the sweep. With 0 the branch is that of the protocol (T13), else a sequence of solutions of low free
        energy, which need not be connected.
    complete : bool
        False if Ctrl-C, a callback or a limit ended the sweep before its last temperature.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> branch = cv.sweep([[-1.0], [1.0]], betas=[2.0, 0.5], n_tiles=2)
    >>> branch.n_distinct, branch.at(0.5).beta
    (array([1, 2]), 0.5)
    """

    solutions: tuple[FixedPoint, ...]
    direction: str
    restarts: int = 0
    complete: bool = True

    def __len__(self) -> int:
        return len(self.solutions)

    @overload
    def __getitem__(self, index: int) -> FixedPoint: ...
    @overload
    def __getitem__(self, index: slice) -> Branch: ...
    def __getitem__(self, index: int | slice) -> FixedPoint | Branch:
        if isinstance(index, slice):
            return replace(self, solutions=self.solutions[index])
        return self.solutions[index]

    def __iter__(self) -> Iterator[FixedPoint]:
        return iter(self.solutions)

    def __repr__(self) -> str:
        span = f", beta {self.betas[0]:.4g} to {self.betas[-1]:.4g}" if len(self) else ""
        failed = sum(not s.converged for s in self.solutions)
        searched = f", restarts={self.restarts}" if self.restarts else ""
        ending = f", {failed} not converged" * bool(failed) + ", incomplete" * (not self.complete)
        return f"Branch({len(self)} solutions, direction={self.direction!r}{searched}{span}{ending})"

    def _repr_html_(self) -> str:
        return tables.as_html(repr(self), self._columns)

    @property
    def _columns(self) -> tables.Columns:
        names = ("distortion", "rate", "free_energy", "n_distinct", "split_condition")
        counts = {"n_maps": [s.n_maps for s in self.solutions]}
        endings = {"status": [s.status.name.lower() for s in self.solutions]}
        return {"beta": self.betas, **{name: getattr(self, name) for name in names}, **counts, **endings}

    def to_frame(self) -> Any:
        """A pandas data frame with a row per temperature, in the order of the sweep.

        Its columns are beta, distortion (squared units of x), rate and free_energy (nats), n_distinct, split_condition,
        n_maps and status.

        Raises
        ------
        ImportError
            If pandas, an optional dependency, is not installed.
        """
        return tables.as_frame(self._columns)

    def _array(self, name: str) -> FloatArray:
        return np.array([getattr(s, name) for s in self.solutions], dtype=np.float64)

    @cached_property
    def betas(self) -> FloatArray:
        """Temperatures (n,), in the order of the sweep."""
        return self._array("beta")

    @cached_property
    def distortion(self) -> FloatArray:
        """E||x - psi||^2 (n,), in squared units of x."""
        return self._array("distortion")

    @cached_property
    def rate(self) -> FloatArray:
        """Rate (n,), in nats."""
        return self._array("rate")

    @cached_property
    def free_energy(self) -> FloatArray:
        """Free energy (n,), in nats."""
        return self._array("free_energy")

    @cached_property
    def d_distortion(self) -> FloatArray:
        """dD / d beta (n,), exact along the branch (T11), in squared units of x; one-sided at a split."""
        from .tangent import tangent  # imported only if it is needed

        return np.array([tangent(s).distortion for s in self.solutions])

    @cached_property
    def d2_distortion(self) -> FloatArray:
        """d^2 D / d beta^2 (n,), by differences of `d_distortion`; across a transition it grows as 1 / step (T12).

        Raises
        ------
        ValueError
            If there are fewer than three temperatures.
        """
        if len(self) < 3:
            raise ValueError(f"a second derivative needs at least three temperatures, got {len(self)}: sweep over more")
        return np.gradient(self.d_distortion, self.betas, edge_order=2)

    @cached_property
    def split_condition(self) -> FloatArray:
        """Largest eigenvalue of the split condition (T9) at every temperature, (n,)."""
        return self._array("split_condition")

    @cached_property
    def n_distinct(self) -> npt.NDArray[np.intp]:
        """Number of distinct reconstructions (n,)."""
        return np.array([len(s.distinct) for s in self.solutions], dtype=np.intp)

    @property
    def converged(self) -> bool:
        """Whether every solution converged."""
        return all(s.converged for s in self.solutions)

    def at(self, beta: float) -> FixedPoint:
        """The solution whose temperature is nearest to `beta` on the logarithmic scale.

        Raises
        ------
        ValueError
            If beta is not positive, or is outside the range of the branch.
        """
        beta, betas = check_positive(beta, "beta"), self.betas
        if not len(self):
            raise ValueError("the branch is empty: it was stopped before its first temperature was solved")
        low, high = betas.min(), betas.max()
        if not low * (1 - 1e-9) <= beta <= high * (1 + 1e-9):
            raise ValueError(f"the branch spans beta from {low:.6g} to {high:.6g}, got {beta:.6g}: sweep further")
        return self.solutions[int(np.abs(np.log(betas / beta)).argmin())]

    def peaks(self, k: int | None = 3, variable: str = "beta") -> list[Peak]:
        """Critical temperatures as the paper detects them: the k highest peaks of |d^2 D / d variable^2| (T12).

        Parameters
        ----------
        k : int or None
            Number of peaks, highest first; all if None.
        variable : {"beta", "log_beta"}
            The variable of the derivative.

        Raises
        ------
        ValueError
            If k is no whole number of at least 1, or `variable` is unknown.
        """
        order = np.argsort(self.betas)
        return find_kinks(self.betas[order], self.distortion[order], k=k, variable=variable)

    def plot(self, critical: npt.ArrayLike | None = None, ax: Any = None) -> Any:
        """Draw D and its second derivative in log beta against temperature, with the first critical temperature.

        Parameters
        ----------
        critical : (n,) array_like, optional
            Critical temperatures, such as those of `transitions`; by default the first one, which is exact (T9).
        ax : Axes, optional
            Axes to draw on; new Axes by default.

        Returns
        -------
        Axes
            Those of D; the second derivative has its own axis at the right.
        """
        return picture("phases", self, critical, ax)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the branch, including the data, to a .npz file, which `Branch.load` reads.

        Raises
        ------
        ValueError
            If the branch is empty, or the path cannot be written to.
        """
        if not len(self):
            raise ValueError("an empty branch has nothing to save")
        stacked = {name: np.stack([getattr(s, name) for s in self.solutions]) for name in ("decoder", "marginal")}
        first = self.solutions[0]
        arrays = {**stacked, "x": first.x, "weights": first.weights}
        about = {"direction": self.direction, "restarts": self.restarts, "complete": self.complete}
        storage.save(path, "Branch", [vars(s) for s in self.solutions], arrays, **about)

    @classmethod
    def load(cls, path: str | PathLike[str], objective: Objective | None = None) -> Branch:
        """Read a file written by `save`; `FixedPoint.load` explains `objective`.

        Raises
        ------
        ValueError
            If the file is no branch that `save` wrote, or is damaged.
        """
        solutions, header = storage.load(path, "Branch", FixedPoint, objective, several=True)
        with naming(f"{path} does not hold a saved Branch"):
            direction = check_choice(header.get("direction"), "direction", ("down", "up"))
            restarts = check_count(header.get("restarts", 0), "restarts", 0)
            complete = check_flag(header.get("complete", True), "complete")
            return cls(tuple(solutions), direction, restarts, complete)
