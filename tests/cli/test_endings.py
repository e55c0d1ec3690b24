"""Signals of a command, and its messages."""

import importlib
import io
import signal
import sys
import time

import pytest

from constrained_vae.cli import endings


def test_a_key_that_is_pressed_twice_interrupts_once():
    with endings.Signals() as signals:
        with pytest.raises(KeyboardInterrupt), endings.computing(signals):
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
    with endings.Signals() as signals:
        with pytest.raises(KeyboardInterrupt), endings.computing(signals):
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
    with endings.Signals() as signals:
        with pytest.raises(KeyboardInterrupt), endings.computing(signals):
            imported_and_on()
        assert signals.numbers == [signal.SIGTERM]
    assert sys.modules["slowly"].done


def test_a_signal_before_the_computation_ends_it():
    ran = []
    with endings.Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), endings.computing(signals):
            ran.append(True)
    assert (signals.code, ran) == (143, [])


def test_what_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with endings.Signals() as signals:
            signal.raise_signal(signal.SIGINT)
        assert signals.numbers == []
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_errors_that_a_signal_has_caused_are_an_interruption(capsys):
    with endings.Signals() as signals:
        with pytest.raises(NameError):
            endings.explained("prog", NameError("x"), "write", signals)
        signal.raise_signal(signal.SIGINT)
        assert endings.explained("prog", NameError("x"), "write", signals) == 130
    assert capsys.readouterr().err == "prog: interrupted before there was anything to write\n"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", "β … ☃"), ("ascii", "beta ... ?"), ("latin-1", "beta ... ?"), ("cp1253", "β … ?")],
)
def test_letters_that_an_output_does_not_have(encoding, shown):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    endings.say("β … ☃", stream)
    stream.flush()
    assert stream.buffer.getvalue().decode(encoding) == f"{shown}\n"
