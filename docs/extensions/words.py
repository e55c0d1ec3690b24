"""Links from (T9) to item T9 of the theory, and from the first use of a word on a page to the glossary."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

_ITEM = re.compile(r"\bT([1-9]|1\d|2[0-4])\b")
# The words that readers need, as they occur in sentences; the entry of the glossary that has them.
_WORDS = {
    "annealing": "annealing",
    "branch": "branch",
    "certificate": "certificate",
    "coverage": "coverage",
    "critical temperature": "critical-temperature",
    "decoder": "decoder",
    "distortion": "distortion",
    "encoder": "encoder",
    "fixed point": "fixed-point",
    "free energy": "free-energy",
    "free masses": "free-masses",
    "frontier": "frontier",
    "hole": "hole",
    "hysteresis": "hysteresis",
    "kick": "kick",
    "multiplier": "multiplier",
    "plateau": "plateau",
    "quench": "quench",
    "rate": "rate",
    "reconstruction": "distinct-reconstruction",
    "site": "site",
    "split": "split",
    "temperature": "temperature",
    "tile": "tile",
}
_WORD = re.compile(rf"\b({'|'.join(sorted(_WORDS, key=len, reverse=True))})s?\b", re.I)
_KEPT: tuple[Any, ...] = (
    nodes.reference,
    nodes.literal,
    nodes.literal_block,
    nodes.title,
    nodes.math,
    nodes.math_block,
    nodes.raw,
)
_KEPT += (nodes.comment, nodes.rubric, nodes.term, nodes.strong, nodes.target)
_NO_GLOSSARY = ("glossary", "changelog", "api/", "gallery/index", "guides/index", "index")


class Words(SphinxPostTransform):
    """Put the links into the text of a page."""

    default_priority = 700

    def run(self, **kwargs: Any) -> None:
        """Replace each text that has an item or a word by parts with links."""
        page = self.env.docname
        said: set[str] = set()
        if page.startswith(_NO_GLOSSARY):
            said |= set(_WORDS.values())
        for text in list(self.document.findall(nodes.Text)):
            if not _inside(text, _KEPT):
                parts = self.parts(text.astext(), page, said)
                if len(parts) > 1:
                    text.parent.replace(text, parts)

    def parts(self, text: str, page: str, said: set[str]) -> list[nodes.Node]:
        """The text in pieces, some of them links; `said` has the words that have had theirs, and gets more."""
        found = [] if page == "theory" else [(m.span(), "theory", f"t{m[1]}") for m in _ITEM.finditer(text)]
        for m in _WORD.finditer(text):
            target = _WORDS[m[1].lower()]
            if target not in said:
                said.add(target)
                found.append((m.span(), "glossary", target))
        pieces: list[nodes.Node] = []
        at = 0
        for (begin, end), other, anchor in sorted(found):
            uri = self.app.builder.get_relative_uri(page, other)
            pieces += [nodes.Text(text[at:begin])] if begin > at else []
            kind = ["word"] if other == "glossary" else []
            pieces.append(nodes.reference("", text[begin:end], refuri=f"{uri}#{anchor}", internal=True, classes=kind))
            at = end
        return [*pieces, nodes.Text(text[at:])] if pieces else [nodes.Text(text)]


def _inside(node: nodes.Node, kinds: tuple[Any, ...]) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_post_transform(Words)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
