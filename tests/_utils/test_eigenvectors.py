"""Eigenvectors, also where NumPy's divide and conquer does not converge."""

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae._utils.eigenvectors import eigh


@pytest.fixture
def without_convergence(monkeypatch):
    """As with some kernels of OpenBLAS, of matrices that LAPACK divides, with more than 25 rows; their shapes."""
    compute, failed = np.linalg.eigh, []

    def eigh(matrices):
        if matrices.shape[-1] <= 25:
            return compute(matrices)
        failed.append(matrices.shape)
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    monkeypatch.setattr(np.linalg, "eigh", eigh)
    return failed


def near_identity(rng, *stack, n=45):
    """Symmetric matrices of which all eigenvalues but three are nearly 1, and these eigenvalues."""
    axes = np.linalg.qr(rng.normal(size=(*stack, n, n)))[0]
    values = np.sort(np.concatenate([[-0.04, 0.01, 1.5], 1 + 1e-9 * rng.normal(size=n - 3)]))
    matrices = (axes * values) @ axes.swapaxes(-1, -2)
    return (matrices + matrices.swapaxes(-1, -2)) / 2, values


@pytest.mark.parametrize("stack", [(), (3,), (0,)])
@pytest.mark.parametrize("failing", [False, True])
def test_eigenvectors_of_matrices_and_stacks(stack, failing, rng, request):
    matrices, exact = near_identity(rng, *stack)
    if failing and stack != (0,):
        request.getfixturevalue("without_convergence")
    values, vectors = eigh(matrices)
    np.testing.assert_allclose(values, np.broadcast_to(exact, values.shape), atol=1e-13)
    np.testing.assert_allclose((vectors * values[..., None, :]) @ vectors.swapaxes(-1, -2), matrices, atol=1e-13)


@pytest.mark.usefixtures("without_convergence")
def test_a_matrix_with_nan_is_refused():
    with pytest.raises(np.linalg.LinAlgError):
        eigh(np.full((45, 45), np.nan))


def test_solutions_do_not_depend_on_how_eigenvectors_are_computed(request):
    """The split conditions of sites in 64 dimensions, and the Jacobian."""
    x = cv.datasets.digits(60).x

    def solved():
        s = cv.solve(x, beta=0.8, n_tiles=4)
        return s.free_energy, s.split_condition, *cv.Jacobian.at(s).eigenpairs(3).values

    wanted = solved()
    failed = request.getfixturevalue("without_convergence")
    np.testing.assert_allclose(solved(), wanted, rtol=1e-9)
    assert len(failed) > 1
