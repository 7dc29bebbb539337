"""The bucket, in virtual time: never more than it may, nobody passed over, changes at once."""

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.node.bucket import Bucket

RATES = st.floats(1e3, 1e10)


@dataclass(frozen=True)
class Passed:
    at: float
    count: int


def drive(bucket: Bucket, counts: list[int]) -> list[Passed]:
    """All stand in line at time 0; when each passes."""
    places = [bucket.join(count, 0.0) for count in counts]
    now, passed = 0.0, []
    for place, count in zip(places, counts, strict=True):
        while (wait_s := bucket.wait_s(place, now)) > 0:
            now += wait_s
        passed.append(Passed(now, count))
    return passed


@given(RATES, st.lists(st.integers(1, 10**6), min_size=1, max_size=20))
def test_never_more_than_rate_times_time_and_a_burst(rate: float, counts: list[int]) -> None:
    """All come at once.  In every window from the first to any later one."""
    passed = drive(Bucket(rate, 0.0), counts)
    burst = max(rate * 0.05, *counts)
    for first in range(len(passed)):
        total = 0
        for last in range(first, len(passed)):
            total += passed[last].count
            elapsed = passed[last].at - passed[first].at
            assert total <= (rate * elapsed + burst) * (1 + 1e-9) + 2


@given(RATES, st.lists(st.tuples(st.floats(0, 2), st.integers(1, 10**6)), min_size=1, max_size=40))
def test_pauses_earn_no_more_than_a_burst(rate: float, gaps: list[tuple[float, int]]) -> None:
    """Each comes some time after the one before has passed."""
    bucket, now, passed = Bucket(rate, 0.0), 0.0, []
    for gap, count in gaps:
        now += gap
        place = bucket.join(count, now)
        while (wait_s := bucket.wait_s(place, now)) > 0:
            now += wait_s
        passed.append(Passed(now, count))
    burst = max(bucket.burst, *(count for _, count in gaps))
    for first in range(len(passed)):
        total = 0
        for last in range(first, len(passed)):
            total += passed[last].count
            elapsed = passed[last].at - passed[first].at
            assert total <= (rate * elapsed + burst) * (1 + 1e-9) + 2


@given(RATES, st.lists(st.integers(1, 10**6), min_size=2, max_size=50))
def test_nobody_is_passed_over_or_waits_for_ever(rate: float, counts: list[int]) -> None:
    """However much others bring: who came before passes before, and by the time it takes."""
    passed = drive(Bucket(rate, 0.0), counts)
    ahead = 0
    for before, item in pairwise(passed):
        assert before.at <= item.at
    for item in passed:
        ahead += item.count
        assert item.at <= ahead / rate * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize("others", [1, 3, 20])
def test_transfers_that_join_by_pieces_share_evenly(others: int) -> None:
    bucket, done = Bucket(1e6, 0.0), [0] * (1 + others)
    line = [(who, bucket.join(int(bucket.piece), 0.0)) for who in range(len(done))]
    now = 0.0
    while now < 10.0:
        who, place = line.pop(0)
        now += bucket.wait_s(place, now)
        done[who] += int(bucket.piece)
        line.append((who, bucket.join(int(bucket.piece), now)))
    assert max(done) - min(done) <= int(bucket.piece)
    assert sum(done) == pytest.approx(1e7, rel=0.02)


@given(RATES, RATES, st.integers(1, 10**9), st.floats(0, 10))
def test_a_change_holds_at_once(before: float, after: float, count: int, at: float) -> None:
    """Also for who is in line: what is left passes at the new rate."""
    bucket = Bucket(before, 0.0)
    place = bucket.join(count, 0.0)
    left = max(0.0, count - bucket.burst - before * at)
    bucket.limit(after, at)
    assert bucket.rate == after
    assert bucket.wait_s(place, at) == pytest.approx(left / after, rel=1e-6, abs=2 / after)


def test_a_lifted_limit_lets_all_through_and_a_new_one_begins_without_credit() -> None:
    bucket = Bucket(1e5, 0.0)
    place = bucket.join(10**9, 0.0)
    bucket.limit(math.inf, 1.0)
    assert bucket.wait_s(place, 1.0) == 0
    assert bucket.wait_s(bucket.join(10**12, 1.0), 1.0) == 0
    bucket.limit(1e5, 2.0)
    assert bucket.wait_s(bucket.join(10**5, 2.0), 2.0) == pytest.approx(1.0)


def test_a_stricter_limit_takes_the_old_ones_burst_away() -> None:
    bucket = Bucket(1e9, 0.0)
    bucket.limit(1e5, 0.0)
    assert bucket.wait_s(bucket.join(10**5, 0.0), 0.0) == pytest.approx(1.0 - 0.05)


def test_a_clock_that_stands_still_or_steps_back_earns_nothing() -> None:
    bucket = Bucket(1e5, 10.0)
    place = bucket.join(10**5, 10.0)
    assert bucket.wait_s(place, 5.0) == bucket.wait_s(place, 10.0) == pytest.approx(0.95)
