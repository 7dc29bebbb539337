"""The learner's end of one connection to its node: frames that never block, and the mapped file."""

import mmap
import os
import select
import socket
import time
import weakref
from typing import Protocol

from covey.protocols import link
from covey.protocols.errors import RemoteError

_READ_BYTES = 1 << 16


class _Closeable(Protocol):
    def close(self) -> None: ...


def close_in_children(resource: _Closeable) -> None:
    """Close ``resource`` in processes forked from now on, such as a data loader's workers: held
    open there, it would hide from the node that this process has ended."""
    reference = weakref.ref(resource)

    def close() -> None:
        held = reference()
        if held is not None:
            held.close()

    os.register_at_fork(after_in_child=close)


class Lost(Exception):
    """The node has gone, or hung up."""


class Channel:
    """Frames to and from the node over a connected Unix socket."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._decoder = link.Decoder()
        self._unsent = bytearray()
        close_in_children(connection)

    @property
    def congested(self) -> bool:
        """Whether the node has not taken all of what was sent: the unimportant can wait."""
        return bool(self._unsent)

    def send(self, frame: link.FromLearner) -> None:
        """Send without waiting.  That the node has gone is only noticed by ``receive``, after it
        has returned what the node said last."""
        self._unsent += link.encode(frame)
        self._flush()

    def receive(self) -> list[link.Frame]:
        """The frames that have come.  Raises Lost when there are none and will be none."""
        self._flush()
        frames: list[link.Frame] = []
        while True:
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return frames
            except OSError:
                data = b""
            if not data:
                if frames:
                    return frames
                raise Lost
            try:
                frames += self._decoder.feed(data)
            except RemoteError as error:
                raise Lost(f"the node sent {error}") from error

    def wait(self, timeout_s: float) -> None:
        """Wait until ``receive`` has something to do; a signal's handler may raise out of it."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        poll.poll(max(0.0, timeout_s) * 1000)

    def drain(self, timeout_s: float) -> None:
        """Wait until the node has hung up: to do so first would lose what it has not read yet."""
        deadline = time.monotonic() + timeout_s
        try:
            while (left_s := deadline - time.monotonic()) > 0:
                self.wait(left_s)
                self.receive()
        except Lost:
            pass

    def close(self) -> None:
        self._socket.close()

    def _flush(self) -> None:
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except BlockingIOError:
                return
            except OSError:
                sent = len(self._unsent)
            del self._unsent[:sent]


def open_map(path: str, size: int) -> link.Areas:
    """Map the file that the node made for a vector of ``size``.  Raises OSError or Malformed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        view = memoryview(mmap.mmap(descriptor, 0))
    finally:
        os.close(descriptor)
    return link.Areas.of(view, size)
