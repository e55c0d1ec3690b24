"""The site: lays out its sources and builds it with Sphinx (``make docs``).

    python -m docs.site [FOLDER]

The pages of `docs`, the notebooks, CONTRIBUTING.md and CHANGELOG.md are written for the web view of the repository.
They are copied into FOLDER/source with links that hold in the site, beside one page per public name, and Sphinx writes
FOLDER/html. Warnings are errors. No page needs the network.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from sphinx.cmd.build import main as sphinx

from . import api, links

ROOT = Path(__file__).resolve().parents[1]
_NAMES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\()([^()\s]+)(\))")
_TREE = """
```{{toctree}}
:hidden:
{options}
{entries}
```
"""
_TOP = """Quick start <quickstart>
How to choose <choose>
guides/index
Gallery <gallery/index>
theory
API <api/index>
Reproducing the paper <figures>
findings
Add a constraint, a backend, a figure <contributing>
checked
limits
promises
benchmarks
architecture
glossary
changelog"""
_GUIDES = """# Guides

The [guide](../guide.md) answers one question after the other, with short examples that run as tests. The notebooks are
longer: each begins with a question and ends with its answer. They are in the folder `notebooks` of the repository, and
need `pip install '.[notebooks]'` and Jupyter.

"""


def main() -> int:
    """Lay out the sources, build the pages and look for dead links; the exit code."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site").resolve()
    source, html = folder / "source", folder / "html"
    for old in (source, html):
        shutil.rmtree(old, ignore_errors=True)
    lay_out(source)
    formulas(html / "_static" / "mathjax")
    code = sphinx(
        ["-q", "-W", "--keep-going", "-c", str(ROOT / "docs"), "-d", str(folder / "trees"), str(source), str(html)]
    )
    dead = links.dead(html) if code == 0 else []
    for line in dead:
        print(line, file=sys.stderr)
    print(html / "index.html")
    return code or bool(dead)


def lay_out(source: Path) -> None:
    """Write the sources of all pages.

    Parameters
    ----------
    source : Path
        An empty folder, or one that does not exist.
    """
    texts = {page: _NAMES.get(page.name, page.name) for page in sorted((ROOT / "docs").glob("*.md"))}
    texts |= {ROOT / name: _NAMES[name] for name in ("CONTRIBUTING.md", "CHANGELOG.md")}
    places = {page.relative_to(ROOT).as_posix(): place for page, place in texts.items()}
    places["README.md"] = "index.md"
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    places |= {f"notebooks/{path.name}": f"guides/{path.name}" for path in notebooks}
    for page, place in texts.items():
        text = moved(page.read_text(encoding="utf-8"), page, place, places, source)
        if place == "index.md":
            text += _TREE.format(options="", entries=_TOP)
        if place == "glossary.md":
            text = re.sub(r"^- \*\*([^*]+):\*\*", _anchored, text, flags=re.M)
        _write(source / place, text)
    for path in notebooks:
        place = f"guides/{path.name}"
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = moved("".join(cell["source"]), path, place, places, source)
        _write(source / place, json.dumps(notebook))
    entries = "\n".join(["../guide", *(path.stem for path in notebooks)])
    titles = [json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"] for path in notebooks]
    listed = [f"- [{_title(title)}]({path.name})" for title, path in zip(titles, notebooks, strict=True)]
    _write(
        source / "guides" / "index.md", _GUIDES + "\n".join(listed) + "\n" + _TREE.format(options="", entries=entries)
    )
    for place, text in api.pages(api.names()).items():
        _write(source / "api" / place, text)


def moved(text: str, page: Path, place: str, places: dict[str, str], source: Path) -> str:
    """The text of a page with the links that hold where the page is in the site.

    Parameters
    ----------
    text : str
        Markdown.
    page : Path
        The file it comes from.
    place : str
        Where the page is in the site.
    places : dict
        Where the other pages are: path in the repository, path in the site.
    source : Path
        Folder of the site's sources, into which files that a page links to are copied.

    Returns
    -------
    str
    """

    def follow(found: re.Match[str]) -> str:
        before, target, after = found.groups()
        path, mark, anchor = target.partition("#")
        if not path or re.match(r"\w+:", path):
            return found.group()
        file = (page.parent / path).resolve()
        name = file.relative_to(ROOT).as_posix()
        there = places.get(name)
        if there is None and file.is_file():
            there = f"files/{name}"
            (source / there).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, source / there)
        if there is None:
            raise FileNotFoundError(f"{page}: no {target}")
        if name == "README.md":
            mark = anchor = ""
        return f"{before}{os.path.relpath(there, Path(place).parent)}{mark}{anchor}{after}"

    return "".join(
        re.sub(r"\n\n```$", "\n```", part) if odd else _LINK.sub(follow, part) for part, odd in _outside_code(text)
    )


def _outside_code(text: str) -> list[tuple[str, bool]]:
    """The parts of a text, and whether they are blocks of code."""
    return [(part, bool(i % 2)) for i, part in enumerate(re.split(r"(^```.*?^```$)", text, flags=re.M | re.S))]


def _anchored(found: re.Match[str]) -> str:
    """An entry of the glossary, with an anchor for each of its words."""
    anchors = "".join(f'<a id="{links.slug(word)}"></a>' for word in re.sub(r"\(.*?\)", "", found[1]).split(","))
    return f"- {anchors}**{found[1]}:**"


def _title(cell: str | list[str]) -> str:
    return "".join(cell).splitlines()[0].lstrip("# ")


def formulas(folder: Path) -> None:
    """Copy the program that draws formulas: one file without fonts, so that pages work from the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    package = find_spec("sphinx-mathjax-offline")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("sphinx-mathjax-offline is not installed: pip install '.[docs]'")
    shutil.copyfile(Path(package.origin).parent / "static" / "mathjax" / "tex-svg.js", folder / "tex-svg.js")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
