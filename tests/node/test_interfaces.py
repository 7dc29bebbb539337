"""Which interfaces peers are met on, of those that machines really have."""

import pytest

from covey.node.interfaces import Interface, for_multicast, reachable, survey

LO = Interface("lo", "127.0.0.1")
ETHERNET = Interface("eth0", "192.0.2.10")
WIFI = Interface("wlp3s0", "198.51.100.7")
DOCKER = Interface("docker0", "172.17.0.1")
BRIDGE = Interface("br-1a2b3c", "172.18.0.1")
TUNNEL = Interface("wg0", "10.9.0.2")
ALL = [LO, ETHERNET, WIFI, DOCKER, BRIDGE, TUNNEL]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_bridges_and_tunnels_are_left_out(host: str) -> None:
    assert reachable(ALL, host) == [ETHERNET, WIFI]
    assert for_multicast(ALL, host) == [ETHERNET, WIFI, LO]


def test_a_tunnel_is_better_than_nothing() -> None:
    assert reachable([LO, TUNNEL], "0.0.0.0") == [TUNNEL]


def test_a_machine_without_a_network_has_itself() -> None:
    assert reachable([LO], "0.0.0.0") == [LO]
    assert for_multicast([LO], "0.0.0.0") == [LO]


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", [LO]), ("192.0.2.10", [ETHERNET]), ("10.9.0.2", [TUNNEL])]
)
def test_a_node_that_listens_on_one_address_is_told_there_only(
    host: str, expected: list[Interface]
) -> None:
    assert reachable(ALL, host) == expected
    assert for_multicast(ALL, host) == expected


def test_this_machine_has_a_loopback() -> None:
    found = survey()
    assert any(interface.loopback for interface in found)
    assert found == sorted(found)
    assert str(LO) == "lo (127.0.0.1)"
