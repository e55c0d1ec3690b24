"""The site: every public name on one page with all its parameters, links that hold, and words that are explained."""

import doctest
import inspect
import json
import re
import sys
from pathlib import Path

import pytest

import constrained_vae as cv
from docs import api, links
from docs.extensions.parameters import described, expanded

ROOT = Path(cv.__file__).parents[1]
NAMES = api.names(images=False)


def test_every_public_name_is_on_one_page_and_in_one_table():
    pages = api.pages(NAMES)
    assert set(pages) == {"index.rst", *(f"{name}.rst" for name in NAMES)}
    listed = re.findall(r":doc:`([\w.]+) <", pages["index.rst"])
    assert sorted(listed) == sorted(NAMES)
    assert {id(getattr(cv, name)) for name in cv.__all__ if not inspect.ismodule(getattr(cv, name))} <= {
        id(value) for value in NAMES.values()
    }


FUNCTIONS = [name for name, value in NAMES.items() if inspect.isfunction(value)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_parameters_are_spelled_out(name):
    """None of them says "As for", and each has its own entry or one with others of the same type."""
    function = NAMES[name]
    doc = expanded(inspect.getdoc(function), sys.modules[function.__module__])
    assert "As for `" not in doc.partition("Returns\n-------")[0]
    given = {re.sub(r"^\*+", "", entry) for entry in described(function)}
    wanted = {p.name for p in inspect.signature(function).parameters.values()}
    assert wanted <= given


def test_every_public_name_has_an_example():
    for name, value in NAMES.items():
        text = inspect.getdoc(value) if callable(value) else api.pages(NAMES)[f"{name}.rst"]
        assert ">>>" in (text or ""), name


def test_the_examples_of_constants_hold():
    finder, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    for name, text in api.CONSTANTS.items():
        assert runner.run(finder.get_doctest(text, {}, name, None, None)).failed == 0
        assert name in NAMES


def test_a_shared_parameter_is_what_its_source_says():
    def source(a, b):
        """One.

        Parameters
        ----------
        a : int
            First line
            and second.
        b : float, optional
            About b.
        """

    def user(a, b, c):
        """Another.

        Parameters
        ----------
        a, b
            As for `source`; `b` is halved.
        c : str
            Its own.

        Returns
        -------
        int
        """

    class Place:
        pass

    Place.source = source
    vars(sys.modules[__name__])["source"] = source
    doc = expanded(inspect.getdoc(user), Place)
    assert doc == (
        "Another.\n\nParameters\n----------\na : int\n    First line\n    and second.\nb : float, optional\n"
        "    About b.\n    `b` is halved.\nc : str\n    Its own.\n\nReturns\n-------\nint"
    )


def test_dead_links_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a id="here"></a><a href="#here">x</a><a href="b.html#there">x</a><a href="https://example.org/">x</a>'
        '<a href="#gone">x</a><a href="b.html#gone">x</a><a href="c.html">x</a>'
        '<script src="https://example.org/x.js"></script><img src="no.png">'
    )
    (tmp_path / "b.html").write_text('<p id="there"></p>')
    assert links.dead(tmp_path) == [
        "a.html: no anchor #gone",
        "a.html: no anchor b.html#gone",
        "a.html: no file c.html",
        "a.html: needs the network for https://example.org/x.js",
        "a.html: no file no.png",
    ]


def test_the_words_of_the_glossary_have_entries():
    pytest.importorskip("sphinx", reason="sphinx, of the extra docs, is not installed")
    from docs.extensions.words import _WORDS

    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    entries = {
        links.slug(word)
        for found in re.findall(r"^- \*\*([^*]+):\*\*", text, flags=re.M)
        for word in re.sub(r"\(.*?\)", "", found).split(",")
    }
    assert set(_WORDS.values()) <= entries
    assert {"tile", "site", "temperature", "rate", "coverage", "hole", "kick", "split", "certificate"} <= set(_WORDS)


def test_links_of_pages_hold_in_the_site(tmp_path):
    pytest.importorskip("sphinx", reason="sphinx, of the extra docs, is not installed")
    from docs.site import moved

    places = {"docs/theory.md": "theory.md", "notebooks/05_frontier.ipynb": "guides/05_frontier.ipynb"}
    code = "```\n[d](no.md)\n```\n"
    text = "[a](../docs/theory.md#t9) [b](05_frontier.ipynb) ![c](../analysis/figures/figure2.png)\n"
    found = moved(text + code, ROOT / "notebooks" / "x.ipynb", "guides/x.ipynb", places, tmp_path)
    moved_text = "[a](../theory.md#t9) [b](05_frontier.ipynb) ![c](../files/analysis/figures/figure2.png)\n"
    assert found == moved_text + code
    assert (tmp_path / "files" / "analysis" / "figures" / "figure2.png").exists()
    with pytest.raises(FileNotFoundError, match=r"no gone\.md"):
        moved("[a](gone.md)", ROOT / "docs" / "x.md", "x.md", places, tmp_path)


def test_the_gallery_has_its_examples_and_each_a_title():
    folder = ROOT / "docs" / "gallery"
    order = (folder / "ORDER.txt").read_text().split()
    assert sorted(order) == sorted(path.stem for path in folder.glob("*.py"))
    assert len(order) >= 15
    for name in order:
        text = (folder / f"{name}.py").read_text(encoding="utf-8")
        title, line = text.splitlines()[1:3]
        assert line == "=" * len(title)


def test_what_is_proved_names_every_item_and_status():
    page = (ROOT / "docs" / "checked.md").read_text(encoding="utf-8")
    assert {f"theory.md#t{i}" for i in range(1, 25)} <= set(re.findall(r"\((theory\.md#t\d+)\)", page))
    assert {s.name for s in cv.Status} <= set(re.findall(r"[A-Z_]{3,}", page))
    named = re.findall(r"`((?:\w+/)?test_\w+\.py)`", page)
    assert named
    assert all((ROOT / "tests" / name).exists() for name in named)


def test_the_table_of_sizes_is_that_of_the_measurement():
    from analysis.benchmarks import sizes

    measured = json.loads(sizes.RESULTS.read_text())
    page = (ROOT / "docs" / "choose.md").read_text(encoding="utf-8")
    assert sizes.table(measured["rows"]) in page
    assert measured["date"] in page


def test_every_block_of_python_runs():
    """Those without prompts are run by name, by the tests of these files."""
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    known = "".join((ROOT / "tests" / file).read_text() for file in ("docs/test_examples.py", "data/test_cluster.py"))
    words = ("constrained_vae.image_models", "all_reduce", "More than one machine", "performance")
    assert all(f'"{word}" in block' in known or f"### {word}" in known for word in words)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"^```(?:python|py|pycon)\n(.*?)^```", text, re.M | re.S):
            section = text[: found.start()].rpartition("\n### ")[2].partition("\n")[0]
            assert ">>>" in found[1] or any(word in found[1] or word == section for word in words), page.name
