"""A node's end of the learner link in a thread of its own, with a script for what it answers."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from covey.node.home import Home
from covey.node.learner_link import Attachment, LearnerLink
from covey.protocols.link import SettledReport
from covey.protocols.messages import Lineage

PATIENCE_S = 30.0
LOOPBACK = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
Vector = NDArray[np.float32]


@dataclass
class Host:
    """A LearnerHandler for tests.  Read its fields under ``until``; change them before a learner
    comes."""

    swarm: Vector | None = None  # what a new learner is given; None: it keeps its own
    waits: bool = False  # leave a new learner waiting
    consumes: bool = True  # read snapshots as they come
    correction: Vector | None = None  # published when the learner settles
    report: SettledReport | None = field(default_factory=lambda: SettledReport(0.01, 4, 2))
    lineage: Lineage = field(default_factory=lambda: Lineage(b"f" * 32, 3))
    calls: list[str] = field(default_factory=list)
    snapshots: list[Vector] = field(default_factory=list)
    applied_by: list[int] = field(default_factory=list)  # for each snapshot
    logs: list[dict[str, float]] = field(default_factory=list)
    attachment: Attachment | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    def note(self, call: str) -> None:
        with self.changed:
            self.calls.append(call)
            self.changed.notify_all()

    async def attached(self, attachment: Attachment) -> None:
        self.attachment = attachment
        self.snapshots.append(attachment.snapshot.copy())
        self.applied_by.append(0)
        attachment.lineage = self.lineage
        if not self.waits:
            if self.swarm is not None:
                attachment.increment[:] = self.swarm
            await attachment.start(replace=self.swarm is not None)
        self.note("attached")

    async def snapshot(self, attachment: Attachment, applied: int) -> None:
        self.snapshots.append(attachment.snapshot.copy())
        self.applied_by.append(applied)
        if self.consumes:
            await attachment.consumed()
        self.note("snapshot")

    async def applied(self, attachment: Attachment, sequence: int) -> None:
        self.note(f"applied {sequence}")

    async def logged(self, attachment: Attachment, values: dict[str, float]) -> None:
        self.logs.append(values)
        self.note("logged")

    async def settle(self, attachment: Attachment) -> None:
        self.note("settle")
        if self.correction is not None:
            attachment.increment[:] = self.correction
            await attachment.publish()
        if self.report is not None:
            await attachment.settled(self.report)

    async def detached(self, attachment: Attachment, clean: bool) -> None:
        self.note("left" if clean else "crashed")


class Node:
    """A running LearnerLink in ``home`` and its host."""

    def __init__(self, home: Home, host: Host) -> None:
        self.host = host
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._link = LearnerLink(home.link_socket, home.maps, host, "TESTING")
        self._run(self._link.start())

    def _run(self, coroutine: object) -> object:
        future: Future[object] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)  # type: ignore[arg-type]
        return future.result(PATIENCE_S)

    @property
    def attachment(self) -> Attachment:
        assert self.host.attachment is not None
        return self.host.attachment

    def publish(self, increment: Vector | float) -> None:
        self.attachment.increment[:] = increment
        self._run(self.attachment.publish())

    def start(self, replace: bool) -> None:
        self._run(self.attachment.start(replace))

    def consumed(self) -> None:
        self._run(self.attachment.consumed())

    def pace(self, seconds: float) -> None:
        self._run(self.attachment.pace(seconds))

    def until(self, condition: Callable[[Host], object]) -> None:
        """Wait until ``condition`` holds of the host."""
        with self.host.changed:
            assert self.host.changed.wait_for(lambda: condition(self.host), PATIENCE_S)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._run(self._link.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


@dataclass
class Place:
    """A home with its folders made, and the nodes started in it."""

    home: Home
    nodes: list[Node] = field(default_factory=list)

    def start(self, host: Host | None = None) -> Node:
        node = Node(self.home, host or Host())
        self.nodes.append(node)
        return node


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("COVEY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("COVEY_SUPERVISED", raising=False)
    place = Place(Home.find(tmp_path / "home", {}))
    with place.home.lock({}):
        yield place
        for node in place.nodes:
            node.stop()
