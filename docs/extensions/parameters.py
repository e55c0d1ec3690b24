"""Spells out parameters that a docstring takes from another one: "As for `solve`" becomes what `solve` says.

In the code a shared parameter is described once. On its page every function has all of them.
"""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

import constrained_vae as cv

_ENTRY = re.compile(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*)( : .*)?$")
_AS_FOR = re.compile(r"^As for `([\w.]+)`(?:; (.*))?\.$", re.S)


def expanded(doc: str, place: Any) -> str:
    """A docstring in which no parameter refers to another function.

    Parameters
    ----------
    doc : str
        A numpydoc docstring without indentation.
    place : module
        Where its names are looked up.

    Returns
    -------
    str
    """
    start, entries, end = _parameters(doc)
    if not entries:
        return doc
    lines = []
    for names, kind, body in entries:
        found = _AS_FOR.match(" ".join(body))
        if not found:
            lines += _entry(", ".join(names), kind, body)
            continue
        other = getattr(place, found[1], None) or getattr(cv, found[1], None) or _of_datasets(found[1])
        shared = described(other)
        note = f"{found[2][0].upper()}{found[2][1:]}." if found[2] and not found[2].startswith("`") else found[2]
        about = re.findall(r"`(\w+)`", found[2] or "")
        for name in names:
            its_kind, its_body = shared[name]
            said = list(its_body)
            if note and (not set(about) & set(names) or name in about):
                said.append(note if note.endswith(".") else f"{note}.")
            lines += _entry(name, kind or its_kind, said)
    return "\n".join([*start, *lines, *end])


def described(function: Any) -> dict[str, tuple[str, list[str]]]:
    """What a docstring says of each parameter: its type and the lines about it."""
    module = sys.modules[function.__module__]
    _, entries, _ = _parameters(expanded(inspect.getdoc(function) or "", module))
    return {name: (kind, body) for names, kind, body in entries for name in names}


def _of_datasets(name: str) -> Any:
    return getattr(cv.datasets, name)


def _entry(name: str, kind: str, body: list[str]) -> list[str]:
    return [f"{name}{kind}", *(f"    {line}".rstrip() for line in body)]


def _parameters(doc: str) -> tuple[list[str], list[tuple[list[str], str, list[str]]], list[str]]:
    """The lines before the entries of the section Parameters, the entries, and the lines after them."""
    lines = doc.splitlines()
    heads = [i for i in range(len(lines) - 1) if lines[i + 1] and set(lines[i + 1]) == {"-"}]
    begin = next((i + 2 for i in heads if lines[i] == "Parameters"), len(lines))
    end = next((i for i in heads if i >= begin), len(lines))
    entries: list[tuple[list[str], str, list[str]]] = []
    for line in lines[begin:end]:
        if line and not line[0].isspace():
            found = _ENTRY.match(line)
            names, kind = (found[1].split(", "), found[2] or "") if found else ([line], "")
            entries.append((names, kind, []))
        elif entries:
            entries[-1][2].append(line.strip() if len(line) - len(line.lstrip()) <= 4 else line[4:])
    if entries:
        while entries[-1][2] and not entries[-1][2][-1]:
            entries[-1][2].pop()
    return lines[:begin], entries, ["", *lines[end:]]


def _on_docstring(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    doc = expanded("\n".join(lines), module) if module else "\n".join(lines)
    lines[:] = [_plain(line) for line in doc.splitlines()]


def _plain(line: str) -> str:
    """A line in which bars are those of an absolute value, and the star of (n, *shape) begins no emphasis."""
    if line.lstrip().startswith((">>>", "...")):
        return line
    line = re.sub(r"(?<!`)`(\.\w+)`(?!`)", r"``\1``", line)  # `.status` is an attribute of whatever is returned
    return "".join(
        part if odd else re.sub(r"(?<=[(, ])\*(?=\w+[,)])", r"\*", part).replace("|", r"\|")
        for part, odd in _by_code(line)
    )


def _by_code(line: str) -> list[tuple[str, bool]]:
    return [(part, bool(i % 2)) for i, part in enumerate(re.split(r"(`+[^`]*`+)", line))]


def _on_member(app: Any, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what scikit-learn makes for the routing of metadata."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx, before numpydoc."""
    app.connect("autodoc-process-docstring", _on_docstring, priority=100)
    app.connect("autodoc-skip-member", _on_member)
    return {"parallel_read_safe": True}
