"""Each algorithm over real daemons: three nodes learn by it, and two different ones never mix."""

import numpy as np
import pytest

from covey.gossip.config import ALGORITHMS
from tests.swarm.flock import Flock

pytestmark = pytest.mark.swarm


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "pair"])
def test_three_nodes_learn(flock: Flock, algorithm: str) -> None:
    nodes = [flock.run(name, "--algorithm", algorithm) for name in ("ada", "bob", "cyd")]
    for node in nodes:
        node.ready()
        node.event("train.started")
    for node in nodes:
        node.learns_on(6)
        status = node.status()["exchange"]
        assert status["algorithm"] == algorithm
        assert status["wire_bytes_sent"] > 0
    flock.enough.touch()
    assert [node.wait() for node in nodes] == [0, 0, 0]
    ends = np.array([node.end() for node in nodes])
    mean = ends.mean(0)
    apart = np.linalg.norm(ends - mean, axis=1) / np.linalg.norm(mean)
    assert apart.max() < 0.02, f"they end {apart} apart"
    assert 8 < mean.mean() < 12, "and have learned"


def test_two_algorithms_do_not_mix(flock: Flock) -> None:
    nodes = [flock.run("ada"), flock.run("bob", "--algorithm", ALGORITHMS[1])]
    for node in nodes:
        node.ready()
        node.rejected("algorithm")
        node.event("merge.none", reason="algorithm")
        assert node.exchanges() == 0
