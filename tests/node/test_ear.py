"""The self-test's socket, on loopback."""

import asyncio
import socket

from covey.node.ear import GROUP, PORT, Ear
from covey.node.interfaces import Interface

LO = Interface("lo", "127.0.0.1")
ELSEWHERE = Interface("eth9", "192.0.2.77")  # none of this machine's


def say(data: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        mouth.bind((LO.address, 0))
        mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LO.address))
        mouth.sendto(data, (GROUP, PORT))


def test_it_hears_its_own_announcement_and_no_other() -> None:
    async def listen() -> tuple[set[str], set[str], bool]:
        ear = await Ear.open([LO], "label-1")
        say(b"\0" * 12 + b"\x07label-2\x06_covey")
        await ear.wait(0.05)
        before = set(ear.own)
        say(b"\0" * 12 + b"\x07label-1\x06_covey")
        await ear.wait(10.0)
        ear.close()
        return before, ear.own, ear.others

    assert asyncio.run(listen()) == (set(), {LO.address}, False)


def test_it_waits_for_every_interface_but_not_for_ever() -> None:
    async def listen() -> set[str]:
        ear = await Ear.open([LO, ELSEWHERE], "label-1")
        say(b"label-1")
        await ear.wait(0.2)
        ear.close()
        return ear.own

    assert asyncio.run(listen()) == {LO.address}


def test_another_machine_is_told_from_this_one() -> None:
    async def listen() -> bool:
        ear = await Ear.open([ELSEWHERE], "label-1")
        ear.datagram_received(b"label-1", (LO.address, PORT))
        ear.close()
        return ear.others

    assert asyncio.run(listen())
