"""Settings of the site. `python -m docs.site` lays out its sources and builds it; see there."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))
os.environ.setdefault("MPLBACKEND", "agg")

import constrained_vae as cv  # noqa: E402

project = "constrained-vae"
author = "The constrained-vae developers"
project_copyright = author
version = release = cv.__version__.split("+")[0]

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "docs.extensions.parameters",
    "docs.extensions.words",
]
exclude_patterns = ["files", "gallery/*.ipynb", "gallery/*.py", "**/sg_execution_times.rst", "sg_execution_times.rst"]
nitpicky = False  # the types of parameters are prose: "(N, D) array_like"

# Text
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
myst_ref_domains = ["std"]  # [..](#holes) is the anchor of the page, never a Python object of this name
nb_execution_mode = "off"  # `make notebooks` executes them; the pages show what is committed
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
suppress_warnings = [
    "myst.xref_missing",  # anchors written as <a id="...">; docs/links.py looks for every one of them
    "myst.header",  # a page may begin with a quotation
    "mystnb.unknown_mime_type",
    "config.cache",
]
smartquotes = False  # double hyphens and quotation marks in commands stay what they are
html_copy_source = html_show_sourcelink = False

# API: pages are laid out by docs/site.py
autodoc_default_options = {"members": True, "member-order": "bysource", "undoc-members": False}
autodoc_typehints = "none"  # the docstring has the types, with shapes
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
numpydoc_xref_param_type = False
default_role = "py:obj"  # `sweep` in a docstring is a link to its page

# Formulas, from a file of a package on this machine, copied by docs/site.py: the pages need no network.
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "global"}}

# Gallery
_EXAMPLES = (_ROOT / "docs" / "gallery" / "ORDER.txt").read_text().split()
sphinx_gallery_conf = {
    "examples_dirs": [str(_ROOT / "docs" / "gallery")],
    "gallery_dirs": ["gallery"],
    "within_subsection_order": lambda name: _EXAMPLES.index(Path(name).stem),
    "filename_pattern": r"\.py$",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "image_scrapers": ("matplotlib",),
    "matplotlib_animations": False,
    "reset_modules": ("matplotlib",),
    "doc_module": ("constrained_vae",),
    "backreferences_dir": "gallery/uses",
    "thumbnail_size": (400, 280),
    "remove_config_comments": True,
}
warnings.filterwarnings("ignore", message="Matplotlib is currently using agg")

# Look
html_theme = "pydata_sphinx_theme"
html_title = "constrained-vae"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {
    "logo": {"text": "constrained-vae"},
    "header_links_before_dropdown": 6,
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "navigation_with_keys": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "search_as_you_type": False,
}
_ALONE = ["index", "quickstart", "choose", "theory", "figures", "findings", "contributing", "checked", "limits"]
_ALONE += ["promises", "benchmarks", "architecture", "glossary", "changelog"]
html_sidebars: dict[str, list[str]] = {page: [] for page in _ALONE}  # they are no sections of anything
html_context = {"default_mode": "auto"}
