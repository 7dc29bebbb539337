"""Boots: which instance of an identity stands."""

import math

from covey.gossip.boots import Boots, Verdict

A, B, C = (bytes([n]) * 16 for n in (1, 2, 3))


def boots(stands: bytes = A) -> Boots:
    made = Boots(stands, overlap_s=5.0, conflict_s=60.0)
    made.adopt(stands, 0.0)
    return made


def test_restart_then_late_words_then_conflict() -> None:
    known = boots()
    assert known.judge(A, 1.0, gone=False) is Verdict.STANDS
    assert known.judge(B, 10.0, gone=False) is Verdict.NEXT
    known.adopt(B, 10.0)
    assert known.judge(A, 14.9, gone=False) is Verdict.LATE
    assert known.judge(A, 15.0, gone=False) is Verdict.ELDER


def test_elder_stands_and_others_are_refused_while_disputed() -> None:
    known = boots()
    known.adopt(B, 10.0)
    assert known.dispute(20.0)
    known.adopt(A, 20.0)
    assert known.judge(B, 21.0, gone=False) is Verdict.RIVAL
    assert known.judge(B, 100.0, gone=False) is Verdict.RIVAL
    assert known.judge(C, 100.0, gone=False) is Verdict.RIVAL
    assert known.judge(C, 100.0, gone=True) is Verdict.NEXT
    assert known.judge(B, 100.0, gone=True) is Verdict.NEXT


def test_dispute_begins_once_and_settles_after_silence() -> None:
    known = boots()
    assert known.settled_at() == math.inf
    assert not known.settle(1000.0)
    assert known.dispute(10.0)
    assert not known.dispute(30.0)
    assert known.settled_at() == 90.0
    assert not known.settle(89.0)
    assert known.settle(90.0)
    assert not known.settle(91.0)
    assert known.judge(C, 92.0, gone=False) is Verdict.NEXT


def test_memory_is_bounded_and_keeps_the_one_that_stands() -> None:
    known = boots()
    for number in range(100):
        known.adopt(number.to_bytes(16, "big"), 1.0 + number)
        known.adopt(A, 1.0 + number)
    assert known.stands == A
    assert len(known._first_heard) <= 8
    assert known.judge(A, 1000.0, gone=False) is Verdict.STANDS
