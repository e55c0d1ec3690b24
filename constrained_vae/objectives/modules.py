"""Feature maps and classifiers of other libraries: modules of PyTorch, and pipelines of scikit-learn.

Nothing here imports PyTorch: whoever has a module has imported it.
"""

from __future__ import annotations

import copy
import sys
import warnings
from typing import Any

import numpy as np

from .._utils.arrays import FloatArray
from .._utils.tables import as_frame

_PROBABILITY_TOL = 1e-5  # of sums of probabilities in float32
_LINEAR_TOL = 1e-6  # relative difference of a step from a linear map


def is_module(value: Any) -> bool:
    """Whether a value is a module of PyTorch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


class ModuleFeatures:
    """A module of PyTorch as a feature map (n, D) -> (n, S), with products from its own gradients.

    It is a copy in evaluation mode, in float64 where the module permits that, so that later training of the module
    changes nothing.

    Parameters
    ----------
    module : torch.nn.Module
        Maps a tensor (n, D) to a tensor with n rows, row by row.
    probabilities : bool
        Whether the features are probabilities of classes: the outputs themselves if they are at least 0 and sum to one,
        else their softmax; of one output the sigmoid is the probability of the second of two classes.
    """

    def __init__(self, module: Any, probabilities: bool = False) -> None:
        self._torch = sys.modules["torch"]
        self._name, self._probabilities = type(module).__name__, probabilities
        self._module = copy.deepcopy(module).eval()
        try:
            self._module = self._module.double()
            self._dtype = self._torch.float64
        except Exception:  # of modules that have no such copy
            self._dtype = self._torch.float32
        parameters = [*self._module.parameters(), *self._module.buffers()]
        self._device = parameters[0].device if parameters else self._torch.device("cpu")
        for parameter in self._module.parameters():
            parameter.requires_grad_(False)

    def __repr__(self) -> str:
        return f"ModuleFeatures({self._name})"

    def __call__(self, x: FloatArray) -> FloatArray:
        with self._torch.no_grad():
            return self._outputs(self._tensor(x)).cpu().double().numpy()

    def pullback(self, x: FloatArray, df: FloatArray) -> FloatArray:
        points = self._tensor(x).requires_grad_(True)
        with self._torch.enable_grad():
            paired = (self._outputs(points) * self._tensor(df)).sum()
            if not paired.requires_grad:
                raise ValueError(f"the outputs of {self._name} have no gradient: it must not detach its tensors")
            (gradient,) = self._torch.autograd.grad(paired, points)
        return gradient.cpu().double().numpy()

    def _tensor(self, values: FloatArray) -> Any:
        return self._torch.as_tensor(np.array(values), dtype=self._dtype, device=self._device)

    def _outputs(self, points: Any) -> Any:
        try:
            found = self._module(points)
            found = found.reshape(len(points), -1)
        except Exception as error:
            raise ValueError(
                f"the module {self._name} fails on a tensor of shape {tuple(points.shape)} ({type(error).__name__}): "
                "it gets rows of x; put torch.nn.Unflatten(1, image_shape) in front if it wants images"
            ) from None
        if not self._probabilities:
            return found
        if found.shape[1] == 1:
            return self._torch.cat([self._torch.sigmoid(-found), self._torch.sigmoid(found)], dim=1)
        sums = found.detach().sum(dim=1)
        given = bool((found.detach() >= 0).all()) and bool(((sums - 1).abs() <= _PROBABILITY_TOL).all())
        return found if given else self._torch.softmax(found, dim=1)


def linear_steps(pipeline: Any) -> tuple[Any, FloatArray, FloatArray]:
    """The last step of a fitted scikit-learn pipeline, and the map x -> A x + a of the steps before it.

    Raises
    ------
    ValueError
        If the steps before the last one are not a linear map.
    """
    last, dim = pipeline[-1], getattr(pipeline, "n_features_in_", None)
    if dim is None:
        raise ValueError("classifier must be fitted: call fit(x, labels) of the pipeline first")
    steps = pipeline[:-1]
    if not len(steps):
        return last, np.eye(dim), np.zeros(dim)
    names = getattr(pipeline, "feature_names_in_", None)

    def through(x: FloatArray) -> FloatArray:
        given = x if names is None else as_frame(dict(zip(names, x.T, strict=True)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = steps.transform(given)
        return np.asarray(found.toarray() if hasattr(found, "toarray") else found, dtype=np.float64)

    origin = through(np.zeros((1, dim)))[0]
    size = np.ones(dim)
    for _ in range(2):  # the second time with steps at which the offset costs no digits
        A = (through(np.diag(size)) - origin).T / size
        lengths = np.linalg.norm(A, axis=0)
        size = np.maximum(1.0, np.linalg.norm(origin) / np.where(lengths > 0, lengths, 1.0))
    at = np.random.default_rng(0).standard_normal((16, dim)) * size
    expected, found = at @ A.T + origin, through(at)
    if not np.abs(expected - found).max() <= _LINEAR_TOL * np.abs(expected).max():
        raise ValueError(
            "classifier must be a pipeline of linear steps and a LogisticRegression, but "
            f"{' and '.join(_names(steps))} are no linear map: give Features(probabilities, product)"
        )
    return last, A, origin


def _names(steps: Any) -> list[str]:
    return [type(step).__name__ for _, step in steps.steps]
