"""Signals at random moments: a file is the old one or a new one, whole; results so far are written; one line is said.

The processes are those of `tests/helpers/signalled.py`. A draft stays behind only where a process was killed.
"""

import collections
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.marks import slow

ROOT = Path(__file__).parents[1]
NOTHING, SOME = "interrupted before there was anything to", "interrupted: this is what had been computed"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def trials(kind, *numbers):
    """The trials of a kind: seed, and numbers of SIGINT, SIGTERM and SIGKILL."""
    command = [sys.executable, "-m", "tests.helpers.signalled", kind, *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def counted(found):
    """Print how often each case ended how."""
    table = collections.Counter(
        (trial["case"], signal.Signals(trial["number"]).name, trial["code"], trial["new"], trial["drafts"])
        for trial in found
    )
    for (case, number, code, new, drafts), count in sorted(table.items()):
        print(f"{count:4} {case:20} {number:8} exit {code:4} {'new' if new else 'old'} file, {drafts} drafts")


@pytest.mark.parametrize("numbers", [(1, 4, 2, 2), slow((2, 100, 50, 50))], ids=str)
def test_savers(numbers):
    found = trials("savers", *numbers)
    counted(found)
    for trial in found:
        assert trial["broken"] == [], trial
        assert trial["code"] == {signal.SIGINT: 130}.get(trial["number"], -trial["number"]), trial
        assert trial["drafts"] <= (trial["number"] == signal.SIGKILL), trial
        assert trial["text"] == "", trial


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [("commands", (1, 4, 2, 1)), slow("commands", (2, 80, 40, 50)), slow("figures", (2, 6, 4, 4))],
)
def test_commands(kind, numbers):
    found = trials(kind, *numbers)
    counted(found)
    for trial in found:
        assert trial["broken"] == [], trial
        assert "Traceback" not in trial["text"], trial
        if trial["number"] == signal.SIGKILL:
            assert trial["code"] in (-signal.SIGKILL, 0, 1), trial
            continue
        assert trial["drafts"] == 0, trial
        assert trial["code"] in (128 + trial["number"], 0, 1), trial  # 0, 1: it was done before
        assert (NOTHING in trial["text"] or SOME in trial["text"]) == (trial["code"] >= 128), trial
        assert trial["new"] == (NOTHING not in trial["text"]), trial


def handles_sigterm(pid):
    status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the state of a process")
@pytest.mark.parametrize("count", [1, slow(40)])
def test_a_program_that_has_just_begun(tmp_path, count):
    """While modules are imported there is one line, and no traceback."""
    rng = random.Random(count)
    command = [sys.executable, "-m", "constrained_vae", "sweep", "two_points", "--betas", "0.2:1.5:12", "--quiet"]
    for trial in range(count):
        number, out = (signal.SIGINT, signal.SIGTERM)[trial % 2], tmp_path / f"{trial}.npz"
        process = subprocess.Popen([*command, "--out", out], stdout=-1, stderr=-1, text=True, cwd=ROOT)
        while not handles_sigterm(process.pid):  # before that Python itself begins, and says what it likes
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.7))
        process.send_signal(number)
        _, said = process.communicate()
        assert process.returncode in (128 + number, 0), said
        assert said.count("\n") == (process.returncode != 0), said
        assert out.exists() == (NOTHING not in said)
