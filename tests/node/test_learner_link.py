"""The node's end of the learner link, spoken to frame by frame."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from covey.channel import open_map
from covey.node.learner_link import Attachment, LearnerLink
from covey.protocols import link
from covey.protocols.layout import Layout, Tensor
from covey.protocols.messages import Lineage

LAYOUT = Layout((Tensor("w", (5,)),))
LINEAGE = Lineage(b"f" * 32, 7)


class Handler:
    """Remembers its calls; starts a learner at once and consumes at once."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.last: Attachment | None = None
        self.changed = asyncio.Event()

    def note(self, *call: object) -> None:
        self.calls.append(call)
        self.changed.set()

    async def until(self, name: str) -> None:
        """Wait for the call of that name."""
        while name not in [call[0] for call in self.calls]:
            self.changed.clear()
            await self.changed.wait()

    async def attached(self, attachment: Attachment) -> None:
        self.last = attachment
        attachment.lineage = LINEAGE
        self.note("attached", attachment.name, attachment.snapshot.tolist())
        await attachment.start(replace=False)

    async def snapshot(self, attachment: Attachment, applied: int) -> None:
        self.note("snapshot", attachment.step, applied, attachment.snapshot.tolist())
        await attachment.consumed()

    async def applied(self, attachment: Attachment, sequence: int) -> None:
        self.note("applied", sequence)

    async def logged(self, attachment: Attachment, values: dict[str, float]) -> None:
        self.note("logged", values)

    async def settle(self, attachment: Attachment) -> None:
        await attachment.settled(link.SettledReport(0.5, 1, 1))

    async def detached(self, attachment: Attachment, clean: bool) -> None:
        self.note("detached", clean)


class Waiting(Handler):
    """Lets a learner wait for its start."""

    async def attached(self, attachment: Attachment) -> None:
        self.last = attachment
        self.note("attached")


class Client:
    """A learner as raw frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._decoder = link.Decoder()
        self._frames: list[link.Frame] = []

    def send(self, frame: link.Frame) -> None:
        self.writer.write(link.encode(frame))

    async def next(self) -> link.Frame | None:
        """The next frame; None at the end."""
        while not self._frames:
            data = await self._reader.read(1 << 16)
            if not data:
                return None
            self._frames = self._decoder.feed(data)
        return self._frames.pop(0)

    async def attach(self, pid: int = 1, layout: Layout = LAYOUT) -> link.Areas:
        self.send(link.Attach(link.LINK, layout.encoded, f"script{pid}", pid, "automatic"))
        attached = await self.next()
        assert isinstance(attached, link.Attached), attached
        areas = open_map(attached.path, layout.size)
        areas.snapshot[:] = np.arange(layout.size)
        self.send(link.Snapshot(0, 0, 0))
        return areas

    async def start(self, pid: int = 1) -> link.Areas:
        areas = await self.attach(pid)
        assert await self.next() == link.Start(False, LINEAGE)
        return areas


Connect = Callable[[], Awaitable[Client]]
Scenario = Callable[[Connect, Handler, LearnerLink], Awaitable[None]]


def play(
    folder: Path, scenario: Scenario, handler: Handler | None = None
) -> list[tuple[object, ...]]:
    """Run a scenario against a link in ``folder``; returns the handler's calls."""
    handler = handler or Handler()

    async def main() -> None:
        served = LearnerLink(folder / "s", folder / "maps", handler, "NODEID")
        await served.start()
        clients: list[Client] = []

        async def connect() -> Client:
            clients.append(Client(*await asyncio.open_unix_connection(str(folder / "s"))))
            return clients[-1]

        async with asyncio.timeout(30):
            await scenario(connect, handler, served)
            for client in clients:
                client.writer.close()
            await served.close()
        assert not list((folder / "maps").iterdir()), "a map was left behind"
        assert not (folder / "s").exists()

    asyncio.run(main())
    return handler.calls


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("l")  # short: the path of a Unix socket is


