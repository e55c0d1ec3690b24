"""Convolutional recurrent cells: an LSTM (Shi et al. 2015, arXiv:1506.04214), and a linear cell."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class State(NamedTuple):
    """Output h and memory c of a cell, (B, hidden, H, W) tensors; both are 0 before the first step."""

    h: Tensor
    c: Tensor


class ConvLSTM(nn.Module):
    """c' = sigmoid(f + 1) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c') with (i, f, o, g) = conv(inputs, h) + drive.

    The drive (B, 4 hidden, H, W) is the part of the gates that comes from convolutions outside of the cell. With the 1
    a new cell remembers more than it forgets.

    Parameters
    ----------
    inputs : int
        Channels of the inputs.
    hidden : int
        Channels of the state.
    kernel_size : int
        Side of the kernel, odd.
    """

    gates = 4  # channels of the drive per channel of the state

    def __init__(self, inputs: int, hidden: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs + hidden, 4 * hidden, kernel_size, padding=kernel_size // 2)

    def forward(self, inputs: Tensor, drive: Tensor, state: State) -> State:
        """The next state."""
        i, f, o, g = (self.conv(torch.cat((inputs, state.h), 1)) + drive).chunk(4, 1)
        c = (f + 1).sigmoid() * state.c + i.sigmoid() * g.tanh()
        return State(o.sigmoid() * c.tanh(), c)


class LinearCell(nn.Module):
    """h' = conv(inputs, h) + drive, without a memory. A model of such cells is linear, and has exact answers.

    Parameters
    ----------
    inputs, hidden, kernel_size : int
        See `ConvLSTM`.
    """

    gates = 1

    def __init__(self, inputs: int, hidden: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs + hidden, hidden, kernel_size, padding=kernel_size // 2)

    def forward(self, inputs: Tensor, drive: Tensor, state: State) -> State:
        """The next state."""
        return State(self.conv(torch.cat((inputs, state.h), 1)) + drive, state.c)


CELLS: dict[str, type[ConvLSTM] | type[LinearCell]] = {"lstm": ConvLSTM, "linear": LinearCell}
