"""Elementary operations of the Numba kernels, written so that loops are vectorised."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from .._utils.arrays import Array


def frozen(array: Array, real: type) -> Array:
    """A contiguous read-only view, so that one compiled kernel serves writable and read-only arrays without a copy."""
    flags = array.flags
    ready = array.dtype.type is real and flags.c_contiguous
    if ready and not flags.writeable:
        return array
    view: Array = (array if ready else np.ascontiguousarray(array, real)).view()
    view.setflags(write=False)
    return view


@njit(fastmath={"reassoc"})
def add(x: Any, y: Any) -> Any:
    """x + y, where the compiler may reorder the sum to vectorise it; all other operations follow IEEE arithmetic."""
    return x + y


@njit
def assign(target: Any, source: Any) -> None:
    """target[:] = source for vectors (n,). Numba's own assignment takes two seconds to compile: it explains errors."""
    for i in range(len(source)):
        target[i] = source[i]


@njit(fastmath={"contract"})
def multiply_add(x: Any, y: Any, z: Any) -> Any:
    """x y + z, rounded once if the processor has a fused multiply-add."""
    return x * y + z


@intrinsic
def maximum(context: Any, x: Any, y: Any) -> Any:
    """The larger of x and y by LLVM's maxnum, the only form of a maximum over an array that LLVM vectorises."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        real = arguments[0].type
        maxnum = builder.module.declare_intrinsic("llvm.maxnum", [real], ir.FunctionType(real, [real, real]))
        return builder.call(maxnum, arguments)

    return x(x, x), generate


def exp(x: Any) -> Any:
    """exp(x) for x <= 0, to 2 eps, and zero below exp(-650) (float32: exp(-60)); only compiled code can call it."""
    raise NotImplementedError


@overload(exp, jit_options={"fastmath": {"contract"}})
def _exp_of_type(x: Any) -> Any:
    return {types.float64: _EXP_64, types.float32: _EXP_32}[x]


def _exponential(real: Any, integer: Any, mantissa: int, bias: int, degree: int, lowest: float) -> Callable[[Any], Any]:
    """exp(x) = 2^k exp(r), k = round(x / log 2), |r| <= log(2) / 2, without branch or table, so that it is vectorised.

    On that interval the remainder of Taylor's polynomial of degree 13 (float32: 7) is below 5e-18 (6e-9).
    """
    log2e, least, zero = real(1 / math.log(2)), real(lowest), real(0)
    # Adding this number rounds to an integer, and the last bits of the sum hold the integer.
    rounder = real(1.5 * 2.0**mantissa)
    # log 2 in two parts. The first part has so few bits that its product with k is exact (Cody and Waite).
    log2, scale = Decimal(2).ln(), 2 ** (mantissa - 12)
    high = real(round(log2 * scale) / scale)
    low = real(log2 - Decimal(float(high)))
    first, *others = (real(1 / math.factorial(n)) for n in range(degree, -1, -1))
    rest = tuple(others)

    def exp(x: Any) -> Any:
        shifted = x * log2e + rounder
        k = shifted - rounder
        r = (x - k * high) - k * low
        p = first
        for coefficient in rest:
            p = p * r + coefficient
        power = integer((real(shifted).view(integer) + bias) << mantissa).view(real)  # 2^k from its bits
        return zero if x < least else p * power

    return exp


_EXP_64 = _exponential(np.float64, np.int64, mantissa=52, bias=1023, degree=13, lowest=-650.0)
_EXP_32 = _exponential(np.float32, np.int32, mantissa=23, bias=127, degree=7, lowest=-60.0)
