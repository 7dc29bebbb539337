"""Calls to the core: in order and always, here or on a thread of its own."""

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from random import Random
from typing import cast

import pytest

from covey.gossip.core import Core, Outcome, Outgoing
from covey.gossip.pair import Pair
from covey.node.faults import OperatorError
from covey.node.runner import CoreRunner, Takes, apart
from covey.protocols.errors import Malformed
from covey.protocols.identity import Identity, PeerId
from covey.protocols.messages import Lineage
from tests.node.hosts import LAYOUT, PLAIN, noise
from tests.node.waiting import until

ONE, TWO = Identity(b"1" * 32).peer, Identity(b"2" * 32).peer


class Rig:
    """A runner of a core that has a model."""

    def __init__(self, apart: bool) -> None:
        self.core = Pair(ONE, PLAIN, LAYOUT, Random(1))
        self.core.begin(noise(), Lineage(b"f" * 32, 0))
        self.outcomes: list[Outcome] = []
        self.bugs: list[BaseException] = []
        self.runner = CoreRunner(self.core, self.outcomes.extend, self.bugs.append, WAYS[apart])

    def propose(self) -> Outgoing | None:
        self.core.open_period()
        return self.core.propose([TWO], 0.0)

    def fail(self, peer: PeerId = TWO) -> None:
        self.core.failed(peer, "lost")


WAYS = {False: Takes.LONG, True: Takes.MOMENT}  # done apart: hardly anything, or all
Play = Callable[[Callable[[Rig], Awaitable[None]]], Rig]


def played(apart: bool) -> Play:
    def play(scenario: Callable[[Rig], Awaitable[None]]) -> Rig:
        async def go() -> Rig:
            rig = Rig(apart)
            try:
                await scenario(rig)
            finally:
                await rig.runner.close()
            return rig

        return asyncio.run(go())

    return play


@pytest.fixture(params=[False, True], ids=["here", "apart"])
def play(request: pytest.FixtureRequest) -> Play:
    return played(request.param)


@pytest.fixture
def play_apart() -> Play:
    return played(True)


SMALL, MODEST = 1 << 20, 12 << 20


class Sized:
    """As much of a core as matters for where it is called."""

    def __init__(self, size: int, in_pieces: bool = True) -> None:
        self.in_pieces = in_pieces
        self.replica = self
        self.size = size


