"""Messages of a command, and errors of which a signal is the cause."""

import io
import signal

import pytest

from constrained_vae.cli import endings
from constrained_vae.cli.signals import Signals


def test_errors_that_a_signal_has_caused_are_an_interruption(capsys):
    with Signals() as signals:
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
