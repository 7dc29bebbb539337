"""A dozen nodes on one machine, more than it has cores: each learns in its periods and answers."""

import functools
from dataclasses import dataclass

import pytest

from tests.swarm.flock import Flock, Node
from tests.waiting import until

pytestmark = pytest.mark.swarm

NODES = 12
PERIODS = 5


@dataclass(frozen=True)
class Count:
    """What a node has done so far."""

    periods: int
    missed: int

    @classmethod
    def of(cls, node: Node) -> "Count":
        found = node.status()["exchange"]
        return cls(found["outer_steps"], found["missed"])


def _meets_all(node: Node) -> bool:
    return bool(node.status()["swarm"]["alive"] == NODES)


def _closed(node: Node, periods: int) -> bool:
    return Count.of(node).periods >= periods


def test_a_dozen_nodes_learn_and_answer(flock: Flock) -> None:
    every = ["--every", "1s"]
    hub = flock.run("hub", "--no-mdns", learner=every).ready()
    spokes = ["--no-mdns", "--peer", hub.address]
    others = [flock.run(f"node{i}", *spokes, learner=every) for i in range(1, NODES)]
    nodes = [hub, *(node.ready() for node in others)]
    for node in nodes:
        node.event("train.started")
        until("all have met", functools.partial(_meets_all, node))
    before = [Count.of(node) for node in nodes]
    for node, begun in zip(nodes, before, strict=True):
        goal = begun.periods + PERIODS
        until("its periods close", functools.partial(_closed, node, goal))
    for node, begun in zip(nodes, before, strict=True):
        now = Count.of(node)
        missed, closed = now.missed - begun.missed, now.periods - begun.periods
        assert missed <= 0.3 * closed, f"{node.name}: {missed} of {closed} without an exchange"
        status = node.status()
        assert status["health"] == "ok", status
        assert status["swarm"]["alive"] == NODES
        assert not node.events("peer.dead"), "slow, but not dead"
    assert len({node.status()["training"]["founder"] for node in nodes}) == 1
