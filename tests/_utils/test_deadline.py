from types import SimpleNamespace

import pytest

from constrained_vae._utils import deadline


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(time=0.0)
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: now.time))
    return now


def test_a_deadline_ends_what_looks_at_it(clock):
    deadline.check()  # there is none
    with deadline.within(2.0):
        clock.time = 1.9
        deadline.check()
        clock.time = 2.0
        assert deadline.passed()
        with pytest.raises(deadline.TimeUp):
            deadline.check()
    assert not deadline.passed()


def test_a_result_is_finished_after_the_deadline(clock):
    with deadline.within(0.0), deadline.finishing():
        deadline.check()
        assert deadline.passed()
        with deadline.within(1.0):  # a call inside of it has its own deadline
            clock.time = 1.0
            with pytest.raises(deadline.TimeUp):
                deadline.check()


def test_a_call_inside_has_its_own_deadline(clock):
    with deadline.within(0.0):
        for limit in (None, float("inf"), 5.0):
            with deadline.within(limit):
                deadline.check()
                assert not deadline.passed()


def test_compilation_does_not_count(clock):
    with deadline.within(1.0):
        with deadline.finishing(), deadline.paused():
            clock.time = 10.0
        deadline.check()
        clock.time = 11.0
        assert deadline.passed()
    with deadline.paused():
        clock.time = 12.0
    assert not deadline.passed()
