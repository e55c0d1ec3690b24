"""explore(): a branch under a slider, in notebooks and as a page of HTML that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._utils.checks import check_flag, check_image_shape, check_path, check_text, shown
from .._utils.frames import column_names, is_data_set
from .._utils.interrupts import deferred_interrupts
from .._utils.writing import write_text
from ..data.rows import RowBlocks
from ..objectives.elbo import ELBO
from ..phases.branch import Branch
from ..phases.suggest import Plateau, Suggestions, suggest
from .contents import contents

_PAGE = Path(__file__).with_name("page.html")
_HEIGHT = 780  # of the page in a notebook, in pixels


@dataclass(frozen=True, eq=False, repr=False)
class Explorer:
    """A branch under a slider: reconstructions, D with its second derivative, rate, and spectral agreement.

    A notebook shows it as a frame with the page inside; where it cannot, as a picture, as in a notebook that is not
    trusted. The page is made once, when it is needed for the first time.

    Attributes
    ----------
    branch : Branch
        The solutions.
    plateaus : tuple of Plateau
        What stands out, see `suggest`.
    title : str
        Title of the page.
    about : str
        A line about the data, and about what stands out.
    image_shape : tuple of int, or None
        Shape of data that are images.
    names : tuple of str, or None
        Names of the columns.
    spectral : bool
        Whether the page compares with spectral clustering.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> branch = cv.sweep([[-3.0], [3.0]], betas=[12.0, 10.0, 8.0, 6.0, 4.0], n_tiles=2)
    >>> cv.explore(branch)
    Explorer(5 temperatures, beta 4 to 12)
    """

    branch: Branch
    plateaus: tuple[Plateau, ...]
    title: str
    about: str
    image_shape: tuple[int, ...] | None
    names: tuple[str, ...] | None
    spectral: bool

    @cached_property
    def page(self) -> str:
        """The page of HTML, with scripts, data and everything else inside."""
        shown = contents(self.branch, self.plateaus, self.image_shape, self.names, self.spectral)
        return _page(self.title, {**shown, "about": self.about}, self._picture)

    @cached_property
    def _picture(self) -> str:
        """The branch as a picture in base 64."""
        return _picture(self.branch)

    def __repr__(self) -> str:
        betas = self.branch.betas
        return f"Explorer({len(betas)} temperatures, beta {betas.min():.4g} to {betas.max():.4g})"

    def _repr_html_(self) -> str:
        inside = html.escape(self.page, quote=True)
        # The frame covers the picture, which is what is left where a notebook is not trusted: it removes frames.
        return (
            f'<div style="position:relative;height:{_HEIGHT}px;overflow:hidden">'
            f'<img alt="Distortion against temperature" src="data:image/png;base64,{self._picture}">'
            f'<iframe srcdoc="{inside}" title="explorer" '
            'style="position:absolute;left:0;top:0;width:100%;height:100%;border:0"></iframe></div>'
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/html": self._repr_html_(), "image/png": self._picture, "text/plain": repr(self)}

    def plot(self, ax: Any = None) -> Any:
        """Draw the branch without a slider; the Axes."""
        return self.branch.plot(ax=ax)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the page to a file, which a browser opens without a server, a kernel or the network.

        Raises
        ------
        ValueError
            If the path is no name of a file.
        """
        write_text(check_path(path), self.page)


def explore(
    x: npt.ArrayLike | RowBlocks | Branch,
    objective: ELBO | None = None,
    *,
    sigma: float | None = None,
    weights: npt.ArrayLike | None = None,
    image_shape: tuple[int, ...] | None = None,
    names: Any = None,
    title: str = "Phase transitions",
    spectral: bool = True,
    time_limit: float | None = None,
    backend: str = "auto",
    seed: int = 0,
    progress: bool = False,
) -> Explorer:
    """The temperature as a slider, hotter to the right: what the solution of a data set is at every beta.

    Everything is computed before it is shown, so that the page follows the slider without a kernel. The sweep is part
    of this call; the page is made when it is first shown or saved.

    Parameters
    ----------
    x : (N, D) array_like, DataSet, memory map, RowBlocks or Branch
        A branch of any sweep, or data, which are then cooled with free masses as by `suggest`.
    objective, sigma, weights, time_limit, backend, seed, progress
        As for `suggest`; not used for a branch.
    image_shape : tuple of int, optional
        Height and width of data that are images, and perhaps channels, last: reconstructions are drawn as images. By
        default that of a `DataSet`.
    names : sequence of str, optional
        Names of the columns, for the axes of data of one or two dimensions; by default those of x.
    title : str
        Title of the page.
    spectral : bool
        Compare with spectral clustering (T18) at some temperatures, which takes a time that grows as N^2.

    Returns
    -------
    Explorer
        It shows itself in a notebook, and `Explorer.save` writes a page of HTML.

    Raises
    ------
    ValueError
        For bad input, and for an empty branch.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> cv.explore(cv.datasets.four_clusters(80).x, spectral=False).plateaus[0].n_reconstructions
    4
    """
    title, spectral = check_text(title, "title"), check_flag(spectral, "spectral")
    found: Suggestions | None = None
    if isinstance(x, Branch):
        branch = x
        if not len(branch):
            raise ValueError("the branch is empty: solve at least one temperature")
        if len(branch) >= 5 and branch.direction == "down":
            found = suggest(branch)
    else:
        options: dict[str, Any] = {"time_limit": time_limit, "backend": backend, "seed": seed, "progress": progress}
        found = suggest(x, objective, sigma=sigma, weights=weights, **options)
        branch = found.branch
    plateaus = () if found is None else found.plateaus
    if image_shape is None and is_data_set(x):
        image_shape = x.image_shape if len(x.image_shape or ()) in (2, 3) else None  # type: ignore[union-attr]
    if image_shape is not None:
        image_shape = check_image_shape(image_shape, np.shape(branch[0].x)[1])
    own = branch[0].names if isinstance(x, Branch) else column_names(x)
    try:
        columns = own if names is None else tuple(map(str, names))
    except TypeError:
        raise ValueError(f"names must be a sequence, the name of every column, got {shown(names)}") from None
    return Explorer(branch, plateaus, title, _about(branch, found), image_shape, columns, spectral)


def _about(branch: Branch, found: Suggestions | None) -> str:
    n, dim = np.shape(branch[0].x)
    what = "" if found is None else f" {found._sentence[0].upper()}{found._sentence[1:]}."
    masses = "free" if branch[0].masses_free else "fixed"
    part = "" if branch.complete else " The sweep was cut short."
    return f"{n} points of {dim} dimension{'s' * (dim > 1)}, {masses} masses.{what}{part}"


def _page(title: str, shown: dict[str, Any], picture: str) -> str:
    """The template with its contents; no text in the data can end the script that holds them."""
    data = json.dumps(shown, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    values = {"DATA": data, "TITLE": html.escape(title), "PICTURE": f"data:image/png;base64,{picture}"}
    return re.sub(r"\$(DATA|TITLE|PICTURE)", lambda found: values[found[1]], _PAGE.read_text(encoding="utf-8"))


def _picture(branch: Branch) -> str:
    """The branch as a picture in base 64."""
    with deferred_interrupts():
        from matplotlib.figure import Figure
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    branch.plot(ax=figure.subplots())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()
