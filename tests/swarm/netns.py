"""Machines of a small LAN as network namespaces on one bridge; nothing outside them is touched.

Needs root, iproute2 and, for blocking multicast by firewall, iptables.  Removing a namespace
removes its interfaces; what a killed test run left behind is removed by the next one.
"""

import contextlib
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREFIX = "covey"
NETWORK = "10.211.7"  # lives only inside the namespaces
_STOP_S = 5.0


@dataclass(frozen=True)
class Machine:
    """One namespace with ``lo`` and ``eth0``."""

    namespace: str
    address: str  # of eth0, IPv4

    def argv(self, argv: Sequence[str]) -> list[str]:
        """``argv`` as it runs on this machine."""
        return ["ip", "netns", "exec", self.namespace, *argv]

    def run(self, *argv: str, timeout_s: float = 60.0) -> str:
        """Run a command to its end and return what it printed.  Raises AssertionError."""
        return _run(self.argv(argv), timeout_s)

    def start(self, *argv: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command; the caller ends it, or the end of the LAN does."""
        return subprocess.Popen(self.argv(argv), text=True, **options)

    def block_multicast(self, interface: str | None = None) -> None:
        """As a firewall does: no multicast in or out of ``interface``, or of any."""
        for chain, direction in (("OUTPUT", "-o"), ("INPUT", "-i")):
            on = [direction, interface] if interface else []
            self.run("iptables", "-w", "-A", chain, *on, "-d", "224.0.0.0/4", "-j", "DROP")

    def allow_multicast(self) -> None:
        self.run("iptables", "-w", "-F")

    def unplug(self) -> None:
        """The cable of eth0 is out: no packet passes, the address stays."""
        self.run("ip", "link", "set", "eth0", "down")

    def plug_in(self) -> None:
        self.run("ip", "link", "set", "eth0", "up")

    def shape(self, megabits: int) -> None:
        """Let eth0 send no faster than that, as a slower cable would."""
        burst = max(16_000, megabits * 125)  # bytes; a millisecond's
        self.run(
            *("tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", f"{megabits}mbit"),
            *("burst", str(burst), "latency", "50ms"),
        )

    def counters(self) -> tuple[int, int]:
        """The bytes that eth0 has sent and received, frames' headers included."""
        words = self.run("cat", "/proc/net/dev").partition("eth0:")[2].split()
        return int(words[8]), int(words[0])

    def pids(self) -> list[int]:
        """The processes that run on this machine."""
        return [int(pid) for pid in _run(["ip", "netns", "pids", self.namespace]).split()]


@contextlib.contextmanager
def lan(machines: int) -> Iterator[list[Machine]]:
    """``machines`` machines that reach each other over one switch, for the block."""
    _remove_abandoned()
    name = f"{PREFIX}-{os.getpid()}-{secrets.token_hex(2)}"
    switch = f"{name}-switch"
    made = [Machine(f"{name}-{n}", f"{NETWORK}.{n + 1}") for n in range(machines)]
    try:
        _run(["ip", "netns", "add", switch])
        _run(["ip", "-n", switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])
        _run(["ip", "-n", switch, "link", "set", "br0", "up"])
        for number, machine in enumerate(made):
            _connect(machine, switch, f"port{number}")
        yield made
    finally:
        for machine in made:
            _remove(machine.namespace)
        _remove(switch)


def _connect(machine: Machine, switch: str, port: str) -> None:
    inside = machine.namespace
    _run(["ip", "netns", "add", inside])
    _run(["ip", "-n", inside, "link", "set", "lo", "up"])
    link = ["ip", "-n", switch, "link", "add", port, "type", "veth"]
    _run([*link, "peer", "name", "eth0", "netns", inside])
    _run(["ip", "-n", switch, "link", "set", port, "master", "br0"])
    _run(["ip", "-n", switch, "link", "set", port, "up"])
    _run(["ip", "-n", inside, "address", "add", f"{machine.address}/24", "dev", "eth0"])
    _run(["ip", "-n", inside, "link", "set", "eth0", "up"])
    _run(["ip", "-n", inside, "route", "add", "default", "dev", "eth0"])


def _remove(namespace: str) -> None:
    """End what still runs in ``namespace`` and remove it; quiet if there is none."""
    if not Path("/run/netns", namespace).exists():
        return
    for how in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _STOP_S
        pids = _pids(namespace)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        while pids and time.monotonic() < deadline:
            time.sleep(0.02)
            pids = [pid for pid in _pids(namespace) if not _is_zombie(pid)]
        if not pids:
            break
    subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)


def _pids(namespace: str) -> list[int]:
    done = subprocess.run(
        ["ip", "netns", "pids", namespace], check=False, capture_output=True, text=True
    )
    return [int(pid) for pid in done.stdout.split()]


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _remove_abandoned() -> None:
    """Remove the namespaces of test runs that were killed."""
    for path in Path("/run/netns").glob(f"{PREFIX}-*"):
        owner = re.match(rf"{PREFIX}-(\d+)-", path.name)
        if owner is not None and not Path("/proc", owner[1]).exists():
            _remove(path.name)


def _run(argv: Sequence[str], timeout_s: float = 60.0) -> str:
    try:
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=timeout_s)
    except FileNotFoundError as error:
        raise AssertionError(f"{argv[0]} is missing: apt-get install iproute2 iptables") from error
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr.strip()}"
    return done.stdout
