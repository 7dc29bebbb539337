"""Exchange messages between the core and the peers: sealed, opened, checked against our scope.

A message is taken while it arrives, and answered while it is taken if the core can.  Where the core
has a thread of its own, that codes and hashes one part while the loop encrypts the part before it,
and likewise on the way in; else they take turns.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol, TypeVar

from covey.gossip.codecs import payload_limit
from covey.gossip.core import Intake, Outgoing, whole
from covey.node.letters import Letters
from covey.node.line import Channel
from covey.node.runner import CoreRunner, Takes
from covey.node.streams import Buffer
from covey.node.throttle import Limits
from covey.node.unreachable import Unreachable
from covey.protocols import limits
from covey.protocols.envelope import (
    Hash,
    Opened,
    ReplayWindow,
    Scope,
    Sealer,
    announce,
    open_sealed,
)
from covey.protocols.errors import Malformed, RemoteError, Stale, TooLarge, Unsupported
from covey.protocols.identity import PeerId
from covey.protocols.messages import (
    ALGORITHM_OF,
    Accept,
    Busy,
    Commit,
    ExchangeMessage,
    Propose,
    Refuse,
    Settled,
)

T = TypeVar("T")

_FIRST_TIMEOUT_S = 10.0
_SMALL_BYTES = 64 * limits.KIB  # not worth a call of its own, which may lead to another thread
_MODEST_BYTES = 512 * limits.KIB  # nor is this where nothing can be begun with it
_LEAST_TIMEOUT_S = 5.0  # longer than patience.py's: the accepter gives up first
_STRETCH_MAX = 16.0
_HOLD_S = 0.5  # for a peer that proposes while a proposal of ours is unanswered


class Courier(Protocol):
    """Reaches peers (neighbours.py)."""

    def call(self, peer: PeerId) -> AbstractAsyncContextManager[Letters]:
        """A line to ``peer``, for one exchange.  Raises Unreachable, also for what breaks it."""

    def rejected(self, peer: PeerId | None, error: RemoteError) -> None:
        """Count what a peer did wrong."""


class Conversation:
    """Both roles of this node's exchanges, for one layout."""

    def __init__(
        self,
        runner: CoreRunner,
        sealer: Sealer,
        scope: Scope,
        courier: Courier,
        bandwidth: Limits | None = None,
    ) -> None:
        self.runner = runner
        self._bandwidth = bandwidth or Limits()
        self._sealer = sealer
        self._scope = scope
        self._courier = courier
        self._replays = ReplayWindow()
        self._typical_s: float | None = None  # of one request and its answer, smoothed
        self._stretch = 1.0  # of the timeout, after requests that ran into it
        self._asked: PeerId | None = None  # last of all
        self._heard = asyncio.Event()  # set while no proposal of ours is unanswered
        self._heard.set()
        replica = runner.core.replica
        self.limit = payload_limit(replica.parameters, replica.size - replica.parameters)

    async def propose(self, candidates: Sequence[PeerId]) -> float | None:
        """One exchange with the next of ``candidates``, to its end; None if none is left to ask.

        Returns the seconds it took.  The core is told how it ended, also when this is cancelled:
        it holds x until it knows.
        """
        proposed: list[Outgoing] = []

        def ask() -> Outgoing | None:
            out = self.runner.core.propose(candidates, time.monotonic())
            proposed.extend([out] if out is not None else [])
            return out

        try:
            out = await self.runner.run_idle(ask, Takes.MOMENT)
            if out is None:
                return None
            started = time.monotonic()
            await self._converse(out)
        except asyncio.CancelledError:
            self.runner.post(lambda: self._abandon(proposed))
            raise
        return time.monotonic() - started

    async def _converse(self, out: Outgoing) -> None:
        """Send a proposal and whatever the answers ask for."""
        self._asked = out.peer
        self._heard.clear()
        try:
            async with self._courier.call(out.peer) as letters:
                letters.post(self._letter(letters, out))
                size = len(out.payload)
                while await self._answered(letters, out.peer, size):
                    size = self.limit
        except Unreachable as error:
            await self._fail(out, error.kind, str(error))
        except RemoteError as error:
            self._courier.rejected(out.peer, error)
            await self._fail(out, error.reason, str(error))
        finally:
            self._heard.set()

    async def _answered(self, letters: Letters, peer: PeerId, size: int) -> bool:
        """Take the answer to a message of ``size`` bytes; whether it asks for another."""
        started, timeout_s = time.monotonic(), self._timeout_s(size)
        try:
            async with asyncio.timeout(timeout_s):
                message = await letters.announcement()
                if isinstance(message, Accept):
                    self._heard.set()
                more = await self._hear(letters, peer, message, answering=False)
                self._heard.set()
        except TimeoutError:
            # One that is too short would be so for ever: requests that fail time nothing.
            self._stretch = min(2 * self._stretch, _STRETCH_MAX)
            raise
        if not isinstance(message, Busy | Refuse):  # these take no time
            self._time(time.monotonic() - started)
        return more

    async def answer(self, letters: Letters, peer: PeerId, message: ExchangeMessage) -> None:
        """Take a message that ``peer`` has announced, and post the answer.  Raises RemoteError."""
        self.runner.core.haul_s = self._haul_s()
        try:
            await self._hear(letters, peer, message, answering=True)
        except RemoteError as error:
            if type(message) not in ALGORITHM_OF and not self.runner.closed:
                core, exchange = self.runner.core, message.exchange
                why = error.reason, str(error)
                await self.runner.run(lambda: core.failed(peer, *why, exchange))
            raise

    async def _hear(
        self, letters: Letters, peer: PeerId, message: ExchangeMessage, answering: bool
    ) -> bool:
        """Take the payload of ``message`` and post what answers it; whether there is an answer."""
        proposed = answering and isinstance(message, Propose)
        hearing = _Hearing(self.runner, peer, message)
        early: Outgoing | None = None
        ending = asyncio.get_running_loop().create_future()

        async def take(part: Buffer = b"") -> None:
            nonlocal early
            begun = await self._run(functools.partial(hearing.take, part))
            if early is None and begun is not None:
                early = begun
                letters.post(self._letter(letters, early, ending))

        while (part := await letters.part()) is not None:
            if hearing.length + len(part) > self.limit:
                raise TooLarge(f"a payload of more than {self.limit} bytes")
            if hearing.keeps(part):
                continue
            await take(part)
        if hearing.keeping and isinstance(message, Accept | Commit) and not self.runner.ahead:
            await take()  # which tells how long it takes from here on
        opened = open_sealed(letters.envelope, letters.announced, peer, self._scope.swarm)
        self._admit(opened, peer, message, hearing.length)

        def end() -> Outgoing | None:
            busy = Outgoing(peer, Busy(message.exchange)) if occupied else None
            return hearing.end(opened, busy)

        if proposed:
            await self._hold(peer)
        # Else many peers that propose in turn could keep our own work waiting for ever.
        occupied = proposed and self.runner.wanted
        out = await self._submit(end, self._takes)
        if out is None and answering:
            out = Outgoing(peer, Refuse(message.exchange, "unexpected", "not a message to answer"))
        if early is None and out is not None:
            letters.post(self._letter(letters, out))
        elif early is not None and (out is None or out.message != early.message):
            letters.channel.abort()  # given up meanwhile, and a message is half way out
            return False
        elif early is not None and out is not None:
            ending.set_result(out.payload)
        if out is not None and isinstance(out.message, Commit | Settled):
            self.runner.post(self.runner.core.finish, self._takes)
        return out is not None

    @property
    def _takes(self) -> Takes:
        """How long it takes to go on with the open exchange."""
        return Takes.LONG if self.runner.core.toils else Takes.MOMENT

    async def _hold(self, peer: PeerId) -> None:
        """Let a proposal of ``peer`` wait for the answer to ours: if that is Busy, we are free.

        Only if its id is the smaller: else several could wait in a ring, each for the next.
        """
        if self._asked != peer and peer < self.runner.core.me:
            with suppress(TimeoutError):
                async with asyncio.timeout(_HOLD_S):
                    await self._heard.wait()

    async def _letter(
        self, letters: Letters, out: Outgoing, ending: "asyncio.Future[Buffer] | None" = None
    ) -> None:
        """Send a message; ``ending`` is what its payload ends with, once that is known."""
        channel, total = letters.channel, _Total()
        announcement = announce(out.message)
        await channel.write(announcement)
        await self._carry(channel, total, out)
        if ending is not None:
            await self._carry(channel, total, Outgoing(out.peer, out.message, await ending))
        digest = total.digest.digest()
        envelope = self._sealer.seal(self._scope, announcement, total.length, digest)
        await channel.write(envelope, True)

    async def _carry(self, channel: Channel, total: "_Total", out: Outgoing) -> None:
        """Send a payload, or a part of it; a worker that is apart is one chunk ahead."""
        left, payload = out.pieces_bytes, out.payload
        if len(payload) <= _MODEST_BYTES:
            total.add(payload)
        else:
            left, payload = left + len(payload), b""
        following = functools.partial(_next, _parts(out.payload[len(payload) :], out.pieces), total)
        ahead = self._ahead(following, left)
        if len(payload):
            await channel.write(payload)
        while left:
            part = await (self._submit(following) if ahead is None else ahead)
            left -= len(part)
            ahead = self._ahead(following, left)
            await channel.write(part)

    def _ahead(self, work: Callable[[], T], left: int) -> "asyncio.Future[T] | None":
        """``work`` begun before it is needed, if there is any and it is done elsewhere."""
        return self._submit(work) if left and self.runner.ahead else None

    async def _fail(self, out: Outgoing, reason: str, detail: str) -> None:
        core, exchange = self.runner.core, out.message.exchange
        await self.runner.run(lambda: core.failed(out.peer, reason, detail, exchange))

    def _abandon(self, proposed: list[Outgoing]) -> None:
        for out in proposed:
            exchange = out.message.exchange
            self.runner.core.failed(out.peer, "cancelled", "given up here", exchange)

    def _admit(self, opened: Opened, peer: PeerId, message: ExchangeMessage, length: int) -> None:
        """Raise RemoteError unless it seals a payload of ``length`` bytes, for our layout, once."""
        if opened.payload_length != length:
            raise Malformed("the payload is not as long as its envelope says")
        if opened.layout != self._scope.layout and not isinstance(message, Refuse):
            raise Unsupported("the message is for another model")
        self._replays.admit(peer, opened.instance, opened.sequence)

    async def _run(self, work: Callable[[], T]) -> T:
        return await self._submit(work)

    def _submit(self, work: Callable[[], T], takes: Takes = Takes.MOMENT) -> "asyncio.Future[T]":
        """``work`` of the core's.  Raises Stale when the model was put away meanwhile."""
        if self.runner.closed:
            raise Stale("the model is no longer trained here")
        return self.runner.submit(work, takes)

    def _timeout_s(self, size: int) -> float:
        """Follows what requests took so far; generous before any was timed."""
        if self._typical_s is None:
            return _FIRST_TIMEOUT_S + (size + self.limit) / limits.LINK_BYTES_PER_S_MIN
        return self._stretch * max(_LEAST_TIMEOUT_S, 8 * self._typical_s) + self._haul_s()

    def _haul_s(self) -> float:
        """What our own limits may add: they may have been set just now."""
        return self._bandwidth.haul_s(self.runner.core.replica.size)

    def _time(self, seconds: float) -> None:
        before = self._typical_s
        self._typical_s = seconds if before is None else max(seconds, 0.8 * before + 0.2 * seconds)
        self._stretch = max(1.0, self._stretch / 2)


