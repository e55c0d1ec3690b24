"""Clusters of Dask on this machine: the same bits with any number of workers, and an end when something is lost."""

import contextlib
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae._utils.lost import LostError

dask = pytest.importorskip("dask", reason="Dask is not installed: pip install 'constrained-vae[dask]'")
distributed = pytest.importorskip("distributed", reason="distributed is missing: pip install 'constrained-vae[dask]'")
import dask.array as da  # noqa: E402
from distributed import Client, LocalCluster  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@contextlib.contextmanager
def cluster(workers, processes=True, patience=60):
    """A cluster, and a client that waits so many seconds for a sign of life: on a crowded machine these come late."""
    settings = {
        "constrained_vae.timeout": patience,
        "distributed.comm.timeouts.connect": f"{patience}s",
        "distributed.admin.log-format": "%(message)s",
    }
    with dask.config.set(settings):
        options = {"threads_per_worker": 1, "processes": processes, "dashboard_address": ":0", "silence_logs": 50}
        found = LocalCluster(n_workers=workers, **options)
        client = Client(found)
        try:
            yield found, client
        finally:  # a cluster whose worker was killed meanwhile may fail to close
            for closing in (client, found):
                with contextlib.suppress(Exception):
                    closing.close(timeout=20)


def data(n=9000):
    x = np.random.default_rng(0).standard_normal((n, 3)) * [3, 1, 1]
    return da.from_array(x, chunks=(700, 3))


def solved(x, **arguments):
    return cv.solve(x, beta=2.0, n_tiles=6, tol=1e-6, **arguments)


@pytest.fixture(scope="module")
def alone():
    """The solution in this thread."""
    with dask.config.set(scheduler="synchronous"):
        return solved(data())


def assert_same_bits(one, other):
    assert one.n_maps == other.n_maps
    assert one.free_energy == other.free_energy
    assert np.array_equal(one.decoder, other.decoder)
    assert np.array_equal(one.marginal, other.marginal)


def released(client, seconds=20.0):
    """Whether no data are left on the workers, which are told so some time after the last reference is gone."""
    gc.collect()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(client.run(lambda dask_worker: len(dask_worker.data)).values()):
            return True
        time.sleep(0.1)
    return False


def test_workers_in_threads_have_the_same_bits(alone):
    """Several workers of one process, whose kernels take turns where Numba's threads are of the layer "workqueue"."""
    with cluster(2, processes=False) as (_, client):
        assert_same_bits(alone, solved(data()))
        assert released(client)


@pytest.mark.cluster
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_has_the_same_bits(workers, alone):
    with cluster(workers) as (_, client):
        found = solved(data())
        assert_same_bits(alone, found)
        assert np.array_equal(found.labels.compute(), alone.labels.compute(scheduler="synchronous"))
        persisted = data().persist()
        assert_same_bits(alone, solved(persisted))
        shares = np.random.default_rng(1).random(9000)
        one = solved(data(), weights=shares)
        with dask.config.set(scheduler="synchronous"):
            assert_same_bits(solved(data(), weights=shares), one)
            report = str(cv.report(alone))
        assert str(cv.report(found)) == report
        del found, one, persisted
        assert released(client)


def kill_at(number, pid, how=signal.SIGKILL):
    """A callback that sends a signal to a process at the map of a number."""
    sent = []

    def call(iterate):
        if iterate.n_maps >= number and not sent:
            sent.append(os.kill(pid, how))

    return call


def pids(client):
    return sorted(client.run(os.getpid).values())


def killed(alone, runs, seed):
    """Solve, with a worker killed at a random map; the bits must be those without."""
    rng = np.random.default_rng(seed)
    while runs > 0:
        with cluster(2) as (_, client):
            while runs > 0:
                try:
                    client.wait_for_workers(2, timeout=30)
                    pid = int(rng.choice(pids(client)))
                except OSError:  # a nanny may not start its worker again: another cluster
                    break
                assert_same_bits(alone, solved(data(), callback=kill_at(int(rng.integers(2, 40)), pid)))
                runs -= 1
                print(runs, "runs are left", flush=True)


@pytest.mark.cluster
def test_a_worker_that_is_killed_changes_no_bit(alone):
    killed(alone, runs=2, seed=0)


