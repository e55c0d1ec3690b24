"""The kernels of the Numba backend, compiled into Numba's cache: `python -m tests.helpers.compilation FAMILY ...`.

Done once before several processes run the tests, each of which would compile what it does not find, and two of which
may not write the cache of one function at the same time. `sums` shares no function with the other families, so that it
can be compiled beside them.
"""

import sys

import numpy as np

import constrained_vae as cv
from constrained_vae.backends import boxes, coverage, descent, numba as kernels, pruning
from tests.helpers.linear_form import make


def sums():
    """One thread and several, with few statistics and with many; and the blocks that threads share."""
    for dtype in (np.float64, np.float32):
        for N, K, S in [(20, 5, 2), (2000, 200, 2), (20, 5, 12), (2000, 200, 12), (67, 13001, 70)]:
            kernels.expectations(*make("linear", 0, N, K, S).astype(dtype).arguments)
        for function in (
            kernels._few_alone,
            kernels._few_parallel.in_threads,
            kernels.many,
            kernels._many_parallel.in_threads,
            kernels._shared.in_threads,
        ):
            assert any(str(dtype.__name__) in str(signature) for signature in function.signatures)
    cv.solve(np.random.default_rng(0).normal(size=(20, 2)), beta=0.1, n_tiles=4)  # several maps in one call
    assert descent._steps.signatures


def pruned_sums():
    for dtype in (np.float64, np.float32):
        x = np.random.default_rng(0).normal(size=(600, 2)).astype(dtype)
        prepared = pruning._arguments(x, np.full(600, 1 / 600), x[:64].T.copy(), np.full(64, -np.log(64)), 1.0)
        pruning._cost(*prepared, pruning._limits(x, prepared[3]), 1)
        pruning._pruned(*prepared)


def proofs():
    x, log_shares = np.random.default_rng(0).normal(size=(600, 2)), np.full(600, -np.log(600))
    coverage.log_sums(x, log_shares, 1.0, x[:40])
    rows = boxes.proof_rows(x, log_shares, 1.0)
    boxes.expansions(rows, x[:40], np.full(2, 0.1))
    boxes.polynomials(rows, x[:40], np.full(2, 0.1), 4)


FAMILIES = {function.__name__: function for function in (sums, pruned_sums, proofs)}

if __name__ == "__main__":
    for family in sys.argv[1:]:
        FAMILIES[family]()
