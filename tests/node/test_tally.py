"""Counting what became of exchanges."""

import pytest

from covey.gossip.core import Outcome
from covey.node.events import EventLog
from covey.node.tally import Tally
from covey.protocols.identity import Identity
from covey.protocols.link import LOG_VALUES_MAX

ONE, TWO = Identity(b"1" * 32).peer, Identity(b"2" * 32).peer


def counted(*ended: tuple[Outcome, float]) -> tuple[Tally, EventLog]:
    tally, events = Tally(), EventLog()
    for outcome, distance in ended:
        tally.count(outcome, distance, events)
    return tally, events


def test_completed_exchanges_by_peer() -> None:
    tally, events = counted(
        (Outcome(ONE, distance=8.0, factor=0.5, proposed=True), 0.4),
        (Outcome(TWO, distance=4.0, factor=1.0), 0.2),
        (Outcome(ONE, distance=2.0, factor=1.0), 0.1),
    )
    assert (tally.exchanges, tally.busy, tally.failed) == (3, 0, 0)
    assert tally.per_peer == {ONE: 2, TWO: 1}
    assert tally.apart == {ONE: 0.1, TWO: 0.2}
    assert tally.last_peer == ONE
    assert tally.last_merge_s is not None
    assert tally.distance == pytest.approx(0.2)
    assert tally.trend == pytest.approx(-0.1)
    first, *_ = events.since(0)
    assert first.type == "merge.applied"
    assert first.data == {
        "peer": ONE.short,
        "reason": "",
        "detail": "",
        "distance": 8.0,
        "factor": 0.5,
        "proposed": True,
    }


def test_two_that_agree_to_the_bit_are_known_to_agree() -> None:
    tally, _ = counted((Outcome(ONE, distance=3.0), 0.3), (Outcome(ONE, factor=1.0), 0.0))
    assert tally.apart == {ONE: 0.0}


def test_an_exchange_that_broke_tells_no_distance() -> None:
    tally, _ = counted((Outcome(ONE, distance=3.0), 0.3), (Outcome(ONE, "timeout"), 0.0))
    assert tally.apart == {ONE: 0.3}


def test_busy_is_counted_without_an_event() -> None:
    tally, events = counted((Outcome(ONE, "busy"), 0.0))
    assert (tally.exchanges, tally.busy, tally.failed) == (0, 1, 0)
    assert not events.since(0)


def test_failures_by_reason_and_what_a_peer_did_wrong_only_once() -> None:
    tally, events = counted(
        (Outcome(ONE, "timeout", "nobody answers"), 0.0),
        (Outcome(ONE, "timeout"), 0.0),
        (Outcome(ONE, "implausible", distance=9.0), 0.9),
        (Outcome(ONE, "forged"), 0.0),  # neighbours.rejections has it
    )
    assert tally.failed == 4
    assert tally.reasons == {"timeout": 2, "implausible": 1}
    assert [event.type for event in events.since(0)] == ["merge.none"] * 4
    assert events.since(0)[0].data["detail"] == "nobody answers"


def test_of_ever_new_values_the_last_are_kept() -> None:
    tally = Tally()
    tally.note_values({"loss": 3.0, "accuracy": 0.1})
    for number in range(100):
        tally.note_values({f"loss_{number}": 1.0})
    tally.note_values({"loss": 2.0, "loss_99": 4.0})
    assert len(tally.values) == LOG_VALUES_MAX
    assert tally.values["loss"] == 2.0
    assert tally.values["loss_99"] == 4.0
    assert "accuracy" not in tally.values
