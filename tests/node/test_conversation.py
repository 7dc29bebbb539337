"""Exchanges by message: what is refused, what a broken one leaves behind, how long is waited."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from random import Random

import numpy as np
import pytest

from covey.gossip.config import Config
from covey.gossip.core import Outcome
from covey.gossip.pair import Pair
from covey.node.conversation import Conversation
from covey.node.runner import CoreRunner
from covey.node.streams import Buffer
from covey.node.unreachable import Kind, Unreachable
from covey.protocols.envelope import Opened, Scope, Sealer, open_sealed
from covey.protocols.errors import Forged, Malformed, RemoteError, Stale, Unsupported
from covey.protocols.identity import Identity, PeerId
from covey.protocols.messages import (
    Busy,
    Commit,
    ExchangeMessage,
    Lineage,
    Propose,
    Refuse,
    Settled,
)
from tests.node.hosts import LAYOUT, OTHER_LAYOUT, PLAIN, noise, until
from tests.node.members import SECRET, Member, members

SCOPE = Scope(b"w" * 32, LAYOUT.digest)
LINEAGE = Lineage(b"f" * 32, 0)
EXCHANGE = b"e" * 16


class Rig:
    """One node's conversation; its courier is the test's."""

    def __init__(self, number: int = 1, config: Config = PLAIN, seed: int = 1) -> None:
        self.identity = Identity(bytes([number]) * 32)
        self.me = self.identity.peer
        self.sealer = Sealer(self.identity, bytes([number]) * 16)
        self.core = Pair(self.me, config, LAYOUT, Random(number))
        self.core.begin(noise(seed=seed), LINEAGE)
        self.core.accepting = True
        self.outcomes: list[Outcome] = []
        self.bugs: list[BaseException] = []
        self.rejections: list[RemoteError] = []
        self.runner = CoreRunner(self.core, self.outcomes.extend, self.bugs.append)
        self.talk = Conversation(self.runner, self.sealer, SCOPE, self)
        self.sent: list[tuple[Opened, float]] = []  # and the timeout
        self.reply: Callable[[Opened, Buffer], Awaitable[tuple[bytes, Buffer]]] = self.nobody

    async def nobody(self, opened: Opened, payload: Buffer) -> tuple[bytes, Buffer]:
        raise Unreachable(Kind.REFUSED, "nothing listens there")

    async def exchange(
        self, peer: PeerId, sealed: bytes, payload: Buffer, limit: int, timeout_s: float
    ) -> tuple[Opened, bytearray]:
        opened = open_sealed(sealed[4:])
        self.sent.append((opened, timeout_s))
        answer, codes = await self.reply(opened, payload)
        assert len(codes) <= limit
        return open_sealed(answer[4:]), bytearray(codes)

    def rejected(self, peer: PeerId | None, error: RemoteError) -> None:
        self.rejections.append(error)

    def meet(self, other: "Rig") -> None:
        async def reply(opened: Opened, payload: Buffer) -> tuple[bytes, Buffer]:
            return await other.talk.answer(opened, bytearray(payload))

        self.reply = reply

    def says(self, message: ExchangeMessage, scope: Scope = SCOPE) -> Opened:
        return open_sealed(self.sealer.seal(scope, message)[4:])

    async def propose(self, *peers: PeerId) -> float | None:
        await self.runner.run(lambda: self.core.open_period(1))
        return await self.talk.propose(peers)

    async def idle(self) -> None:
        await self.runner.run(lambda: None)
        assert not self.core.busy
        assert not self.bugs


def assert_(holds: bool) -> None:
    assert holds


def play(scenario: Callable[[Rig, Rig], Awaitable[None]], config: Config = PLAIN) -> None:
    async def go() -> None:
        rigs = Rig(1, config, 1), Rig(2, config, 2)
        rigs[0].meet(rigs[1])
        rigs[1].meet(rigs[0])
        try:
            await scenario(*rigs)
        finally:
            for rig in rigs:
                await rig.runner.close()
        assert not rigs[0].bugs + rigs[1].bugs

    asyncio.run(go())


def test_an_exchange_brings_both_to_the_mean() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        mean = (one.core.replica.x + two.core.replica.x) / 2
        assert await one.propose(two.me) is not None
        for rig in (one, two):
            await rig.idle()
            assert np.allclose(rig.core.replica.x, mean, atol=1e-6)
            (outcome,) = rig.outcomes
            assert not outcome.reason
            assert outcome.proposed is (rig is one)
        assert await one.talk.propose([]) is None

    play(scenario)


@pytest.mark.parametrize("codec", ["mod4", "f32"])
def test_over_real_sockets(codec: str) -> None:
    """Two conversations through the peer port of two members."""

    async def go() -> None:
        async with members(SECRET, SECRET) as pair:
            config = Config(codec=codec)
            rigs = [Rig(number, config) for number in (1, 2)]
            rigs[0].core.replica.learner_has(noise())
            rigs[0].core.progress(noise() + 0.01 * noise(seed=3), True)

            def connect(rig: Rig, member: Member, other: Member) -> None:
                async def courier(
                    peer: PeerId, sealed: bytes, payload: Buffer, limit: int, timeout_s: float
                ) -> tuple[Opened, bytearray]:
                    return await member.transport.exchange(
                        peer, other.address, sealed, payload, limit, timeout_s
                    )

                rig.exchange = courier  # type: ignore[method-assign]
                member.handler.exchanged = rig.talk.answer  # type: ignore[method-assign]
                member.handler.limit = rig.talk.limit

            connect(rigs[0], pair[0], pair[1])
            connect(rigs[1], pair[1], pair[0])
            total = rigs[0].core.replica.x + rigs[1].core.replica.x
            for proposer, other in (rigs, rigs[::-1]):
                assert await proposer.propose(other.me) is not None
            for rig in rigs:
                await rig.idle()
                assert [outcome.reason for outcome in rig.outcomes] == ["", ""]
                assert np.allclose(rig.core.replica.x, total / 2, atol=0.005)
                await rig.runner.close()
            assert np.allclose(rigs[0].core.replica.x + rigs[1].core.replica.x, total, atol=1e-5)

    asyncio.run(go())


def test_who_cannot_be_reached_is_left_in_peace() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        one.reply = one.nobody
        assert await one.propose(two.me) is not None
        await one.idle()
        assert [outcome.reason for outcome in one.outcomes] == ["refused"]
        assert one.outcomes[0].detail == "nothing listens there"
        assert not one.rejections
        assert await one.talk.propose([two.me]) is None  # not again in this period

    play(scenario)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda rig: Scope(b"x" * 32, LAYOUT.digest), "forged"),
        (lambda rig: Scope(SCOPE.swarm, OTHER_LAYOUT.digest), "unsupported"),
    ],
)
def test_an_answer_out_of_scope(spoil: Callable[[Rig], Scope], reason: str) -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        async def reply(opened: Opened, payload: Buffer) -> tuple[bytes, Buffer]:
            return two.sealer.seal(spoil(two), Busy(opened.message.exchange)), b""

        one.reply = reply
        await one.propose(two.me)
        await one.idle()
        assert [outcome.reason for outcome in one.outcomes] == [reason]
        assert [error.reason for error in one.rejections] == [reason]

    play(scenario)


def test_an_answer_that_makes_no_sense() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        async def reply(opened: Opened, payload: Buffer) -> tuple[bytes, Buffer]:
            return two.sealer.seal(SCOPE, Settled(opened.message.exchange, 1.0)), b""

        one.reply = reply
        before = one.core.replica.x.copy()
        await one.propose(two.me)
        await one.idle()
        assert [error.reason for error in one.rejections] == ["unsupported"]
        assert np.array_equal(one.core.replica.x, before)

    play(scenario)


def test_an_answer_whose_payload_is_another() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        async def reply(opened: Opened, payload: Buffer) -> tuple[bytes, Buffer]:
            sealed, codes = await two.talk.answer(opened, bytearray(payload))
            return sealed, bytes(len(codes))

        one.reply = reply
        before = one.core.replica.x.copy()
        await one.propose(two.me)
        await one.idle()
        assert [error.reason for error in one.rejections] == ["forged"]
        assert np.array_equal(one.core.replica.x, before)

    play(scenario)


def test_an_answer_that_comes_twice() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        kept: list[bytes] = []

        async def reply(opened: Opened, payload: Buffer) -> tuple[bytes, Buffer]:
            kept.append(two.sealer.seal(SCOPE, Busy(opened.message.exchange)))
            return kept[0], b""

        one.reply = reply
        await one.propose(two.me)
        await one.propose(two.me)
        await one.idle()
        assert [outcome.reason for outcome in one.outcomes] == ["busy", "stale"]

    play(scenario)


def test_what_is_refused_to_peers() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        propose = Propose(EXCHANGE, "f32", LINEAGE, np.inf, np.inf)
        for scope, error in (
            (Scope(b"x" * 32, LAYOUT.digest), Forged),
            (Scope(SCOPE.swarm, OTHER_LAYOUT.digest), Unsupported),
        ):
            with pytest.raises(error):
                await one.talk.answer(two.says(propose, scope), bytearray())
        with pytest.raises(Forged, match="payload"):
            await one.talk.answer(two.says(propose), bytearray(b"not that one"))
        with pytest.raises(Stale):
            await one.talk.answer(two.says(Commit(EXCHANGE)), bytearray())
        first = two.says(Busy(EXCHANGE))
        await one.talk.answer(first, bytearray())
        with pytest.raises(Stale):
            await one.talk.answer(first, bytearray())
        await one.idle()

    play(scenario)


def test_a_message_that_asks_for_no_answer() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        answer, _ = await one.talk.answer(two.says(Busy(EXCHANGE)), bytearray())
        message = open_sealed(answer[4:]).message
        assert isinstance(message, Refuse)
        assert message.reason == "unexpected"

    play(scenario)


def test_a_proposal_waits_for_who_wants_the_model_still() -> None:
    """Else many peers that propose in turn could keep a snapshot waiting for ever."""

    async def scenario(one: Rig, two: Rig) -> None:
        gate = threading.Event()
        one.runner.post(lambda: assert_(gate.wait(30)))
        waiting = asyncio.create_task(one.runner.run_idle(lambda: None))
        proposing = asyncio.create_task(two.propose(one.me))
        await until(lambda: two.sent)
        gate.set()
        await proposing
        assert [outcome.reason for outcome in two.outcomes] == ["busy"]
        await waiting
        await two.propose(one.me)
        assert [outcome.reason for outcome in two.outcomes] == ["busy", ""]

    play(scenario)


def test_a_model_that_was_put_away_answers_nobody() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        await one.runner.close()
        with pytest.raises(Stale, match="no longer"):
            await one.talk.answer(two.says(Busy(EXCHANGE)), bytearray())

    play(scenario)


@pytest.mark.parametrize("turns", range(25))
def test_cancelled_at_any_turn_it_frees_the_model(turns: int) -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        await one.runner.run(one.core.open_period)
        talking = asyncio.create_task(one.talk.propose([two.me]))
        for turn in range(turns):
            if turn % 3 == 0:  # let the workers come into it as well
                await one.runner.run(lambda: None)
                await two.runner.run(lambda: None)
            await asyncio.sleep(0)
        talking.cancel()
        await asyncio.wait([talking])
        await one.idle()
        assert [outcome.reason for outcome in one.outcomes] in (["cancelled"], [""], [])
        await one.runner.run_idle(lambda: None)

    play(scenario)


def test_a_bug_of_the_couriers_is_not_taken_for_a_bad_network() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        async def reply(opened: Opened, payload: Buffer) -> tuple[bytes, Buffer]:
            raise ZeroDivisionError("a bug")

        one.reply = reply
        with pytest.raises(ZeroDivisionError):
            await one.propose(two.me)

    play(scenario)


def test_timeouts_follow_what_requests_took(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("covey.node.conversation.time.monotonic", lambda: clock[0])

    async def scenario(one: Rig, two: Rig) -> None:
        took_s = 0.0
        kind: Kind | None = None

        async def reply(opened: Opened, payload: Buffer) -> tuple[bytes, Buffer]:
            clock[0] += took_s
            if kind is not None:
                raise Unreachable(kind, "no answer")
            return await two.talk.answer(opened, bytearray(payload))

        one.reply = reply
        one.sent.clear()
        await one.propose(two.me)
        assert one.sent[0][1] > 10  # nothing is known yet
        took_s = 1.0
        await one.propose(two.me)
        assert one.sent[-1][1] == 8.0
        assert one.talk.typical_s == 1.0
        took_s, kind = 8.0, Kind.TIMEOUT
        await one.propose(two.me)
        took_s = 16.0
        await one.propose(two.me)
        assert one.sent[-1][1] == 16.0
        assert one.talk.typical_s == 1.0
        took_s = 0.0  # a connection refused, say: that tells nothing of the time
        await one.propose(two.me)
        assert one.sent[-1][1] == 32.0
        await one.propose(two.me)
        assert one.sent[-1][1] == 32.0
        kind = None
        for _ in range(20):
            await one.propose(two.me)
        assert one.sent[-1][1] == 5.0  # the least

    play(scenario)


def test_a_busy_answer_tells_nothing_of_the_time() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        async def reply(opened: Opened, payload: Buffer) -> tuple[bytes, Buffer]:
            return two.sealer.seal(SCOPE, Busy(opened.message.exchange)), b""

        one.reply = reply
        await one.propose(two.me)
        assert one.talk.typical_s == 0.0
        await one.propose(two.me)
        assert one.sent[-1][1] > 10

    play(scenario)


def test_malformed_from_our_own_reading() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        async def reply(opened: Opened, payload: Buffer) -> tuple[bytes, Buffer]:
            raise Malformed("not msgpack")

        one.reply = reply
        await one.propose(two.me)
        await one.idle()
        assert [error.reason for error in one.rejections] == ["malformed"]

    play(scenario)