@pytest.mark.parametrize(
    ("core", "processors", "compiled", "expected"),
    [
        (Sized(SMALL), 64, True, Takes.LONG),
        (Sized(SMALL + 1), 64, True, Takes.MOMENT),
        (Sized(SMALL + 1), 2, True, Takes.PASS),
        (Sized(MODEST), 1, True, Takes.PASS),
        (Sized(MODEST + 1), 1, True, Takes.MOMENT),
        (Sized(SMALL // 16), 64, False, Takes.LONG),
        (Sized(SMALL), 64, False, Takes.MOMENT),
        (Sized(10, in_pieces=False), 2, True, Takes.MOMENT),
    ],
)
def test_what_may_take_long_has_a_thread_of_its_own(
    core: Core, processors: int, compiled: bool, expected: Takes
) -> None:
    assert apart(core, processors, compiled) is expected


def test_the_processors_are_those_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    core = cast("Core", Sized(MODEST))
    for usable, expected in (({0, 1, 2}, Takes.MOMENT), ({5}, Takes.PASS)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, usable=usable: usable)
        assert apart(core, compiled=True) is expected
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert apart(core, compiled=True) is Takes.MOMENT


@pytest.mark.parametrize("elsewhere", [False, True])
def test_work_is_done_in_order(elsewhere: bool) -> None:
    done: list[object] = []

    async def scenario(rig: Rig) -> None:
        for number in range(20):
            rig.runner.post(lambda number=number: done.append(number))  # type: ignore[misc]
        thread = await rig.runner.run(threading.current_thread)
        assert (thread is not threading.current_thread()) is elsewhere
        assert done == list(range(20))

    assert not played(elsewhere)(scenario).bugs


def test_what_takes_long_is_done_apart_and_the_rest_after_it(play: Play) -> None:
    done: list[str] = []

    async def scenario(rig: Rig) -> None:
        gate = threading.Event()

        def write() -> None:
            assert gate.wait(30)
            done.append(f"written elsewhere: {threading.current_thread() is not here}")

        here = threading.current_thread()
        rig.runner.post(lambda: done.append("before"))
        writing = rig.runner.submit(write, Takes.LONG)
        rig.runner.post(lambda: done.append("posted"))
        asked = asyncio.create_task(rig.runner.run(lambda: done.append("asked")))
        await asyncio.sleep(0)
        assert done in ([], ["before"])  # the loop goes on meanwhile, and nothing overtakes
        gate.set()
        await writing
        await asked
        assert done == ["before", "written elsewhere: True", "posted", "asked"]
        after = await rig.runner.run(threading.current_thread)
        assert (after is here) is not rig.runner.ahead  # not there for ever

    assert not play(scenario).bugs


def test_what_was_posted_is_done_before_the_end(play: Play) -> None:
    done: list[str] = []

    async def scenario(rig: Rig) -> None:
        rig.runner.post(lambda: done.append("posted"))
        await rig.runner.close()
        assert done == ["posted"]
        with pytest.raises(AssertionError):
            await rig.runner.run(lambda: None, Takes.LONG)

    play(scenario)


def test_a_bug_in_counting_is_not_the_callers(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        def fail(outcomes: list[Outcome]) -> None:
            raise ZeroDivisionError("a bug")

        rig.runner._on_outcomes = fail
        await rig.runner.run(rig.propose)
        rig.runner.post(rig.fail)
        assert await rig.runner.run(lambda: 7) == 7
        assert [type(bug) for bug in rig.bugs] == [ZeroDivisionError]

    play(scenario)


def test_ctrl_c_amid_a_call_ends_the_program() -> None:
    async def scenario(rig: Rig) -> None:
        def interrupted() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            await rig.runner.submit(interrupted)

    assert not played(False)(scenario).bugs


def test_the_answer_leaves_before_what_was_posted_here() -> None:
    done: list[str] = []

    async def scenario(rig: Rig) -> None:
        async def leave() -> None:
            done.append("left")

        leaving = asyncio.create_task(leave())
        rig.runner.post(lambda: done.append("posted"))
        await leaving
        assert done == ["left", "posted"]

    played(False)(scenario)


def test_outcomes_come_before_the_answer(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        assert await rig.runner.run(rig.propose) is not None
        assert rig.outcomes == []
        await rig.runner.run(rig.fail)
        assert [outcome.reason for outcome in rig.outcomes] == ["lost"]

    play(scenario)


def test_outcomes_of_what_raised_come_too(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.runner.run(rig.propose)

        def fail() -> None:
            rig.fail()
            raise Malformed("the answer")

        with pytest.raises(Malformed):
            await rig.runner.run(fail)
        assert len(rig.outcomes) == 1

    assert not play(scenario).bugs


def test_no_outcome_is_lost_or_told_twice(play: Play) -> None:
    """The loop looks while the worker works."""

    async def scenario(rig: Rig) -> None:
        def exchange() -> None:
            rig.propose()
            rig.fail()

        for _ in range(300):
            rig.runner.post(exchange)
            await asyncio.sleep(0)
        await rig.runner.run(lambda: None)
        assert len(rig.outcomes) == 300

    play(scenario)


@pytest.mark.parametrize("fails", [True, False])
def test_what_a_call_held_goes_with_it(play: Play, fails: bool) -> None:
    """Also if it raised: a peer's faults must not pile up what came with them."""

    class Payload:
        """As large as a model."""

    async def scenario(rig: Rig) -> None:
        payload = Payload()
        kept = weakref.ref(payload)

        def work(held: Payload) -> Payload:
            if fails:
                raise Malformed("the answer")
            return held

        with suppress(Malformed):
            await rig.runner.run(partial(work, payload))
        del payload
        await until(lambda: kept() is None)  # the worker may be a moment behind

    gc.disable()
    try:
        play(scenario)
    finally:
        gc.enable()


def test_a_caller_that_is_cancelled_only_does_not_hear(play_apart: Play) -> None:
    done: list[str] = []

    async def scenario(rig: Rig) -> None:
        gate = threading.Event()
        rig.runner.post(lambda: None if gate.wait(30) else done.append("never"))
        waiting = asyncio.create_task(rig.runner.run(lambda: done.append("queued")))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert not done
        gate.set()
        await rig.runner.run(lambda: None)
        assert done == ["queued"]

    play_apart(scenario)


def test_a_fault_of_a_cancelled_call_is_nobodys(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(rig: Rig) -> None:
        def fail() -> None:
            raise OperatorError("the disk is full")

        waiting = asyncio.create_task(rig.runner.run(fail))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        rig.runner.post(fail)
        await rig.runner.run(lambda: None)

    assert not play(scenario).bugs
    assert not caplog.messages


def test_idle_waits_for_the_exchange_and_refuses_others_meanwhile(play: Play) -> None:
    done: list[str] = []

    async def scenario(rig: Rig) -> None:
        assert await rig.runner.run_idle(lambda: 7) == 7
        await rig.runner.run(rig.propose)
        waiting = asyncio.create_task(rig.runner.run_idle(lambda: done.append("idle")))
        for _ in range(20):
            await rig.runner.run(lambda: None)
            await asyncio.sleep(0)
        assert not done
        assert rig.runner.wanted
        await rig.runner.run(rig.fail)
        await waiting
        assert done == ["idle"]
        assert not rig.runner.wanted

    play(scenario)


def test_idle_is_woken_by_what_was_posted(play: Play) -> None:
    """As when membership finds a peer dead: nobody calls ``run`` then."""

    async def scenario(rig: Rig) -> None:
        await rig.runner.run(rig.propose)
        waiting = asyncio.create_task(rig.runner.run_idle(lambda: 7))
        await asyncio.sleep(0)
        rig.runner.post(rig.fail)
        assert await waiting == 7

    play(scenario)


def test_idle_that_is_cancelled_wants_nothing_any_more(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.runner.run(rig.propose)
        waiting = asyncio.create_task(rig.runner.run_idle(lambda: 7))
        await asyncio.sleep(0)
        assert rig.runner.wanted
        waiting.cancel()
        await asyncio.wait([waiting])
        assert not rig.runner.wanted

    play(scenario)


def test_bugs_are_told_also_when_nobody_asks(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(rig: Rig) -> None:
        def fail() -> None:
            raise ZeroDivisionError("a bug")

        rig.runner.post(fail)
        with pytest.raises(ZeroDivisionError):
            await rig.runner.run(fail)
        with pytest.raises(ZeroDivisionError):
            await rig.runner.run_idle(fail)

    assert [type(bug) for bug in play(scenario).bugs] == [ZeroDivisionError] * 3
    assert not caplog.messages


def test_close_finishes_what_was_asked_for_and_blocks_nobody(play_apart: Play) -> None:
    done: list[str] = []

    async def scenario(rig: Rig) -> None:
        gate = threading.Event()
        rig.runner.post(lambda: None if gate.wait(30) else done.append("never"))
        rig.runner.post(lambda: done.append("last"))
        closing = asyncio.create_task(rig.runner.close())
        await asyncio.sleep(0)  # the loop turns while the worker works
        assert rig.runner.closed
        rig.runner.post(lambda: done.append("too late"))
        gate.set()
        await closing
        assert done == ["last"]
        with pytest.raises(AssertionError):
            await rig.runner.run(lambda: None)

    play_apart(scenario)
