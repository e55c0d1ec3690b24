"""Image models of *Taming VAEs* in PyTorch."""

from .tasks import Batch, ColourMnist, MnistRotate, PlainImages, Task

__all__ = ["Batch", "ColourMnist", "MnistRotate", "PlainImages", "Task"]
