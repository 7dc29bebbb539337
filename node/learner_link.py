"""The node's end of the learner link: one learner at a time over a Unix socket and a mapped file.

The driver implements LearnerHandler.  Per attachment its coroutines are called in order, one at a
time, and nothing is read from the learner while one runs: so they return soon, and what takes
long (finding the swarm's weights, settling) the driver does elsewhere and answers later.
"""

import asyncio
import contextlib
import errno
import logging
import mmap
import os
import secrets
import time
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from covey.protocols import limits, link
from covey.protocols.errors import Malformed, RemoteError
from covey.protocols.layout import Layout
from covey.protocols.messages import Lineage

log = logging.getLogger(__name__)

_READ_BYTES = 64 * limits.KIB


class Attachment:
    """One learner, from its initial vector to its goodbye.

    The driver may keep it after the learner has gone: the vectors stay readable, what it sends
    then goes nowhere.
    """

    def __init__(self, attach: link.Attach, layout: Layout, stream: "_Stream", areas: link.Areas):
        self.layout = layout
        self.name = attach.name
        self.pid = attach.pid
        self.every = attach.every
        self.resumed = attach.resumed  # set: attached before, so its vector may be newer than ours
        self.lineage = Lineage()  # the driver keeps it current; the learner resumes with it
        self.step = 0
        self.clean = False  # said goodbye
        self._stream = stream
        self._areas = areas
        self._taken = -1  # the last snapshot that came
        self._offered = 0  # the last increment that went
        self.started = False
        self._trained_at = 0.0  # when it has last shown that it trains; monotonic
        self._increment_free = True

    @property
    def snapshot(self) -> NDArray[np.float32]:
        """float32 (layout.size,): the last snapshot, ours until ``consumed``."""
        return self._areas.snapshot

    @property
    def increment(self) -> NDArray[np.float32]:
        """float32 (layout.size,): ours to fill while ``increment_free``."""
        return self._areas.increment

    @property
    def increment_free(self) -> bool:
        """Whether the learner has applied what was published last."""
        return self._increment_free

    @property
    def closed(self) -> bool:
        return self._stream.closed

    async def start(self, replace: bool) -> None:
        """Let the learner train; snapshot 0 counts as consumed.

        ``replace``: it first sets its model to the vector in ``increment``, to the bit.  If it has
        ``resumed`` it has trained meanwhile, and adds the vector minus its snapshot 0 instead.
        """
        assert not self.started
        self.started, self._trained_at = True, time.monotonic()
        self._increment_free = not replace
        await self._stream.send(link.Start(replace, self.lineage))

    async def refuse(self, reason: str) -> None:
        """Tell the learner to go, and not to come back by itself."""
        await self._stream.send(link.Rejected(reason))

    async def publish(self) -> int:
        """Hand over the filled ``increment``; returns its sequence number, from 1."""
        assert self.started, "publish comes after start"
        assert self._increment_free, "the last increment has not been applied yet"
        self._offered += 1
        self._increment_free = False
        await self._stream.send(link.Increment(self._offered, self.lineage))
        return self._offered

    async def consumed(self) -> None:
        """``snapshot`` has been read: the learner may write the next one."""
        await self._stream.send(link.Consumed(self._taken))

    async def pace(self, seconds: float) -> None:
        """Ask a learner without a fixed period for a snapshot no more often than that."""
        await self._stream.send(link.Pace(seconds))

    async def settled(self, report: link.SettledReport) -> None:
        """Answer ``settle``; every increment must have been published before."""
        await self._stream.send(report)

    def _receive_snapshot(self, frame: link.Snapshot) -> float:
        """Returns the seconds of training that it took."""
        if not self.started or frame.sequence != self._taken + 1 or frame.applied > self._offered:
            raise Malformed(f"snapshot {frame.sequence} out of turn")
        self._taken = frame.sequence
        self.step = frame.step
        before, self._trained_at = self._trained_at, time.monotonic()
        return self._trained_at - before

    def _receive_applied(self, frame: link.Applied) -> None:
        if not self.started or frame.sequence != self._offered or self._increment_free:
            raise Malformed(f"increment {frame.sequence} applied out of turn")
        self._increment_free = True


class LearnerHandler(Protocol):
    """What the driver does about the learner."""

    async def attached(self, attachment: Attachment) -> None:
        """A learner waits with its initial vector in ``snapshot``; ``start`` it when ready."""

    async def snapshot(self, attachment: Attachment, applied: int) -> None:
        """``snapshot`` holds its model after ``step`` steps and increments 1 to ``applied``."""

    async def applied(self, attachment: Attachment, sequence: int) -> None:
        """It has applied increment ``sequence``; 0: it has set the vector that ``start`` gave."""

    async def logged(self, attachment: Attachment, values: dict[str, float]) -> None:
        """The script measured these: finite numbers."""

    async def settle(self, attachment: Attachment) -> None:
        """Training is over and the last snapshot has come.  Answer by ``settled`` within 15 s."""

    async def detached(self, attachment: Attachment, clean: bool) -> None:
        """It has gone, with a goodbye (``clean``) or without.  The last call."""


