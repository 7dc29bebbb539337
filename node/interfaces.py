"""Which of this machine's network interfaces lead to peers, and which only look as if they did."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import ifaddr

# Bridges, tunnels and hypervisors: no other machine is behind them, or not by multicast.
_VIRTUAL = (
    *("awdl", "br-", "bridge", "cni", "docker", "flannel", "llw", "lxcbr", "lxdbr", "podman"),
    *("tailscale", "tap", "tun", "utun", "vboxnet", "veth", "virbr", "vmnet", "wg", "zt"),
)
_UP = 0x1  # IFF_UP of <net/if.h> on Linux
_EVERYWHERE = ("", "0.0.0.0", "::")


@dataclass(frozen=True, order=True, slots=True)
class Interface:
    """One IPv4 address of this machine and the adapter that has it."""

    name: str
    address: str

    @property
    def loopback(self) -> bool:
        return ip_address(self.address).is_loopback

    @property
    def virtual(self) -> bool:
        return self.name.startswith(_VIRTUAL)

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"


def survey() -> list[Interface]:
    """The interfaces that are up.  Blocks for some milliseconds: call it in a thread."""
    return sorted(
        Interface(adapter.name, str(ip.ip))
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
        if ip.is_IPv4 and _is_up(adapter.name)
    )


def reachable(found: Iterable[Interface], host: str) -> list[Interface]:
    """Those by which peers reach a node that listens on ``host``: loopback only if nothing else."""
    open_ones = [i for i in found if host in _EVERYWHERE or i.address == host]
    for wanted in (
        [i for i in open_ones if not i.loopback and not i.virtual],
        [i for i in open_ones if not i.loopback],
    ):
        if wanted:
            return wanted
    return open_ones


def for_multicast(found: Iterable[Interface], host: str) -> list[Interface]:
    """Those to announce a node on that listens on ``host``.

    Loopback always takes part: it costs little, and finds the nodes of this machine where the
    network lets no multicast through.  The multicast flag is not asked: loopback has none and does
    it all the same, and discovery tests what comes back.
    """
    found = list(found)
    others = [i for i in reachable(found, host) if not i.loopback]
    loopback = [i for i in found if i.loopback and (host in _EVERYWHERE or i.address == host)]
    return others + loopback[:1]


def _is_up(name: str) -> bool:
    if sys.platform != "linux":
        return True  # not told without an ioctl
    try:
        return bool(int(Path("/sys/class/net", name, "flags").read_text(), 16) & _UP)
    except (OSError, ValueError):
        return False  # it has just gone
