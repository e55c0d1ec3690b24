"""Bounds of the global optimum, by the supremum of the coverage (T14)."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike

from .._utils.arrays import FloatArray
from ..results.fixed_point import FixedPoint
from . import proof_files, reconstructions


@dataclass(frozen=True, eq=False)
class Certificate:
    """Bounds of the global optimum F* over all decoders and all prior masses, lower <= F* <= upper (T14).

    Attributes
    ----------
    upper : float
        F of the solution, in nats; good to `rounding`.
    lower : float
        F - log sup c - `rounding`, in nats.
    where : (D,) array
        Point at which c is largest, in units of x: the best place for one more reconstruction.
    rigorous : bool
        Whether lower <= F* <= upper + rounding is proven, with an error term for the rounding of float64 (`save` proves
        it in ball arithmetic). The proof is by branch and bound, for data that lie in a space of at most three
        dimensions and at most 32 points in one of six, if it does not need too many boxes. Otherwise the supremum of c
        is heuristic: the largest of the maxima that are found by ascent from data points, reconstructions, and means
        of groups of both.
    rounding : float
        Rounding error of F and of log sup c, in nats.
    solution : FixedPoint, optional
        The solution, if the certificate is of `certify`.

    Examples
    --------
    >>> import numpy as np
    >>> Certificate(upper=1.5, lower=1.25, where=np.zeros(1), rigorous=True)
    Certificate(F=1.5, gap=2.50e-01 nats, rigorous)
    """

    upper: float
    lower: float
    where: FloatArray
    rigorous: bool
    rounding: float = 0.0
    solution: FixedPoint | None = field(default=None, repr=False)

    @property
    def gap(self) -> float:
        """Difference of the bounds, in nats."""
        return self.upper - self.lower

    def save(self, path: str | PathLike[str], *, accuracy: float = 1e-6) -> None:
        """Write a proof of the bounds as JSON, which `constrained-vae verify` and the lone file `verify.py` check.

        The file has the hash of the data, the weights, the multiplier, the code, and boxes that cover the data, each
        with a bound of log c. Its bounds are proven anew from the decoder and the masses of the solution, with their
        rounding, whether the certificate is rigorous or not.

        Parameters
        ----------
        path : path
            File to write.
        accuracy : float
            How much larger than the gap of the certificate the gap of the proof may be, in nats.

        Raises
        ------
        ValueError
            If the certificate is not one of `certify`, the energy is not a squared error, there are more than three
            dimensions, or the boxes are too many.
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> from constrained_vae import certify, solve
        >>> certify(solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)).save("proof.json")  # doctest: +SKIP
        """
        if self.solution is None:
            raise ValueError("only a certificate of certify(solution) knows its solution: save that one")
        proof_files.save(self.solution, self.gap, path, accuracy)

    def reconstructions(self) -> tuple[int, int]:
        """Bounds of the number of reconstructions of the optimum of data in one dimension, both proven.

        At most so many, because c of the optimum, within a proven distance of c of the solution, can be 1 in some
        intervals only, and so often in each. At least so many, because codes without reconstructions in an interval are
        worse than the solution. The smaller the gap of the solution is, the closer are the bounds; near a transition
        they differ. The error terms of float64 are included.

        Returns
        -------
        tuple of int
            The lower and the upper bound.

        Raises
        ------
        ValueError
            If the certificate is not one of `certify`, or the data have more dimensions, or another energy than a
            squared error.

        Examples
        --------
        >>> from constrained_vae import certify, global_solution
        >>> certify(global_solution([[-1.0], [1.0]], beta=0.9)).reconstructions()  # they split at beta = 1
        (2, 2)
        """
        if self.solution is None:
            raise ValueError("only a certificate of certify(solution) knows its solution: ask that one")
        return reconstructions.of_solution(self.solution)

    def __repr__(self) -> str:
        how = "rigorous" if self.rigorous else "heuristic supremum"
        return f"Certificate(F={self.upper:.9g}, gap={self.gap:.2e} nats, {how})"
