"""Closed forms that more than one file of tests compares with."""

import numpy as np


def binary_entropy(p):
    """Entropy in nats of a coin that falls on one side with probability p."""
    return -sum(q * np.log(q) for q in (p, 1 - p) if q > 0)
