"""Exchange messages between the core and the peers: sealed, opened, checked against our scope."""

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from covey.gossip.codecs import payload_limit
from covey.gossip.core import Outgoing
from covey.node.runner import CoreRunner
from covey.node.streams import Buffer
from covey.node.throttle import Limits
from covey.node.unreachable import Kind, Unreachable
from covey.protocols import limits
from covey.protocols.envelope import Opened, ReplayWindow, Scope, Sealer
from covey.protocols.errors import Forged, RemoteError, Stale, Unsupported
from covey.protocols.identity import PeerId
from covey.protocols.messages import Busy, Propose, Refuse

_FIRST_TIMEOUT_S = 10.0
_LEAST_TIMEOUT_S = 5.0  # longer than patience.py's: the accepter gives up first
_STRETCH_MAX = 16.0


class Courier(Protocol):
    """Carries a message to a peer and its answer back (neighbours.py)."""

    async def exchange(
        self, peer: PeerId, sealed: bytes, payload: Buffer, limit: int, timeout_s: float
    ) -> tuple[Opened, bytearray]: ...

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
        replica = runner.core.replica
        self.limit = payload_limit(replica.parameters, len(replica.x) - replica.parameters)

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
            out = await self.runner.run_idle(ask)
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
        message: Outgoing | None = out
        while message is not None:
            try:
                message = await self._ask(message)
            except Unreachable as error:
                await self._fail(out, error.kind, str(error))
                return
            except RemoteError as error:
                self._courier.rejected(out.peer, error)
                await self._fail(out, error.reason, str(error))
                return

    async def _ask(self, out: Outgoing) -> Outgoing | None:
        """Send one message; what its answer asks for.  Raises Unreachable or RemoteError."""
        sealed = await self.runner.run(functools.partial(self._seal, out))
        started = time.monotonic()
        timeout_s = self._timeout_s(out.payload)
        try:
            opened, payload = await self._courier.exchange(
                out.peer, sealed, out.payload, self.limit, timeout_s
            )
        except Unreachable as error:
            if error.kind is Kind.TIMEOUT and time.monotonic() - started >= timeout_s:
                # One that is too short would be so for ever: requests that fail time nothing.
                self._stretch = min(2 * self._stretch, _STRETCH_MAX)
            raise
        self._admit(opened)
        if not isinstance(opened.message, Busy | Refuse):  # these take no time
            self._time(time.monotonic() - started)
        return await self.runner.run(self._taking(opened, payload))

    async def answer(self, opened: Opened, payload: bytearray) -> tuple[bytes, Buffer]:
        """The sealed answer to a peer's message.  Raises RemoteError."""
        if self.runner.closed:
            raise Stale("the model is no longer trained here")
        self._admit(opened)
        self.runner.core.haul_s = self._haul_s()
        # Else many peers that propose in turn could keep our own work waiting for ever.
        occupied = self.runner.wanted and isinstance(opened.message, Propose)

        def take() -> tuple[bytes, Buffer]:
            if occupied:
                out: Outgoing | None = Outgoing(opened.sender, Busy(opened.message.exchange))
            else:
                out = self._taking(opened, payload)()
            if out is None:
                refusal = Refuse(opened.message.exchange, "unexpected", "not a message to answer")
                out = Outgoing(opened.sender, refusal)
            return self._seal(out), out.payload

        return await self.runner.run(take)

    async def _fail(self, out: Outgoing, reason: str, detail: str) -> None:
        core, exchange = self.runner.core, out.message.exchange
        await self.runner.run(lambda: core.failed(out.peer, reason, detail, exchange))

    def _abandon(self, proposed: list[Outgoing]) -> None:
        for out in proposed:
            exchange = out.message.exchange
            self.runner.core.failed(out.peer, "cancelled", "given up here", exchange)

    def _taking(self, opened: Opened, payload: bytearray) -> Callable[[], Outgoing | None]:
        core = self.runner.core

        def take() -> Outgoing | None:
            opened.check(payload)
            return core.receive(opened.sender, opened.message, payload, time.monotonic())

        return take

    def _admit(self, opened: Opened) -> None:
        """Raise RemoteError for another swarm's or layout's message, or a replay."""
        if opened.scope.swarm != self._scope.swarm:
            raise Forged("the message is for another swarm")
        if opened.scope.layout != self._scope.layout and not isinstance(opened.message, Refuse):
            raise Unsupported("the message is for another model")
        self._replays.admit(opened.sender, opened.instance, opened.sequence)

    def _seal(self, out: Outgoing) -> bytes:
        return self._sealer.seal(self._scope, out.message, out.payload)

    def _timeout_s(self, payload: Buffer) -> float:
        """Follows what requests took so far; generous before any was timed."""
        if self._typical_s is None:
            return _FIRST_TIMEOUT_S + (len(payload) + self.limit) / limits.LINK_BYTES_PER_S_MIN
        return self._stretch * max(_LEAST_TIMEOUT_S, 8 * self._typical_s) + self._haul_s()

    def _haul_s(self) -> float:
        """What our own limits may add: they may have been set just now."""
        return self._bandwidth.haul_s(len(self.runner.core.replica.x))

    def _time(self, seconds: float) -> None:
        before = self._typical_s
        self._typical_s = seconds if before is None else max(seconds, 0.8 * before + 0.2 * seconds)
        self._stretch = max(1.0, self._stretch / 2)

    @property
    def typical_s(self) -> float:
        """Seconds one request and its answer take; 0 before any."""
        return self._typical_s or 0.0
