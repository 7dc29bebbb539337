"""Listens for this node's own mDNS announcement: whether multicast works here at all."""

import asyncio
import socket
from contextlib import suppress
from typing import Any

from covey.node.interfaces import Interface

GROUP, PORT = "224.0.0.251", 5353


class Ear(asyncio.DatagramProtocol):
    """A second socket on the mDNS port that listens for our own announcement."""

    def __init__(self, label: str, addresses: frozenset[str]) -> None:
        self.own: set[str] = set()  # our addresses whose announcement came back
        self.others = False  # whether another machine was heard at all
        self._label = label.encode()
        self._addresses = addresses
        self._complete = asyncio.Event()
        self._transport: asyncio.BaseTransport | None = None

    @classmethod
    async def open(cls, chosen: list[Interface], label: str) -> "Ear":
        """Join the group on every interface that allows it.  Raises OSError."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "SO_REUSEPORT"):
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(("", PORT))
            for interface in chosen:
                group = socket.inet_aton(GROUP) + socket.inet_aton(interface.address)
                with suppress(OSError):  # then nothing is heard there, which is the finding
                    listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            ear = cls(label, frozenset(interface.address for interface in chosen))
            loop = asyncio.get_running_loop()
            await loop.create_datagram_endpoint(lambda: ear, sock=listener)
        except OSError:
            listener.close()
            raise
        return ear

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if addr[0] not in self._addresses:
            self.others = True
        elif self._label in data:
            self.own.add(addr[0])
            if self.own == self._addresses:
                self._complete.set()

    async def wait(self, timeout_s: float) -> None:
        """Until every address was heard, or ``timeout_s``."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._complete.wait()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
