"""Asking peers: what comes back, what is counted, and each way in which it fails."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from covey.node import streams, transport
from covey.node.ledger import Lane, Ledger
from covey.node.tls import Credentials
from covey.node.transport import Kind, Transport, Unreachable
from covey.protocols.envelope import Hash
from covey.protocols.errors import Malformed
from covey.protocols.identity import Identity
from covey.protocols.messages import Lineage, StateOffer
from tests.node.members import LAYOUT, OTHER_SECRET, SECRET, Member, Proxy, members, noise, standing
from tests.node.waiting import until

MIB = 1 << 20


def kind_of(ask: Callable[[Member, Member], Awaitable[object]], *secrets: bytes) -> Unreachable:
    """How ``ask(one, two)`` fails; the two nodes are of these swarms."""

    async def go() -> Unreachable:
        async with members(*(secrets or (SECRET, SECRET))) as (one, two):
            with pytest.raises(Unreachable) as caught:
                await ask(one, two)
            return caught.value

    return asyncio.run(go())


def test_hello_proves_who_answers() -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            peer, told = await one.transport.hello(two.address)
            assert (peer, told) == (two.peer, two.handler.standing())
            assert (await one.transport.hello(one.address))[0] == one.peer

    asyncio.run(go())


def test_probes_share_one_connection_and_are_timed() -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two), Proxy(two.port) as proxy:
            rtts = []
            for number in range(5):
                ours = standing(name=f"probe {number}")
                theirs, rtt_s = await one.transport.probe(two.peer, proxy.address, ours, 5.0)
                assert theirs == two.handler.standing()
                rtts.append(rtt_s)
            assert [s.name for _, s, _ in two.handler.probes] == [f"probe {n}" for n in range(5)]
            assert {(peer, host) for peer, _, host in two.handler.probes} == {
                (one.peer, "127.0.0.1")
            }
            assert proxy.connections == 1
            assert all(0 < rtt_s < 5 for rtt_s in rtts)

    asyncio.run(go())


def test_an_exchange_goes_both_ways_and_every_byte_is_counted() -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two), Proxy(two.port) as proxy:
            payload, two.handler.answer = noise(3 * MIB), noise(5 * MIB, seed=2)
            two.handler.limit = len(payload)
            for _ in range(2):
                opened, answer = await one.exchange(
                    two.peer, proxy.address, one.sealed(payload), payload
                )
                opened.check(Hash(answer).digest())
                assert answer == two.handler.answer
                got, received = two.handler.exchanges.pop()
                got.check(Hash(received).digest())
                assert received == payload
            assert proxy.connections == 1
            for member, sent, came in (
                (one, proxy.up, proxy.down),
                (two, proxy.down, proxy.up),
            ):
                assert member.ledger.sent[Lane.EXCHANGE] == pytest.approx(sent, rel=0.01)
                assert member.ledger.received[Lane.EXCHANGE] == pytest.approx(came, rel=0.01)
            assert proxy.up == pytest.approx(6 * MIB, rel=0.01)
            assert one.ledger.sent[Lane.CONTROL] == one.ledger.sent[Lane.STATE] == 0

    asyncio.run(go())


def test_a_probe_does_not_wait_behind_bulk(tmp_path: Path) -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            offer = two.handler.give(noise(8 * MIB), tmp_path / "state")
            during = 0
            room = memoryview(bytearray(offer.length))
            fetching = asyncio.ensure_future(
                one.transport.fetch_state(two.peer, two.address, offer, room, lambda done: None)
            )
            while not fetching.done():
                await one.transport.probe(two.peer, two.address, standing(), 5.0)
                during += not fetching.done()
            await fetching
            assert during > 3

    asyncio.run(go())


def test_layouts_and_offers() -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            two.handler.offer = StateOffer(b"d" * 32, 44, Lineage(b"f" * 32, 9), 12)
            assert await one.transport.layout(two.peer, two.address) == LAYOUT
            assert await one.transport.state_offer(two.peer, two.address) == two.handler.offer
            two.handler.offer = two.handler.model = None
            for ask in (one.transport.layout, one.transport.state_offer):
                with pytest.raises(Unreachable) as caught:
                    await ask(two.peer, two.address)
                assert caught.value.kind is Kind.NOTHING

    asyncio.run(go())


# --- who is not to be reached --------------------------------------------------------------------


def test_another_swarm_is_named() -> None:
    for ask in (
        lambda one, two: one.transport.hello(two.address),
        lambda one, two: one.transport.probe(two.peer, two.address, standing(), 5.0),
    ):
        error = kind_of(ask, SECRET, OTHER_SECRET)
        assert error.kind is Kind.OTHER_SWARM
        assert "is not of this swarm" in str(error)
        assert "covey invite" in str(error)


def test_who_is_no_member_learns_it() -> None:
    def stranger(one: Member, two: Member) -> Awaitable[object]:
        client = Credentials(one.identity, SECRET, Ledger())
        client._pem = Credentials(one.identity, OTHER_SECRET, Ledger())._pem
        one.transport = Transport(client)
        return one.transport.hello(two.address)

    error = kind_of(stranger)
    assert error.kind is Kind.NOT_A_MEMBER
    assert "does not take this node for a member" in str(error)


def test_a_wrong_peer_hears_nothing() -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            other = Identity(b"x" * 32).peer
            for ask in (
                one.transport.probe(other, two.address, standing(), 5.0),
                one.exchange(other, two.address, one.sealed(), b"", 5.0),
                one.transport.layout(other, two.address),
            ):
                with pytest.raises(Unreachable, match="is another node now") as caught:
                    await ask
                assert caught.value.kind is Kind.WRONG_IDENTITY
                assert f"it is {two.peer.short}, not {other.short}" in str(caught.value)
            assert not two.handler.probes
            assert not two.handler.exchanges
            assert not two.handler.rejections

    asyncio.run(go())


def test_another_protocol_version_is_named_on_both_ends() -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            two.handler.protocol = 9
            for ask in (
                one.transport.hello(two.address),
                one.transport.probe(two.peer, two.address, standing(), 5.0),
            ):
                with pytest.raises(Unreachable, match="version 9 was sent to a node of"):
                    await ask
            with pytest.raises(Unreachable, match="version 8 was sent to a node of") as c:
                await one.transport.probe(two.peer, two.address, standing(8), 5.0)
            assert c.value.kind is Kind.PROTOCOL
            assert two.handler.reasons == ["unsupported"]

    asyncio.run(go())


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1:1", Kind.REFUSED),
        ("no-such-host.invalid:4001", Kind.UNKNOWN_HOST),
        ("127.0.0.1", Kind.UNKNOWN_HOST),
        ("127.0.0.1:99999", Kind.UNKNOWN_HOST),
        ("[::1]:1", Kind.REFUSED),
    ],
)
def test_addresses_that_lead_nowhere(address: str, kind: Kind) -> None:
    error = kind_of(lambda one, two: one.transport.hello(address))
    assert error.kind in (kind, Kind.NO_ROUTE)
    assert address in str(error)


@contextlib.asynccontextmanager
async def stranger(answer: bytes | None) -> AsyncIterator[str]:
    """Something else that listens: it says ``answer`` at once, or nothing for ever."""
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if answer is not None:
            writer.write(answer)
            await writer.drain()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", Kind.NOT_COVEY),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Kind.NOT_COVEY),
        (b"", Kind.CUT),
        (None, Kind.TIMEOUT),
    ],
)
def test_something_else_that_listens(
    answer: bytes | None, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "HELLO_S", 0.3)

    async def ask(one: Member, two: Member) -> None:
        async with stranger(answer) as address:
            await one.transport.hello(address)

    assert kind_of(ask).kind is kind


def test_a_peer_that_does_not_answer_in_time() -> None:
    async def ask(one: Member, two: Member) -> None:
        two.handler.gate = asyncio.Event()
        try:
            await one.exchange(two.peer, two.address, one.sealed(), b"", 0.2)
        finally:
            two.handler.gate.set()

    assert kind_of(ask).kind is Kind.TIMEOUT


def test_a_peer_that_dies_in_between() -> None:
    async def ask(one: Member, two: Member) -> None:
        two.handler.gate = asyncio.Event()
        async with Proxy(two.port) as proxy:
            asking = asyncio.ensure_future(one.exchange(two.peer, proxy.address, one.sealed(), b""))
            await until(lambda: two.handler.exchanges)
        two.handler.gate.set()
        await asking

    assert kind_of(ask).kind is Kind.CUT


# --- what a member may answer --------------------------------------------------------------------


def test_a_layout_that_is_none() -> None:
    class Damaged:
        encoded = b"\xc1\xc1"

    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            two.handler.model = Damaged()  # type: ignore[assignment]
            with pytest.raises(Malformed):
                await one.transport.layout(two.peer, two.address)

    asyncio.run(go())


# --- its own life --------------------------------------------------------------------------------


def test_dropping_a_peer_closes_its_connections_only() -> None:
    async def go() -> None:
        async with (
            members(SECRET, SECRET, SECRET) as (one, two, three),
            Proxy(two.port) as to_two,
            Proxy(three.port) as to_three,
        ):
            for _ in range(2):
                await one.transport.probe(two.peer, to_two.address, standing(), 5.0)
                await one.transport.probe(three.peer, to_three.address, standing(), 5.0)
                await one.transport.drop(two.peer)
            assert (to_two.connections, to_three.connections) == (2, 1)

    asyncio.run(go())


def test_nothing_is_asked_after_closing() -> None:
    async def ask(one: Member, two: Member) -> None:
        await one.transport.close()
        await one.transport.probe(two.peer, two.address, standing(), 5.0)

    assert "stopping" in str(kind_of(ask))


def test_a_body_in_slices_reaches_a_slow_server_whole() -> None:
    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            payload = noise(4 * streams.SLICE_BYTES + 1)
            two.handler.limit = len(payload)
            view = memoryview(payload)
            await one.exchange(two.peer, two.address, one.sealed(payload), view)
            assert two.handler.exchanges[0][1] == payload

    asyncio.run(go())
