"""What a learner and its node say on this machine: frames over a socket, and one mapped file.

A frame is a 4-byte big-endian length and a packed ``[tag, fields]``.  Vectors never travel in
frames: they lie in a memory-mapped file that the node makes, one area for each direction.

    learner                                        node
    Attach(layout, …)                         ──►  makes the map
                                              ◄──  Attached(path), or Rejected(reason)
    Snapshot(0): the initial vector           ──►  founds, or takes the swarm's or a checkpoint's
                                              ◄──  Start(replace): set what the increment area holds
    Applied(0), only when it was replaced     ──►
    Snapshot(k): only when k-1 was consumed   ──►
                                              ◄──  Consumed(k)
                                              ◄──  Increment(j): only when j-1 was applied
    Applied(j)                                ──►
    Log, Settle                               ──►
                                              ◄──  Pace, SettledReport
    Detach; without it, the end of the stream means that the learner crashed

An area belongs to one side at a time, and only a frame hands it over.  The ``BELL`` word in the map
counts the frames the node has sent, so that an idle training step looks at memory, not at a socket.
"""

import math
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covey.protocols import limits, packing
from covey.protocols.errors import Malformed, TooLarge, Unsupported
from covey.protocols.messages import Lineage

LINK = 1  # the version of all this; node and learner of one machine may differ after an upgrade

PAGE = 4096
MAGIC = int.from_bytes(b"COVEYMAP", "little")
BELL = 0  # index of the bell among the words of the header that follow the magic
LOG_VALUES_MAX = 32
LOG_NAME_CHARS_MAX = 64
_WORDS = 8
_LENGTH = struct.Struct(">I")
_COUNT_MAX = 2**62


@dataclass(frozen=True, slots=True)
class Attach:
    """Learner: here is a model.  ``resumed`` is its lineage if it was attached before."""

    version: int
    layout: bytes  # encoded
    name: str
    pid: int
    every: str  # its cadence, in words
    resumed: Lineage | None = None

    def __post_init__(self) -> None:
        if len(self.name) > 64 or len(self.every) > 32 or not 0 < self.pid < 2**32:
            raise ValueError("the name, cadence or pid is out of range")


@dataclass(frozen=True, slots=True)
class Attached:
    """Node: map this file; put the initial vector into it."""

    path: str
    node: str  # the short id of the node, for people


@dataclass(frozen=True, slots=True)
class Rejected:
    """Node: no, or no longer.  The learner must not come back by itself."""

    reason: str


@dataclass(frozen=True, slots=True)
class Start:
    """Node: snapshot 0 is consumed; train.  ``replace``: set the increment area's vector first."""

    replace: bool
    lineage: Lineage


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Learner: the snapshot area holds the model after ``step`` steps and increment ``applied``."""

    sequence: int
    step: int
    applied: int

    def __post_init__(self) -> None:
        if not all(0 <= n < _COUNT_MAX for n in (self.sequence, self.step, self.applied)):
            raise ValueError("a count is out of range")


@dataclass(frozen=True, slots=True)
class Consumed:
    """Node: the snapshot area is free again."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Increment:
    """Node: the increment area holds a vector to add at the next step boundary."""

    sequence: int
    lineage: Lineage


@dataclass(frozen=True, slots=True)
class Applied:
    """Learner: added (0: set); the increment area is free again."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Pace:
    """Node: the shortest useful time between two snapshots, for a learner without a period."""

    seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.seconds < math.inf:
            raise ValueError("a pace is a time")


@dataclass(frozen=True, slots=True)
class Log:
    """Learner: what the script measured, such as its loss."""

    names: tuple[str, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.values) or len(self.names) > LOG_VALUES_MAX:
            raise ValueError("as many names as values, and not too many")
        if any(not 0 < len(name) <= LOG_NAME_CHARS_MAX for name in self.names):
            raise ValueError("a name is empty or too long")
        if not all(map(math.isfinite, self.values)):
            raise ValueError("a value is not finite")


@dataclass(frozen=True, slots=True)
class Settle:
    """Learner: training is over; exchange until the flock agrees, then report."""


@dataclass(frozen=True, slots=True)
class SettledReport:
    """Node: settled, all increments sent.  ``distance_relative`` is how far the peers' models last
    were from this one, relative to its norm; None if no peer was met."""

    distance_relative: float | None
    exchanges: int
    peers: int


@dataclass(frozen=True, slots=True)
class Detach:
    """Learner: goodbye."""


FromLearner = Attach | Snapshot | Applied | Log | Settle | Detach
FromNode = Attached | Rejected | Start | Consumed | Increment | Pace | SettledReport
Frame = FromLearner | FromNode

_KINDS: dict[str, type[Frame]] = {
    kind.__name__: kind
    for kind in (
        *(Attach, Snapshot, Applied, Log, Settle, Detach),
        *(Attached, Rejected, Start, Consumed, Increment, Pace, SettledReport),
    )
}


def encode(frame: Frame) -> bytes:
    """The bytes of one frame, its length included."""
    body = packing.pack([type(frame).__name__, packing.to_map(frame)])
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Frames out of a byte stream.  Holds at most one frame and what was fed last."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes.  Raises RemoteError; the stream is of no use then."""
        self._pending += data
        frames: list[Frame] = []
        start = 0
        while len(self._pending) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._pending, start)
            if length > limits.LINK_FRAME_BYTES_MAX:
                raise TooLarge(f"a frame of {length} bytes")
            end = start + _LENGTH.size + length
            if len(self._pending) < end:
                break
            frames.append(_decode(bytes(self._pending[start + _LENGTH.size : end])))
            start = end
        del self._pending[:start]
        return frames


def _decode(body: bytes) -> Frame:
    match packing.unpack(body, limits.LINK_FRAME_BYTES_MAX):
        case [str(tag), fields] if tag in _KINDS:
            return packing.from_map(_KINDS[tag], fields)
        case [str(tag), _]:
            raise Unsupported(f"unknown frame {tag[:32]!r}")
        case _:
            raise Malformed("a frame is [tag, fields]")


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where things lie in the map for ``size`` elements: a header page, then two areas."""

    size: int

    @property
    def area_bytes(self) -> int:
        return -(-self.size * 4 // PAGE) * PAGE

    @property
    def total_bytes(self) -> int:
        return PAGE + 2 * self.area_bytes


@dataclass(frozen=True, slots=True)
class Areas:
    """Views of a mapped file, the same on both sides.  They keep the mapping alive."""

    words: memoryview  # uint64
    snapshot: NDArray[np.float32]  # (size,), written by the learner
    increment: NDArray[np.float32]  # (size,), written by the node

    @classmethod
    def of(cls, view: memoryview, size: int) -> "Areas":
        """Views of a map.  Raises Malformed if it is too short or not headed for ``size``."""
        geometry = Geometry(size)
        if view.nbytes != geometry.total_bytes:
            raise Malformed(f"a map of {view.nbytes} bytes instead of {geometry.total_bytes}")
        header = view[: 8 * (2 + _WORDS)].cast("Q")
        if (header[0], header[1]) != (MAGIC, size):
            raise Malformed("the map is not headed as a map of this size")
        first, second = PAGE, PAGE + geometry.area_bytes
        return cls(
            header[2:],
            np.frombuffer(view[first:second], np.float32, size),
            np.frombuffer(view[second:], np.float32, size),
        )


def head(view: memoryview, size: int) -> None:
    """Write the header of a fresh map, all of whose bytes are zero."""
    header = view[:16].cast("Q")
    header[0], header[1] = MAGIC, size
