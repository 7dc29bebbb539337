"""Who is in another exchange says so at once, and is asked again last of all."""

from typing import TYPE_CHECKING

from covey.gossip.config import Config
from covey.protocols.messages import Accept, Busy, ExchangeMessage, Refuse
from tests.gossip.test_pair import answer, proposal, reasons

if TYPE_CHECKING:
    from tests.gossip.conftest import Flock

Flocks = type["Flock"]


def test_busy_peers_are_asked_again_and_others_not(flocks: Flocks) -> None:
    flock = flocks(3, config=Config(attempts=4), seed=1).scattered()
    a, b, c = flock.cores
    a.open_period(1)
    asked = []
    while (out := a.propose([b.me, c.me], 0.0)) is not None:
        asked.append(out.peer)
        exchange = out.message.exchange
        kind: ExchangeMessage = Busy(exchange) if out.peer == b.me else Refuse(exchange, "codec")
        assert a.receive(out.peer, kind, b"", 0.0) is None
        assert not a.busy
    assert sorted(asked) == [b.me, b.me, b.me, c.me]
    assert a.due == 0
    assert sorted(reasons(a)) == ["busy", "busy", "busy", "codec"]


def test_who_is_said_to_be_busy_is_asked_last(flocks: Flocks) -> None:
    flock = flocks(4, config=Config(attempts=4), seed=1).scattered()
    a, others = flock.cores[0], [core.me for core in flock.cores[1:]]
    a.open_period(1)
    first = a.propose(others, 0.0)
    assert first is not None
    partner, free = (peer for peer in others if peer != first.peer)
    assert a.receive(first.peer, Busy(first.message.exchange, partner.key), b"", 0.0) is None
    assert set(a.askable(others)) == {free}
    second = a.propose(others, 0.0)
    assert second is not None
    assert second.peer == free
    assert a.receive(free, Busy(second.message.exchange), b"", 0.0) is None
    third = a.propose(others, 0.0)
    assert third is not None, "by now they may be free again"
    assert set(a.askable(others)) == set(others)
    assert a.receive(third.peer, Busy(third.message.exchange), b"", 0.0) is None
    a.open_period(1)
    assert set(a.askable(others)) == set(others), "another period knows nothing of it"


def test_busy_is_answered_at_once_and_nothing_is_held(flocks: Flocks) -> None:
    flock = flocks(4, seed=1).scattered()
    a, b, c, d = flock.cores
    first = proposal(a, b)
    assert isinstance(answer(b, a, first).message, Accept)
    for waiting in (a, b):  # as proposer, as accepter
        made = answer(waiting, c, proposal(c, waiting))
        assert isinstance(made.message, Busy)
        partner = a.me.key if waiting is b else b""
        assert made.message.partner == partner, "told once it is agreed"
        assert c.receive(waiting.me, made.message, b"", 0.0) is None
        assert not c.busy
    out = proposal(c, d)  # free to go elsewhere
    assert isinstance(answer(d, c, out).message, Accept)
