"""
Two points and a magnet
=======================

Two data points at ±1 obey the equation of a magnet, m = tanh(m / β): an exact answer for tests (theory, section 5).
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import brentq

import constrained_vae as cv

betas = np.linspace(0.3, 1.2, 46)
branch = cv.sweep([[-1.0], [1.0]], betas=betas, n_tiles=2)
computed = np.array([abs(s.decoder[0, 0]) for s in branch])
exact = [brentq(lambda m, b=b: m - np.tanh(m / b), 1e-3, 1) if b < 1 - 1e-6 else 0 for b in branch.betas]
figure, ax = plt.subplots()
ax.plot(branch.betas, exact, color="black", label="m = tanh(m / β)")
ax.plot(branch.betas, computed, "o", ms=4, color="#D55E00", label="solve")
ax.set_xlabel("β")
ax.set_ylabel("|reconstruction|")
ax.legend()
print(f"largest difference {np.abs(computed - exact).max():.1e}")
