"""The namespaces themselves: they reach each other, can be cut off, and leave nothing behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.swarm.netns import PREFIX, Machine, lan

# Joins the mDNS group and sends there from `address`, n times; prints whether its own came back.
_ECHO = """
import socket, struct, sys
group, address = "224.0.0.251", sys.argv[1]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 5353))
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
             socket.inet_aton(group) + socket.inet_aton(address))
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
s.settimeout(0.5)
try:
    s.sendto(b"x", (group, 5353))
    print(s.recv(10).decode())
except OSError as error:
    print(type(error).__name__)
"""


def echo(machine: Machine, address: str) -> str:
    return machine.run(sys.executable, "-c", _ECHO, address).strip()


def left_over() -> list[str]:
    return [path.name for path in Path("/run/netns").glob(f"{PREFIX}-*")]


def test_machines_reach_each_other_and_nothing_stays_behind() -> None:
    with lan(2) as (one, two):
        server = one.start(
            *(sys.executable, "-c"),
            "import socket; s = socket.create_server(('', 5000)); print('up', flush=True);"
            " c, a = s.accept(); print(a[0], flush=True); c.recv(1)",
            stdout=subprocess.PIPE,
        )
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        code = f"import socket; socket.create_connection(('{one.address}', 5000)).close()"
        two.run(sys.executable, "-c", code)
        assert server.stdout.readline() == f"{two.address}\n"
        sleeper = two.start("sleep", "1000")
    assert server.wait(10) is not None
    assert sleeper.wait(10) != 0
    server.stdout.close()
    assert not {one.namespace, two.namespace} & set(left_over())


def test_a_shaped_cable_counts_what_passes() -> None:
    with lan(2) as (one, two):
        for megabits in (100, 10):
            one.shape(megabits)
        assert "rate 10Mbit" in one.run("tc", "qdisc", "show", "dev", "eth0")
        (sent, _), (_, received) = one.counters(), two.counters()
        code = "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(bytes(1000), ('{}', 9))"
        for _ in range(5):
            one.run(sys.executable, "-c", code.format(two.address))
        assert one.counters()[0] - sent >= 5 * 1042, "Ethernet, IP and UDP have 42 bytes"
        assert two.counters()[1] - received >= 5 * 1042


def test_everything_is_removed_after_a_failure() -> None:
    made: list[Machine] = []

    def fail() -> None:
        with lan(1) as machines:
            made.extend(machines)
            raise RuntimeError("a test failed")

    with pytest.raises(RuntimeError, match="a test failed"):
        fail()
    assert made[0].namespace not in left_over()


def test_what_a_killed_run_left_is_removed_by_the_next() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    name = f"{PREFIX}-{ended.pid}-dead"
    subprocess.run(["ip", "netns", "add", name], check=True)
    with lan(1):
        assert name not in left_over()


def test_multicast_can_be_blocked() -> None:
    nothing = ("TimeoutError", "PermissionError")
    with lan(3) as (plain, blocked, half):
        blocked.block_multicast()
        half.block_multicast("eth0")
        assert [echo(plain, plain.address), echo(plain, "127.0.0.1")] == ["x", "x"]
        assert echo(blocked, blocked.address) in nothing
        assert echo(blocked, "127.0.0.1") in nothing
        assert echo(half, half.address) in nothing
        assert echo(half, "127.0.0.1") == "x"
        blocked.allow_multicast()
        assert echo(blocked, blocked.address) == "x"
