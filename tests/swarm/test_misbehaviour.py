"""A member that keeps to no rules, over real mutual TLS: each fault is counted, none does harm."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest

from covey.node.ledger import Lane
from covey.node.line import LENGTH
from covey.protocols import PROTOCOL, packing
from covey.protocols.certificates import swarm_id
from covey.protocols.envelope import Scope, announce
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout, Tensor
from covey.protocols.messages import Lineage, Propose
from tests.node.members import Member, standing
from tests.node.pipes import chunk, framed
from tests.protocols.examples import sealed
from tests.swarm.flock import Flock, Node

pytestmark = pytest.mark.swarm

LAYOUT = Layout((Tensor("w", (40, 25)), Tensor("b", (24,))))  # data/learner.py's
BLOCKS = 16  # of 64 values each


@dataclasses.dataclass(frozen=True)
class Gossip:
    """A message that this version does not know."""

    exchange: bytes = b"e" * 16


class Rogue(Member):
    """A member of the flock, with a key of its own and no manners."""

    def __init__(self, number: int, node: Node) -> None:
        super().__init__(number, node.flock.secret)
        self.node = node
        self.scope = Scope(swarm_id(node.flock.secret), LAYOUT.digest)
        training = node.status()["training"]
        self.lineage = Lineage(bytes.fromhex(training["founder"]), training["age"])

    def proposal(self, payload: bytes = bytes(2 * BLOCKS), scope: Scope | None = None) -> bytes:
        """A whole message that proposes an exchange, as bytes on a line."""
        message = Propose(b"%16d" % self.sealer._sequence, "mod4", self.lineage, 1.0, 1.0)
        return framed(sealed(self.sealer, scope or self.scope, message, payload), payload)

    async def say_on_a_line(self, sent: bytes, stay: bool = True) -> int:
        """The status of the refusal, 200 for an answer, 0 if we do not ``stay`` for either."""
        async with self._open(Lane.EXCHANGE) as (reader, writer):
            writer.write(sent)
            await writer.drain()
            if not stay:
                return 0
            (head,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
            if not head >> 31:
                return 200
            body = await reader.readexactly(head & 0x7FFFFFFF)
            status: int = packing.unpack(body, 10_000)["status"]
            return status

    async def ask(self, path: str, body: bytes) -> int:
        """POST ``body``; the status of the answer."""
        async with self._open(Lane.CONTROL) as (reader, writer):
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            return int((await reader.readline()).split()[1])

    @contextlib.asynccontextmanager
    async def _open(
        self, lane: Lane
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        context = self.credentials.client_context(lane, PeerId.parse(self.node.id))
        host, port = self.node.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


Act = Callable[[Rogue], Awaitable[int]]


async def another_protocol(rogue: Rogue) -> int:
    return await rogue.ask(
        "/p/probe", packing.pack(packing.to_map(standing(protocol=PROTOCOL + 1)))
    )


async def an_unknown_message(rogue: Rogue) -> int:
    return await rogue.say_on_a_line(chunk(announce(Gossip())))  # type: ignore[arg-type]


async def another_model(rogue: Rogue) -> int:
    return await rogue.say_on_a_line(rogue.proposal(scope=Scope(rogue.scope.swarm, b"m" * 32)))


async def another_swarm(rogue: Rogue) -> int:
    return await rogue.say_on_a_line(rogue.proposal(scope=Scope(b"o" * 32, rogue.scope.layout)))


async def a_changed_payload(rogue: Rogue) -> int:
    proposal, payload = rogue.proposal(), chunk(bytes(2 * BLOCKS))
    assert proposal.count(payload) == 1
    return await rogue.say_on_a_line(proposal.replace(payload, chunk(b"\1" * 2 * BLOCKS)))


async def a_replay(rogue: Rogue) -> int:
    proposal = rogue.proposal()
    assert await rogue.say_on_a_line(proposal) == 200
    return await rogue.say_on_a_line(proposal)


async def not_finite(rogue: Rogue) -> int:
    return await rogue.say_on_a_line(rogue.proposal(b"\xff" * 2 * BLOCKS))


async def a_truncated_payload(rogue: Rogue) -> int:
    return await rogue.say_on_a_line(rogue.proposal()[:-10], stay=False)


async def a_short_payload(rogue: Rogue) -> int:
    return await rogue.say_on_a_line(rogue.proposal(b""))


async def an_oversized_payload(rogue: Rogue) -> int:
    return await rogue.say_on_a_line(rogue.proposal(bytes(10**6)))


async def an_oversized_chunk(rogue: Rogue) -> int:
    return await rogue.say_on_a_line(LENGTH.pack(2**31 - 1) + bytes(100))


async def no_sense(rogue: Rogue) -> int:
    return await rogue.ask("/p/probe", b"\xc1 what?")


async def not_a_number(rogue: Rogue) -> int:
    fields = packing.to_map(standing())
    fields["loss"] = float("nan")
    return await rogue.ask("/p/probe", packing.pack(fields))


FAULTS: list[tuple[Act, str, int]] = [
    (another_protocol, "unsupported", 426),
    (an_unknown_message, "unsupported", 426),
    (another_model, "unsupported", 426),
    (another_swarm, "forged", 403),
    (a_changed_payload, "forged", 403),
    (a_replay, "stale", 409),
    (not_finite, "malformed", 400),
    (a_truncated_payload, "malformed", 0),
    (a_short_payload, "malformed", 400),
    (an_oversized_payload, "too_large", 413),
    (an_oversized_chunk, "too_large", 413),
    (no_sense, "malformed", 400),
    (not_a_number, "malformed", 400),
]


def test_every_fault_is_counted_by_name_and_harms_nothing(training: list[Node]) -> None:
    ada, bob = training
    rogue = Rogue(66, ada)
    before = ada.status()["training"]
    last = ada.events()[-1]["id"]

    async def misbehave() -> None:
        for act, reason, status in FAULTS:
            count = rejected(ada, reason)
            # While it is Busy, trying without a pause would slow down what it is busy with.
            while (answer := await act(rogue)) == 200:
                await pause()
            assert answer == status, act.__name__
            await asyncio.to_thread(ada.rejected, reason, count + 1)

    asyncio.run(misbehave())
    told = ada.events("peer.rejected", after=last)
    mine = [e["data"]["reason"] for e in told if e["data"]["peer"] == rogue.peer.short]
    assert mine == [reason for _, reason, _ in FAULTS]
    assert all(e["data"]["detail"] for e in told)
    metrics = ada.metrics()
    for reason in {reason for _, reason, _ in FAULTS}:
        assert f'reason="{reason}"' in metrics
    for node in training:
        node.learns_on()
    after = ada.status()["training"]
    assert after["founder"] == before["founder"]
    assert after["step"] > before["step"]
    assert not ada.events("train.error", after=last)
    assert 0 < after["loss"] < 2, "its model is where it was"
    assert bob.process.poll() is None


def test_a_peer_of_another_version_is_named(flock: Flock) -> None:
    async def go() -> None:
        rogue = Member(67, flock.secret)
        rogue.handler.protocol = PROTOCOL + 1
        rogue.port = await rogue.server.start("127.0.0.1", 0)
        try:
            node = flock.up("node", "--no-mdns", "--peer", rogue.address)
            await asyncio.to_thread(look, node, rogue.address)
        finally:
            await rogue.transport.close()
            await rogue.server.close()

    def look(node: Node, address: str) -> None:
        node.ready()
        why = node.event("peer.unreachable", address=address)["data"]["why"]
        told = f"version {PROTOCOL + 1} was sent to a node of version {PROTOCOL}"
        assert told in why
        [warning] = node.status()["warnings"]
        assert told in warning["message"]
        assert "update the older" in warning["message"], "says what to do"

    asyncio.run(go())


def test_a_poisoned_state_is_not_taken(flock: Flock) -> None:
    """An elder offers a model that is not finite: a joiner says so, and learns without it."""

    async def go() -> None:
        rogue = Member(68, flock.secret)
        rogue.handler.model = LAYOUT
        poison = np.full(LAYOUT.size, np.nan, "<f4").tobytes()
        offer = rogue.handler.give(poison, flock.folder / "poison")
        lineage = Lineage(b"f" * 32, 1000)
        rogue.handler.offer = dataclasses.replace(offer, lineage=lineage)
        elder = dataclasses.replace(
            standing(), layout=LAYOUT.digest, lineage=lineage, phase="training"
        )
        rogue.handler.standing = lambda: elder  # type: ignore[method-assign]
        rogue.port = await rogue.server.start("127.0.0.1", 0)
        try:
            node = flock.run("node", "--no-mdns", "--peer", rogue.address)
            await asyncio.to_thread(look, node, rogue.peer)
        finally:
            await rogue.transport.close()
            await rogue.server.close()

    def look(node: Node, rogue: PeerId) -> None:
        node.ready()
        failed = node.event("train.copy_failed", peer=rogue.short)
        assert "not finite" in failed["data"]["why"]
        node.rejected("malformed")
        node.event("train.started")
        [start] = node.starts()
        assert np.isfinite(start).all()

    asyncio.run(go())


async def pause() -> None:
    await asyncio.sleep(0.05)


def rejected(node: Node, reason: str) -> int:
    count: int = node.status()["exchange"]["rejected"].get(reason, 0)
    return count
