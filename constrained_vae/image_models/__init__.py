"""VAEs of images in PyTorch, of the optional extra `torch`: models, what they learn, and `train`.

Examples
--------
>>> import torch
>>> from constrained_vae.image_models import ConvDRAW
>>> model = ConvDRAW((1, 16, 16), steps=3)
>>> done = model(torch.rand(5, 1, 16, 16), torch.randn(5, *model.code_shape))
>>> done.mean.shape, done.kl.shape
(torch.Size([5, 1, 16, 16]), torch.Size([5, 3]))
"""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as _error:
    raise ImportError(
        "constrained_vae.image_models needs the package torch: pip install 'constrained-vae[torch]'"
    ) from _error

from .convdraw import ConvDRAW
from .evaluation import ImageEvaluation
from .flows import RealNVP
from .gaussians import Gaussian
from .models import Model, Pass, make_model
from .runs import ImageRun, LinearPlacement
from .tasks import Batch, ColourMnist, MnistRotate, PlainImages, Task
from .trainer import train
from .vae import MLPVAE, ConvVAE

__all__ = [
    "MLPVAE",
    "Batch",
    "ColourMnist",
    "ConvDRAW",
    "ConvVAE",
    "Gaussian",
    "ImageEvaluation",
    "ImageRun",
    "LinearPlacement",
    "MnistRotate",
    "Model",
    "Pass",
    "PlainImages",
    "RealNVP",
    "Task",
    "make_model",
    "train",
]
