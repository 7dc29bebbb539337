"""The supervisor with real scripts: restarts, giving up, stopping."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from covey.node.faults import OperatorError
from covey.node.supervisor import Policy, Supervisor

QUICK = Policy(first_pause_s=0.001, longest_pause_s=0.004, grace_s=0.2)
COUNT = "import os, sys; open(sys.argv[1], 'a').write('x'); n = os.stat(sys.argv[1]).st_size\n"


class Told:
    """What the supervisor told, and a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.waiters: dict[str, asyncio.Event] = {}

    def __call__(self, type: str, **data: Any) -> None:
        self.events.append((type, data))
        self.waiters.setdefault(type, asyncio.Event()).set()

    async def wait(self, type: str) -> None:
        async with asyncio.timeout(30):
            await self.waiters.setdefault(type, asyncio.Event()).wait()

    def of(self, type: str) -> list[dict[str, Any]]:
        return [data for kind, data in self.events if kind == type]


def run(script: str, *args: str, **options: Any) -> tuple[int, Told]:
    told = Told()
    options.setdefault("policy", QUICK)

    async def scenario() -> int:
        supervisor = Supervisor(told, **options)
        return await supervisor.run([sys.executable, "-c", script, *args], os.environ)

    return asyncio.run(scenario()), told


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("", 0),
        ("raise SystemExit(2)", 2),
        ("import os; os.kill(os.getpid(), 2)", 130),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 143),
    ],
)
def test_an_end_is_not_a_crash(script: str, code: int) -> None:
    ended, told = run(script)
    assert ended == code
    assert [type for type, _ in told.events] == ["script.started", "script.ended"]


def test_a_crash_is_followed_by_a_restart_after_growing_pauses(tmp_path: Path) -> None:
    code, told = run(COUNT + "sys.exit(0 if n == 5 else 7)", str(tmp_path / "count"))
    assert code == 0
    pauses = [data["restart_in_s"] for data in told.of("script.crashed")]
    assert pauses == [0.001, 0.002, 0.004, 0.004]
    assert len(told.of("script.started")) == 5


def test_a_killed_script_is_a_crash(tmp_path: Path) -> None:
    script = COUNT + "n == 2 or os.kill(os.getpid(), 9)"
    code, told = run(script, str(tmp_path / "count"))
    assert code == 0
    assert [data["code"] for data in told.of("script.crashed")] == [137]


def test_crashes_in_a_row_are_given_up(caplog: pytest.LogCaptureFixture) -> None:
    code, told = run("raise SystemExit(3)")
    assert code == 3
    assert len(told.of("script.started")) == 5
    assert told.of("script.gave_up")[0]["reason"].startswith("crashed 5 times in a row before it")
    assert "given up" in caplog.text


def training(*lives_s: float) -> Callable[[], float]:
    """All training so far, when asked before and after each life of the script."""
    totals = [0.0]
    for life_s in lives_s:
        totals += [totals[-1] + life_s] * 2
    return iter(totals).__next__


def test_crashes_after_progress_are_never_given_up_and_pauses_start_anew(tmp_path: Path) -> None:
    script = COUNT + "sys.exit(0 if n == 9 else 1)"
    code, told = run(script, str(tmp_path / "count"), trained_s=training(*[60.0] * 9))
    assert code == 0
    assert {data["restart_in_s"] for data in told.of("script.crashed")} == {0.001}


def test_progress_resets_the_count(tmp_path: Path) -> None:
    lives_s = (5.0, 59.9, 0.0, 0.0, 60.0, 1.0, 2.0, 3.0, 4.0)  # 4 crashes, then progress
    script = COUNT + "sys.exit(10 + n)"
    code, told = run(script, str(tmp_path / "count"), trained_s=training(*lives_s))
    assert code == 19, "the last crash's"
    pauses = [data["restart_in_s"] for data in told.of("script.crashed")]
    assert pauses == [0.001, 0.002, 0.004, 0.004] * 2
    assert "for 60 s, so it is given up" in told.of("script.gave_up")[0]["reason"]


def test_a_script_that_never_joined_is_not_started_again() -> None:
    code, told = run("raise SystemExit(1)", resumable=lambda: False)
    assert code == 1
    assert len(told.of("script.started")) == 1
    assert "had not joined" in told.of("script.gave_up")[0]["reason"]


def test_what_cannot_be_started_is_the_operators_fault() -> None:
    with pytest.raises(OperatorError, match="cannot start /nowhere/python"):
        asyncio.run(Supervisor().run(["/nowhere/python"], {}))


SLEEP = "import signal, time\n{}\nprint('up', flush=True)\ntime.sleep(60)"
DEAF = SLEEP.format("signal.signal(signal.SIGTERM, signal.SIG_IGN)")


async def started(script: str, tmp_path: Path) -> tuple[Supervisor, asyncio.Task[int]]:
    """A running script that has come as far as its sleep."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = script.replace("print('up', flush=True)", f"open({str(fifo)!r}, 'w').close()")
    supervisor = Supervisor(policy=QUICK)
    task = asyncio.create_task(supervisor.run([sys.executable, "-c", script], os.environ))
    await asyncio.to_thread(fifo.read_bytes)
    return supervisor, task


@pytest.mark.parametrize(("script", "code"), [(SLEEP.format(""), 143), (DEAF, 137)])
def test_stopping_asks_first_and_then_insists(script: str, code: int, tmp_path: Path) -> None:
    async def scenario() -> None:
        supervisor, task = await started(script, tmp_path)
        await supervisor.stop()
        assert await task == code

    asyncio.run(scenario())


def test_an_interrupted_script_is_left_to_end_by_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervisor, task = await started(SLEEP.format(""), tmp_path)
        await supervisor.stop(interrupted=True)
        assert await task == 137  # it did not, within the grace

    asyncio.run(scenario())


def test_stopping_ends_the_pause_before_a_restart() -> None:
    async def scenario() -> None:
        told = Told()
        supervisor = Supervisor(told, policy=Policy(first_pause_s=3600))
        command = [sys.executable, "-c", "raise SystemExit(5)"]
        task = asyncio.create_task(supervisor.run(command, os.environ))
        await told.wait("script.crashed")
        await supervisor.stop()
        assert await task == 5

    asyncio.run(scenario())


def test_a_stop_before_the_start_counts() -> None:
    async def scenario() -> None:
        supervisor = Supervisor()
        await supervisor.stop()
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        assert await supervisor.run(command, os.environ) == 137

    asyncio.run(scenario())


def test_cancelling_leaves_no_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        _, task = await started(DEAF, tmp_path)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_systemds_variables_are_not_the_scripts() -> None:
    script = "import os, sys; sys.exit(2 if 'NOTIFY_SOCKET' in os.environ else 0)"

    async def scenario() -> int:
        environ = {**os.environ, "NOTIFY_SOCKET": "/run/x"}
        return await Supervisor().run([sys.executable, "-c", script], environ)

    assert asyncio.run(scenario()) == 0
