"""VAEs of images in PyTorch, of the optional extra `torch`: MLPVAE, and the prior RealNVP.

Examples
--------
>>> import torch
>>> from constrained_vae.image_models import MLPVAE
>>> model = MLPVAE((1, 8, 8), latent_dim=4)
>>> done = model(torch.rand(5, 1, 8, 8), torch.randn(5, *model.code_shape))
>>> done.mean.shape, done.kl.shape
(torch.Size([5, 1, 8, 8]), torch.Size([5, 1]))
"""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as _error:
    raise ImportError(
        "constrained_vae.image_models needs the package torch: pip install 'constrained-vae[torch]'"
    ) from _error

from .flows import RealNVP
from .gaussians import Gaussian
from .models import Model, Pass, make_model
from .vae import MLPVAE

__all__ = ["MLPVAE", "Gaussian", "Model", "Pass", "RealNVP", "make_model"]
