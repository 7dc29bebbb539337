"""What a node says of itself over mDNS, and what is believed of what others say.

Everything here may come from a stranger: an announcement gives addresses to dial, nothing more.
"""

import hashlib
import secrets
import socket
from dataclasses import dataclass
from ipaddress import ip_address

import zeroconf

from covey.node.addresses import format_address
from covey.node.interfaces import Interface
from covey.protocols import PROTOCOL, limits
from covey.protocols.identity import PeerId

SERVICE = "_covey._tcp.local."


@dataclass(frozen=True, slots=True)
class Announcement:
    """What this node tells the network: nothing that names the swarm to a stranger."""

    peer: PeerId
    swarm: bytes  # 32 bytes, certificates.swarm_id
    host: str  # where the peer port listens
    port: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What an announcement of our swarm says: unproven until the addresses are dialed."""

    addresses: tuple[str, ...]  # host:port
    prefix: str  # the first group of the id, or empty


def records(
    announcement: Announcement, label: str, chosen: list[Interface]
) -> zeroconf.ServiceInfo:
    """The announcement as mDNS records, under the instance name ``label``."""
    # The salt keeps strangers from telling which nodes are of one swarm, and which swarm it was.
    salt = secrets.token_bytes(8)
    hosts = [i.address for i in chosen if not i.loopback] or [i.address for i in chosen]
    return zeroconf.ServiceInfo(
        SERVICE,
        f"{label}.{SERVICE}",
        port=announcement.port,
        server=f"{label}.local.",
        addresses=[socket.inet_aton(host) for host in hosts],
        properties={
            "v": str(PROTOCOL),
            "salt": salt.hex(),
            "swarm": _tag(announcement.swarm, salt),
            "id": announcement.peer.short,
        },
    )


def claim(info: zeroconf.ServiceInfo, swarm: bytes) -> Claim | None:
    """What ``info`` claims if it is of our swarm and makes sense.

    Loopback addresses count only where it names no other: they mean another machine's own.
    """
    try:
        fields = info.decoded_properties
        salt, tag, prefix = (fields.get(name) or "" for name in ("salt", "swarm", "id"))
        if len(salt) > 64 or tag != _tag(swarm, bytes.fromhex(salt)):
            return None
    except ValueError:  # no UTF-8, or no hexadecimal
        return None
    hosts = info.parsed_addresses(zeroconf.IPVersion.V4Only)
    hosts = [host for host in hosts if not ip_address(host).is_multicast]
    hosts = [host for host in hosts if not ip_address(host).is_loopback] or hosts
    if not info.port or not hosts:
        return None
    known = len(prefix) == 7 and prefix.isascii() and prefix.isalnum()
    return Claim(
        tuple(format_address(host, info.port) for host in hosts[: limits.ADDRESSES_PER_PEER_MAX]),
        prefix if known else "",
    )


def _tag(swarm: bytes, salt: bytes) -> str:
    return hashlib.sha256(b"covey/mdns/1\0" + salt + swarm).hexdigest()[:16]