class _Total:
    """Length and hash of a payload as it passes."""

    def __init__(self) -> None:
        self.length, self.digest = 0, Hash()

    def add(self, part: Buffer) -> None:
        self.length += len(part)
        self.digest.update(part)


class _Hearing:
    """A message that is taken while it arrives, by calls of the core's."""

    def __init__(self, runner: CoreRunner, peer: PeerId, message: ExchangeMessage) -> None:
        self._begin = functools.partial(runner.core.intake, peer, message)
        self._intake: Intake | None = None
        self._total = _Total()
        self._kept = bytearray()
        self._most_kept = _MODEST_BYTES
        if isinstance(message, Accept | Commit):  # which are read as they come, scales first
            self._most_kept = _SMALL_BYTES if runner.ahead else 0
        self._begun: Outgoing | None = None

    @property
    def length(self) -> int:
        """Of what has come of the payload."""
        return self._total.length + len(self._kept)

    @property
    def keeping(self) -> bool:
        """Whether something was kept."""
        return bool(self._kept)

    def keeps(self, part: memoryview) -> bool:
        """Keep a small part for the next call: it is not worth one of its own."""
        small = len(self._kept) + len(part) <= self._most_kept
        if small:
            self._kept += part
        return small

    def take(self, part: Buffer = b"") -> Outgoing | None:
        """Take what was kept and a part; the answer that may be begun, if there is one."""
        self._begun = self._take(part).early
        self._most_kept = max(self._most_kept, _SMALL_BYTES)
        return self._begun

    def _take(self, part: Buffer = b"") -> Intake:
        self._intake = self._intake or self._begin()
        kept, self._kept = self._kept, bytearray()
        for each in (kept, part):
            if len(each):
                self._total.add(each)
                self._intake.take(each)
        return self._intake

    def end(self, opened: Opened, instead: Outgoing | None) -> Outgoing | None:
        """The answer to what was ``opened``, or ``instead``.  Raises RemoteError."""
        intake = self._take()
        opened.check(self._total.digest.digest())
        if instead is not None:
            return instead
        out = intake.end(time.monotonic())
        return out if self._begun is not None else whole(out, intake)


def _next(parts: Iterator[Buffer], total: _Total) -> Buffer:
    """The next part, counted; there is one."""
    part = next(parts, b"")
    assert len(part), "a payload is as long as was said"
    total.add(part)
    return part


def _parts(payload: Buffer, pieces: Iterable[Buffer] = ()) -> Iterator[Buffer]:
    """``payload`` in parts that fit into a chunk, and ``pieces``, which do."""
    view = memoryview(payload).cast("B")
    for start in range(0, len(view), limits.CHUNK_BYTES_MAX):
        yield view[start : start + limits.CHUNK_BYTES_MAX]
    yield from pieces
