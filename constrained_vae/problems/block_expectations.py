"""block_expectations(): sums over some of the data rows, for a map that is distributed over machines."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._utils.checks import check_data, check_dtype, check_instance, check_masses, check_weights
from .._utils.device import numbers, to_host
from .._utils.frames import own_weights
from ..data.frame import Frame
from ..data.rows import RowBlocks, Rows, blocks_of, check_rows
from ..equations import Expectations, log_masses
from ..objectives.base import Objective
from .problem import Problem, check_labelled


def block_expectations(
    x: npt.ArrayLike | RowBlocks,
    decoder: npt.ArrayLike,
    objective: Objective,
    *,
    masses: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    frame: Frame | None = None,
    backend: str = "auto",
    dtype: npt.DTypeLike | None = None,
) -> Expectations:
    """Sums over some of the data rows, from which the next decoder follows; sums of disjoint rows add up (T1), (T5).

    Rows can therefore be distributed over machines. Each machine evaluates its own rows, the results are summed, and
    ``objective.decoder(total.mass, total.sums, decoder)`` is the image of the decoder under the map of all rows (T2).

    Parameters
    ----------
    x : (n, D) array_like, memory map or RowBlocks
        The rows.
    decoder : (K, D) array_like
        Reconstruction vectors, in units of x.
    objective : Objective
        Energies and temperature.
    masses : (K,) array_like, optional
        Prior masses; equal by default.
    weights : (n,) array_like, optional
        Data weights rho of these rows; the weights of all rows together sum to 1. By default these rows are all data.
    frame : Frame, optional
        Coordinates (x - centre) / scale in which the statistics are summed, the same for all machines. The image of the
        decoder is then ``frame.outward(objective.in_frame(frame).decoder(mass, sums, frame.inward(decoder)))``. Without
        a frame the data should be near the origin, because the sums of data far away from it lose digits.
    backend : {"auto", "numba", "cupy", "reference"}
        Backend that computes.
    dtype : {float64, float32}, optional
        Precision of the pass; float64 by default.

    Returns
    -------
    Expectations
        ``mass`` (K,), ``sums`` (K, S), ``free_energy`` and ``energy`` in nats; ``+`` adds two results.

    Raises
    ------
    ValueError
        For bad input.

    Examples
    --------
    >>> from constrained_vae import ELBO
    >>> x, psi, half = np.array([[-1.0], [1.0]]), np.array([[-0.5], [0.5]]), np.array([0.5])
    >>> parts = [block_expectations(x[i : i + 1], psi, ELBO(), weights=half) for i in range(2)]
    >>> total = parts[0] + parts[1]
    >>> ELBO().decoder(total.mass, total.sums, psi).ravel().round(4)
    array([-0.4621,  0.4621])
    """
    check_instance(objective, "objective", Objective, "ELBO(beta=0.5)")
    weights = own_weights(x, weights)
    x, psi = check_rows(x), check_data(decoder, "decoder")
    frame = Frame.identity(x.shape[1]) if frame is None else frame
    check_instance(frame, "frame", Frame, "Frame(centre, scale)")
    frame = Frame(np.broadcast_to(frame.centre, x.shape[1]), frame.scale)
    if psi.shape[1] != x.shape[1]:
        raise ValueError(f"decoder must have {x.shape[1]} columns like x, got {psi.shape[1]}")
    check_labelled(objective, len(x))
    for _, block in (*blocks_of(x), (None, psi)):
        objective.check(block)
    pi = np.full(len(psi), 1 / len(psi)) if masses is None else check_masses(masses)
    if len(pi) != len(psi):
        raise ValueError(f"masses must have one entry per reconstruction, got {len(pi)} for {len(psi)}")
    rho = check_weights(weights, len(x))
    if weights is not None:
        rho = rho * np.sum(weights)  # with the sum that was given
    problem = Problem.of(Rows(x, rho, frame, check_dtype(dtype)), objective, backend)
    start = frame.inward(np.asarray(psi, np.float64)), log_masses(pi)
    with np.errstate(over="ignore", invalid="ignore"):
        total = problem.expectations(*map(problem.data.to_device, start))
        free_energy, energy = numbers(total.free_energy, total.energy)
    if not np.isfinite([free_energy, energy]).all():
        raise ValueError(
            f"the energies of x under {objective} are too large for float64: give frame=, the centre and the radius of "
            "the data, or rescale the data (temperatures change by the square of the factor)"
        )
    return Expectations(to_host(total.mass), to_host(total.sums), free_energy, energy)
