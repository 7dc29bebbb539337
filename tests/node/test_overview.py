"""The reports tell the truth: about nothing yet, about learning, and about what is wrong."""

import asyncio
import json
from pathlib import Path

import pytest

from covey.gossip.membership import Life
from covey.node.addresses import Source
from covey.node.faults import OperatorError
from covey.node.overview import Facts, Overview, greeting
from covey.node.report import as_json
from covey.protocols.envelope import Scope, Sealer
from tests.node.hosts import LAYOUT, OTHER_LAYOUT, noise
from tests.node.residents import SLOW, Resident, Setting, residents
from tests.node.waiting import until

FACTS = Facts(
    id="ABCDEFG-HIJKLMN",
    name="studio",
    instance="00" * 16,
    version="0.1.0",
    home=Path("/home"),
    swarm_id=b"s" * 32,
    swarm_name="lab",
    algorithm="pair",
    codec="f32",
    listen="0.0.0.0:17700",
    api="127.0.0.1:17701",
    addresses=("10.0.0.2:17700",),
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covey.node.neighbours._LOOK_AROUND_S", 0.1)


def overview(resident: Resident) -> Overview:
    return Overview(FACTS, resident.host, resident.neighbours, resident.ledger, resident.limits)


def codes(resident: Resident) -> dict[str, str]:
    return {w.code: w.message for w in overview(resident).status().warnings}


def test_a_node_that_does_nothing_yet(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path, SLOW), 1) as (one,):
            status = overview(one).status()
            assert (status.node.id, status.node.name) == (FACTS.id, "studio")
            assert (status.swarm.members, status.swarm.alive) == (1, 1)
            assert status.training.state == "idle"
            assert status.training.reason
            assert status.consensus.distance is None
            assert (status.exchange.algorithm, status.exchange.codec) == ("pair", "f32")
            assert status.health == "ok"
            assert overview(one).peers() == []
            json.dumps(as_json(status), allow_nan=False)

    asyncio.run(go())


def test_a_flock_that_learns(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path), 1, 2) as (one, two):
            one.knows(two)
            await until(lambda: one.sees(two) is Life.ALIVE)
            learners = [await resident.trainee(noise()) for resident in (one, two)]
            learners[0].log(loss=0.5, accuracy=0.75)
            for number in range(3):
                learners[0].step(0.01 * noise(seed=number))
                learners[0].hand_over()
                await until(lambda: learners[0].consumed)
            await until(lambda: overview(one).status().exchange.exchanges >= 3)
            status = overview(one).status()
            training, exchange = status.training, status.exchange
            assert (status.swarm.members, status.swarm.alive) == (2, 2)
            assert (training.state, training.step, training.learner) == ("training", 3, "script1")
            assert training.parameters == LAYOUT.size
            assert (training.loss, training.values["accuracy"]) == (0.5, 0.75)
            assert training.swarm_step_median == 1.5
            assert exchange.accepted == exchange.exchanges
            assert exchange.raw_bytes == 4 * LAYOUT.size * exchange.exchanges
            assert 0 < exchange.wire_bytes_sent == status.net.sent_bytes["exchange"]
            assert exchange.last_peer == two.me.short
            assert status.consensus.distance is not None
            assert "1 of 1" in status.consensus.confidence
            (peer,) = overview(one).peers()
            assert (peer.id, peer.name, peer.state) == (two.me.text, "node-2", "alive")
            assert "static" in peer.source
            assert peer.exchanges == exchange.exchanges
            assert peer.heard_s is not None
            assert [address.ok for address in peer.addresses] == [True]
            json.dumps([as_json(status), as_json(peer)], allow_nan=False)
            for learner in learners:
                await learner.leave()

    asyncio.run(go())


def test_the_dead_and_the_departed_are_counted_as_such(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path), 1, 2, 3) as (one, two, three):
            one.knows(two, three)
            await until(lambda: {one.sees(two), one.sees(three)} == {Life.ALIVE})
            three.desk.leaving = True
            await three.neighbours.leave(three.desk.standing())
            await two.vanish()
            await until(lambda: one.sees(two) is Life.DEAD)
            swarm = overview(one).status().swarm
            assert (swarm.members, swarm.alive, swarm.suspect, swarm.dead) == (2, 1, 0, 1)
            assert {p.name: p.state for p in overview(one).peers()} == {
                "node-2": "dead",
                "node-3": "left",
            }

    asyncio.run(go())


def test_a_static_peer_that_cannot_be_reached(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path, SLOW), 1, 2) as (one, two):
            address = two.address
            await two.vanish()
            one.book.learn(address, Source.STATIC, 0.0)
            await until(lambda: one.happened("peer.unreachable"))
            assert codes(one)["peer_unreachable"].count(address) == 1
            (peer,) = overview(one).peers()
            assert (peer.state, peer.source) == ("unverified", ("static",))
            assert peer.addresses[0].ok is False
            assert "refuses" in str(peer.addresses[0].last_error)

    asyncio.run(go())


def test_what_is_wrong_is_warned_of(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path), 1, 2) as (one, two):
            one.knows(two)
            first = await one.trainee(noise())
            second = await two.trainee(noise(OTHER_LAYOUT.size), OTHER_LAYOUT)
            await until(lambda: "float32[40, 6]" in codes(one).get("other_model", ""))
            one.host.fault = OperatorError("cannot write a checkpoint: disk full", "free some")
            assert codes(one)["checkpoint_failed"] == "cannot write a checkpoint: disk full"
            first.vector[0] = float("nan")
            first.hand_over()
            await until(lambda: "not_finite" in codes(one))
            assert overview(one).status().health == "degraded"
            for learner in (first, second):
                await learner.leave()

    asyncio.run(go())


def test_a_fault_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer's fault in an exchange shows among the rejections of peers and of exchanges."""

    async def go() -> None:
        async with residents(Setting(tmp_path), 1, 2) as (one, two):
            one.knows(two)
            await until(lambda: one.sees(two) is Life.ALIVE)
            learners = [await resident.trainee(noise()) for resident in (one, two)]
            held = two.host.learning
            assert held is not None
            sealer, scope = Sealer(two.identity, b"x" * 16), Scope(b"x" * 32, LAYOUT.digest)

            def seal(_: Scope, announcement: bytes, length: int, digest: bytes) -> bytes:
                return sealer.seal(scope, announcement, length, digest)

            monkeypatch.setattr(held.conversation._sealer, "seal", seal)
            learners[0].step(1.0)
            learners[0].hand_over()
            await until(lambda: overview(one).status().exchange.failed)
            rejected = overview(one).status().exchange.rejected
            assert rejected == {"forged": overview(one).status().exchange.failed}
            for learner in learners:
                await learner.crash()

    asyncio.run(go())


def test_the_greeting() -> None:
    text = greeting(FACTS, None)
    assert "studio (ABCDEFG) of swarm 'lab'" in text
    assert "http://127.0.0.1:17701" in text
    assert "covey join covey1-x" in greeting(FACTS, "covey1-x")
    assert "covey invite" in greeting(FACTS, "")
