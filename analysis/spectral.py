"""Fixed points compared with spectral clustering, on four clusters, rings, moons and digits.

    python -m analysis.spectral [--sets NAME ...] [--n-tiles K] [--count N] ...

Three pictures. The first has partitions into as many parts as classes. From left to right: true classes; a solution
with a tile for each class, annealed to the coldest temperature of the figure; spectral clustering on its overlap
diag(rho) P and on the Gaussian kernel exp(-lambda ||x - y||^2); a Gaussian mixture; and, for data in the plane, a
decoder in the feature space of a Gaussian kernel whose width is 1.5 times the median distance to the seventh neighbour.
This width does not depend on the classes.

The second, -scores, has the scores of the partitions against the true classes along the branch of many tiles, with as
many clusters as distinct reconstructions for all methods, and the eigenvalues of P. Grey lines are critical
temperatures (at most the eight hottest, two for the digits). In the shaded range the number of clusters by the eigengap
differs from the number of reconstructions. The third, -kernels, has the decoder in feature space for kernels of many
widths, and spectral clustering on the same kernel.

Writes PNG, PDF and an .npz of every plotted array with its settings, and prints a table of all scores.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.cluster import SpectralClustering
from sklearn.decomposition import KernelPCA
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix
from tqdm.auto import tqdm

import constrained_vae as cv
from analysis import _command
from analysis._spectral_picture import STYLES, draw, draw_kernels, draw_scores
from constrained_vae._utils.blas import single_threaded
from constrained_vae.cli.data_options import DATA, add_data_options, data_of

SETS = ("four_clusters", "rings", "moons", "digits")
METHODS = ("solution", "posterior", "rbf", "kmeans", "mixture", "feature space")
# Ratio of the first critical temperature to the coldest temperature.
_COLDEST = {"four_clusters": 50.0, "rings": 8.0, "moons": 50.0, "digits": 20.0}
_LIMIT = {"four_clusters": 8, "rings": 8, "moons": 8, "digits": 2}  # largest number of transitions, hottest first
_OTHER_COLDEST, _OTHER_LIMIT = 20.0, 4  # of other data
_ABOVE = 1.25  # hottest temperature, in units of the first critical temperature
_TOL = 1e-6  # tolerance of solutions, relative to the radius of the data: too small to change a partition
_MAPS = 5000  # largest number of maps per temperature
_NEIGHBOUR, _WIDTH = 7, 1.5  # the width of the kernel is _WIDTH times the median distance to this neighbour
_WIDTHS = np.geomspace(0.4, 8, 12)  # the other widths, in units of this distance
_DEPTH = 0.5  # temperature in feature space, in units of the first critical temperature of the features
_RANK = 1e-6  # eigenvalues of a kernel below this, relative to the largest, are left out


def main(argv: Sequence[str] | None = None) -> int:
    args = _options().parse_args(argv)

    def work() -> _command.Computed:
        return compute(
            tuple(args.sets),
            n_tiles=args.n_tiles,
            count=args.count,
            seed=args.seed,
            own=None if args.data is None else _labelled(data_of(args)),
            backend=args.backend,
            progress=not args.quiet,
        )

    return _command.run("spectral", work, args.out, draw, table, {"-scores.png": _scores, "-kernels.png": _kernels})


def _scores(arrays: _command.Arrays, settings: dict[str, Any], path: str) -> None:
    """Write the picture of the scores along the branch."""
    _command.write_png(path, draw_scores(arrays))


def _kernels(arrays: _command.Arrays, settings: dict[str, Any], path: str) -> None:
    """Write the picture of the kernels of many widths, if there is a set in the plane; else there is none."""
    figure = draw_kernels(arrays)
    if figure is None:
        Path(path).unlink(missing_ok=True)
    else:
        _command.write_png(path, figure)


def _options() -> argparse.ArgumentParser:
    result = _command.parser("spectral", __doc__)
    result.add_argument("--sets", nargs="+", choices=SETS, default=SETS, help="data sets (default all)")
    result.add_argument("--data", help=f"{DATA}; with labels, in place of the sets")
    add_data_options(result)
    result.add_argument("--n-tiles", type=int, default=16, help="number of latent tiles of the branches (default 16)")
    result.add_argument("--count", type=int, default=22, help="number of temperatures of a branch (default 22)")
    result.add_argument("--seed", type=int, default=0, help="seed of the data, and of the clusterings of scikit-learn")
    _command.add_backend(result)
    return result


def compute(
    sets: tuple[str, ...] = SETS,
    *,
    n_tiles: int = 16,
    count: int = 22,
    n: int | None = None,
    seed: int = 0,
    own: cv.datasets.DataSet | None = None,
    backend: str = "auto",
    progress: bool = False,
) -> _command.Computed:
    """Every array of the figure, and its settings. After Ctrl-C the arrays are those of the completed sets.

    `n` is the number of points of every set, in place of its default; data with labels of one's own replace the sets.
    """
    sets = sets if own is None else (own.name,)
    arrays: _command.Arrays = {}
    done: list[str] = []
    if count < 3:
        raise ValueError(f"count must be at least 3 temperatures, got {count}")
    interrupted, converged = False, True
    try:
        for name in tqdm(sets, disable=not progress, unit="set"):
            found = one_set(
                name, n_tiles=n_tiles, count=count, n=n, seed=seed, own=own, backend=backend, progress=progress
            )
            converged &= bool(found["converged"].all())
            arrays |= {f"{name}_{key}": value for key, value in found.items()}
            done.append(name)
    except KeyboardInterrupt:
        interrupted = True
        if not done:
            raise
    settings = {
        "sets": done,
        "own": own is not None,
        "n_tiles": n_tiles,
        "count": count,
        "coldest": _COLDEST,
        "n": n,
        "seed": seed,
        "backend": backend,
        "version": cv.__version__,
        "interrupted": interrupted,
        "converged": converged,
    }
    return arrays | {"sets": np.array(done, dtype=str)}, settings


def one_set(
    name: str,
    *,
    n_tiles: int,
    count: int,
    n: int | None,
    seed: int,
    backend: str,
    progress: bool,
    own: cv.datasets.DataSet | None = None,
) -> _command.Arrays:
    """The branch of one data set, its comparisons and transitions, and partitions into as many parts as classes."""
    data = _data(name, n, seed) if own is None else own
    assert data.labels is not None
    classes, limit = len(np.unique(data.labels)), _LIMIT.get(name, _OTHER_LIMIT)
    first = cv.first_critical_beta(data.x, backend=backend)
    betas = np.geomspace(first / _COLDEST.get(name, _OTHER_COLDEST), _ABOVE * first, count)
    options: dict[str, Any] = {"tol": _TOL, "max_maps": _MAPS, "backend": backend}
    quiet: dict[str, Any] = {**options, "on_failure": "return"}
    tiling = cv.Tiling.uniform(n_tiles)
    branch = _whole(cv.sweep(data.x, betas=betas, tiling=tiling, progress=progress, **quiet), count)
    low = float(betas[0])
    one_each = _whole(cv.sweep(data.x, betas=[low], n_tiles=classes, **quiet), 1)[0]
    # The figure marks the temperatures that did not converge.
    sure = np.array([s.converged for s in branch])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cv.NotConvergedWarning)
        warnings.filterwarnings("ignore", "a graph in pieces", UserWarning)  # its scores are NaN: gaps
        along = cv.compare_spectral(branch, labels=data.labels, seed=seed, progress=progress)
        side = cv.compare_spectral(one_each, classes, labels=data.labels, seed=seed)
        critical = cv.transitions(
            data.x, beta_range=(low, float(betas[-1])), tiling=tiling, limit=limit, backend=backend
        )
    partitions = {"truth": data.labels, **side.partitions}
    split = cv.first_split(data.x, backend=backend)
    found = {
        "first_split": np.array([split.agreement, split.degeneracy]),
        "betas": along.betas,
        "n_distinct": along.n_distinct,
        "eigengap": along.eigengap_k,
        "eigenvalues": along.eigenvalues,
        "agreement": along.ari["posterior"],
        "agreement_ami": along.ami["posterior"],
        "converged": sure,
        "critical": np.array([t.beta for t in critical]),
        "all_critical": np.array(len(critical) < limit),
        "points": _plane(data.x),
    }
    for score, values in (("ari", along.true_ari), ("ami", along.true_ami)):
        found |= {f"{score}_{method}": curve for method, curve in values.items()}
    if data.x.shape[1] == 2:
        distances = cdist(data.x, data.x)
        local = float(np.median(np.sort(distances, axis=1)[:, _NEIGHBOUR]))
        partitions["feature space"] = in_feature_space(distances, _WIDTH * local, classes, quiet)
        tiles = [in_feature_space(distances, width * local, classes, quiet) for width in _WIDTHS]
        kernels = [_on_kernel(distances, width * local, classes, seed) for width in _WIDTHS]
        found["widths"] = _WIDTHS * local
        found["kernel_agreement"] = np.array(kernel_agreement(kernel_features(distances, _WIDTH * local)))
        found["width"] = np.array(_WIDTH * local)
        found["width_tiles"] = np.array([adjusted_rand_score(data.labels, labels) for labels in tiles])
        found["width_spectral"] = np.array([adjusted_rand_score(data.labels, labels) for labels in kernels])
    for method, labels in partitions.items():
        found[f"partition_{method}"] = _matched(labels, data.labels)
        if method != "truth":
            scores = adjusted_rand_score(data.labels, labels), adjusted_mutual_info_score(data.labels, labels)
            found[f"scores_{method}"] = np.array(scores)
    return found


def _labelled(data: cv.datasets.DataSet) -> cv.datasets.DataSet:
    if data.labels is None or not 1 < len(np.unique(data.labels)) < len(data):
        raise ValueError(f"--data wants data with labels of at least two classes, which --labels names, got {data}")
    return data


def _data(name: str, n: int | None, seed: int) -> cv.datasets.DataSet:
    if name == "digits":
        return cv.datasets.digits(n)
    if name == "four_clusters":
        return cv.datasets.four_clusters(seed=seed) if n is None else cv.datasets.four_clusters(n // 4, seed=seed)
    if name == "rings":
        return cv.datasets.rings(seed=seed) if n is None else cv.datasets.rings(n, seed=seed)
    return cv.datasets.moons(seed=seed) if n is None else cv.datasets.moons(n, seed=seed)


def _whole(branch: Any, count: int) -> cv.Branch:
    """The branch; KeyboardInterrupt if it was interrupted."""
    assert isinstance(branch, cv.Branch)
    if len(branch) < count or any(s.status is cv.Status.INTERRUPTED for s in branch):
        raise KeyboardInterrupt
    return branch


def in_feature_space(distances: np.ndarray, width: float, classes: int, options: dict[str, Any]) -> np.ndarray:
    """Partition by a decoder in the feature space of a Gaussian kernel (T19), with a tile for each class.

    The objective is the ELBO on f(x), where f are all coordinates of kernel PCA: they have the distances of the kernel.
    """
    features = kernel_features(distances, width)
    beta = _DEPTH * cv.first_critical_beta(features, backend=options["backend"])
    return _whole(cv.sweep(features, betas=[beta], n_tiles=classes, **options), 1)[0].labels


def kernel_features(distances: np.ndarray, width: float) -> np.ndarray:
    """Coordinates of kernel PCA with eigenvalues above rounding errors, in descending order of the eigenvalues."""
    gram = np.exp(-0.5 * (distances / width) ** 2)
    pca = single_threaded(KernelPCA(None, kernel="precomputed", eigen_solver="dense").fit, gram)
    coordinates = single_threaded(pca.transform, gram)
    return np.ascontiguousarray(coordinates[:, pca.eigenvalues_ > _RANK * pca.eigenvalues_[0]])


def kernel_agreement(features: np.ndarray) -> float:
    """Share of points that the first split in feature space divides like the first axis of kernel PCA (T19)."""
    found = cv.first_split(features)
    side = found.log_odds * np.sign(found.log_odds @ features[:, 0]) > 0
    return float(np.mean(side == (features[:, 0] > 0), where=found.clear))


def _on_kernel(distances: np.ndarray, width: float, classes: int, seed: int) -> np.ndarray:
    """Partition by spectral clustering on the same kernel."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Graph is not fully connected", UserWarning)
        cluster = SpectralClustering(classes, affinity="precomputed", random_state=seed)
        return np.asarray(single_threaded(cluster.fit_predict, np.exp(-0.5 * (distances / width) ** 2)))


