"""One node among others: whom it asks, whom it answers, and how every exchange ends."""

from typing import TYPE_CHECKING

import numpy as np
import pytest

from covey.gossip.config import Config
from covey.gossip.core import Core, Outgoing
from covey.gossip.pair import Pair
from covey.gossip.quantiser import BLOCK
from covey.protocols.errors import Malformed, Stale, Unsupported
from covey.protocols.identity import PeerId
from covey.protocols.messages import (
    Accept,
    Busy,
    Commit,
    Lineage,
    More,
    Propose,
    Refuse,
    Settled,
)

if TYPE_CHECKING:
    from tests.gossip.conftest import Flock

Flocks = type["Flock"]


def proposal(core: Core, to: Core, now: float = 0.0) -> Outgoing:
    core.open_period(1)
    out = core.propose([to.me], now)
    assert out is not None
    return out


def answer(core: Core, sender: Core, out: Outgoing, now: float = 0.0) -> Outgoing:
    made = core.receive(sender.me, out.message, out.payload, now)
    assert made is not None
    assert made.peer == sender.me
    return made


def settled(proposer: Core, accepter: Core, commit: Outgoing) -> Outgoing:
    """The accepter's last answer, however many layers it takes."""
    made = answer(accepter, proposer, commit)
    while isinstance(made.message, More):
        made = answer(accepter, proposer, answer(proposer, accepter, made))
    assert isinstance(made.message, Settled)
    return made


def reasons(core: Core) -> list[str]:
    return [outcome.reason for outcome in core.outcomes()]


def two(flocks: Flocks) -> tuple[Core, Core]:
    """Two nodes of a flock, the smaller id first."""
    flock = flocks(2, seed=3).scattered(0.01)
    return flock.cores[0], flock.cores[1]


# --- proposing -----------------------------------------------------------------------------------


def test_nothing_due_nothing_asked(flocks: Flocks) -> None:
    a, b = two(flocks)
    assert a.propose([b.me], 0.0) is None
    a.open_period(2)
    assert a.due == 2
    assert a.propose([], 0.0) is None
    assert a.due == 0, "nobody is left to ask"


def test_a_broken_conversation_lets_go(flocks: Flocks) -> None:
    a, b = two(flocks)
    out = proposal(a, b)
    a.failed(b.me, "timeout", exchange=b"another exchange")
    a.failed(PeerId(bytes(32)), "dead")
    assert a.busy
    a.failed(b.me, "timeout", "no answer", out.message.exchange)
    assert not a.busy
    (outcome,) = a.outcomes()
    assert (outcome.peer, outcome.reason, outcome.proposed) == (b.me, "timeout", True)
    assert a.propose([b.me], 0.0) is None, "not again in this period"


def test_a_peer_does_not_name_our_counters(flocks: Flocks) -> None:
    a, b = two(flocks)
    out = proposal(a, b)
    a.receive(b.me, Refuse(out.message.exchange, "made up", "why"), b"", 0.0)
    (outcome,) = a.outcomes()
    assert (outcome.reason, outcome.detail) == ("refused", "why")


def test_an_exchange_the_gate_refused_is_not_the_periods_exchange(flocks: Flocks) -> None:
    flock = flocks(3, config=Config(codec="f32"), seed=1).scattered(0.01)
    for _ in range(10):
        flock.match()
    a, b, c = flock.cores
    c.begin(c.replica.x * -1, c.lineage)  # the whole vector away
    flock.outcomes.clear()
    a.open_period(1)
    flock.propose(a, [c])
    flock.run()
    assert {outcome.reason for outcome in flock.outcomes} == {"implausible"}
    assert a.due == 1
    assert flock.propose(a, [b, c])
    flock.run()
    assert a.due == 0


def test_who_settles_late_is_not_too_far_for_those_who_have_agreed(flocks: Flocks) -> None:
    flock = flocks(6, config=Config(codec="f32"), seed=1).scattered(0.0)
    for _ in range(10):
        flock.period(flock.moves(0.01))
    *agreed, late = flock.cores
    for core in agreed:
        core.settling = True
    for _ in range(30):
        for number in range(5):
            flock.exchange(number, (number + 1) % 5)
    flock.learn(late, flock.moves(0.01)[5])
    flock.outcomes.clear()
    flock.exchange(5, 0)
    flock.exchange(1, 5)
    assert [outcome.reason for outcome in flock.outcomes] == [""] * 4


def test_who_copies_a_model_of_its_own_beginning_keeps_what_guards_it(flocks: Flocks) -> None:
    """Else the first liar it meets would take it back to where all began."""
    core, _ = two(flocks)
    assert isinstance(core, Pair)
    for _ in range(99):
        core.close_period(partners=20)
    parameters = np.full(core.replica.parameters, 5.0, np.float32)
    vector = np.full(core.replica.size, 5.0, np.float32)
    back = np.full((len(core._progress.blocks), BLOCK), -5.0, np.float32)
    core.begin(vector, core.lineage)
    assert core._progress.factor(parameters, back) < 0.1
    core.begin(vector, Lineage(b"g" * 32))
    assert core._progress.factor(parameters, back) == 1.0, "of another beginning"


