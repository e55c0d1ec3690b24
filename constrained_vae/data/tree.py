"""Sums in one balanced binary tree, whose shape depends on the number of terms alone.

A node of height h is the sum of the terms from j 2^h to (j + 1) 2^h - 1: two nodes of height h - 1 make it. The nodes
that are left at the end, of decreasing heights, are added from the right. A run of neighbouring terms holds some nodes
completely, at most two of each height. Whoever has the nodes of all runs adds the rest, with the same bits as one that
has had all terms.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

R = TypeVar("R")


class Node(NamedTuple):
    """The sum `value` of the terms from `first` to first + 2^height - 1, a multiple of 2^height being the first."""

    first: int
    height: int
    value: Any


def tree_sum(terms: Iterable[R]) -> R:
    """The sum of terms, which are arrays or tuples of arrays, in a balanced binary tree in their order.

    At most about log2 n sums are held at a time, and the same terms always give the same bits.
    """
    return root(grown(Node(number, 0, term) for number, term in enumerate(terms)))


def grown(nodes: Iterable[Node]) -> list[Node]:
    """The largest nodes that some nodes make, in the order of their terms; the nodes may come in any order."""
    found: dict[tuple[int, int], Node] = {}
    for node in nodes:
        while (other := found.pop((node.height, node.first ^ (1 << node.height)), None)) is not None:
            left, right = (node, other) if node.first < other.first else (other, node)
            node = Node(left.first, node.height + 1, _add(left.value, right.value))
        found[node.height, node.first] = node
    return sorted(found.values(), key=lambda node: node.first)


def root(nodes: list[Node]) -> Any:
    """The sum of the largest nodes of all terms, from the right."""
    total = nodes[-1].value
    for node in reversed(nodes[:-1]):
        total = _add(node.value, total)
    return total


def _add(one: Any, other: Any) -> Any:
    if isinstance(one, tuple):
        return tuple(map(_add, one, other))
    return one + other
