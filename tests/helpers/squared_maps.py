"""One map of a squared distance, with the sums over all tiles from its formula, for kernels that leave tiles out."""

from typing import NamedTuple

import numpy as np

ZERO = {np.float64: -650.0, np.float32: -60.0}  # the log of an encoder entry below which a kernel says zero


class SquaredMap(NamedTuple):
    phi: np.ndarray
    rho: np.ndarray
    psi: np.ndarray
    masses: np.ndarray
    lam: float

    @property
    def log_pi(self):
        with np.errstate(divide="ignore"):
            return np.log(self.masses).astype(self.phi.dtype)

    def of_all_tiles(self):
        """Encoder (N, K), F and energy (2,), and the largest logit of every row, from all differences in float64."""
        psi = self.psi.astype(self.phi.dtype).astype(float)
        H = self.lam * np.square(self.phi[:, None, :].astype(float) - psi).sum(axis=2)
        logits = self.log_pi.astype(float) - H
        top = logits.max(axis=1, keepdims=True)
        q = np.exp(logits - top)
        Z = q.sum(axis=1, keepdims=True)
        q /= Z
        totals = np.array([-self.rho @ (top + np.log(Z))[:, 0], (self.rho[:, None] * q * H).sum()])
        return q, totals, top[:, 0]