def test_a_whole_life(folder: Path) -> None:
    async def scenario(connect: Connect, handler: Handler, served: LearnerLink) -> None:
        client = await connect()
        areas = await client.start()
        assert served.attachment is handler.last
        areas.snapshot[:] = 2
        client.send(link.Snapshot(1, 20, 0))
        assert await client.next() == link.Consumed(1)
        assert handler.last is not None
        handler.last.increment[:] = 3
        assert await handler.last.publish() == 1
        assert not handler.last.increment_free
        assert await client.next() == link.Increment(1, LINEAGE)
        assert areas.increment.tolist() == [3] * 5
        client.send(link.Applied(1))
        client.send(link.Log(("loss",), (0.25,)))
        client.send(link.Snapshot(2, 40, 1))
        assert await client.next() == link.Consumed(2)
        assert handler.last.increment_free
        await handler.last.pace(1.5)
        assert await client.next() == link.Pace(1.5)
        client.send(link.Settle())
        assert await client.next() == link.SettledReport(0.5, 1, 1)
        assert areas.words[link.BELL] == 6  # every frame since Attached
        client.send(link.Detach())
        assert await client.next() is None
        assert served.attachment is None
        assert handler.last.closed
        assert handler.last.snapshot.tolist() == [2] * 5  # still ours to read

    assert play(folder, scenario) == [
        ("attached", "script1", [0, 1, 2, 3, 4]),
        ("snapshot", 20, 0, [2] * 5),
        ("applied", 1),
        ("logged", {"loss": 0.25}),
        ("snapshot", 40, 1, [2] * 5),
        ("detached", True),
    ]


def test_a_hangup_is_a_crash_and_then_another_may_come(folder: Path) -> None:
    async def scenario(connect: Connect, handler: Handler, served: LearnerLink) -> None:
        first = await connect()
        await first.start(pid=1)
        first.writer.close()
        await handler.until("detached")
        await (await connect()).start(pid=2)

    calls = play(folder, scenario)
    assert [call[0] for call in calls] == [
        *("attached", "detached"),
        *("attached", "detached"),
    ]


def test_training_is_what_snapshots_show(folder: Path) -> None:
    """Joining is none, nor is what a learner does after its last snapshot."""

    async def scenario(connect: Connect, handler: Handler, served: LearnerLink) -> None:
        trained_s = [served.trained_s]
        for pid in (1, 2):
            client = await connect()
            await client.start(pid)
            trained_s.append(served.trained_s)
            client.send(link.Snapshot(1, 20, 0))
            assert await client.next() == link.Consumed(1)
            trained_s.append(served.trained_s)
            client.send(link.Detach())
            assert await client.next() is None
        assert trained_s[:2] == [0.0, 0.0]
        assert 0.0 < trained_s[2] == trained_s[3] < trained_s[4]

    play(folder, scenario)


def test_a_second_learner_is_refused_by_name(folder: Path) -> None:
    async def scenario(connect: Connect, handler: Handler, served: LearnerLink) -> None:
        await (await connect()).start(pid=1)
        second = await connect()
        second.send(link.Attach(link.LINK, LAYOUT.encoded, "other", 2, ""))
        rejected = await second.next()
        assert isinstance(rejected, link.Rejected)
        assert "script1 (pid 1) is attached" in rejected.reason
        assert await second.next() is None

    play(folder, scenario)


def test_the_same_process_takes_its_own_place_again(folder: Path) -> None:
    """A notebook cell that is run twice."""

    async def scenario(connect: Connect, handler: Handler, served: LearnerLink) -> None:
        first, second = await connect(), await connect()
        await first.start()
        await second.start()
        assert await first.next() == link.Rejected("the same process has attached again")
        assert await first.next() is None

    calls = play(folder, scenario)
    assert [call[0] for call in calls] == [
        *("attached", "detached"),
        *("attached", "detached"),
    ]


def test_close_hangs_up_and_waits_for_the_handler(folder: Path) -> None:
    async def scenario(connect: Connect, handler: Handler, served: LearnerLink) -> None:
        client = await connect()
        await client.start()
        await served.close()
        assert handler.calls[-1] == ("detached", False)
        assert await client.next() is None
        assert handler.last is not None
        await handler.last.pace(1.0)  # goes nowhere, harms nothing

    play(folder, scenario)