def test_progress_waits_while_an_exchange_is_open(flocks: Flocks) -> None:
    a, b = two(flocks)
    proposal(a, b)
    with pytest.raises(AssertionError, match="held"):
        a.progress(a.replica.learner, applied=False)
    with pytest.raises(AssertionError, match="held"):
        a.close_period(partners=20)


# --- accepting -----------------------------------------------------------------------------------


def test_who_does_not_accept_says_so(flocks: Flocks) -> None:
    a, b = two(flocks)
    b.accepting = False
    made = answer(b, a, proposal(a, b))
    assert isinstance(made.message, Refuse)
    a.receive(b.me, made.message, b"", 0.0)
    assert reasons(a) == ["not_ready"]
    assert not b.busy


@pytest.mark.parametrize("lineage", [Lineage(), Lineage(b"z" * 32), Lineage(b"f" * 32, 10_000)])
def test_another_lineage_is_refused(flocks: Flocks, lineage: Lineage) -> None:
    a, b = two(flocks)
    a.lineage, b.lineage = lineage, Lineage(b"f" * 32, 100)
    made = answer(b, a, proposal(a, b))
    assert isinstance(made.message, Refuse)
    assert made.message.reason == "lineage"
    assert not b.busy


def test_an_unknown_codec_is_refused(flocks: Flocks) -> None:
    a, b = two(flocks)
    propose = Propose(bytes(16), "top-k", a.lineage, 1.0, 1.0)
    made = b.receive(a.me, propose, b"", 0.0)
    assert made is not None
    assert isinstance(made.message, Refuse)
    assert made.message.reason == "codec"
    assert not b.busy


def test_an_answer_is_in_the_proposers_codec(flocks: Flocks) -> None:
    flock = flocks(2, seed=1).scattered()
    a, b = flock.cores
    a.config = Config(codec="f32")
    flock.exchange(0, 1)
    assert np.allclose(a.replica.x, b.replica.x, atol=1e-6)


def test_of_crossing_proposals_the_smaller_ids_stands(flocks: Flocks) -> None:
    small, large = two(flocks)
    assert small.me < large.me
    from_small, from_large = proposal(small, large), proposal(large, small)
    refused = answer(small, large, from_large)
    assert isinstance(refused.message, Busy)
    accept = answer(large, small, from_small)
    assert isinstance(accept.message, Accept)
    assert large.receive(small.me, refused.message, b"", 0.0) is None
    assert large.busy, "the late Busy is about what it dropped"
    commit = answer(small, large, accept)
    last = settled(small, large, commit)
    assert small.receive(large.me, last.message, last.payload, 0.0) is None
    assert reasons(small) == reasons(large) == [""]
    assert large.due == 0, "it is its exchange too"
    large.open_period()
    assert large.due == 1, "but none of the next period's"


def test_a_dropped_proposal_that_is_accepted_late_frees_its_accepter(flocks: Flocks) -> None:
    small, large = two(flocks)
    from_small, from_large = proposal(small, large), proposal(large, small)
    commit = answer(small, large, answer(large, small, from_small))
    last = settled(small, large, commit)
    small.receive(large.me, last.message, last.payload, 0.0)
    late = answer(small, large, from_large)
    assert isinstance(late.message, Accept)
    freed = answer(large, small, late)
    assert isinstance(freed.message, Refuse)
    assert small.busy
    assert small.receive(large.me, freed.message, b"", 0.0) is None
    assert not small.busy
    assert reasons(small) == ["", "abandoned"]


@pytest.mark.parametrize("haul_s", [0.0, 7.0])
def test_a_silent_proposer_is_waited_for_and_no_longer(flocks: Flocks, haul_s: float) -> None:
    a, b = two(flocks)
    b.haul_s = haul_s
    answer(b, a, proposal(a, b), now=5.0)
    assert b.deadline() == 15.0 + haul_s
    b.tick(14.9 + haul_s)
    assert b.busy
    b.tick(15.0 + haul_s)
    assert not b.busy
    assert b.deadline() == float("inf")
    assert reasons(b) == ["silent"]


def test_who_keeps_going_silent_waits_in_turn(flocks: Flocks) -> None:
    a, b = two(flocks)
    kinds, now = [], 0.0
    for _ in range(6):
        a.failed(b.me, "timeout")
        made = answer(b, a, proposal(a, b), now)
        kinds.append(type(made.message))
        now = b.deadline() if b.busy else now + 1.0
        b.tick(now)
    assert kinds == [Accept, Accept, Busy, Busy, Busy, Busy]


