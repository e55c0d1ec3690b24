"""Dendrograms of branches."""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.axes import Axes

from .._utils.checks import (
    check_instance,
)
from ..phases.branch import Branch
from ..phases.lineages import Lineages, lineages
from .axes import critical_lines, temperature_axis
from .style import (
    CURVE,
)

_NAMED_LEAVES = 12  # largest number of leaves of a tree that are labelled with their shares


def merging_tree(tree: Branch | Lineages, critical: Iterable[float] = (), ax: Axes | None = None) -> Axes:
    """Dendrogram of a branch: reconstructions at the lowest temperature, and where they merge on heating.

    A merge is drawn in the middle, on the logarithmic scale, of the grid step in which it happens. The width of a line
    grows with the share of the data that the reconstruction holds. Up to twelve leaves are labelled with their shares.

    Parameters
    ----------
    tree : Branch or Lineages
        Branch, or the result of `lineages` for a branch.
    critical : iterable of float
        Exact critical temperatures, drawn as grey lines.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Returns
    -------
    Axes
        The one that was given, or a new one.

    Raises
    ------
    ValueError
        If the branch is empty.

    Examples
    --------
    >>> from constrained_vae import sweep
    >>> ax = merging_tree(sweep([[-3.0], [3.0]], betas=[12.0, 6.0], n_tiles=2))
    >>> [tick.get_text() for tick in ax.get_yticklabels()]  # shares of the data
    ['50%', '50%']
    """
    tree = lineages(tree) if isinstance(tree, Branch) else tree
    check_instance(tree, "tree", Lineages, "sweep(x)")
    ax = critical_lines(critical, ax)
    order = [leaf for root in tree.roots for leaf in root]
    # For every group of leaves: beta at which its line begins, height of the line, and share of the data.
    nodes: dict[tuple[int, ...], tuple[float, float, float]]
    nodes = {(leaf,): (float(tree.betas[0]), float(i), float(tree.shares[leaf])) for i, leaf in enumerate(order)}

    def line(group: tuple[int, ...], end: float) -> None:
        begin, height, share = nodes[group]
        ax.plot([begin, end], [height, height], color=CURVE, lw=0.5 + 4 * share, solid_capstyle="butt", zorder=2)

    for merge in tree.merges:
        for part in merge.parts:
            line(part, merge.beta)
        heights = [nodes[part][1] for part in merge.parts]
        ax.plot([merge.beta] * 2, [min(heights), max(heights)], color=CURVE, lw=1.0, zorder=2)
        share = sum(nodes[part][2] for part in merge.parts)
        nodes[merge.leaves] = (merge.beta, (min(heights) + max(heights)) / 2, share)
    for root in tree.roots:
        line(root, float(tree.betas[-1]))
    ax.set(ylim=(-0.6, len(order) - 0.4))
    if len(order) <= _NAMED_LEAVES:
        ax.set_yticks(range(len(order)), [f"{tree.shares[leaf]:.0%}" for leaf in order])
        ax.set_ylabel("reconstructions\n(share of the data)")
    else:
        ax.set_yticks([])
        ax.set_ylabel(f"{len(order)} reconstructions")
    return temperature_axis(ax)