def _plane(x: np.ndarray) -> np.ndarray:
    """Points of a picture: the first two principal components if D > 2."""
    if x.shape[1] == 2:
        return np.array(x)
    mean, axes = cv.plotting.principal_axes(x)
    return (x - mean) @ axes.T


def _matched(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Labels with every part numbered like its class, in the assignment with most points in common; then the rest."""
    table = contingency_matrix(truth, labels)
    number = np.full(table.shape[1], -1)
    rows, columns = linear_sum_assignment(-table)
    number[columns] = rows
    number[number < 0] = table.shape[0] + np.arange(int((number < 0).sum()))
    return number[np.unique(labels, return_inverse=True)[1]]


def table(arrays: _command.Arrays) -> str:
    """Scores of every method with as many parts as classes, with the best marked, and results of the branches."""
    sets = arrays["sets"].tolist()
    lines = ["ARI / AMI with the classes, as many parts as classes (* best of a set)"]
    lines.append(f"{'':15}" + "".join(f"{method:>17}" for method in METHODS))
    for name in sets:
        scores = {m: np.round(arrays[f"{name}_scores_{m}"], 3) for m in METHODS if f"{name}_scores_{m}" in arrays}
        best = np.max(list(scores.values()), axis=0)
        cells = {
            method: " / ".join(
                f"{value:.3f}" + ("*" if value == top else " ") for value, top in zip(pair, best, strict=True)
            )
            for method, pair in scores.items()
        }
        lines.append(f"{name:15}" + "".join(f"{cells.get(method, '-  '):>17}" for method in METHODS))
    lines.append(
        "along the branch, as many parts as distinct reconstructions; AMI with the classes, mean over all beta"
    )
    lines.append(
        f"{'':15}{'beta':>18}{'parts':>9}{'ARI with P, least':>19}{'median':>8}{'eigengap right':>16}"
        + "".join(f"{method:>11}" for method in STYLES)
    )
    for name in sets:
        betas, distinct = arrays[f"{name}_betas"], arrays[f"{name}_n_distinct"]
        several = distinct > 1
        agree = arrays[f"{name}_agreement"][several]
        right = np.mean(arrays[f"{name}_eigengap"][several] == distinct[several])
        lines.append(
            f"{name:15}{f'{betas.min():.4g} to {betas.max():.4g}':>18}{f'{distinct.min()} to {distinct.max()}':>9}"
            f"{agree.min():>19.3f}{np.median(agree):>8.3f}{right:>16.0%}"
            + "".join(f"{arrays[f'{name}_ami_{method}'].mean():>11.3f}" for method in STYLES)
        )
    lines.append(
        "first split: points on the side that the leading eigenvector of the Gram matrix, or of a kernel, says"
    )
    for name in sets:
        agreement, second = arrays[f"{name}_first_split"]
        text = f"{name:15}{agreement:>8.1%} (second eigenvalue {second:.3f} of the first)"
        if (key := f"{name}_kernel_agreement") in arrays:
            text += f"; in feature space {float(arrays[key]):.1%} by kernel PCA"
        lines.append(text)
    for name in sets:
        failed = int((~arrays[f"{name}_converged"]).sum())
        if failed:
            lines.append(f"{name:15}{failed} temperatures did not converge to {_TOL:g} (crosses)")
        if not arrays[f"{name}_all_critical"]:
            hottest = len(arrays[f"{name}_critical"])
            lines.append(f"{name:15}only the {hottest} hottest critical temperatures were looked for")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
