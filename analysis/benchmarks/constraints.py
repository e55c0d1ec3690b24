"""Seconds per map under each constraint, compared with the ELBO, on the digits.

    python -m analysis.benchmarks.constraints [--n-tiles K] [--features S]

The seconds per map are those of a whole solve from random data points at a sixth of the first critical temperature,
including proposals, decoder updates, coordinates and the error estimate. The last line is the time of
`solve_constrained` for an error of 1.5 with labels.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression

import constrained_vae as cv


def main() -> None:
    parser = argparse.ArgumentParser(description="seconds per map under each constraint, and ratios to the ELBO")
    parser.add_argument("--n-tiles", type=int, default=64)
    parser.add_argument("--features", type=int, default=256, help="number of random Fourier features of FRE")
    args = parser.parse_args()
    data = cv.datasets.digits()
    tiling = cv.Tiling.uniform(args.n_tiles)
    classifier = LogisticRegression(max_iter=5000).fit(data.x, data.labels)
    assert data.image_shape is not None and data.labels is not None  # noqa: PT018
    cla = cv.CLA(0.9, classifier, data.labels)
    objectives: dict[str, cv.ELBO | cv.Lagrangian] = {
        "ELBO": cv.ELBO(),
        "RE": cv.Lagrangian(cv.RE(1.0), 1.0),
        "RE, linear FRE": cv.Lagrangian([cv.RE(1.0), cv.FRE(1.0, np.eye(64)[::2])], [1.0, 1.0]),
        "FRE": cv.Lagrangian(cv.FRE(0.3, cv.FourierFeatures.random(64, args.features, gamma=0.1)), 1.0),
        "RE, CLA": cv.Lagrangian([cv.RE(1.0), cla], [1.0, 1.5]),
        "RE, PNCC": cv.Lagrangian([cv.RE(1.0), cv.PNCC(0.9, data.image_shape, 4)], [1.0, 1.5]),
    }
    print(f"{data!r}, {args.n_tiles} tiles, {args.features} features, version {cv.__version__}")
    print(f"{'':16}{'maps':>6}{'seconds':>9}{'per map':>9}{'ratio':>7}")
    reference = np.nan
    for name, objective in objectives.items():
        beta = cv.first_critical_beta(data.x, objective) / 6
        seconds = []
        for _ in range(3):  # the first compiles
            began = time.perf_counter()
            solution = cv.solve(data.x, objective, beta=beta, tiling=tiling, start="data", on_failure="return")
            seconds.append(time.perf_counter() - began)
        each = min(seconds) / solution.n_maps
        reference = each if name == "ELBO" else reference
        print(f"{name:16}{solution.n_maps:>6}{min(seconds):>9.3f}{each:>9.4f}{each / reference:>7.1f}")

    began = time.perf_counter()
    met = cv.solve_constrained(data.x, [cv.RE(1.5), cla], n_tiles=32)
    print(f"RE(1.5) and CLA(0.9), 32 tiles: {time.perf_counter() - began:.0f} s; {met!r}, KKT {met.kkt_residual:.0e}")


if __name__ == "__main__":
    warnings.simplefilter("error")
    main()
