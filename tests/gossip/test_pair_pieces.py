"""Exchanges whose payloads come and go in pieces: what is begun early, given up, or left to do."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from covey.gossip.config import Config
from covey.gossip.core import Intake, Outgoing
from covey.gossip.pair import Pair
from covey.protocols.errors import Malformed, Stale, Unsupported
from covey.protocols.messages import Accept, Commit, More, Refuse, Settled

if TYPE_CHECKING:
    from tests.gossip.conftest import Flock

Flocks = type["Flock"]
CODECS = ["mod4", "f32"]


def two(flocks: Flocks, codec: str = "mod4") -> tuple[Pair, Pair]:
    flock = flocks(2, 5000, 10, Config(codec=codec), seed=3).scattered(0.01)
    a, b = flock.cores
    assert isinstance(a, Pair)
    assert isinstance(b, Pair)
    return a, b


def accepted(a: Pair, b: Pair) -> Outgoing:
    """``b``'s answer to ``a``'s proposal, its layer yet to be made."""
    a.open_period(1)
    out = a.propose([b.me], 0.0)
    assert out is not None
    intake = b.intake(a.me, out.message)
    intake.take(out.payload)
    assert intake.early is None
    answer = intake.end(0.0)
    assert answer is not None
    assert isinstance(answer.message, Accept)
    return answer


def begun(a: Pair, b: Pair, answer: Outgoing) -> tuple[Intake, Outgoing]:
    """``a`` after the scales of ``answer``: on its way in, and Commit on its way out."""
    intake = a.intake(b.me, answer.message)
    intake.take(answer.payload)
    if intake.early is None:  # f32 has no scales: anything will do
        intake.take(next(iter(answer.pieces)))
    assert intake.early is not None
    assert isinstance(intake.early.message, Commit)
    return intake, intake.early


def committed(a: Pair, b: Pair) -> Outgoing:
    """Up to ``b``'s Settled; nothing is applied yet."""
    answer = accepted(a, b)
    intake, early = begun(a, b, answer)
    there = b.intake(a.me, early.message)
    for piece in early.pieces:
        there.take(piece)
    for piece in answer.pieces:
        intake.take(piece)
    last = intake.end(0.0)
    assert last is not None
    assert last.message == early.message
    there.take(last.payload)
    settled = there.end(0.0)
    assert settled is not None
    if isinstance(settled.message, More):
        again = a.receive(b.me, settled.message, settled.payload, 0.0)
        assert again is not None
        there = b.intake(a.me, again.message)
        there.take(again.payload)
        settled = there.end(0.0)
        assert settled is not None
    assert isinstance(settled.message, Settled)
    return settled


def exchanged(a: Pair, b: Pair) -> None:
    """A whole exchange, each message at once."""
    a.open_period(1)
    out = a.propose([b.me], 0.0)
    here, there = a, b
    while out is not None:
        out = there.receive(here.me, out.message, out.whole().payload, 0.0)
        here, there = there, here


def reasons(core: Pair) -> list[str]:
    return [outcome.reason for outcome in core.outcomes()]


@pytest.mark.parametrize("codec", CODECS)
def test_half_a_difference_each_as_with_whole_messages(flocks: Flocks, codec: str) -> None:
    a, b = two(flocks, codec)
    before = a.replica.x + b.replica.x
    settled = committed(a, b)
    a.receive(b.me, settled.message, settled.payload, 0.0)
    b.finish()
    whole = two(flocks, codec)
    whole[0].open_period(1)
    out = whole[0].propose([whole[1].me], 0.0)
    cores = whole[::-1]
    while out is not None:  # by turns
        out = cores[0].receive(cores[1].me, out.message, out.payload, 0.0)
        cores = cores[::-1]
    for core, other in zip((a, b), whole, strict=True):
        assert np.array_equal(core.replica.x, other.replica.x)
        assert reasons(core) == [""]
        assert not core.busy
    assert np.allclose(a.replica.x + b.replica.x, before, atol=1e-5)


@pytest.mark.parametrize(
    "then",
    [
        lambda a, b: b.finish(),
        lambda a, b: b.failed(a.me, "silent"),
        lambda a, b: b.tick(1e9),
        lambda a, b: b.receive(a.me, *_proposal_again(a, b)),
        lambda a, b: _commit_again(a, b),
    ],
)
def test_what_is_settled_is_applied_whatever_comes(
    flocks: Flocks, then: Callable[[Pair, Pair], object]
) -> None:
    """The other side has our word that it is."""
    a, b = two(flocks)
    before = b.replica.x.copy()
    committed(a, b)
    assert b.busy, "nothing else may move the vector now"
    assert np.array_equal(b.replica.x, before)
    assert b.deadline() <= 0.0, "else nobody might come for it"
    then(a, b)
    assert not np.array_equal(b.replica.x, before)
    assert reasons(b)[0] == ""


