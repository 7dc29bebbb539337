"""Machines on a network that passes no multicast: static peers do it, and introduce the others."""

import pytest

from tests.swarm.flock import Flock
from tests.swarm.netns import lan

pytestmark = pytest.mark.swarm


def test_without_multicast_static_peers_do_it(flock: Flock) -> None:
    with lan(3) as machines:
        for machine in machines:
            machine.block_multicast()
        one, two, three = machines
        hub = f"{one.address}:17700"
        ada = flock.run("ada", "--listen", f"{one.address}:17700", on=one)
        bob = flock.run("bob", "--peer", hub, on=two)
        cat = flock.run("cat", "--peer", hub, on=three)
        nodes = [ada, bob, cat]
        for node in nodes:
            node.ready()
            node.learns_on(4)
        assert len({node.status()["training"]["founder"] for node in nodes}) == 1
        assert "static" in bob.peer("ada")["source"]
        # Nobody told bob and cat of each other but ada.
        for node, other, address in ((bob, "cat", three.address), (cat, "bob", two.address)):
            found = node.peer(other)
            assert found["source"] == ["exchange"]
            assert [a["addr"] for a in found["addresses"] if a["ok"]] == [f"{address}:17700"]
        for node in nodes:
            detail = node.discovery("silent")
            assert "multicast does not come back on eth0" in detail
            assert "--peer HOST:PORT" in detail, "says what to do"
        code, words = flock.say("status", "--home", str(ada.home.root))
        assert code == 0, "it is none the worse for that"
        assert "mDNS silent" in words
        ada.kill()  # they need it no more
        bob.learns_on()
