"""Awareness: awake time and the stretch."""

from random import Random

import pytest

from covey.gossip.awareness import Awareness


def aware() -> Awareness:
    return Awareness(unit_s=1.0, least_s=0.1, memory_s=10.0, stretch_max=8.0)


def test_health_changes_nothing() -> None:
    awareness = aware()
    for turn in range(100):
        awareness.note(turn * 0.3, 0.01)
    assert awareness.stretch == 1.0
    assert awareness.awake(30.0) == 30.0


def test_stall_is_left_out_of_awake_time() -> None:
    awareness = aware()
    awareness.note(10.0, 0.0)
    awareness.note(15.0, 4.0)
    assert awareness.awake(15.0) == 11.0
    assert awareness.clock(awareness.awake(16.0)) == 16.0


def test_awake_time_never_runs_backwards() -> None:
    """A caller may report more lag than has passed since its last turn."""
    awareness, rng = aware(), Random(1)
    now = last = 0.0
    awareness.note(now, 0.0)
    for _ in range(1000):
        now += rng.random()
        awareness.note(now, rng.choice([0.0, 0.5, 100.0]))
        assert awareness.awake(now) >= last - 1e-9
        last = awareness.awake(now)


def test_stretch_grows_with_repeated_lag_and_decays() -> None:
    awareness, now = aware(), 0.0
    awareness.note(now, 0.0)
    for _ in range(200):
        now += 1.0
        awareness.note(now, 0.4)
    assert awareness.stretch == pytest.approx(1.0 + 0.4 * 10.0, rel=0.1)
    awareness.note(now + 50.0, 0.0)
    assert awareness.stretch < 1.05
    for _ in range(50):
        now += 5.0
        awareness.note(now, 4.0)
    assert awareness.stretch <= 8.0
