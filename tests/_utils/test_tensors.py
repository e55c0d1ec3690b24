"""Numbers from arrays of other libraries."""

from __future__ import annotations

import numpy as np
import pytest

from constrained_vae._utils.tensors import at_least_single, plain_number


def test_what_is_no_tensor_is_returned_unchanged():
    for value in (1.5, np.float16(1.5), np.ones(2), "text", None):
        assert at_least_single(value) is value
    array = np.ones(2)
    assert plain_number(array) is array


def test_tensors():
    torch = pytest.importorskip("torch")
    for kind in (torch.float16, torch.bfloat16):
        half = torch.tensor(1.5, dtype=kind, requires_grad=True)
        assert at_least_single(half).dtype == torch.float32
        assert plain_number(half) == 1.5
    for kind in (torch.float32, torch.float64):
        whole = torch.tensor(1.5, dtype=kind)
        assert at_least_single(whole) is whole
