"""Probing: due times, the rate, and timeouts as measured."""

import math
from random import Random

import pytest

from covey.gossip.probing import Pacer, Target
from covey.protocols.identity import PeerId


def peer_id(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def pacer(per_s: int = 4) -> Pacer:
    return Pacer(per_s, given_up_s=30.0, rng=Random(1))


def test_earliest_due_first_and_no_more_than_the_rate() -> None:
    pace = pacer()
    targets = [Target(peer_id(n), due=float(-n)) for n in range(10)]
    assert pace.next_at([]) == math.inf
    chosen = pace.take(targets, 0.0)
    assert [target.peer for target in chosen] == [peer_id(n) for n in (9, 8, 7, 6)]
    assert pace.take(targets, 0.999) == []
    assert pace.next_at(targets) == 1.0
    assert [target.peer for target in pace.take(targets, 1.0)] == [peer_id(n) for n in (5, 4, 3, 2)]


def test_target_is_not_probed_twice_at_once_but_not_lost_either() -> None:
    pace, target = pacer(), Target(peer_id(1), due=0.0)
    assert pace.take([target], 0.0) == [target]
    target.due = 1.0
    assert pace.take([target], 5.0) == []
    assert pace.next_at([target]) == 30.0
    assert pace.take([target], 30.0) == [target]
    target.answered(0.1)
    assert pace.take([target], 31.5) == [target]


@pytest.mark.parametrize("count", [3, 10, 100])
def test_overload_starves_nobody(count: int) -> None:
    """Some are due every second, some rarely; all wait at most 1.1 periods and n / rate."""
    pace, rng, now = pacer(), Random(count), 0.0
    targets = [Target(peer_id(n), due=rng.random()) for n in range(count)]
    periods = {target.peer: rng.choice([1.0, 20.0]) for target in targets}
    last = dict.fromkeys(periods, 0.0)
    for _ in range(4000):
        now = max(now, pace.next_at(targets))
        for target in pace.take(targets, now):
            assert now - last[target.peer] <= 1.1 * periods[target.peer] + count / 4 + 1.0
            last[target.peer] = now
            target.due = now + pace.jittered(periods[target.peer])
            target.answered(0.001)
    assert min(last.values()) > now - 1.1 * 20.0 - count / 4 - 1.0


def test_timeout_follows_the_measured_times() -> None:
    target = Target(peer_id(1), due=0.0)
    assert target.timeout_s(1.0, 5.0) == 5.0
    target.answered(2.0)
    assert (target.rtt_s, target.timeout_s(1.0, 9.0)) == (2.0, 6.0)
    for _ in range(100):
        target.answered(0.001)
    assert target.rtt_s == pytest.approx(0.001, rel=0.01)
    assert target.timeout_s(1.0, 5.0) == 1.0
    target.unanswered = 2
    assert target.timeout_s(1.0, 5.0) == 4.0
    target.unanswered = 10_000
    assert target.timeout_s(1.0, 5.0) == 5.0
    target.answered(0.001)
    assert target.timeout_s(1.0, 5.0) == 1.0


def test_who_was_called_waits_but_not_for_long() -> None:
    pace, target = pacer(), Target(peer_id(1), due=5.0)
    pace.called(target, 4.0, interval_s=10.0)
    assert target.due == 5.0, "never probed: its time is not known"
    assert pace.take([target], 5.0) == [target]
    target.answered(0.1)
    target.due = 15.0
    pace.called(target, 14.0, interval_s=10.0)
    assert 14.0 + 7.65 <= target.due <= 14.0 + 9.35
    for now in (18.0, 24.0):
        pace.called(target, now, interval_s=10.0)
        assert target.due == 25.0
    pace.called(target, 1.0, interval_s=10.0)
    assert target.due == 25.0, "it only waits longer"


def test_jitter_is_a_tenth() -> None:
    pace = pacer()
    periods = [pace.jittered(10.0) for _ in range(1000)]
    assert 9.0 <= min(periods) < 9.1
    assert 10.9 < max(periods) <= 11.0
