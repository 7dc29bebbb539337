"""Exchange messages between the core and the peers: sealed, opened, checked against our scope."""

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Protocol

from covey.gossip.codecs import Buffer, payload_limit
from covey.gossip.core import Core, Outgoing
from covey.node.runner import CoreRunner
from covey.node.transport import Unreachable
from covey.protocols.envelope import Opened, ReplayWindow, Scope, Sealer
from covey.protocols.errors import Forged, RemoteError, Unsupported
from covey.protocols.identity import PeerId
from covey.protocols.messages import Refuse

_FIRST_TIMEOUT_S = 10.0
_LEAST_TIMEOUT_S = 2.0
_SLOWEST_BYTES_PER_S = 125_000  # 1 Mbit/s, until a transfer has been timed


class Courier(Protocol):
    """Carries a message to a peer and its answer back (neighbours.py)."""

    async def exchange(
        self, peer: PeerId, sealed: bytes, payload: Buffer, limit: int, timeout_s: float
    ) -> tuple[Opened, bytearray]: ...


class Conversation:
    """Both roles of this node's exchanges, for one layout."""

    def __init__(self, runner: CoreRunner, sealer: Sealer, scope: Scope, courier: Courier) -> None:
        self.runner = runner
        self._sealer = sealer
        self._scope = scope
        self._courier = courier
        self._replays = ReplayWindow()
        self._typical_s: float | None = None  # of one request and its answer, smoothed
        replica = runner.core.replica
        self.limit = payload_limit(replica.parameters, len(replica.x) - replica.parameters)

    async def converse(self, out: Outgoing) -> None:
        """Send a proposal and whatever the answers ask for.  The core learns how it ended.

        Raises RemoteError if the peer broke the protocol, after the core has let go.
        """
        core, message = self.runner.core, out
        while True:
            sealed = await self.runner.run(functools.partial(self._seal, message))
            started = time.monotonic()
            try:
                opened, payload = await self._courier.exchange(
                    out.peer, sealed, message.payload, self.limit, self._timeout_s(message.payload)
                )
                self._time(time.monotonic() - started)
                self._admit(opened)
                answer = await self.runner.run(self._taking(core, opened, payload))
            except Unreachable as error:
                await self._fail(out, error.kind, str(error))
                return
            except RemoteError as error:
                await self._fail(out, error.reason, str(error))
                raise
            except asyncio.CancelledError:
                self.runner.post(self._failing(out, "cancelled", "this node is stopping"))
                raise
            if answer is None:
                return
            message = answer

    async def answer(self, opened: Opened, payload: bytearray) -> tuple[bytes, Buffer]:
        """The sealed answer to a peer's message.  Raises RemoteError."""
        self._admit(opened)

        def take() -> tuple[bytes, Buffer]:
            out = self._taking(self.runner.core, opened, payload)()
            if out is None:
                refusal = Refuse(opened.message.exchange, "unexpected", "not a message to answer")
                out = Outgoing(opened.sender, refusal)
            return self._seal(out), out.payload

        return await self.runner.run(take)

    async def _fail(self, out: Outgoing, reason: str, detail: str) -> None:
        await self.runner.run(self._failing(out, reason, detail))

    def _failing(self, out: Outgoing, reason: str, detail: str) -> Callable[[], None]:
        core, exchange = self.runner.core, out.message.exchange
        return lambda: core.failed(out.peer, reason, detail, exchange)

    def _taking(
        self, core: Core, opened: Opened, payload: bytearray
    ) -> Callable[[], Outgoing | None]:
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
            return _FIRST_TIMEOUT_S + (len(payload) + self.limit) / _SLOWEST_BYTES_PER_S
        return max(_LEAST_TIMEOUT_S, 8 * self._typical_s)

    def _time(self, seconds: float) -> None:
        before = self._typical_s
        self._typical_s = seconds if before is None else max(seconds, 0.8 * before + 0.2 * seconds)

    @property
    def typical_s(self) -> float:
        """Seconds one request and its answer take; 0 before any."""
        return self._typical_s or 0.0
