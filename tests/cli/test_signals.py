"""Signals of a command: noted in any case, and raised where something is computed."""

import importlib
import signal
import sys
import time

import pytest

from constrained_vae.cli.signals import Signals


def test_a_key_that_is_pressed_twice_interrupts_once():
    with Signals() as signals:
        with pytest.raises(KeyboardInterrupt), signals.computing():
            signal.raise_signal(signal.SIGINT)
        with signals.raised():
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # outside of the block it is noted alone
    assert signals.numbers == [signal.SIGINT, *3 * [signal.SIGTERM]]
    assert signals.code == 130


def test_a_signal_that_a_destructor_has_swallowed_comes_again(capsys):
    class Swallows:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    def swallowed(swallows):
        del swallows
        for _ in range(1000):
            time.sleep(0.01)

    hook = sys.unraisablehook
    with Signals() as signals:
        with pytest.raises(KeyboardInterrupt), signals.computing():
            swallowed(Swallows())
        assert signals.numbers == [signal.SIGTERM]
    assert sys.unraisablehook is hook
    assert capsys.readouterr().err == ""


def test_an_import_is_finished_first(tmp_path, monkeypatch):
    def imported_and_on():
        importlib.import_module("slowly")
        for _ in range(1000):
            time.sleep(0.01)

    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "slowly.py").write_text("import signal\nsignal.raise_signal(signal.SIGTERM)\ndone = True\n")
    with Signals() as signals:
        with pytest.raises(KeyboardInterrupt), signals.computing():
            imported_and_on()
        assert signals.numbers == [signal.SIGTERM]
    assert sys.modules["slowly"].done


def test_a_signal_before_the_computation_ends_it():
    ran = []
    with Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), signals.computing():
            ran.append(True)
    assert (signals.code, ran) == (143, [])


def test_what_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGINT)
        assert signals.numbers == []
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
