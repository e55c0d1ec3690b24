"""Data sets: toy sets with exactly known first critical beta, familiar sets, tables, files of points, and images.

Every function returns a `DataSet`, with the same bits for the same seed, and raises ValueError for an argument outside
the range that its docstring gives. A row of x that is an image has its pixels in the order (H, W) or (H, W, C): rows of
the image first, channels last. Whole numbers from 0 to 255 (uint8) become numbers from 0 to 1.

Examples
--------
>>> from constrained_vae import datasets
>>> datasets.four_clusters(seed=0)
DataSet('four_clusters', N=200, D=2, critical_beta=9.01562)
>>> datasets.resized(datasets.digits(), 4).image_shape
(4, 4)
"""

from .data_set import DataSet
from .familiar import digits, mnist, patches
from .image_sets import images, resized
from .sources import find, held_out, load
from .tables import from_table
from .toy import exponential, four_clusters, gaussian, moons, rings, simplex, two_points

__all__ = [
    "DataSet",
    "digits",
    "exponential",
    "find",
    "four_clusters",
    "from_table",
    "gaussian",
    "held_out",
    "images",
    "load",
    "mnist",
    "moons",
    "patches",
    "resized",
    "rings",
    "simplex",
    "two_points",
]
