"""Lines that are kept for the next exchange, and what becomes of those that break."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from covey.node import lines
from covey.node.listener import IDLE_S
from covey.node.unreachable import Kind, Unreachable
from tests.node.members import OTHER_SECRET, SECRET, Member, Proxy, members
from tests.node.waiting import until


def play(scenario: Callable[[Member, Member, Proxy], Awaitable[None]], *secrets: bytes) -> None:
    async def go() -> None:
        async with members(*(secrets or (SECRET, SECRET))) as (one, two), Proxy(two.port) as proxy:
            await scenario(one, two, proxy)

    asyncio.run(go())


async def ask(one: Member, two: Member, proxy: Proxy) -> None:
    await one.exchange(two.peer, proxy.address, one.sealed(), b"")


def test_a_line_is_used_again() -> None:
    assert lines.KEEP_S < IDLE_S

    async def scenario(one: Member, two: Member, proxy: Proxy) -> None:
        for _ in range(3):
            await ask(one, two, proxy)
        assert proxy.connections == 1
        await one.transport.drop(two.peer)
        await ask(one, two, proxy)
        assert proxy.connections == 2

    play(scenario)


def test_two_calls_at_once_need_two_lines_and_one_is_kept() -> None:
    async def scenario(one: Member, two: Member, proxy: Proxy) -> None:
        two.handler.gate = asyncio.Event()
        asking = [asyncio.create_task(ask(one, two, proxy)) for _ in range(2)]
        await until(lambda: len(two.handler.exchanges) == 2)
        two.handler.gate.set()
        await asyncio.gather(*asking)
        assert proxy.connections == 2
        assert len(one.transport._lines._idle) == 1
        await until(lambda: len(two.handler.gone) + len(two.server._lines) == 1)

    play(scenario)


def test_an_idle_line_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "KEEP_S", 0.01)

    async def scenario(one: Member, two: Member, proxy: Proxy) -> None:
        await ask(one, two, proxy)
        await until(lambda: not one.transport._lines._idle)
        await until(lambda: two.handler.gone == [one.peer])

    play(scenario)


def test_a_line_that_broke_while_idle_is_not_used() -> None:
    async def scenario(one: Member, two: Member, proxy: Proxy) -> None:
        await ask(one, two, proxy)
        ((line, _),) = one.transport._lines._idle.values()
        (serving,) = two.server._lines.values()
        serving.abort()
        await line.lost.wait()
        await ask(one, two, proxy)
        assert proxy.connections == 2

    play(scenario)


def test_a_line_on_which_something_came_unasked_is_not_used() -> None:
    async def scenario(one: Member, two: Member, proxy: Proxy) -> None:
        await ask(one, two, proxy)
        ((line, _),) = one.transport._lines._idle.values()
        (serving,) = two.server._lines.values()
        await serving.write(b"surprise")
        await until(lambda: not line.quiet)
        await ask(one, two, proxy)
        assert proxy.connections == 2

    play(scenario)


def test_what_goes_wrong_in_a_call_closes_its_line() -> None:
    async def scenario(one: Member, two: Member, proxy: Proxy) -> None:
        async def broken() -> None:
            async with one.transport.call(two.peer, proxy.address):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await broken()
        assert not one.transport._lines._idle
        await until(lambda: all(v.transport.is_closing() for v in visits(two)))

    play(scenario)


def visits(member: Member) -> list:  # type: ignore[type-arg]
    return list(member.server._listener._visits.values())


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1:1", Kind.REFUSED),
        ("no-such-host.invalid:4001", Kind.UNKNOWN_HOST),
        ("127.0.0.1", Kind.UNKNOWN_HOST),
        ("[::1]:1", Kind.REFUSED),
    ],
)
def test_addresses_that_lead_nowhere(address: str, kind: Kind) -> None:
    async def scenario(one: Member, two: Member, proxy: Proxy) -> None:
        with pytest.raises(Unreachable) as caught:
            await one.exchange(two.peer, address, one.sealed(), b"")
        assert caught.value.kind in (kind, Kind.NO_ROUTE)
        assert address in str(caught.value)

    play(scenario)


def test_another_swarm_is_told_apart() -> None:
    async def scenario(one: Member, two: Member, proxy: Proxy) -> None:
        with pytest.raises(Unreachable) as caught:
            await ask(one, two, proxy)
        assert caught.value.kind is Kind.OTHER_SWARM

    play(scenario, SECRET, OTHER_SECRET)


def test_who_swallows_everything_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "CONNECT_S", 0.1)

    async def scenario(one: Member, two: Member, proxy: Proxy) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            host, port = server.getsockname()
            with pytest.raises(Unreachable) as caught:
                await one.exchange(two.peer, f"{host}:{port}", one.sealed(), b"")
            assert caught.value.kind is Kind.TIMEOUT

    play(scenario)
