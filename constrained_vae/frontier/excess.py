"""Excess: the distance of a model from the frontier, between bounds (T22)."""

from __future__ import annotations

from dataclasses import dataclass

from .._utils import tables


@dataclass(frozen=True, repr=False)
class Excess:
    """Bounds of the distance of a model from the frontier, in nats of the rate.

    Attributes
    ----------
    least, most : float
        Lower and upper bound, in nats.
    rigorous : bool
        Whether both are proven. Otherwise `most` is heuristic: it is too small if the search for the supremum of c
        (T14) missed the highest maximum.
    confidence : float
        1 for the frontier of given rows; that of each bound by itself for the frontier of their source (T24).

    Examples
    --------
    >>> Excess(least=0.1, most=0.2, rigorous=False)
    Excess(least=0.1, most=0.2 nats, heuristic)
    """

    least: float
    most: float
    rigorous: bool = False
    confidence: float = 1.0

    def __repr__(self) -> str:
        how = "rigorous" if self.rigorous else "heuristic"
        each = f", each at {100 * self.confidence:g} %" if self.confidence < 1 else ""
        return f"Excess(least={self.least:.6g}, most={self.most:.6g} nats{each}, {how})"

    def _repr_html_(self) -> str:
        facts = [("at least", f"{self.least:.6g} nats"), ("at most", f"{self.most:.6g} nats")]
        facts.append(("bounds", "rigorous" if self.rigorous else "heuristic"))
        if self.confidence < 1:
            facts.append(("confidence of each", f"{100 * self.confidence:g} %"))
        return tables.as_html("Distance from the frontier", {}, facts)