def test_a_learner_may_go_before_its_start(folder: Path) -> None:
    async def scenario(connect: Connect, handler: Handler, served: LearnerLink) -> None:
        client = await connect()
        client.send(link.Attach(link.LINK, LAYOUT.encoded, "s", 1, ""))
        await client.next()
        client.send(link.Detach())
        assert await client.next() is None
        again = await connect()
        await again.attach()
        again.writer.close()
        await handler.until("detached")

    assert play(folder, scenario, Waiting()) == [("attached",), ("detached", False)]


def test_start_with_a_vector(folder: Path) -> None:
    async def scenario(connect: Connect, handler: Handler, served: LearnerLink) -> None:
        client = await connect()
        areas = await client.attach()
        await handler.until("attached")
        assert handler.last is not None
        handler.last.increment[:] = 9
        await handler.last.start(replace=True)
        assert not handler.last.increment_free
        assert await client.next() == link.Start(True, Lineage())
        assert areas.increment.tolist() == [9] * 5
        client.send(link.Applied(0))
        await handler.until("applied")
        assert handler.last.increment_free

    calls = play(folder, scenario, Waiting())
    assert calls == [("attached",), ("applied", 0), ("detached", False)]


@pytest.mark.parametrize(
    "frames",
    [
        [link.Snapshot(2, 0, 0)],  # one left out
        [link.Snapshot(0, 0, 0)],  # one twice
        [link.Snapshot(1, 0, 1)],  # applied what was not there
        [link.Applied(0)],
        [link.Applied(1)],
        [link.Attach(link.LINK, LAYOUT.encoded, "s", 1, "")],
        [link.Pace(1.0)],
    ],
)
def test_frames_out_of_turn_end_the_connection(folder: Path, frames: list[link.Frame]) -> None:
    async def scenario(connect: Connect, handler: Handler, served: LearnerLink) -> None:
        client = await connect()
        await client.start()
        for frame in frames:
            client.send(frame)
        assert await client.next() is None
        assert handler.calls[-1] == ("detached", False)

    play(folder, scenario)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (link.Settle(), "not Attach"),
        (link.Attach(99, LAYOUT.encoded, "s", 1, ""), "another version"),
        (link.Attach(link.LINK, b"\x90", "s", 1, ""), "at least one"),
        (link.Attach(link.LINK, Layout((Tensor("w", (0,)),)).encoded, "s", 1, ""), "no elements"),
    ],
)
def test_what_cannot_attach_is_told_why(folder: Path, frame: link.Frame, why: str) -> None:
    async def scenario(connect: Connect, handler: Handler, served: LearnerLink) -> None:
        client = await connect()
        client.send(frame)
        rejected = await client.next()
        assert isinstance(rejected, link.Rejected)
        assert why in rejected.reason
        await (await connect()).start()  # and the place is free

    play(folder, scenario)


def test_garbage_only_ends_its_own_connection(folder: Path) -> None:
    async def scenario(connect: Connect, handler: Handler, served: LearnerLink) -> None:
        attached, hostile = await connect(), await connect()
        areas = await attached.start()
        hostile.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert isinstance(await hostile.next(), link.Rejected)
        areas.snapshot[:] = 1
        attached.send(link.Snapshot(1, 1, 0))
        assert await attached.next() == link.Consumed(1)

    play(folder, scenario)


def test_a_full_disk_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)

    async def scenario(connect: Connect, handler: Handler, served: LearnerLink) -> None:
        client = await connect()
        client.send(link.Attach(link.LINK, LAYOUT.encoded, "s", 1, ""))
        rejected = await client.next()
        assert isinstance(rejected, link.Rejected)
        assert "No space left" in rejected.reason

    assert play(folder, scenario) == []


def test_files_are_private_and_leftovers_go(folder: Path) -> None:
    (folder / "maps").mkdir()
    (folder / "maps" / "old.map").touch()
    (folder / "s").touch()

    async def scenario(connect: Connect, handler: Handler, served: LearnerLink) -> None:
        await (await connect()).start()
        (path,) = (folder / "maps").iterdir()
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.stat().st_size == link.Geometry(LAYOUT.size).total_bytes
        assert (folder / "s").stat().st_mode & 0o777 == 0o600

    play(folder, scenario)
