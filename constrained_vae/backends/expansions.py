"""What a proof of the supremum of log c needs from a backend (T14)."""

from __future__ import annotations

from typing import NamedTuple

from .._utils.arrays import Array


class Expansions(NamedTuple):
    """Expansions of log c at the centres of n boxes, for a squared distance, from which an upper bound follows (T14).

    Some terms of c may be left out of all of these but the last. A box that is too large for an expansion has infinite
    moments, and only such a box has a finite outer bound.

    Attributes
    ----------
    values : (n,) array
        log c at the centre.
    shifts : (n, D) array
        Mean of the data under their shares in c, minus the centre.
    covariances : (n, D, D) array
        Covariance of the data under these shares.
    moments : (n, 2) array
        Means of t^2 exp t and t^3 exp t, where t is 2 lambda R times the distance of a point from the mean of the data,
        and R half the diagonal of the box.
    outer : (n,) array
        Logarithm of the sum whose terms have the least distances from the box.
    rest : (n,) array
        Logarithm of a bound, anywhere in the box, of the terms that are left out.

    Examples
    --------
    >>> import numpy as np
    >>> Expansions(*np.zeros((6, 1))).values
    array([0.])
    """

    values: Array
    shifts: Array
    covariances: Array
    moments: Array
    outer: Array
    rest: Array


class ProofRows(NamedTuple):
    """Rows of a squared distance, which a backend prepares once for all boxes of a proof.

    Attributes
    ----------
    statistics : (N, D) array
        The rows; the compiled kernels add columns of zeros up to the third.
    log_shares : (N,) array
        Logarithms of their shares in c.
    lam : float
        Multiplier of the squared distance.
    runs : tuple of arrays
        Bounding boxes and log weights of runs of rows; empty where all rows are used for every box.

    Examples
    --------
    >>> import numpy as np
    >>> ProofRows(np.zeros((1, 2)), np.zeros(1), 0.5).lam
    0.5
    """

    statistics: Array
    log_shares: Array
    lam: float
    runs: tuple[Array, ...] = ()


class Polynomials(NamedTuple):
    """Polynomials of c in n boxes in one or two dimensions, for a squared distance (T14).

    In a box with centre y and half sides h, and z in [-1, 1]^D, log c(y + h z) is `values` - lambda |h z|^2 plus the
    logarithm of the polynomial in z, whose error is at most `remainders` but for rounding; what is left out adds to c.

    Attributes
    ----------
    values : (n,) array
        log c at the centre.
    coefficients : (n, p + 1, p + 1) array, or (n, p + 1, 1) in one dimension
        Coefficients of z_0^k z_1^l, for a degree of p in each of the variables.
    remainders : (n,) array
        Bounds of the sum of the terms of larger degrees.
    sizes : (n,) array
        Bounds of the sum of the absolute values of all terms, and of c(y + h z) / c(y).
    rest : (n,) array
        Logarithm of a bound, anywhere in the box, of the terms of c that are left out.

    Examples
    --------
    >>> import numpy as np
    >>> Polynomials(*np.zeros((5, 1))).sizes
    array([0.])
    """

    values: Array
    coefficients: Array
    remainders: Array
    sizes: Array
    rest: Array
