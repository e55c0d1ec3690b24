"""Theory of constrained variational auto-encoders: fixed points, phase transitions, the equations of *Taming VAEs*.

Every public name is imported from its module when it is first used, so that importing the package loads neither Numba,
CuPy, scikit-learn, matplotlib nor PyTorch. `__init__.pyi` lists the names.
"""

import importlib.metadata

from ._utils.lazy import attach as _attach

__version__ = importlib.metadata.version("constrained-vae")

__getattr__, _names, __all__ = _attach(__name__, __file__)
__all__.remove("image_models")  # needs an extra: `from constrained_vae import *` works without it


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
