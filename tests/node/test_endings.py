"""What ends a node: a deadline in a thread, signals counted, standard input that closes."""

import asyncio
import os
import signal
import subprocess
import sys
import threading

import pytest

from covey.node.endings import Deadline, end_of_input, on_signals
from tests.node.waiting import PATIENCE_S, until


def test_the_deadline_does_not_need_the_loop() -> None:
    """A blocked event loop is what it is there for."""
    ended = threading.Event()
    deadline = Deadline(0.01, ended.set)

    async def go() -> None:
        deadline.begin()
        deadline.begin()
        assert ended.wait(PATIENCE_S)  # this blocks the loop, on purpose

    asyncio.run(go())
    deadline.cancel()


def test_a_deadline_that_is_cancelled_or_never_begins() -> None:
    ended: list[str] = []
    never, cancelled = Deadline(0.0, lambda: ended.append("never")), Deadline(3600.0)
    cancelled.begin()
    cancelled.cancel()
    never.cancel()
    cancelled._timer.join(PATIENCE_S)
    assert not cancelled._timer.is_alive()
    assert not ended


def test_the_first_signal_asks_and_the_second_insists() -> None:
    told: list[tuple[bool, bool]] = []

    async def go() -> None:
        on_signals(lambda now, interrupted: told.append((now, interrupted)))
        for count, number in enumerate((signal.SIGTERM, signal.SIGINT, signal.SIGTERM), 1):
            os.kill(os.getpid(), number)
            await until(lambda count=count: len(told) == count)  # type: ignore[misc]

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    asyncio.run(go())
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert told == [(False, False), (True, True), (True, False)]


def test_the_end_of_input(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        reading, writing = os.pipe()
        with os.fdopen(reading) as stdin, os.fdopen(writing, "wb", 0) as pipe:
            monkeypatch.setattr(sys, "stdin", stdin)
            waiting = asyncio.create_task(end_of_input())
            pipe.write(b"what is written means nothing")
            await asyncio.sleep(0)
            assert not waiting.done()
            pipe.close()
            async with asyncio.timeout(PATIENCE_S):
                await waiting

    asyncio.run(go())


def test_waiting_for_the_end_of_input_may_be_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        reading, writing = os.pipe()
        with os.fdopen(reading) as stdin, os.fdopen(writing, "wb", 0):
            monkeypatch.setattr(sys, "stdin", stdin)
            waiting = asyncio.create_task(end_of_input())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert os.fstat(stdin.fileno())  # ours is still open

    asyncio.run(go())


def test_giving_up_ends_the_process_with_one() -> None:
    program = "from covey.node.endings import give_up; give_up(); print('still here')"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "without a goodbye" in done.stderr
