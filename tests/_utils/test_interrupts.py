import gc
import signal
import subprocess
import sys
import threading
import time

import pytest

from constrained_vae._utils import interrupts
from constrained_vae._utils.interrupts import _SIGNALS, deferred_interrupts, finished


@pytest.mark.parametrize("number", _SIGNALS)
def test_a_signal_is_delivered_once_after_the_block(number):
    seen = []
    before = signal.signal(number, lambda *_: seen.append("handled"))
    try:
        with deferred_interrupts(), deferred_interrupts():
            signal.raise_signal(number)
            signal.raise_signal(number)
            seen.append("block")
        assert seen == ["block", "handled"]
        signal.raise_signal(number)
        assert seen == ["block", "handled", "handled"]
    finally:
        signal.signal(number, before)


def interrupted(fail=False):
    with deferred_interrupts():
        signal.raise_signal(signal.SIGINT)
        DONE.append(1 / (not fail))


DONE = []


def test_ctrl_c_is_raised_after_the_block_and_the_handler_is_restored():
    DONE.clear()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert DONE == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_of_the_block_is_kept():
    with pytest.raises(ZeroDivisionError), deferred_interrupts():
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt) as caught:
        interrupted(fail=True)
    assert isinstance(caught.value.__context__, ZeroDivisionError)


def test_in_another_thread_the_block_is_entered_as_it_is():
    ran = []

    def work():
        with deferred_interrupts():
            ran.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran == [signal.default_int_handler]


def test_sigterm_by_default_ends_the_process_after_the_block():
    code = (
        "import signal\n"
        "from constrained_vae._utils.interrupts import deferred_interrupts\n"
        "with deferred_interrupts():\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('block', flush=True)\n"
        "print('after')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "block\n")


def test_a_result_is_finished_and_ctrl_c_is_told():
    def pressed(fail):
        signal.raise_signal(signal.SIGINT)
        return 1 / (not fail)

    assert finished(lambda: 2) == (2, False)
    assert finished(lambda: pressed(False)) == (1, True)
    with pytest.raises(KeyboardInterrupt):
        finished(lambda: pressed(True))
    with pytest.raises(ZeroDivisionError):
        finished(lambda: 1 / 0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="there are no alarms")
def test_an_alarm_that_raises_leaves_every_handler_as_it_was():
    """The handler may raise while the others are being restored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    usual = signal.signal(signal.SIGALRM, raise_late)
    raised = 0
    gc.disable()  # an alarm that raises while objects are collected would be reported as unraisable
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
        end = time.monotonic() + 10
        while raised < 1000 and time.monotonic() < end:
            try:
                with deferred_interrupts():
                    pass
            except Late:
                raised += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)
        gc.enable()
    assert raised
    assert {number: signal.getsignal(number) for number in before} == before


class Late(Exception):
    pass


def raise_late(number, frame):
    """Raise an error where the block is entered or left: elsewhere in a test nothing would catch it."""
    while frame is not None:
        if frame.f_code.co_filename == interrupts.__file__:
            raise Late
        frame = frame.f_back


def test_signals_that_arrive_together_are_all_delivered():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("terminated") or 1 / 0)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            both()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == ["terminated"]
    assert isinstance(caught.value.__context__, ZeroDivisionError)


def both():
    with deferred_interrupts():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
