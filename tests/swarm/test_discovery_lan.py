"""Discovery between machines: found, cut off and back, and told when multicast is blocked."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.swarm.netns import Machine, lan

pytestmark = pytest.mark.swarm

PATIENCE_S = 30.0

# One node's discovery; prints a line for each new status and each address found.
_NODE = """
import asyncio, sys
from covey.node import discovery
from covey.node.discovery import Announcement, Discovery
from covey.protocols.identity import PeerId

discovery.RESCAN_S = 0.2
me = Announcement(PeerId(bytes([int(sys.argv[1])]) * 32), b"s" * 32, "0.0.0.0", 4001)

async def main():
    node = Discovery(me, lambda found, prefix: print("found", *found, flush=True))
    node.start()
    told = None
    while True:
        if node.status != told:
            told = node.status
            print(told.state, told.detail, flush=True)
        await asyncio.sleep(0.01)

asyncio.run(main())
"""


class Node:
    """A node's discovery in a process on ``machine``, and what it has printed."""

    def __init__(self, machine: Machine, number: int) -> None:
        self.process = machine.start(
            *(sys.executable, "-c", _NODE, str(number)), stdout=subprocess.PIPE
        )
        self._lines: list[str] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                with self._more:
                    self._lines.append(line.strip())
                    self._more.notify_all()

    def until(self, start: str) -> str:
        """The first line since the last ``forget`` that begins with ``start``."""

        def found() -> str | None:
            return next((line for line in self._lines if line.startswith(start)), None)

        with self._more:
            self._more.wait_for(found, PATIENCE_S)
            line = found()
            assert line is not None, f"no {start!r} in {self._lines}"
            return line

    def forget(self) -> None:
        with self._more:
            self._lines.clear()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()


@contextlib.contextmanager
def nodes(*machines: Machine) -> Iterator[list[Node]]:
    started: list[Node] = []
    try:
        for number, machine in enumerate(machines, 1):
            started.append(Node(machine, number))
        yield started
    finally:
        for node in started:
            node.stop()


def test_machines_find_each_other_and_again_after_the_cable_was_out() -> None:
    with lan(2) as (here, there), nodes(here, there) as (one, two):
        assert one.until("found") == f"found {there.address}:4001"
        assert two.until("found") == f"found {here.address}:4001"
        assert f"eth0 ({here.address})" in one.until("working")
        one.forget()
        here.unplug()
        assert one.until("working").endswith("finds the nodes of this machine only")
        one.forget()
        here.plug_in()
        assert f"eth0 ({here.address})" in one.until("working")
        assert one.until("found") == f"found {there.address}:4001"


def test_blocked_multicast_is_told_with_the_way_round() -> None:
    with lan(2) as (here, there):
        here.block_multicast("eth0")
        there.block_multicast()
        with nodes(here, there) as (one, two):
            for machine, node in ((here, one), (there, two)):
                line = node.until("silent")
                assert f"does not come back on eth0 ({machine.address})" in line
                assert "--peer HOST:PORT" in line
