"""Stand-ins for what a GPU would need, so that the kernels can be judged without one.

`Compiler` is NVRTC from its wheel, reached through ctypes: it says whether the kernels compile, and what registers they
take. `fake_cupy` is NumPy under CuPy's names, whose `RawModule` compiles the very same source for the CPU, through
`cuda_shim.h`. It proves the arithmetic of indices, padding, barriers and reductions; about speed and the GPU's own
exponential and logarithm it says nothing. Its arrays are those of `device`, which refuse to mix with the host's.
"""

from __future__ import annotations

import collections
import ctypes
import functools
import hashlib
import importlib.util
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.device import DeviceArray, inside, namespace, upload

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "constrained_vae" / "backends" / "kernels.cu"
KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(([^)]*)\)')


def signatures():
    """Every kernel's parameters, each as its C type without const."""
    return {
        name: [re.sub(r"\bconst\b|\w+$", "", parameter.strip()).replace(" ", "") for parameter in parameters.split(",")]
        for name, parameters in KERNEL.findall(SOURCE.read_text())
    }


def libraries():
    """Every NVRTC found among the installed wheels."""
    spec = importlib.util.find_spec("nvidia")
    places = list(spec.submodule_search_locations) if spec else []
    return sorted(
        path for place in places for path in Path(place).glob("*/lib/libnvrtc.so.*") if "alt" not in path.name
    )


class Compiler:
    """NVRTC."""

    def __init__(self, path):
        for needed in path.parent.glob("libnvrtc-builtins.so.*"):  # which some versions look for in vain
            ctypes.CDLL(str(needed))
        self.library = ctypes.CDLL(str(path))

    @property
    def version(self):
        numbers = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", *map(ctypes.byref, numbers))
        return tuple(number.value for number in numbers)

    def compile(self, source, options):
        """(binary, log); raises RuntimeError with the log."""
        program = ctypes.c_void_p()
        self._call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
        try:
            given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            failed = self.library.nvrtcCompileProgram(program, len(options), given)
            log = self._text(program, "nvrtcGetProgramLog")
            if failed:
                raise RuntimeError(log.decode())
            return self._text(program, "nvrtcGetCUBIN"), log.decode().rstrip("\0")
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def _text(self, program, name):
        size = ctypes.c_size_t()
        self._call(f"{name}Size", program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self._call(name, program, text)
        return text.raw

    def _call(self, name, *arguments):
        if code := getattr(self.library, name)(*arguments):
            self.library.nvrtcGetErrorString.restype = ctypes.c_char_p
            raise RuntimeError(f"{name}: {self.library.nvrtcGetErrorString(code).decode()}")


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class fake_cupy(types.ModuleType):
    """A module `cupy` that computes on the CPU.

    Fresh arrays hold NaN, between margins of NaN that are looked at after every launch: so an entry read before it is
    written, or beside the array, spoils the result, and one written beside the array is found.
    """

    MARGIN = 64

    def __init__(self, folder, order=0):
        super().__init__("cupy")
        self.folder, self.order, self.launches = folder, order, []
        self.fresh = collections.deque(maxlen=32)  # the arrays of a map or two
        self.ndarray = DeviceArray
        self.cuda = types.SimpleNamespace(
            memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=types.SimpleNamespace(memGetInfo=lambda: (1 << 30, 8 << 30)),
            Device=lambda: types.SimpleNamespace(id=0),
        )
        pool = types.SimpleNamespace(free_bytes=lambda: 0, used_bytes=lambda: 0, get_limit=lambda: 0)
        self.get_default_memory_pool = lambda: pool
        self.dot = self.matmul = lambda one, other: self._copy(namespace.matmul(one, other))

    def empty(self, shape, dtype=float):
        size = int(np.prod(shape))
        real = np.issubdtype(dtype, np.floating)
        whole = np.full(size + 2 * self.MARGIN, np.nan if real else 0, dtype)
        if real:
            self.fresh.append(whole)  # whose margins stay NaN; kernels write no integers
        return DeviceArray(whole[self.MARGIN : self.MARGIN + size].reshape(shape))

    def zeros(self, shape, dtype=float):
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    def _copy(self, array):
        copy = self.empty(array.shape, array.dtype)
        copy[...] = array
        return copy

    def asarray(self, array):
        return array if isinstance(array, DeviceArray) else self._copy(upload(array))

    def ascontiguousarray(self, array, dtype):
        inside(array)  # an array of the host would be refused
        return array if array.dtype == dtype and array.flags.c_contiguous else self._copy(array.astype(dtype))

    def RawModule(self, code, options):
        return types.SimpleNamespace(get_function=lambda name: functools.partial(self._launch, code, options, name))

    def _launch(self, code, options, name, grid, block, values):
        real = np.float32 if "-DREAL=float" in options else np.float64
        kinds = {"real*": real, "double*": np.float64, "Index": np.int64, "double": np.float64}
        pointers = []
        expected = signatures()[name]
        assert len(values) == len(expected), f"{name} takes {len(expected)} arguments, got {len(values)}"
        for value, kind in zip(values, expected, strict=True):
            assert value.dtype == kinds[kind], f"{name}: {value.dtype} given for {kind}"
            if kind.endswith("*"):
                assert isinstance(value, DeviceArray), f"{name}: an array on the host was given"
                assert value.flags.c_contiguous, f"{name}: a strided array was given"
                pointers.append(ctypes.c_void_p(value.array.ctypes.data))
            else:
                pointers.append(ctypes.c_int64(value) if kind == "Index" else ctypes.c_double(value))
        self.launches.append((name, grid, block))
        assert len(block) == 1
        assert block[0] % 32 == 0
        library = compiled(code, options, self.folder)
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(pointer) for pointer in pointers))
        sizes = (ctypes.c_uint * 2)(*grid, *([1] if len(grid) == 1 else []))
        library.launch.restype = ctypes.c_char_p
        message = library.launch(name.encode(), sizes, block[0], addresses, self.order)
        assert not message, f"{name}: {message.decode()}"
        for whole in self.fresh:
            assert np.isnan(whole[: self.MARGIN]).all(), f"{name} wrote before the start of an array"
            assert np.isnan(whole[-self.MARGIN :]).all(), f"{name} wrote beyond the end of an array"


