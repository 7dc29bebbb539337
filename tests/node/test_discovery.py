"""Discovery over real multicast on loopback: found, not found, failed, and back again."""

import asyncio
import logging
from collections.abc import Callable, Iterator

import pytest
import zeroconf

from covey.node import discovery, interfaces
from covey.node.announcement import SERVICE, Announcement, Claim, records
from covey.node.discovery import Discovery, State
from covey.node.ear import Ear
from covey.node.interfaces import Interface
from covey.node.tasks import Tasks
from covey.protocols.identity import PeerId
from tests.node.waiting import until

SWARM, OTHER = b"s" * 32, b"o" * 32
LO = Interface("lo", "127.0.0.1")


def fail(bug: BaseException) -> None:
    raise bug


class Node:
    """One discovery and what it found: address -> claimed id."""

    def __init__(self, number: int, swarm: bytes = SWARM) -> None:
        self.peer = PeerId(bytes([number]) * 32)
        self.address = f"127.0.0.1:{4000 + number}"
        self.found: dict[str, str] = {}
        self.calls = 0
        announcement = Announcement(self.peer, swarm, "127.0.0.1", 4000 + number)
        self.discovery = Discovery(announcement, self._note)

    def _note(self, addresses: tuple[str, ...], prefix: str) -> None:
        self.calls += 1
        self.found.update(dict.fromkeys(addresses, prefix))


def run(*nodes: Node, until_: Callable[[], object]) -> None:
    async def go() -> None:
        for node in nodes:
            node.discovery.start()
        try:
            await until(until_)
        finally:
            for node in nodes:
                await node.discovery.close()

    asyncio.run(go())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short waits where a test would sit through them, and zeroconf's log level put back."""
    monkeypatch.setattr(discovery, "TEST_S", 0.2)
    monkeypatch.setattr(discovery, "RETEST_S", 0.2)
    monkeypatch.setattr(discovery, "RETRY_S", 0.05)
    monkeypatch.setattr(discovery, "RESCAN_S", 0.05)
    level = logging.getLogger("zeroconf").level
    yield
    logging.getLogger("zeroconf").setLevel(level)


def test_nodes_of_one_swarm_find_each_other_and_not_another() -> None:
    one, two, stranger = Node(1), Node(2), Node(3, OTHER)
    run(
        *(one, two, stranger),
        until_=lambda: (
            one.found
            and two.found
            and one.discovery.status.state is State.WORKING
            and stranger.discovery.status.state is State.WORKING
        ),
    )
    assert one.found == {two.address: two.peer.short}
    assert two.found == {one.address: one.peer.short}
    assert stranger.found == {}
    assert one.discovery.status.state is State.OFF


def test_loopback_alone_says_so() -> None:
    node = Node(4)
    lines = []

    def working() -> bool:
        lines.append(node.discovery.status.detail)
        return node.discovery.status.state is State.WORKING

    run(node, until_=working)
    assert lines[-1] == "announced on lo (127.0.0.1): finds the nodes of this machine only"


def test_nobody_heard_is_told_until_somebody_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Interface, "loopback", property(lambda self: False))
    one, two = Node(14), Node(15)

    def detail() -> str:
        return one.discovery.status.detail

    async def go() -> None:
        one.discovery.start()
        try:
            await until(lambda: detail().endswith("; no multicast of another machine so far"))
            two.discovery.start()
            await until(lambda: detail() == "announced on lo (127.0.0.1)")
        finally:
            await one.discovery.close()
            await two.discovery.close()

    asyncio.run(go())


def test_silence_is_told_with_the_way_round_it_until_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Ear, "datagram_received", lambda self, data, addr: None)
    node, details = Node(5), list[str]()

    def silent_then_working() -> bool:
        status = node.discovery.status
        if status.state is State.SILENT and not details:
            details.append(status.detail)
            monkeypatch.undo()
            monkeypatch.setattr(discovery, "RETEST_S", 0.1)
        return bool(details) and status.state is State.WORKING

    run(node, until_=silent_then_working)
    assert "does not come back on lo (127.0.0.1)" in details[0]
    assert "--peer HOST:PORT" in details[0]


def test_no_interface_and_a_taken_port_are_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen: list[Interface] = []
    monkeypatch.setattr(interfaces, "for_multicast", lambda found, host: list(chosen))
    node, seen = Node(6), list[str]()

    def back() -> bool:
        status = node.discovery.status
        if status.state is State.FAILED:
            seen.append(status.detail)
            chosen[:] = [LO]
        return bool(seen) and status.state is State.WORKING

    run(node, until_=back)
    assert "no network interface is up" in seen[0]

    async def taken(*args: object) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr("covey.node.ear.Ear.open", taken)
    node = Node(6)
    run(node, until_=lambda: "Address already in use" in node.discovery.status.detail)


def test_changed_interfaces_are_announced_on(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [LO]
    monkeypatch.setattr(interfaces, "for_multicast", lambda found, host: list(chosen))
    one, two = Node(7), Node(8)
    begun: list[str] = []
    tell = one.discovery._tell

    def note(state: State, detail: str) -> None:
        if state is State.STARTING:
            begun.append(detail)
            one.found.clear()
        tell(state, detail)

    monkeypatch.setattr(one.discovery, "_tell", note)

    def found_twice() -> bool:
        if one.found and len(begun) == 1:
            chosen[:] = [LO, Interface("lo:2", "127.0.0.2")]
        return len(begun) >= 2 and bool(one.found)

    run(one, two, until_=found_twice)
    assert begun[0] == "announcing on lo (127.0.0.1)"
    assert begun[1] == "announcing on lo (127.0.0.1), lo:2 (127.0.0.2)"


def test_what_is_announced_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "REMIND_S", 0.02)
    one, two = Node(9), Node(10)
    run(one, two, until_=lambda: one.calls >= 3)
    assert one.found == {two.address: two.peer.short}


def test_a_flood_of_services_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covey.protocols.limits.UNVERIFIED_MAX", 3)
    node = Node(11)
    session = discovery._Session(
        Announcement(node.peer, SWARM, "127.0.0.1", 1),
        [LO],
        node._note,
        lambda state, detail: None,
        Tasks(fail),
    )

    async def go() -> int:
        resolving: list[str] = []

        async def resolve(zero: object, name: str) -> None:
            resolving.append(name)

        monkeypatch.setattr(session, "_resolve", resolve)
        change = zeroconf.ServiceStateChange.Added
        for number in range(100):
            session._heard_of(None, SERVICE, f"x{number}.{SERVICE}", change)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await session.close()
        return len(resolving)

    assert asyncio.run(go()) == 3


def test_a_service_that_says_goodbye_is_forgotten() -> None:
    node = Node(12)
    session = discovery._Session(
        Announcement(node.peer, SWARM, "127.0.0.1", 1),
        [LO],
        node._note,
        lambda state, detail: None,
        Tasks(fail),
    )
    name = records(Announcement(node.peer, SWARM, "", 1), "gone", [LO]).name
    session._claims[name] = Claim((node.address,), "")
    removed = zeroconf.ServiceStateChange.Removed
    session._heard_of(None, SERVICE, name, removed)  # type: ignore[arg-type]
    assert session._claims == {}


def test_a_bug_is_told_and_leaves_the_node_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> list[Interface]:
        raise AssertionError("a bug")

    monkeypatch.setattr(interfaces, "survey", broken)
    node = Node(13)
    run(node, until_=lambda: node.discovery.status.state is State.FAILED)
    assert "a bug in discovery" in caplog.text