def test_a_proposer_that_begins_anew_replaces_its_last_but_not_its_deadline(
    flocks: Flocks,
) -> None:
    a, b = two(flocks)
    deadlines = []
    for now in (0.0, 3.0, 9.0):
        a.failed(b.me, "timeout")
        assert isinstance(answer(b, a, proposal(a, b), now).message, Accept)
        deadlines.append(b.deadline())
    assert deadlines == [10.0, 10.0, 10.0]
    assert reasons(b) == ["abandoned", "abandoned"]


def test_deadlines_follow_what_exchanges_take(flocks: Flocks) -> None:
    flock = flocks(2, seed=2).scattered(0.001)
    for _ in range(40):
        flock.exchange(0, 1)
    a, b = flock.cores
    answer(b, a, proposal(a, b), now=1000.0)
    assert b.deadline() == 1004.0


# --- repeated, late and out of place -------------------------------------------------------------


def test_a_repeated_proposal_is_stale(flocks: Flocks) -> None:
    flock = flocks(2, seed=2).scattered()
    a, b = flock.cores
    out = proposal(a, b)
    accept = answer(b, a, out)
    for _ in range(2):
        with pytest.raises(Stale, match="before"):
            b.receive(a.me, out.message, out.payload, 0.0)
        assert b.busy, "the exchange goes on"
    last = settled(a, b, answer(a, b, accept))
    a.receive(b.me, last.message, last.payload, 0.0)
    with pytest.raises(Stale):
        b.receive(a.me, out.message, out.payload, 0.0)
    assert not b.busy
    assert reasons(a) == reasons(b) == [""]


def test_a_commit_to_nothing_is_stale(flocks: Flocks) -> None:
    a, b = two(flocks)
    with pytest.raises(Stale):
        b.receive(a.me, Commit(bytes(16)), b"", 0.0)


def test_a_third_partys_message_is_none_of_our_exchange(flocks: Flocks) -> None:
    flock = flocks(3, seed=2).scattered()
    a, b, c = flock.cores
    out = proposal(a, b)
    exchange = out.message.exchange
    for message in (Busy(exchange), Refuse(exchange, "codec"), Settled(exchange, 1.0)):
        assert a.receive(c.me, message, b"", 0.0) is None
    assert a.busy
    answer(b, a, out)
    with pytest.raises(Stale):
        b.receive(c.me, Commit(exchange), b"", 0.0)
    assert b.busy


def test_a_busy_after_the_commit_is_out_of_place(flocks: Flocks) -> None:
    a, b = two(flocks)
    out = proposal(a, b)
    answer(a, b, answer(b, a, out))
    with pytest.raises(Unsupported, match="Busy while COMMITTED"):
        a.receive(b.me, Busy(out.message.exchange), b"", 0.0)
    assert not a.busy
    assert reasons(a) == ["unsupported"]


def test_a_malformed_message_ends_its_exchange_and_moves_nothing(flocks: Flocks) -> None:
    a, b = two(flocks)
    before = b.replica.x.copy()
    out = proposal(a, b)
    with pytest.raises(Malformed):
        b.receive(a.me, out.message, bytes(out.payload) + b"\0", 0.0)
    assert not b.busy, "it was never held"
    a.failed(b.me, "malformed")
    out = proposal(a, b)
    commit = answer(a, b, answer(b, a, out))
    with pytest.raises(Malformed):
        b.receive(a.me, commit.message, bytes(commit.payload)[:-1], 0.0)
    assert not b.busy
    assert reasons(b) == ["malformed"]
    assert np.array_equal(b.replica.x, before)


def test_a_new_model_drops_the_open_exchange(flocks: Flocks) -> None:
    a, b = two(flocks)
    accept = answer(b, a, proposal(a, b))
    b.begin(np.ones(200, np.float32), Lineage(b"f" * 32))
    assert not b.busy
    commit = answer(a, b, accept)
    with pytest.raises(Stale):
        b.receive(a.me, commit.message, commit.payload, 0.0)
    assert np.array_equal(b.replica.x, np.ones(200))


def test_it_toils_while_many_blocks_are_to_be_told_further(
    flocks: Flocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("covey.gossip.pair._TOIL", 2)
    a, b = flocks(2, parameters=8 * BLOCK).scattered(1.0, rested=True).cores[:2]
    out = proposal(a, b)
    assert a.in_pieces
    assert not a.toils
    accept = answer(b, a, out)
    assert not b.toils, "none of the codes has come"
    commit = answer(a, b, accept)
    assert a.toils
    settled(a, b, commit)
    assert not b.toils, "it is over"
    exact = flocks(2, config=Config(codec="f32")).scattered().cores[0]
    assert not exact.in_pieces