@pytest.mark.slow
@pytest.mark.cluster
def test_workers_that_are_killed_change_no_bit(alone):
    """CONSTRAINED_VAE_KILLS has the number of runs, from which their random maps follow."""
    runs = int(os.environ.get("CONSTRAINED_VAE_KILLS", "20"))
    killed(alone, runs, seed=runs)


@pytest.mark.cluster
def test_a_scheduler_that_is_lost_ends_a_call_with_the_last_point():
    with cluster(2, patience=4) as (local, client):
        x, closing = data(), []

        def close(iterate):
            if iterate.n_maps >= 5 and not closing:
                closing.append(threading.Thread(target=local.close))
                closing[0].start()

        with pytest.warns(cv.NotConvergedWarning, match="cluster with the data was lost"):
            found = solved(x, callback=close)
        assert found.status.name == "LOST"
        assert np.isfinite(found.free_energy)
        closing[0].join()
        with pytest.raises((LostError, RuntimeError, ValueError)):
            with dask.config.set(scheduler=client):
                solved(x)


@pytest.mark.cluster
def test_a_silent_worker_ends_a_call_with_a_sentence(alone):
    """Of two workers one is silent: the other takes its blocks. When both are silent, the call ends."""
    with cluster(2, patience=4) as (_, client):
        one, other = pids(client)
        try:
            assert_same_bits(alone, solved(data(), callback=kill_at(5, one, signal.SIGSTOP)))
            with pytest.warns(cv.NotConvergedWarning, match="lost"):
                solved(data(), callback=kill_at(5, other, signal.SIGSTOP))
        finally:
            for pid in (one, other):
                os.kill(pid, signal.SIGCONT)


@pytest.mark.cluster
def test_ctrl_c_cancels_what_is_in_flight():
    with cluster(1) as (_, client):

        def interrupt(iterate):
            if iterate.n_maps == 5:
                threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()

        with pytest.warns(cv.NotConvergedWarning, match="interrupted"):
            found = solved(data(), callback=interrupt)
        assert found.status.name == "INTERRUPTED"
        assert released(client)
        assert not any(client.processing().values())


@pytest.mark.cluster
def test_errors_of_the_data_come_back_as_they_are():
    with cluster(1):
        x = data()
        with pytest.raises(ValueError, match="begins with row 700 must be finite"):
            solved(da.where(x == x[703, 1], np.nan, x))


@pytest.mark.cluster
def test_workers_of_one_process_do_not_abort_numba():
    """Under the layer "workqueue" a process is aborted if two threads enter a parallel kernel at once."""
    code = (
        "import constrained_vae as cv, dask.array as da, numba\n"
        "from distributed import Client, LocalCluster\n"
        "x = da.random.default_rng(0).normal(size=(240_000, 3), chunks=(20_000, 3)) * [3, 1, 1]\n"
        "options = {'n_workers': 3, 'threads_per_worker': 2, 'processes': False, 'dashboard_address': ':0'}\n"
        "with LocalCluster(**options) as cluster, Client(cluster):\n"
        "    cv.solve(x, beta=2.0, n_tiles=16, max_maps=15, on_failure='return')\n"
        "print(numba.threading_layer())\n"
    )
    environment = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "2"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, env=environment)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "workqueue"


@pytest.mark.cluster
def test_the_example_of_the_guide_runs():
    """In a process of its own, as a user has it; the labels are a third each."""
    text = (Path(cv.__file__).parents[1] / "docs" / "guide.md").read_text()
    code = text.split("### More than one machine")[1].split("```python")[1].split("```")[0]
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    assert "3 distinct" in found.stdout
    assert found.stdout.splitlines()[-1] == "[66667 66667 66666]"


@pytest.mark.cluster
def test_the_performance_report_of_the_guide_is_written(tmp_path, monkeypatch):
    text = (Path(cv.__file__).parents[1] / "docs" / "guide.md").read_text()
    (code,) = (block for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S) if "performance" in block)
    monkeypatch.chdir(tmp_path)
    with cluster(2):
        exec(code, {"cv": cv, "x": data()})
    assert "Dask Performance Report" in (tmp_path / "report.html").read_text()


@pytest.mark.cluster
def test_parquet_and_zarr_are_read_by_the_workers(alone, tmp_path):
    zarr = pytest.importorskip("zarr", reason="Zarr is not installed: pip install zarr")
    assert zarr
    with cluster(2):
        data().to_zarr(str(tmp_path / "x.zarr"))
        assert_same_bits(alone, solved(da.from_zarr(str(tmp_path / "x.zarr"))))
