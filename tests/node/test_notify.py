"""sd_notify over a real datagram socket."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from covey.node.notify import Notifier


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        yield listener


def test_what_systemd_hears(systemd: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": systemd.getsockname()})
    notifier.ready("alone")
    notifier.status("two\nlines")
    notifier.extend(1.5)
    notifier.stopping()
    heard = [systemd.recv(1000) for _ in range(4)]
    assert heard[:2] == [b"READY=1\nSTATUS=alone", b"STATUS=two lines"]
    assert heard[2:] == [b"EXTEND_TIMEOUT_USEC=1500000", b"STOPPING=1"]


def test_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0covey-test-{os.getpid()}")
        listener.settimeout(30)
        Notifier({"NOTIFY_SOCKET": f"@covey-test-{os.getpid()}"}).stopping()
        assert listener.recv(100) == b"STOPPING=1"


def test_the_watchdog_is_fed_from_the_loop(systemd: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "2000"}
    notifier = Notifier(environ)
    assert notifier.watchdog_s == 0.002

    async def scenario() -> None:
        watching = asyncio.create_task(notifier.watch())
        for _ in range(3):
            assert await asyncio.to_thread(systemd.recv, 100) == b"WATCHDOG=1"
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "x"},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
def test_no_watchdog(environ: dict[str, str]) -> None:
    assert Notifier(environ).watchdog_s is None


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all"])
def test_without_systemd_nothing_happens(address: str) -> None:
    Notifier({"NOTIFY_SOCKET": address}).ready()
