"""The mDNS records: what our swarm understands, what strangers learn, and nonsense."""

import random
import socket

import pytest
import zeroconf

from covey.node.announcement import SERVICE, Announcement, Claim, claim, records
from covey.node.interfaces import Interface
from covey.protocols.identity import PeerId

SWARM, OTHER = b"s" * 32, b"o" * 32
ME = Announcement(PeerId(bytes(range(32))), SWARM, "0.0.0.0", 4001)
LO, ETHERNET = Interface("lo", "127.0.0.1"), Interface("eth0", "192.0.2.10")


def said(
    addresses: list[str], changes: dict[str, str | bytes] | None = None, port: int = 4001
) -> zeroconf.ServiceInfo:
    """Our records with the addresses and some properties replaced."""
    ours = records(ME, "label", [ETHERNET])
    return zeroconf.ServiceInfo(
        SERVICE,
        ours.name,
        port=port,
        addresses=[socket.inet_aton(address) for address in addresses],
        properties={**ours.properties, **{k.encode(): v for k, v in (changes or {}).items()}},
    )


def test_a_member_understands_it() -> None:
    info = records(ME, "label", [ETHERNET, LO])
    assert claim(info, SWARM) == Claim(("192.0.2.10:4001",), ME.peer.short)


def test_loopback_is_announced_only_where_there_is_nothing_else() -> None:
    assert claim(records(ME, "label", [LO]), SWARM) == Claim(("127.0.0.1:4001",), ME.peer.short)


def test_another_swarm_is_not_heard_and_tags_of_one_swarm_differ() -> None:
    first, second = records(ME, "a", [ETHERNET]), records(ME, "b", [ETHERNET])
    assert claim(first, OTHER) is None
    assert first.properties[b"swarm"] != second.properties[b"swarm"]
    told = b"".join(key + (value or b"") for key, value in first.properties.items())
    assert SWARM not in told
    assert SWARM.hex().encode() not in told


@pytest.mark.parametrize(
    "info",
    [
        said(["192.0.2.1"], port=0),
        said([]),
        said(["224.0.0.251"]),
        said(["192.0.2.1"], {"salt": "xyz"}),
        said(["192.0.2.1"], {"salt": "00" * 100}),
        said(["192.0.2.1"], {"swarm": b"\xff\xfe"}),
        said(["192.0.2.1"], {"swarm": ""}),
    ],
)
def test_what_makes_no_sense_is_no_claim(info: zeroconf.ServiceInfo) -> None:
    assert claim(info, SWARM) is None


def test_addresses_and_the_prefix_are_bounded() -> None:
    many = claim(said([f"192.0.2.{n}" for n in range(1, 100)], {"id": "<b>too long</b>"}), SWARM)
    assert many is not None
    assert len(many.addresses) == 8
    assert many.prefix == ""


def test_a_stranger_can_say_anything() -> None:
    rng = random.Random(3)
    for _ in range(2000):
        noise: dict[str, str | bytes] = {
            key: rng.randbytes(rng.randrange(40)) for key in ("v", "salt", "swarm", "id", "more")
        }
        assert claim(said(["127.0.0.1", "192.0.2.1"], noise), SWARM) is None
