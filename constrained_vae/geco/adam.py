"""The optimiser Adam, in place on one flat array of parameters."""

from __future__ import annotations

from typing import Any

from .._utils.arrays import Array
from .._utils.device import array_namespace

_FIRST, _SECOND, _LEAST = 0.9, 0.999, 1e-8


class Adam:
    """Adam with the constants of Kingma and Ba 2015 (arXiv:1412.6980).

    Parameters
    ----------
    parameters : (P,) array
        Parameters, which are changed in place.
    """

    def __init__(self, parameters: Array) -> None:
        self._xp: Any = array_namespace(parameters)
        xp = self._xp
        self.parameters, self.steps = parameters, 0
        self.mean, self.square = xp.zeros_like(parameters), xp.zeros_like(parameters)
        self._root = xp.empty_like(parameters)

    def step(self, gradient: Array, rate: float) -> None:
        """Take one step, of length about `rate` in every parameter; the gradient is overwritten."""
        xp = self._xp
        self.steps += 1
        self.mean *= _FIRST
        xp.multiply(gradient, 1 - _FIRST, out=self._root)
        self.mean += self._root
        gradient *= gradient
        gradient *= 1 - _SECOND
        self.square *= _SECOND
        self.square += gradient
        xp.sqrt(self.square, out=self._root)
        second = (1 - _SECOND**self.steps) ** 0.5
        self._root += _LEAST * second
        xp.divide(self.mean, self._root, out=self._root)
        self._root *= rate * second / (1 - _FIRST**self.steps)
        self.parameters -= self._root