def load_backend(folder, order=0):
    """The backend over a fake CuPy, with the order in which threads take their turns."""
    spec = importlib.util.find_spec("constrained_vae.backends.cupy")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", fake_cupy(folder, order))
        spec.loader.exec_module(module)
    return module


@functools.cache
def compiled(code, options, folder):
    """The kernels as a library for the CPU."""
    macros = [option for option in options if option.startswith("-D")]
    name = hashlib.sha256(repr((code, macros)).encode()).hexdigest()[:16]
    source, library = folder / f"{name}.cpp", folder / f"{name}.so"
    present = KERNEL.findall(preprocessed(code, macros))
    cases = "".join(
        f'    if (name == std::string("{kernel}")) shim::launch({kernel}, grid, count, values, order);\n'
        for kernel, _ in present
    )
    source.write_text(
        f'#include "cuda_shim.h"\n{code}\n'
        'extern "C" const char* launch(\n'
        "    const char* name, const unsigned* grid, unsigned count, void** values, int order\n"
        f") {{\n{cases}    return shim::error.empty() ? nullptr : shim::error.c_str();\n}}\n"
    )
    # As on the GPU, a product and a sum are fused only where the source says so.
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wno-unknown-pragmas"]
    done = subprocess.run(["g++", *flags, *macros, f"-I{HERE}", str(source), "-o", str(library)], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return ctypes.CDLL(str(library))


def preprocessed(code, macros):
    """The source that is left to compile with those macros."""
    command = ["g++", "-E", "-P", *macros, "-x", "c++", "-"]
    return subprocess.run(command, input=code, capture_output=True, text=True, check=True).stdout
