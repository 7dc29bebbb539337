"""The daemon as a process: signals, bugs, its script, and whoever started it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from covey.node.client import Client
from covey.node.faults import OperatorError
from covey.node.home import Home
from tests.waiting import PATIENCE_S, until

PROGRAM = """
import sys
from pathlib import Path
from covey.node import daemon
from covey.node.faults import OperatorError
from covey.node.home import Home
from covey.node.settings import Endpoint, Settings

{before}
settings = Settings(
    listen=Endpoint("127.0.0.1", 0), api=Endpoint("127.0.0.1", 0), mdns=False, name="child"
)
home = Home.find(sys.argv[1], {{}})
try:
    sys.exit(daemon.run(settings, home, {script}, until_eof={until_eof}))
except OperatorError as error:
    sys.exit(f"told: {{error}}")
"""


@contextlib.contextmanager
def child(
    folder: Path, before: str = "", script: list[str] | None = None, until_eof: bool = False
) -> Iterator["subprocess.Popen[str]"]:
    """A daemon as a process of its own in ``folder``; killed in the end if it still runs."""
    program = PROGRAM.format(before=textwrap.dedent(before), script=script, until_eof=until_eof)
    environ = {name: text for name, text in os.environ.items() if not name.startswith("COVEY_")}
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ready(folder: Path) -> None:
    home = Home.find(folder, {})

    def look() -> bool:
        with contextlib.suppress(OperatorError, OSError):
            return bool(Client(home).get("/readyz")["ready"])
        return False

    until("it is ready", look)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order(tmp_path: Path, number: int) -> None:
    with child(tmp_path / "home") as process:
        ready(tmp_path / "home")
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        assert "Traceback" not in errors
        assert not Home.find(tmp_path / "home", {}).api_socket.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 1), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, number: int, code: int) -> None:
    """Here the goodbye hangs."""
    before = """
        import asyncio
        from covey.node.neighbours import Neighbours
        async def hang(self, goodbye):
            print("leaving", flush=True)
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    pass
        Neighbours.leave = hang
    """
    with child(tmp_path / "home", before) as process:
        ready(tmp_path / "home")
        process.send_signal(number)
        assert process.stdout is not None
        assert process.stdout.readline() == "leaving\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == code
        assert "without a goodbye" in errors


def test_a_loop_that_hangs_does_not_keep_it_alive(tmp_path: Path) -> None:
    before = """
        import threading
        from covey.node.neighbours import Neighbours
        async def hang(self, goodbye):
            threading.Event().wait()
        Neighbours.leave = hang
        daemon._STOP_S = 0.5
    """
    with child(tmp_path / "home", before) as process:
        ready(tmp_path / "home")
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 1


def test_a_bug_ends_the_process_with_one(tmp_path: Path) -> None:
    before = """
        import sys
        from covey.node.neighbours import Neighbours
        async def broken(self):
            raise ZeroDivisionError("a bug in the loop")
        Neighbours.run = broken
    """
    with child(tmp_path / "home", before) as process:
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 1
        assert "a bug in the loop" in errors
        assert "this node ends" in errors


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    with child(tmp_path / "home", until_eof=True) as process:
        ready(tmp_path / "home")
        process.communicate("", timeout=PATIENCE_S)  # which closes its standard input
        assert process.returncode == 0


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        before = f"""
            import dataclasses
            made = Settings
            def Settings(**given):
                return dataclasses.replace(made(**given), listen=Endpoint("127.0.0.1", {port}))
        """
        with child(tmp_path / "home", before) as process:
            _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 1
        assert "told: cannot listen for peers" in errors
        assert "Traceback" not in errors


SCRIPT = """
import json, os, pathlib, sys
import numpy as np
import covey
from covey.protocols.layout import Layout, Tensor
layout = Layout.of([Tensor("w", (10,))])
vector = np.zeros(10, np.float32)
with covey.attach(layout, vector, every=1) as flock:
    for _ in range(5):
        vector += 1
        flock.step()
seen = dict(vector=vector.tolist(), supervised=os.environ["COVEY_SUPERVISED"])
pathlib.Path(sys.argv[1]).write_text(json.dumps(seen))
sys.exit(int(sys.argv[2]))
"""


def test_its_script_trains_and_its_end_is_the_nodes(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    seen = tmp_path / "seen"
    argv = [sys.executable, str(tmp_path / "script.py"), str(seen), "2"]  # 2: not started again
    with child(tmp_path / "home", script=argv) as process:
        _, errors = process.communicate(timeout=2 * PATIENCE_S)
        assert process.returncode == 2, errors
        told = json.loads(seen.read_text())
        assert told["vector"] == [5.0] * 10
        assert told["supervised"] == str(process.pid)
    assert list(Home.find(tmp_path / "home", {}).checkpoints.glob("*.json"))


def test_a_script_that_never_joined_is_told_of(tmp_path: Path) -> None:
    with child(tmp_path / "home", script=[sys.executable, "-c", ""]) as process:
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    assert "without covey.join()" in errors


def test_stopping_it_stops_its_script(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    text = f"""if True:
        import os, pathlib, signal
        pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))
        signal.pause()
    """
    with child(tmp_path / "home", script=[sys.executable, "-c", text]) as process:
        until("its script runs", lambda: pid_file.exists() and pid_file.read_text())
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid_file.read_text()), 0)


def test_killed_at_once_it_comes_back_as_itself(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    ids = []
    for _ in range(2):
        with child(folder) as process:
            ready(folder)
            ids.append(Client(Home.find(folder, {})).get("/api/v1/status")["node"]["id"])
            process.kill()
            process.wait()
    assert ids[0] == ids[1]
