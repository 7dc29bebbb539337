"""The listening socket: half-open connections, slow clients, many connections, taken ports."""

import asyncio
import contextlib
import socket

import pytest

from covey.node import door, listener
from covey.node.faults import OperatorError
from covey.node.listener import host_of
from covey.node.peer_server import PeerServer
from covey.node.transport import Kind, Unreachable
from tests.node.members import OTHER_SECRET, SECRET, Member, members
from tests.node.waiting import until


async def silent_client(port: int) -> asyncio.StreamWriter:
    """Connects and never says a word."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    return writer


def test_a_member_that_says_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HEADER_S", 0.05)

    async def go() -> bytes:
        async with members(SECRET, SECRET) as (one, two):
            return await one.say(two, b"")

    assert asyncio.run(go()) == b""


def test_a_header_that_trickles_in_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HEADER_S", 0.2)

    async def go() -> int:
        async with members(SECRET, SECRET) as (one, two):
            reader, writer = await one.connect(two)
            sent = 0
            with contextlib.suppress(OSError):
                for letter in b"GET /p/hello HTTP/1.1\r\nX: " + b"x" * 3000:
                    writer.write(bytes([letter]))
                    await writer.drain()
                    sent += 1
                    if reader.at_eof():
                        break
                    await asyncio.sleep(0.005)
            writer.transport.abort()
            return sent

    assert asyncio.run(go()) < 1000


def test_an_idle_connection_is_closed_after_its_last_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "IDLE_S", 0.05)

    async def go() -> bytes:
        async with members(SECRET, SECRET) as (one, two):
            return await one.say(two, b"GET /p/hello HTTP/1.1\r\nHost: x\r\n\r\n")

    assert asyncio.run(go()).startswith(b"HTTP/1.1 200")


def test_a_handshake_that_does_not_come_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_S", 0.1)
    monkeypatch.setattr(door, "HALF_OPEN_PER_HOST_MAX", 3)

    async def go() -> None:
        async with members(SECRET, SECRET) as (one, two):
            silent = [await silent_client(two.port) for _ in range(3)]
            entrance = two.server._listener._door
            await until(lambda: entrance.half_open == 3)
            with pytest.raises(Unreachable) as caught:
                await one.transport.hello(two.address)
            assert caught.value.kind is Kind.CUT
            await until(lambda: entrance.half_open == 0)
            assert (await one.transport.hello(two.address))[0] == two.peer
            assert two.handler.rejections == []  # slow, not wrong
            for writer in silent:
                writer.transport.abort()

    asyncio.run(go())


def test_strangers_are_counted_by_name_and_members_are_not_shut_out() -> None:
    async def go() -> None:
        async with members(SECRET, SECRET, OTHER_SECRET) as (one, two, stranger):
            for _ in range(2 * door.FAILURES_MAX):
                with pytest.raises(Unreachable) as caught:
                    await stranger.transport.hello(two.address)
                assert caught.value.kind is Kind.OTHER_SWARM
            await until(lambda: len(two.handler.rejections) == 2 * door.FAILURES_MAX)
            peer, error = two.handler.rejections[0]
            assert (peer, error.reason) == (None, "forged")
            assert "127.0.0.1 is not a member of this swarm (tlsv1 alert unknown ca)" in str(error)
            assert (await one.transport.hello(two.address))[0] == two.peer

    asyncio.run(go())


def test_a_host_without_a_member_is_banned_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener.Listener, "_is_trusted", lambda self, host: False)

    async def go() -> None:
        async with members(SECRET, OTHER_SECRET) as (one, stranger):
            for _ in range(door.FAILURES_MAX + 3):
                with pytest.raises(Unreachable):
                    await stranger.transport.hello(one.address)
            await until(lambda: len(one.handler.rejections) == door.FAILURES_MAX)

    asyncio.run(go())


def test_one_peer_has_few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "CONNECTIONS_PER_PEER_MAX", 3)

    async def go() -> None:
        async with members(SECRET, SECRET, SECRET) as (one, two, three):
            opened = [await one.connect(two) for _ in range(4)]
            await until(lambda: two.handler.reasons == ["too_large"])
            assert two.handler.rejections[0][0] == one.peer
            assert (await three.transport.hello(two.address))[0] == two.peer
            for _, writer in opened:
                writer.transport.abort()
            await until(lambda: all(v.transport.is_closing() for v in visits(two)[:4]))
            assert (await one.transport.hello(two.address))[0] == two.peer
            assert len(visits(two)) <= 2  # the closed ones are forgotten

    asyncio.run(go())


def visits(member: Member) -> list[listener.Visit]:
    return list(member.server._listener._visits.values())


def test_a_taken_port_names_the_way_out() -> None:
    async def go() -> str:
        async with members(SECRET, SECRET) as (one, two):
            with pytest.raises(OperatorError) as caught:
                await Member(9, SECRET).server.start("127.0.0.1", two.port)
            assert one.port != two.port
            return str(caught.value)

    line = asyncio.run(go())
    assert "cannot listen for peers on 127.0.0.1 port" in line
    assert "Address already in use" in line
    assert "--listen" in line


def test_an_address_of_another_machine_is_no_place_to_listen() -> None:
    async def go() -> None:
        member = Member(9, SECRET)
        with pytest.raises(OperatorError, match="cannot listen"):
            await member.server.start("192.0.2.55", 0)
        await member.server.close()

    asyncio.run(go())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_listening_everywhere_is_heard_on_ipv4(host: str) -> None:
    async def go() -> None:
        async with members(SECRET) as (one,):
            two = Member(9, SECRET)
            two.port = await two.server.start(host, 0)
            assert (await one.transport.hello(two.address))[0] == two.peer
            await one.transport.probe(two.peer, two.address, one.handler.standing(), 5.0)
            assert two.handler.probes[0][2] == "127.0.0.1"
            await two.server.close()

    asyncio.run(go())


def test_ipv6() -> None:
    if not socket.has_ipv6:
        return

    async def go() -> None:
        async with members(SECRET) as (one,):
            two = Member(9, SECRET)
            two.port = await two.server.start("::1", 0)
            address = f"[::1]:{two.port}"
            assert (await one.transport.hello(address))[0] == two.peer
            await one.transport.probe(two.peer, address, one.handler.standing(), 5.0)
            assert two.handler.probes[0][2] == "::1"
            await two.server.close()

    asyncio.run(go())


def test_nothing_waits_to_be_sent() -> None:
    async def go() -> list[int]:
        async with members(SECRET, SECRET) as (one, two):
            await one.transport.probe(two.peer, two.address, one.handler.standing(), 5.0)
            await one.exchange(two.peer, two.address, one.sealed(), b"")
            ends = [visit.transport.get_extra_info("socket") for visit in visits(two)]
            return [end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for end in ends]

    assert asyncio.run(go()) == [1, 1], "a probe's connection and an exchange's"


def test_addresses_are_written_plainly() -> None:
    assert host_of(("::ffff:192.0.2.1", 1, 0, 0)) == "192.0.2.1"
    assert host_of(("fe80::1%eth0", 1, 0, 2)) == "fe80::1%eth0"


def test_a_bug_in_accepting_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, host: str) -> bool:
        raise AssertionError("a bug")

    monkeypatch.setattr(listener.Listener, "_is_trusted", broken)
    bugs: list[BaseException] = []

    async def go() -> None:
        member = Member(9, SECRET)
        server = PeerServer(member.credentials, member.handler, bugs.append)
        writer = await silent_client(await server.start("127.0.0.1", 0))
        await until(lambda: bugs)
        writer.transport.abort()
        await server.close()

    asyncio.run(go())
    assert str(bugs[0]) == "a bug"


@pytest.mark.parametrize("turns", range(8))
def test_stopping_while_somebody_connects_leaves_no_socket_open(turns: int) -> None:
    """An unclosed socket is a warning, and a warning an error."""

    async def go() -> None:
        async with members(SECRET) as (one,):
            clients = [asyncio.create_task(silent_client(one.port)) for _ in range(4)]
            for _ in range(turns):
                await asyncio.sleep(0)
            await one.server.close()
            for client in clients:
                client.cancel()
            await asyncio.wait(clients)
            for client in clients:
                if not client.cancelled() and client.exception() is None:
                    client.result().transport.abort()

    asyncio.run(go())
