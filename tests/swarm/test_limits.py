"""Learning at 1 Mbit/s: exchanges take their time, probes do not, and nobody counts as dead."""

import time
from collections import defaultdict
from collections.abc import Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.swarm.flock import Flock, Node
from tests.waiting import until

pytestmark = pytest.mark.swarm

LIMIT = 125_000  # bytes/s
MODEL = "w=500x400"  # 110 kB in codes, so that an exchange takes two seconds


def sent(node: Node) -> int:
    """Bytes of exchanges that have left."""
    return int(node.status()["net"]["sent_bytes"]["exchange"])


def probes(nodes: Sequence[Node]) -> tuple[float, float]:
    """How long the answered ones took together, in seconds, and how many they were."""
    found: dict[str, float] = defaultdict(float)
    for node in nodes:
        for family in text_string_to_metric_families(node.metrics()):
            for sample in family.samples:
                found[sample.name] += sample.value
    return found["covey_peer_probe_seconds_sum"], found["covey_peer_probe_seconds_count"]


def limit(node: Node, rate: str) -> str:
    options = ("--up", rate, "--down", rate, "--home", str(node.home.root))
    code, words = node.flock.say("limits", *options)
    assert code == 0
    return words


def test_a_slow_flock_goes_on_learning(flock: Flock) -> None:
    learner = ("--tensors", MODEL)
    ada, bob = nodes = [flock.run(name, learner=learner) for name in ("ada", "bob")]
    for node in nodes:
        node.ready()
    ada.learns_on(1)
    for node in nodes:
        assert limit(node, "1mbit") == "up   1mbit\ndown 1mbit\n"
    ada.learns_on(1)  # which may have been under way
    began, before = time.monotonic(), sent(ada)
    probed_s, probed = probes(nodes)
    ada.learns_on(1)
    took_s, took = time.monotonic() - began, sent(ada) - before
    assert took > 0.3 * LIMIT, "there was something to hold back"
    assert took < 1.05 * LIMIT * took_s + 20_000, "what goes with the codes is not held back"
    until("they have probed", lambda: probes(nodes)[1] > probed)
    total_s, total = probes(nodes)
    assert (total_s - probed_s) / (total - probed) < took_s / 4, "probes wait for no exchange"
    assert bob.peers()["ada"]["state"] == "alive"
    for node in nodes:
        assert node.events("peer.suspect", "peer.dead") == []
        assert not {"timeout", "silent"} & set(node.status()["exchange"]["rejected"])
        assert limit(node, "off") == "up   off\ndown off\n"
    bob.learns_on(2)
