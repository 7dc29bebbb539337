"""From nothing to agreement: nodes that know no address find each other, train and end as one."""

import numpy as np
import pytest

from tests.swarm.flock import Flock

pytestmark = pytest.mark.swarm


def test_three_nodes_from_nothing_to_agreement(flock: Flock) -> None:
    nodes = [flock.run(name) for name in ("ada", "bob", "cyd")]
    for node in nodes:
        node.ready()
        node.event("train.started")
    assert [len(node.events("train.started")) for node in nodes] == [1, 1, 1]
    assert sum(len(node.events("train.founded")) for node in nodes) == 1
    assert len({node.status()["training"]["founder"] for node in nodes}) == 1
    for node in nodes:
        node.learns_on(6)
        others = {name: peer for name, peer in node.peers().items() if peer["exchanges"]}
        assert len(others) == 2, "it has met both"
        assert all("mdns" in peer["source"] for peer in others.values())
    given = [node for node in nodes if node.events("train.copied")]
    assert len(given) == 2, "the others began with the founder's weights, or what became of them"
    status = [node.status() for node in nodes]
    flock.enough.touch()
    assert [node.wait() for node in nodes] == [0, 0, 0]
    ends = np.array([node.end() for node in nodes])
    mean = ends.mean(0)
    apart = np.linalg.norm(ends - mean, axis=1) / np.linalg.norm(mean)
    assert apart.max() < 0.01, f"they end {apart} apart"
    assert 9 < mean.mean() < 11, "and have learned"
    for before in status:
        exchange = before["exchange"]
        assert exchange["wire_bytes_sent"] > 0
        assert exchange["raw_bytes"] == 4 * 1024 * exchange["exchanges"]
