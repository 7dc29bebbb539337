"""Who may join: a late node gets the flock's weights; another swarm or model never mixes."""

import numpy as np
import pytest

from tests.swarm.flock import Flock, Node
from tests.waiting import until

pytestmark = pytest.mark.swarm


def test_a_late_joiner_starts_from_the_flock(training: list[Node]) -> None:
    ada, bob = training
    steps = [node.status()["training"]["step"] for node in training]
    late = ada.flock.run("late").ready()
    copied = late.event("train.copied")
    assert copied["data"]["peer"] in (ada.id[:7], bob.id[:7])
    for node, before in zip(training, steps, strict=True):
        assert node.status()["training"]["step"] > before, f"{node.name} trained meanwhile"
    late.event("train.started")
    assert not late.events("train.founded", "train.error")
    [start] = late.starts()
    assert 1 < start.mean() < 12, "not its own initial weights, whose mean is within 0.2 of 0"
    assert late.status()["training"]["founder"] == ada.status()["training"]["founder"], (
        "it is of one lineage with the flock"
    )
    late.learns_on()
    for node in training:
        assert node.peer("late")["phase"] == "training"


def test_another_swarm_is_refused_by_name(training: list[Node], flock: Flock) -> None:
    ada, _ = training
    other = flock.run("other", "--peer", ada.address).ready()
    here = f"{other.address} is not of this swarm"
    # Whoever dials finds that the other is none of its own, and the one that is called too.
    tried = other.event("peer.unreachable", address=ada.address)
    assert f"{ada.address} is not of this swarm" in tried["data"]["why"]
    assert "covey invite" in tried["data"]["why"], "says what to do"
    [warning] = other.status()["warnings"]
    assert warning["code"] == "peer_unreachable"
    assert f"{ada.address} is not of this swarm" in warning["message"]
    ada.rejected("forged")
    assert any("swarm" in e["data"]["detail"] for e in ada.events("peer.rejected")), here
    other.event("train.founded")  # it learns, on its own
    assert "other" not in ada.peers()
    assert other.exchanges() == 0


def test_another_model_is_refused_by_the_tensor(training: list[Node]) -> None:
    ada, bob = training
    ids = {node.name: node.id[:7] for node in training}
    wide = ada.flock.run("wide", learner=["--tensors", "w=40x26,b=24"]).ready()
    ids["wide"] = wide.id[:7]
    here, there = "w float32[40, 26]", "w float32[40, 25]"
    told = wide.event("peer.other_model", peer=ids["ada"])
    assert told["data"]["difference"] == f"here {here} (parameter), there {there} (parameter)"
    told = ada.event("peer.other_model", peer=ids["wide"])
    assert told["data"]["difference"] == f"here {there} (parameter), there {here} (parameter)"
    for node, other in ((ada, "wide"), (bob, "wide"), (wide, "ada"), (wide, "bob")):
        node.event("peer.other_model", peer=ids[other])
        assert "trains another model" in node.peer(other)["note"]
        status = node.status()
        found = [w["message"] for w in status["warnings"] if w["code"] == "other_model"]
        assert any(here in text and there in text and other in text for text in found)
        assert status["health"] == "degraded"
    wide.event("train.founded")
    [start] = until("its learner's first model", wide.starts)
    assert abs(start.mean()) < 1, "it began with its own weights"
    ada.learns_on()
    assert wide.exchanges() == 0
    assert np.isfinite(start).all()
