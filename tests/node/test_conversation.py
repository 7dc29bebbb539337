"""Exchanges by message: what is refused, what a broken one leaves behind, how long is waited."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import SimpleNamespace

import numpy as np
import pytest

from covey.gossip.config import Config
from covey.node import conversation
from covey.node.letters import Letters
from covey.node.streams import Buffer
from covey.protocols.envelope import Scope
from covey.protocols.errors import Forged, Malformed, Stale, TooLarge, Unsupported
from covey.protocols.identity import PeerId
from covey.protocols.messages import (
    Busy,
    Commit,
    ExchangeMessage,
    Propose,
    Refuse,
    Settled,
)
from tests.node.hosts import LAYOUT, OTHER_LAYOUT, noise
from tests.node.members import SECRET, Member, members
from tests.node.pipes import listen
from tests.node.rigs import EXCHANGE, LINEAGE, SCOPE, Rig, play
from tests.node.waiting import until
from tests.protocols.examples import Sealed, sealed


def assert_(holds: bool) -> None:
    assert holds


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


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("codec", ["mod4", "f32"])
def test_over_real_sockets(codec: str, apart: bool) -> None:
    """Two conversations through the peer port of two members."""

    async def go() -> None:
        async with members(SECRET, SECRET) as pair:
            config = Config(codec=codec)
            rigs = [Rig(number, config, apart=apart) for number in (1, 2)]
            rigs[0].core.replica.learner_has(noise())
            rigs[0].core.progress(noise() + 0.01 * noise(seed=3), True)

            def connect(rig: Rig, member: Member, other: Member) -> None:
                def call(peer: PeerId) -> AbstractAsyncContextManager[Letters]:
                    return member.transport.call(peer, other.address)

                async def answer(peer: PeerId, letters: Letters, message: ExchangeMessage) -> None:
                    await rig.talk.answer(letters, peer, message)

                rig.call = call  # type: ignore[assignment, method-assign]
                member.handler.exchanged = answer  # type: ignore[method-assign]
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
        one.serve = None
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
        one.replies(lambda message: two.says(Busy(message.exchange), spoil(two)))
        await one.propose(two.me)
        await one.idle()
        assert [outcome.reason for outcome in one.outcomes] == [reason]
        assert [error.reason for error in one.rejections] == [reason]

    play(scenario)


def test_an_answer_that_makes_no_sense() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        one.replies(lambda message: two.says(Settled(message.exchange, 1.0)))
        before = one.core.replica.x.copy()
        await one.propose(two.me)
        await one.idle()
        assert [error.reason for error in one.rejections] == ["unsupported"]
        assert np.array_equal(one.core.replica.x, before)

    play(scenario)


def test_an_answer_whose_payload_is_another() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        async def serve(letters: Letters) -> None:
            channel, write = letters.channel, letters.channel.write
            announced = 0

            async def spoilt(chunk: Buffer, last: bool = False) -> None:
                nonlocal announced
                announced += 1
                spoil = announced > 1 and not last
                await write(bytes(len(chunk)) if spoil else chunk, last)

            channel.write = spoilt  # type: ignore[method-assign]
            while True:
                await two.talk.answer(letters, one.me, await letters.announcement())

        one.serve = serve
        before = one.core.replica.x.copy()
        await one.propose(two.me)
        await one.idle()
        assert [error.reason for error in one.rejections] == ["forged"]
        assert np.array_equal(one.core.replica.x, before)

    play(scenario)


def test_an_answer_that_comes_twice() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        kept: list[Sealed] = []

        def reply(message: ExchangeMessage) -> Sealed:
            kept.append(two.says(Busy(message.exchange)))
            return kept[0]

        one.replies(reply)
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
                await one.asked(two, two.says(propose, scope))
        with pytest.raises(Forged, match="payload"):
            await one.asked(two, sealed(two.sealer, SCOPE, propose, b"this"), b"that")
        with pytest.raises(Malformed, match="as long"):
            await one.asked(two, two.says(propose), b"that")
        with pytest.raises(TooLarge):
            await one.asked(two, two.says(propose), bytes(one.talk.limit + 1))
        with pytest.raises(Forged, match="the signature is not"):
            await one.asked(one, two.says(propose))
        with pytest.raises(Stale):
            await one.asked(two, two.says(Commit(EXCHANGE)))
        first = two.says(Busy(EXCHANGE))
        await one.asked(two, first)
        with pytest.raises(Stale):
            await one.asked(two, first)
        await one.idle()

    play(scenario)


def test_a_message_that_asks_for_no_answer() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        message = await one.asked(two, two.says(Busy(EXCHANGE)))
        assert isinstance(message, Refuse)
        assert message.reason == "unexpected"

    play(scenario)


def test_a_proposal_waits_behind_work_that_has_begun() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        gate, busy = threading.Event(), list[bool]()
        one.runner.post(lambda: assert_(gate.wait(30)))
        working = asyncio.create_task(
            one.runner.run_idle(lambda: busy.append(one.runner.core.busy))
        )
        proposing = asyncio.create_task(two.propose(one.me))
        await until(lambda: two.sent)
        gate.set()
        await proposing
        await working
        assert busy == [False]
        assert [outcome.reason for outcome in two.outcomes] == [""]

    play(scenario, apart=[True])


def test_a_proposal_gives_way_to_who_waits_for_the_model_still() -> None:
    """Else many peers that propose in turn could keep a snapshot waiting for ever."""

    async def scenario(one: Rig, two: Rig) -> None:
        one.runner._free.clear()  # as while an exchange is open
        waiting = asyncio.create_task(one.runner.run_idle(lambda: None))
        await until(lambda: one.runner.wanted)
        await two.propose(one.me)
        assert [outcome.reason for outcome in two.outcomes] == ["busy"]
        one.runner._free.set()
        await waiting
        await two.propose(one.me)
        assert [outcome.reason for outcome in two.outcomes] == ["busy", ""]

    play(scenario)


def test_a_model_that_was_put_away_answers_nobody() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        await one.runner.close()
        with pytest.raises(Stale, match="no longer"):
            await one.asked(two, two.says(Busy(EXCHANGE)))

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
        def reply(message: ExchangeMessage) -> Sealed:
            raise ZeroDivisionError("a bug")

        one.replies(reply)
        with pytest.raises(ZeroDivisionError):
            await one.propose(two.me)

    play(scenario)


def test_timeouts_follow_what_requests_took(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(conversation, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(conversation, "_LEAST_TIMEOUT_S", 0.5)

    async def scenario(one: Rig, two: Rig) -> None:
        took_s, silent = 0.0, False
        answered = one.serve
        assert answered is not None

        async def serve(letters: Letters) -> None:
            read = letters.channel.read

            async def late() -> tuple[memoryview, bool]:
                clock[0] += took_s
                return await read()

            letters.channel.read = late  # type: ignore[method-assign]
            await (asyncio.Event().wait() if silent else answered(letters))

        one.serve = serve
        assert one.talk._timeout_s(0) > 10  # nothing is known yet
        await one.propose(two.me)
        assert one.talk._timeout_s(0) == 0.5  # the least
        silent = True
        for longer in (1.0, 2.0):
            await one.propose(two.me)
            assert one.talk._timeout_s(0) == longer
        one.serve = None  # a connection refused: that tells nothing of the time
        await one.propose(two.me)
        assert one.talk._timeout_s(0) == 2.0
        one.serve, silent = serve, False
        for _ in range(20):
            await one.propose(two.me)
        assert one.talk._timeout_s(0) == 0.5
        took_s = 1.0
        await one.propose(two.me)
        assert one.talk._typical_s is not None
        assert one.talk._typical_s >= 1.0
        assert one.talk._timeout_s(0) == 8 * one.talk._typical_s
        assert [outcome.reason for outcome in one.outcomes if outcome.reason] == [
            "timeout",
            "timeout",
            "refused",
        ]

    play(scenario)


def test_a_busy_answer_tells_nothing_of_the_time() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        one.replies(lambda message: two.says(Busy(message.exchange)))
        await one.propose(two.me)
        assert one.talk._typical_s is None
        await one.propose(two.me)
        assert one.talk._timeout_s(0) > 10

    play(scenario)


def test_malformed_from_our_own_reading() -> None:
    async def scenario(one: Rig, two: Rig) -> None:
        async def serve(letters: Letters) -> None:
            await listen(letters)
            await letters.channel.write(b"\xc1 what?")

        one.serve = serve
        await one.propose(two.me)
        await one.idle()
        assert [error.reason for error in one.rejections] == ["malformed"]

    play(scenario)


@pytest.mark.parametrize("blocks", [0, 1 << 20])
def test_what_a_far_peer_makes_long_is_done_apart(
    monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    """A loop that is held by it would answer no probe."""
    monkeypatch.setattr("covey.gossip.pair._TOIL", blocks)
    threads: dict[str, set[bool]] = {}

    def noting(rig: Rig, name: str) -> None:
        real = getattr(rig.core, name)

        def call(*args: object) -> object:
            here = threading.current_thread() is threading.main_thread()
            if rig.core.busy and rig.core.toils is (blocks == 0):
                threads.setdefault(name, set()).add(here)
            return real(*args)

        monkeypatch.setattr(rig.core, name, call)

    async def scenario(one: Rig, two: Rig) -> None:
        for rig in (one, two):
            for name in ("taken", "finish"):
                noting(rig, name)
        await one.propose(two.me)
        await one.idle()
        await two.idle()
        assert [outcome.proposed for outcome in one.outcomes] == [True]

    play(scenario, Config(), apart=[False])
    assert threads["taken"] == {bool(blocks)}