class _Stream:
    """Frames to one learner, counted by the bell once there is a map."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._words: memoryview | None = None
        self.closed = False

    def ring(self, words: memoryview) -> None:
        """Count from now on."""
        self._words = words

    async def send(self, frame: link.FromNode) -> None:
        if self.closed:
            return
        self._writer.write(link.encode(frame))
        if self._words is not None:
            self._words[link.BELL] += 1
        with contextlib.suppress(ConnectionError):  # the reading side sees the end too
            await self._writer.drain()

    async def close(self) -> None:
        self.closed = True
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


class LearnerLink:
    """The listening socket, and the attached learner if there is one."""

    def __init__(
        self, socket_path: Path, map_folder: Path, handler: LearnerHandler, node: str = ""
    ) -> None:
        """``node`` names this node to the learner.  Nothing is created before ``start``."""
        self._socket_path = socket_path
        self._map_folder = map_folder
        self._handler = handler
        self._node = node
        self._server: asyncio.Server | None = None
        self._tasks: dict[asyncio.Task[None], _Stream] = {}
        self.trained_s = 0.0  # all learners together, up to their last snapshots
        self._current: Attachment | None = None
        self._vacant = asyncio.Event()
        self._vacant.set()

    @property
    def attachment(self) -> Attachment | None:
        return self._current

    async def start(self) -> None:
        """Listen.  Map files of an earlier life are removed.  Raises OSError."""
        self._map_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in self._map_folder.glob("*.map"):
            leftover.unlink()
        self._socket_path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accepted, self._socket_path)
        self._socket_path.chmod(0o600)

    async def close(self) -> None:
        """Stop listening and hang up; returns when every ``detached`` has returned."""
        if self._server is not None:
            self._server.close()
            self._socket_path.unlink(missing_ok=True)
        tasks = dict(self._tasks)
        for stream in tasks.values():
            await stream.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = _Stream(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = stream
        try:
            await self._serve(_Frames(reader), stream)
        except (RemoteError, ConnectionError) as error:
            log.warning("the learner's connection ended: %s", error)
            await stream.send(link.Rejected(f"the node did not understand: {error}"[:1000]))
        finally:
            del self._tasks[task]
            await stream.close()

    async def _serve(self, frames: "_Frames", stream: _Stream) -> None:
        attach = await frames.next()
        if attach is None:
            return
        if not isinstance(attach, link.Attach):
            raise Malformed("the first frame is not Attach")
        if reason := await self._refusal(attach):
            await stream.send(link.Rejected(reason))
            return
        self._vacant.clear()
        try:
            layout = Layout.decode(attach.layout)
            if not layout.size:
                raise Malformed("the layout has no elements")
            await self._attach(attach, layout, frames, stream)
        finally:
            self._vacant.set()

    async def _refusal(self, attach: link.Attach) -> str | None:
        """Why this learner cannot be had.  One of the same process takes the older one's place."""
        if attach.version != link.LINK:
            return "this node is of another version of covey; stop it with `covey stop`"
        other = self._current
        if other is not None and other.pid == attach.pid:
            await other._stream.send(link.Rejected("the same process has attached again"))
            await other._stream.close()
            await self._vacant.wait()
        if not self._vacant.is_set():
            who = f"{other.name} (pid {other.pid})" if other else "another learner"
            return (
                f"{who} is attached to this node, which takes one at a time; end it, or give "
                "this one another node with home=… or COVEY_HOME"
            )
        return None

    async def _attach(
        self, attach: link.Attach, layout: Layout, frames: "_Frames", stream: _Stream
    ) -> None:
        path = self._map_folder / f"{secrets.token_hex(8)}.map"
        try:
            areas = await asyncio.to_thread(_make_map, path, layout.size)
        except OSError as error:
            path.unlink(missing_ok=True)
            need = link.Geometry(layout.size).total_bytes / limits.MIB
            reason = f"cannot make a map of {need:.0f} MiB in {path.parent}: {error.strerror}"
            await stream.send(link.Rejected(reason))
            return
        try:
            await stream.send(link.Attached(str(path), self._node))
            stream.ring(areas.words)
            await self._follow(Attachment(attach, layout, stream, areas), frames)
        finally:
            path.unlink(missing_ok=True)

    async def _follow(self, attachment: Attachment, frames: "_Frames") -> None:
        first = await frames.next()
        if first is None or isinstance(first, link.Detach):
            return
        if not isinstance(first, link.Snapshot) or first.sequence != 0:
            raise Malformed("the initial vector did not come first")
        attachment._taken = 0
        attachment.step = first.step
        self._current = attachment
        try:
            await self._handler.attached(attachment)
            while not attachment.clean and (frame := await frames.next()) is not None:
                await self._dispatch(attachment, frame)
        finally:
            self._current = None
            attachment._stream.closed = True
            await self._handler.detached(attachment, attachment.clean)

    async def _dispatch(self, attachment: Attachment, frame: link.Frame) -> None:
        match frame:
            case link.Snapshot():
                self.trained_s += attachment._receive_snapshot(frame)
                await self._handler.snapshot(attachment, frame.applied)
            case link.Applied():
                attachment._receive_applied(frame)
                await self._handler.applied(attachment, frame.sequence)
            case link.Log():
                values = dict(zip(frame.names, frame.values, strict=True))
                await self._handler.logged(attachment, values)
            case link.Settle() if attachment.started:
                await self._handler.settle(attachment)
            case link.Detach():
                attachment.clean = True
            case _:
                raise Malformed(f"{type(frame).__name__} out of turn")


class _Frames:
    """Frames from one learner, one by one; None at the end of the stream."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._decoder = link.Decoder()
        self._ready: list[link.Frame] = []

    async def next(self) -> link.Frame | None:
        while not self._ready:
            data = await self._reader.read(_READ_BYTES)
            if not data:
                return None
            self._ready = self._decoder.feed(data)
        return self._ready.pop(0)


def _make_map(path: Path, size: int) -> link.Areas:
    """Create the file with all its blocks: a full disk is an error here, not a SIGBUS later."""
    total = link.Geometry(size).total_bytes
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(descriptor, total)
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(descriptor, 0, total)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
        view = memoryview(mmap.mmap(descriptor, total))
    finally:
        os.close(descriptor)
    link.head(view, size)
    return link.Areas.of(view, size)