def _proposal_again(a: Pair, b: Pair) -> tuple[object, ...]:
    a.failed(b.me, "cut")
    a.open_period(1)
    out = a.propose([b.me], 0.0)
    assert out is not None
    return out.message, out.payload, 0.0


def _commit_again(a: Pair, b: Pair) -> None:
    assert a._open is not None
    with pytest.raises(Stale):
        b.receive(a.me, Commit(a._open.exchange), b"", 0.0)


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_given_up_is_neither_sent_nor_taken(flocks: Flocks, codec: str) -> None:
    a, b = two(flocks, codec)
    before = a.replica.x.copy(), b.replica.x.copy()
    answer = accepted(a, b)
    intake, early = begun(a, b, answer)
    there = b.intake(a.me, early.message)
    leaving = iter(early.pieces)
    there.take(next(leaving))
    for core, other in ((a, b), (b, a)):
        core.failed(other.me, "cut")
        assert reasons(core) == ["cut"]
    for pieces in (leaving, iter(answer.pieces)):
        with pytest.raises(Stale):
            next(pieces)
    intake.take(b"whatever")
    there.take(b"whatever")
    refused = intake.end(0.0)
    assert refused is not None
    assert isinstance(refused.message, Refuse)
    with pytest.raises(Stale):
        there.end(0.0)
    for core, x in zip((a, b), before, strict=True):
        assert np.array_equal(core.replica.x, x)
        assert not core.busy


def test_one_payload_at_a_time(flocks: Flocks) -> None:
    a, b = two(flocks)
    answer = accepted(a, b)
    begun(a, b, answer)
    with pytest.raises(Unsupported):
        a.intake(b.me, answer.message)
    assert reasons(a) == ["unsupported"]
    assert not a.busy


def test_a_malformed_piece_ends_the_exchange(flocks: Flocks) -> None:
    a, b = two(flocks)
    intake, _ = begun(a, b, accepted(a, b))
    with pytest.raises(Malformed, match="inside a block"):
        intake.take(bytes(50))  # it ends inside a block
    assert reasons(a) == ["malformed"]
    assert not a.busy


def test_a_payload_that_ends_early_is_malformed(flocks: Flocks) -> None:
    a, b = two(flocks)
    intake, _ = begun(a, b, accepted(a, b))
    with pytest.raises(Malformed, match="too short"):
        intake.end(0.0)
    assert not a.busy


def test_memory_is_used_again_unless_it_may_still_be_on_its_way(flocks: Flocks) -> None:
    a, b = two(flocks)
    settled = committed(a, b)
    a.receive(b.me, settled.message, settled.payload, 0.0)
    b.finish()
    spaces = a._workspace, b._workspace
    assert None not in spaces
    answer = accepted(a, b)
    assert (a._workspace, b._workspace) == (None, None)
    a.failed(b.me, "cut")
    b.failed(a.me, "cut")
    assert (a._workspace, b._workspace) == (None, None)
    assert answer.peer == a.me


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("whole_messages", [False, True])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("number", [0, 1])
def test_a_model_that_turns_out_not_to_be_finite_moves_nobody(
    flocks: Flocks, codec: str, number: int, whole_messages: bool, bad: float
) -> None:
    """It is found out while it is coded: the exchange is under way and comes to nothing."""
    both = two(flocks, codec)
    areas = [np.empty_like(core.replica.x) for core in both]
    for core, area in zip(both, areas, strict=True):
        core.progress(core.replica.learner + np.float32(0.01), applied=True)
        core.open_period(0)
        core.close_period(1, area)
        core.replica.applied()
    broken, whole = both[number], both[1 - number]
    before, slot = whole.replica.x.copy(), broken.replica.learner
    slot[5] = bad
    assert broken.progress(slot, applied=True, lent=True), "that is not known yet"
    if whole_messages:
        exchanged(*both)
    else:
        last = committed(*both)
        both[0].receive(both[1].me, last.message, last.payload, 0.0)
    for core in both:
        core.finish()
    assert reasons(broken) == ["unfit"]
    assert reasons(whole) == ["implausible"]
    split = whole.replica.parameters  # buffers, which are finite, are exchanged
    assert np.array_equal(whole.replica.x[:split], before[:split])
    assert np.linalg.norm(whole.replica.x - before) < np.linalg.norm(before) / 10
    assert broken.close_period(1, areas[number])
    assert broken.replica.spoiled
    assert np.isfinite(broken.replica.x).all()
    assert np.isfinite(areas[number]).all()
