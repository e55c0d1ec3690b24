"""Sessions with threads, forks, other processes, Ctrl-C and read-only folders: each returns the bits of a plain one."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import constrained_vae as cv

ROOT = Path(cv.__file__).parents[1]

SESSION = """
import hashlib, sys, time
import numpy as np
import constrained_vae as cv
from constrained_vae import backends
from tests.helpers.linear_form import make

def bits(_=None):
    '''Of maps with few statistics and many, with a shared block (LARGE), and of a solution.'''
    sizes = [(3000, 200, 2), (3000, 200, 12)] + [(67, 13001, 70)] * LARGE
    parts = []
    for N, K, S in sizes:
        problem = make("linear", 0, N, K, S)
        found = backends.get_backend().expectations(*problem.arguments)
        parts += [found.mass, found.sums, np.float64(found.free_energy)]
    solution = cv.solve(make("gaussian", 1, 600, 40, 2).arguments[0], beta=0.5, n_tiles=40)
    parts += [solution.decoder, np.float64(solution.free_energy)]
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
"""

THREADS = """
from concurrent.futures import ThreadPoolExecutor
alone = bits()
with ThreadPoolExecutor(4) as pool:
    assert set(pool.map(bits, range(8))) == {alone}
"""

FORK = """
import multiprocessing
alone = bits()
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert set(pool.map(bits, range(4))) == {alone}
assert bits() == alone
"""


def environment(**variables):
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore::DeprecationWarning"} | variables


def session(*codes, large=False, prefix=(), timeout=60, **variables):
    """What a session prints that runs the codes."""
    code = "\n".join([f"LARGE = {large}", SESSION, *codes])
    command = [*prefix, sys.executable, "-P", "-c", code]
    process = subprocess.Popen(
        command,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, error = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with its children, which may be what it waits for
        raise
    assert process.returncode == 0, error[-3000:]
    return out


def has_layer(name):
    code = "import numba; numba.get_num_threads()"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment(NUMBA_THREADING_LAYER=name), capture_output=True).returncode == 0


def two_cores():
    """Settings under which kernels start threads even where the tests run on one core."""
    return {"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}


def test_threads_under_the_layer_that_runs_one_kernel_at_a_time():
    session(THREADS, NUMBA_THREADING_LAYER="workqueue", **two_cores())


def test_a_pool_of_forks_after_kernels_have_run():
    session(FORK, **two_cores())


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["workqueue", "omp", "tbb"])
def test_threads_and_forks_under_every_layer(layer):
    if not has_layer(layer):
        pytest.skip(f"Numba has no threading layer {layer} here")
    executor = """
from concurrent.futures import ProcessPoolExecutor
with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
    assert set(pool.map(bits, range(4))) == {alone}
"""
    session(THREADS, FORK, executor, THREADS, large=True, NUMBA_THREADING_LAYER=layer, **two_cores())


@pytest.mark.slow
def test_a_fork_waits_for_a_compilation_in_another_thread(tmp_path):
    code = """
import multiprocessing, threading
first = threading.Thread(target=bits)
first.start()
time.sleep(1.5)
pool = multiprocessing.get_context("fork").Pool(2)
found = set(pool.map_async(bits, range(2)).get(150))
first.join()
assert found == {bits()}
"""
    session(code, timeout=200, NUMBA_CACHE_DIR=str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["spawn", "forkserver", "loky", "threading"])
def test_other_ways_to_have_workers(how, tmp_path):
    script = f"""
LARGE = True
{SESSION}
if __name__ == "__main__":
    alone = bits()
    if {how!r} in ("loky", "threading"):
        from joblib import Parallel, delayed
        found = Parallel(2, backend={how!r})(delayed(bits)() for _ in range(4))
    else:
        import multiprocessing
        with multiprocessing.get_context({how!r}).Pool(2) as pool:
            found = pool.map(bits, range(4))
    assert set(found) == {{alone}}
"""
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, str(tmp_path / "script.py")]
    subprocess.run(command, env=environment(**two_cores()), timeout=100, check=True)


INTERRUPTED = """
print("ready", flush=True)
try:
    try:
        bits()
    except KeyboardInterrupt:
        pass
    sys.stdin.read()  # until Ctrl-C has been sent
except KeyboardInterrupt:
    pass
import threadpoolctl
print(bits(), {library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"})
"""


def first_call(folder, delay=None):
    """What a session prints, or its error, if Ctrl-C comes after a delay in seconds; and how long it took."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", "\n".join(["LARGE = False", SESSION, INTERRUPTED])],
        env=environment(NUMBA_CACHE_DIR=str(folder), OPENBLAS_NUM_THREADS="2"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    started = time.monotonic()
    if delay is not None:
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
    out, error = process.communicate("", timeout=100)
    return out if process.returncode == 0 else error[-500:], time.monotonic() - started


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["cold", "warm"])
def test_ctrl_c_at_any_time_of_the_first_call_leaves_a_usable_session(cache, tmp_path):
    expected, duration = first_call(tmp_path / "cache")
    assert "{2}" in expected
    if cache == "warm":
        _, duration = first_call(tmp_path / "cache")
    draw = random.Random(cache)
    for n in range(30):
        folder = tmp_path / ("cache" if cache == "warm" else str(n))
        assert first_call(folder, draw.uniform(0, duration))[0] == expected
        if cache == "cold":
            shutil.rmtree(folder, ignore_errors=True)


def package_copy(folder):
    """A copy of the package and of the helpers of the tests, without anything compiled."""
    for name in ("constrained_vae", "tests/helpers"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests" / "__init__.py").touch()
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("setpriv") is None, reason="root must lose its rights")
def test_a_read_only_installation_without_a_home(tmp_path):
    """It returns the same bits, with one warning."""
    copy = package_copy(tmp_path / "copy")
    prefix = ()
    if os.geteuid() == 0:
        prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override", "--")
        for path in [copy, *copy.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
    code = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", UserWarning)
    found = bits()
assert cv.__file__.startswith(sys.argv[1])
print(["NUMBA_CACHE_DIR" in str(warning.message) for warning in caught], found)
"""
    code = code.replace("sys.argv[1]", repr(str(copy)))
    variables = {"PYTHONPATH": str(copy), "HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere"}
    out = session(code, prefix=prefix, NUMBA_CACHE_DIR="", **variables)
    assert out == f"[True] {session('print(bits())')}"


@pytest.mark.slow
def test_a_change_of_the_arithmetic_compiles_every_kernel_anew(tmp_path):
    copy = package_copy(tmp_path / "copy")
    variables = {"PYTHONPATH": str(copy), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    arithmetic = copy / "constrained_vae" / "backends" / "arithmetic.py"
    code = """
from constrained_vae.backends import numba as kernels
found = kernels.expectations(*map(np.array, ([[0.]], [0.], [1.], [[0.], [0.]], [0., -500.], [0., 0.])))
print(found.mass[1] > 0)
"""
    assert session(code, **variables) == "True\n"
    source = arithmetic.read_text()
    assert source.count("lowest=-650.0") == 1
    arithmetic.write_text(source.replace("lowest=-650.0", "lowest=-400.0"))
    assert session(code, **variables) == "False\n"
