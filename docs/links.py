"""Dead links of a folder of HTML pages: files, anchors, images and scripts, without the network.

python -m docs.links FOLDER
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


def slug(text: str) -> str:
    """The anchor of a word: small letters, digits and hyphens."""
    return re.sub(r"[^\w]+", "-", text.strip().lower()).strip("-")


class _Page(HTMLParser):
    """Anchors, links, and what a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in ("script", "img", "iframe", "source") and "src" in given:
            self.loaded.append(given["src"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "search"):
            self.loaded.append(given["href"])


def dead(folder: Path) -> list[str]:
    """What is wrong, a line each: a link to no page or no anchor, and anything a page loads from elsewhere.

    Parameters
    ----------
    folder : Path
        Folder with the pages.

    Returns
    -------
    list of str
    """
    pages: dict[Path, _Page] = {}
    for path in sorted(folder.resolve().rglob("*.html")):
        if "_static" in path.parts:
            continue  # templates of the theme
        pages[path] = _Page()
        pages[path].feed(path.read_text(encoding="utf-8"))
    wrong = []
    for path, page in pages.items():
        here = path.relative_to(folder.resolve())
        for target in [*page.links, *page.loaded]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if target in page.loaded and parts.scheme != "data":
                    wrong.append(f"{here}: needs the network for {target}")
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not file.is_file():
                wrong.append(f"{here}: no file {target}")
            elif parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].anchors:
                wrong.append(f"{here}: no anchor {target}")
    return wrong


if __name__ == "__main__":
    found = dead(Path(sys.argv[1]))
    print("\n".join(found) or "no dead links")
    sys.exit(bool(found))
