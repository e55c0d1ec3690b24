"""The API pages: one for every public name, in two tiers, from the docstrings."""

from __future__ import annotations

import inspect
import re
from typing import Any

import constrained_vae as cv

from .stand_in import image_models

# What one needs day by day, by topic. All other names are in the second tier, by the sub-package that has them.
EVERYDAY = {
    "Solve": ["solve", "FixedPoint", "FixedPointVAE", "Tiling", "ELBO", "Status"],
    "Every temperature": [
        "suggest",
        "sweep",
        "Branch",
        "transitions",
        "Transitions",
        "Transition",
        "first_critical_beta",
    ],
    "Constraints": ["solve_constrained", "ConstrainedFixedPoint", "RE", "FRE", "CLA", "PNCC"],
    "The best possible": [
        "rate_distortion",
        "RateDistortionCurve",
        "Excess",
        "excess_parts",
        "global_solution",
        "certify",
        "Certificate",
    ],
    "Training": ["geco.train", "geco.Run", "geco.Multiplier", "geco.thresholds", "image_models.train"],
    "Look at results": ["report", "explore", "compare_spectral", "bits", "estimate"],
    "Data": [
        "datasets.load",
        "datasets.from_table",
        "datasets.find",
        "datasets.DataSet",
        "datasets.images",
        "RowBlocks",
    ],
    "Pictures": [
        "plotting.reconstructions",
        "plotting.bifurcation",
        "plotting.images",
        "plotting.rate_distortion",
        "plotting.merging_tree",
    ],
}
_TOPICS = {
    "backends": "Backends",
    "data": "Rows and frames",
    "datasets": "Data sets",
    "diagnostics": "Diagnostics",
    "effort": "Time and memory",
    "equations": "The equations, to read and to test against",
    "exploring": "The slider",
    "frontier": "Certificates and the frontier",
    "geco": "Training",
    "image_models": "Image models",
    "latent": "Tilings",
    "multipliers": "Multipliers",
    "objectives": "Objectives, constraints and features",
    "phases": "Branches, stability and transitions",
    "plotting": "Pictures",
    "results": "Results",
    "problems": "The solver",
    "solvers": "The solver",
    "spectral": "Spectral clustering",
    "testing": "Tests for your own solver",
    "_utils": "Errors",
}
# What has no docstring: a number says what it is here.
CONSTANTS = {
    "testing.EPS": """Relative rounding of float64, the distance of 1 from the next number.

>>> import constrained_vae as cv
>>> cv.testing.EPS
2.220446049250313e-16
"""
}
_HEAD = """API
===

``import constrained_vae as cv`` has every name. Each is on one page, with all of its parameters. Data ``x`` have shape
(N, D); K is the number of tiles. Rate, free energy and all other information are in nats, :math:`\\beta` has the unit
of ``x`` squared, and bad input raises ``ValueError`` with one line that says what was wanted.

"""


def names(images: bool = True) -> dict[str, Any]:
    """Every public name once, without the name of the package: ``solve``, ``geco.train``, and what it is.

    A name that the package and a module share is that of the package.

    Parameters
    ----------
    images : bool
        Whether those of the image models, for which PyTorch or a stand-in is imported, are among them.

    Returns
    -------
    dict
    """
    modules = [name for name in cv.__all__ if inspect.ismodule(getattr(cv, name))]
    found = {name: getattr(cv, name) for name in cv.__all__ if name not in modules}
    seen = {id(value) for value in found.values()}
    for module in [*modules, *(["image_models"] if images else [])]:
        place = image_models() if module == "image_models" else getattr(cv, module)
        for name, value in public(place).items():
            if id(value) not in seen:
                seen.add(id(value))
                found[f"{module}.{name}"] = value
    return found


def public(module: Any) -> dict[str, Any]:
    """The public names of a module and their values: those of its ``__all__``, or else all that it defines."""
    given = getattr(module, "__all__", None)
    if given is None:
        own = vars(module).items()
        given = [name for name, value in own if getattr(value, "__module__", "") == module.__name__ and name[0] != "_"]
    return {name: getattr(module, name) for name in given}


def pages(everything: dict[str, Any]) -> dict[str, str]:
    """The text of every page of the API, by file name: ``index.rst``, and ``NAME.rst`` for each public name.

    Parameters
    ----------
    everything : dict
        Every public name, from `names`.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If the first tier has a name that is not public.
    """
    listed = [name for topic in EVERYDAY.values() for name in topic]
    if unknown := {name for name in listed if not name.startswith("image_models.")} - set(everything):
        raise ValueError(f"the first tier must have public names, got {', '.join(sorted(unknown))}")
    rest: dict[str, list[str]] = {}
    for name, value in everything.items():
        if name not in listed:
            module = name.partition(".")[0] if "." in name else value.__module__.split(".")[1]
            rest.setdefault(_TOPICS[module], []).append(name)
    lines = [_HEAD]
    for tier, topics in (("Every day", EVERYDAY), ("Everything else", dict(sorted(rest.items())))):
        lines += [tier, "-" * len(tier), ""]
        for topic, members in topics.items():
            there = [name for name in members if name in everything]
            lines += [topic, "~" * len(topic), "", ".. list-table::", "   :widths: 30 70", "   :class: names", ""]
            for name in there:
                lines += [f"   * - :doc:`{name} <{name}>`", f"     - {_summary(name, everything[name])}"]
            lines += ["", ".. toctree::", "   :hidden:", "", *(f"   {name}" for name in there), ""]
    return {"index.rst": "\n".join(lines)} | {f"{name}.rst": _page(name, value) for name, value in everything.items()}


def _summary(name: str, value: Any) -> str:
    """The first sentence of a docstring, in reStructuredText."""
    text = inspect.getdoc(value) if callable(value) else CONSTANTS[name]
    first = " ".join((text or "").split("\n\n")[0].split())
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", first).replace("|", r"\|").replace("*", r"\*")


def _page(name: str, value: Any) -> str:
    module, _, short = f"constrained_vae.{name}".rpartition(".")
    if inspect.isclass(value):
        directive = f".. autoclass:: {module}::{short}\n   :show-inheritance:"
    elif inspect.isfunction(value):
        directive = f".. autofunction:: {module}::{short}"
    else:
        directive = f".. autodata:: {module}::{short}\n   :no-value:\n\n{CONSTANTS[name]}"
    uses = f"\n.. minigallery:: constrained_vae.{name}\n   :add-heading: Examples in the gallery\n"
    return f"{name}\n{'=' * len(name)}\n\n{directive}\n{uses}"
