"""Background tasks: none outlives its owner, and no bug stays in one."""

import asyncio

import pytest

from covey.node.tasks import Tasks
from covey.protocols.errors import Stale


def test_a_bug_is_told(caplog: pytest.LogCaptureFixture) -> None:
    bugs: list[BaseException] = []

    async def go() -> None:
        tasks = Tasks(bugs.append)

        async def fail() -> None:
            raise ValueError("a bug")

        tasks.spawn(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [str(bug) for bug in bugs] == ["a bug"]
        await tasks.close()

    asyncio.run(go())
    assert not caplog.messages  # nothing is left for asyncio to complain about


def test_an_end_and_a_cancellation_are_no_bugs() -> None:
    bugs: list[BaseException] = []

    async def go() -> None:
        tasks = Tasks(bugs.append)
        ended = tasks.spawn(asyncio.sleep(0))
        assert ended is not None
        await ended
        forever = tasks.spawn(asyncio.Event().wait())  # type: ignore[arg-type]
        assert forever is not None
        await asyncio.sleep(0)
        tasks.cancel()
        await asyncio.wait([forever])
        await tasks.close()

    asyncio.run(go())
    assert not bugs


def test_close_waits_also_for_those_that_take_their_time() -> None:
    ended: list[str] = []

    async def go() -> None:
        tasks = Tasks(ended.append)  # type: ignore[arg-type]

        async def stubborn() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                tasks.spawn(late())
                await asyncio.sleep(0)  # it is not done at once
                ended.append("stubborn")

        async def late() -> None:
            ended.append("late")

        tasks.spawn(stubborn())
        await asyncio.sleep(0)
        await tasks.close()
        assert ended == ["stubborn"]
        assert tasks.spawn(late()) is None
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(go())


def test_after_cancel_new_ones_may_follow() -> None:
    async def go() -> None:
        bugs: list[BaseException] = []
        tasks = Tasks(bugs.append)
        tasks.cancel()
        done = asyncio.Event()

        async def work() -> None:
            done.set()

        tasks.spawn(work())
        await done.wait()
        await tasks.close()
        assert not bugs

    asyncio.run(go())


def test_watching_tells_bugs_and_lets_all_through() -> None:
    bugs: list[BaseException] = []
    tasks = Tasks(bugs.append)
    for error in (KeyError("a bug"), Stale("a peer's"), asyncio.CancelledError()):
        with pytest.raises(type(error)), tasks.watching():
            raise error
    assert [type(bug) for bug in bugs] == [KeyError]
