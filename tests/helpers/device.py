"""A stand-in for CuPy's arrays, stricter than they are: it lies on a device of its own, and every crossing is counted.

It computes with NumPy, so that results equal those of the host to the bit. It refuses what CuPy refuses, arrays of the
host beside its own and implicit conversions, and what would wait for a GPU unseen: iteration, masks, lists as indices.
"""

import contextlib
import operator
import types

import numpy as np


class Traffic:
    """Sizes of the arrays that crossed, in order."""

    def __init__(self):
        self.uploads, self.downloads = [], []


_recorders = []


@contextlib.contextmanager
def recorded():
    """The traffic while this lasts."""
    traffic = Traffic()
    _recorders.append(traffic)
    try:
        yield traffic
    finally:
        _recorders.remove(traffic)


def upload(array, dtype=None):
    """An array of the host, or of the device already, on the device."""
    if isinstance(array, DeviceArray):
        return array if dtype in (None, array.dtype) else array.astype(dtype)
    array = array if dtype is None else np.asarray(array, dtype)
    assert isinstance(array, np.ndarray), f"{type(array)} was to be uploaded"
    for traffic in _recorders:
        traffic.uploads.append(array.size)
    return DeviceArray(array.copy())


def inside(value):
    """What NumPy is to compute with; TypeError for an array of the host."""
    if isinstance(value, DeviceArray):
        return value.array
    if isinstance(value, (tuple, list)):
        return type(value)(map(inside, value))
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: an array of the host, of shape {value.shape}, on the device")
    return value


def outside(value):
    """What NumPy gave, on the device: scalars too are arrays there."""
    if isinstance(value, (np.ndarray, np.generic)):
        return DeviceArray(np.asarray(value))
    return value


def on_device(function):
    def call(*arguments, out=None, **options):
        options = {name: inside(value) for name, value in options.items()}
        if out is None:
            return outside(function(*map(inside, arguments), **options))
        function(*map(inside, arguments), out=inside(out), **options)
        return out

    return call


class DeviceArray:
    """An array on the device; `array` is what it stands for."""

    device = types.SimpleNamespace(id=0)
    __cuda_array_interface__ = None
    __hash__ = None

    def __init__(self, array):
        self.array = array

    def get(self):
        for traffic in _recorders:
            traffic.downloads.append(self.size)
        return self.array.copy(order="C")

    shape, dtype, ndim, size, flags = (
        property(operator.attrgetter(f"array.{name}")) for name in ("shape", "dtype", "ndim", "size", "flags")
    )
    T = property(lambda self: DeviceArray(self.array.T))

    def __len__(self):
        return len(self.array)

    def __getitem__(self, index):
        return DeviceArray(np.asarray(self.array[_index(index)]))

    def __setitem__(self, index, value):
        self.array[_index(index)] = inside(value)

    def __iter__(self):
        raise TypeError("iterating over an array of the device")

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` instead.")

    def __float__(self):
        return float(self.get())

    def __int__(self):
        return int(self.get())

    def __bool__(self):
        return bool(self.get())

    def __array_namespace__(self, api_version=None):
        return namespace

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        if method != "__call__" or options:
            raise TypeError(f"{ufunc.__name__}.{method} with {sorted(options)}")
        return on_device(ufunc)(*inputs)

    def __array_function__(self, function, types, arguments, options):
        if function is not np.linalg.qr:  # of NumPy's functions that CuPy takes over, the one that is called
            raise TypeError(f"numpy.{function.__name__} was called with an array of the device")
        return on_device(function)(*arguments, **options)


def _index(index):
    for part in index if isinstance(index, tuple) else (index,):
        whole = isinstance(part, DeviceArray) and part.dtype.kind == "i"  # numbers of rows
        known = whole or part is None or part is Ellipsis or isinstance(part, (int, slice, np.integer))
        assert known, f"index {part!r}"
    return inside(index)


def _reflected(operation):
    return lambda self, other: operation(other, self)


def _in_place(operation):
    def call(self, other):
        operation(self.array, inside(other))
        return self

    return call


for _name in ("astype", "reshape", "ravel", "transpose", "copy", "clip", "repeat", "sum", "max", "min"):
    setattr(DeviceArray, _name, on_device(getattr(np.ndarray, _name)))
for _name in ("add", "sub", "mul", "truediv", "pow", "matmul", "lt", "le", "gt", "ge", "eq", "ne", "neg", "invert"):
    setattr(DeviceArray, f"__{_name}__", on_device(getattr(operator, _name)))
for _name in ("add", "sub", "mul", "truediv", "pow", "matmul"):
    setattr(DeviceArray, f"__r{_name}__", _reflected(on_device(getattr(operator, _name))))
for _name in ("iadd", "isub", "imul", "itruediv"):
    setattr(DeviceArray, f"__{_name}__", _in_place(getattr(operator, _name)))

# Of `array_api_compat.cupy`, what the package uses.
namespace = types.ModuleType("device")
namespace.asarray, namespace.concat = upload, on_device(np.concatenate)
for _name in (
    "stack where zeros zeros_like ones ones_like empty empty_like multiply divide matmul vecdot sqrt exp log tanh "
    "max sum"
).split():
    setattr(namespace, _name, on_device(getattr(np, _name)))
