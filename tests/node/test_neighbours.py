"""Finding, probing and losing real peers, and whom to learn with."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from covey.gossip.membership import Config as Pace
from covey.gossip.membership import Life
from covey.node.addresses import Source
from covey.node.unreachable import Kind, Unreachable
from covey.protocols.errors import Forged
from covey.protocols.identity import PeerId
from covey.protocols.messages import Lineage, Phase
from tests.node.hosts import LAYOUT, OTHER_LAYOUT, Learner, noise
from tests.node.residents import FOUNDED, SLOW, Resident, Setting, made_up, residents, standing
from tests.node.waiting import until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covey.node.neighbours._LOOK_AROUND_S", 0.1)


def test_a_static_peer_is_found_and_finds_us(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path), 1, 2) as (one, two):
            one.knows(two)
            await until(lambda: one.sees(two) is Life.ALIVE and two.sees(one) is Life.ALIVE)
            member = one.membership.get(two.me)
            assert member is not None
            assert member.standing.name == "node-2"
            await until(lambda: one.membership.get(two.me).rtt_s)  # type: ignore[union-attr]
            (entry,) = two.book.entries(one.me)
            assert entry.sources == {Source.EXCHANGE}
            assert one.happened("peer.alive") == 1
            assert one.events.since(0, ["peer.alive"])[0].data["name"] == "node-2"

    asyncio.run(go())


def test_who_is_known_to_one_becomes_known_to_all(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path), 1, 2, 3) as (one, two, three):
            two.knows(one, three)
            await until(lambda: one.sees(three) is Life.ALIVE and three.sees(one) is Life.ALIVE)

    asyncio.run(go())


def test_one_that_vanishes_is_suspected_then_dead_and_may_come_back(tmp_path: Path) -> None:
    async def go() -> None:
        setting = Setting(tmp_path)
        async with residents(setting, 1, 2) as (one, two):
            silent: list[PeerId] = []
            one.neighbours.on_silence = silent.append
            one.knows(two)
            await until(lambda: one.sees(two) is Life.ALIVE)
            port = two.desk.card.port
            await two.vanish()
            await until(lambda: one.sees(two) is Life.DEAD)
            assert silent == [two.me, two.me], "as a suspect, and as dead"
            types = [event.type for event in one.events.since(0, ["peer.*"])]
            assert types.index("peer.suspect") < types.index("peer.dead")
            again = Resident(2, setting, boot=99)
            await again.start(port)
            await until(lambda: one.sees(again) is Life.ALIVE)
            await again.vanish()
            assert not again.bugs

    asyncio.run(go())


def test_a_goodbye_is_heard_at_once(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path, SLOW), 1, 2) as (one, two):
            one.knows(two)
            await until(lambda: one.sees(two) is Life.ALIVE and two.sees(one) is Life.ALIVE)
            two.desk.leaving = True
            await two.neighbours.leave(two.desk.standing())
            assert one.sees(two) is Life.LEFT
            assert one.neighbours.partners(LAYOUT.digest, FOUNDED) == []

    asyncio.run(go())


def test_a_goodbye_waits_for_nobody_who_is_gone(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path, SLOW), 1, 2, 3) as (one, two, three):
            one.knows(two, three)
            await until(lambda: {one.sees(two), one.sees(three)} == {Life.ALIVE})
            await two.vanish()
            one.desk.leaving = True
            await one.neighbours.leave(one.desk.standing())
            assert three.sees(one) is Life.LEFT

    asyncio.run(go())


def test_news_do_not_wait_for_the_next_probe(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path, SLOW), 1, 2) as (one, two):
            one.knows(two)
            await until(lambda: one.sees(two) is Life.ALIVE and two.sees(one) is Life.ALIVE)
            learner = await one.trainee(noise())
            heard = two.membership.get
            await until(lambda: heard(one.me).standing.phase == Phase.TRAINING)  # type: ignore[union-attr]
            assert two.neighbours.elders(LAYOUT.digest, Lineage()) == [one.me]
            await learner.leave()

    asyncio.run(go())


@pytest.mark.parametrize("late", [0, 1, 3, 10, 30])
def test_two_that_begin_at_once_found_one_flock(tmp_path: Path, late: int) -> None:
    """They have known each other for long, and neither has heard that the other begins too."""

    async def go() -> None:
        async with residents(Setting(tmp_path, SLOW), 1, 2) as (one, two):
            one.knows(two)
            await until(lambda: one.sees(two) is Life.ALIVE and two.sees(one) is Life.ALIVE)
            await until(lambda: one.neighbours.looked_around() and two.neighbours.looked_around())

            async def later() -> Learner:
                for _ in range(late):
                    await asyncio.sleep(0)
                return await two.trainee(noise(seed=2))

            learners = await asyncio.gather(one.trainee(noise(seed=1)), later())
            assert np.array_equal(learners[0].vector, learners[1].vector)
            assert one.host.lineage.founder == two.host.lineage.founder
            assert one.happened("train.founded") + two.happened("train.founded") == 1
            for learner in learners:
                await learner.leave()

    asyncio.run(go())


def test_an_address_where_nobody_is(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path), 1, 2) as (one, two):
            address = two.address
            await two.vanish()
            one.book.learn(address, Source.STATIC, 0.0)
            await until(lambda: one.happened("peer.unreachable"))
            (event,) = one.events.since(0, ["peer.unreachable"])
            assert event.data["address"] == address
            assert "refuses the connection" in event.data["why"]
            await until(lambda: one.book.entries(None)[0].failures > 1)
            assert one.happened("peer.unreachable") == 1  # the same again is no news

    asyncio.run(go())


def test_a_node_of_another_swarm(tmp_path: Path) -> None:
    async def go() -> None:
        setting = Setting(tmp_path)
        async with residents(setting, 1) as (one,):
            other = Resident(2, setting, b"o" * 32)
            await other.start()
            one.knows(other)
            await until(lambda: one.happened("peer.unreachable"))
            (event,) = one.events.since(0, ["peer.unreachable"])
            assert "not of this swarm" in event.data["why"]
            assert one.sees(other) is None
            await until(lambda: other.neighbours.rejections.get("forged"))
            await other.vanish()
            assert not other.bugs

    asyncio.run(go())


def test_our_own_address_is_no_peer(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path), 1) as (one,):
            one.knows(one)
            await until(lambda: not one.book.entries(None))
            assert one.membership.members() == []
            assert not one.happened("peer.unreachable")

    asyncio.run(go())


def test_a_copied_home_is_noticed(tmp_path: Path) -> None:
    async def go() -> None:
        setting = Setting(tmp_path)
        async with residents(setting, 1) as (one,):
            copy = Resident(1, setting, boot=99)
            copy.folder = tmp_path / "copy"
            copy.folder.mkdir()
            port = await copy.server.start("127.0.0.1", 0)
            one.book.learn(f"127.0.0.1:{port}", Source.STATIC, 0.0)
            await until(lambda: one.membership.conflicted)
            assert one.happened("identity.conflict") == 1
            await copy.vanish()

    asyncio.run(go())


def test_whom_to_learn_with(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path, SLOW), 1) as (one,):
            sayings = {
                2: standing(),
                3: standing(phase=Phase.SETTLING),
                4: standing(phase=Phase.PAUSED),
                5: standing(phase=Phase.IDLE),
                6: standing(phase=Phase.JOINING),
                7: standing(phase=Phase.JOINING, lineage=Lineage()),
                8: standing(layout=OTHER_LAYOUT.digest),
                9: standing(lineage=Lineage(b"g" * 32, 100)),
                10: standing(lineage=Lineage(b"h" * 32, 1000)),
                11: standing(lineage=Lineage(FOUNDED.founder, 5000)),
                12: standing(phase=Phase.LEFT),
            }
            for number, said in sayings.items():
                one.membership.heard(made_up(number), said, asyncio.get_running_loop().time())
            around = one.neighbours

            def numbers(peers: object) -> set[int]:
                return {n for n in sayings if made_up(n) in peers}  # type: ignore[operator]

            assert numbers(around.partners(LAYOUT.digest, FOUNDED)) == {2, 3, 4}
            assert around.partners(LAYOUT.digest, Lineage()) == []
            assert around.elders(LAYOUT.digest, FOUNDED) == [made_up(11), made_up(10)]
            assert numbers(around.elders(LAYOUT.digest, Lineage())) == {2, 3, 4, 5, 6, 9, 10, 11}
            assert numbers(around.waiting(LAYOUT.digest)) == {7}
            assert around.anybody_training(LAYOUT.digest)
            assert around.partners(OTHER_LAYOUT.digest, FOUNDED) == [made_up(8)]

    asyncio.run(go())


def test_another_model_is_told_apart_by_the_tensor(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path), 1, 2) as (one, two):
            one.knows(two)
            first = await one.trainee(noise())
            second = await two.trainee(noise(OTHER_LAYOUT.size), OTHER_LAYOUT)
            await until(lambda: one.happened("peer.other_model"))
            assert "float32[40, 6]" in one.neighbours.notes[two.me]
            assert one.happened("peer.other_model") == 1
            await second.leave()
            third = await two.trainee(noise(seed=2))
            assert np.array_equal(third.vector, noise())
            await until(lambda: two.me not in one.neighbours.notes)
            for learner in (first, third):
                await learner.leave()

    asyncio.run(go())


def test_a_note_follows_our_own_model(tmp_path: Path) -> None:
    """A note of how a peer's model differs says so of the model that is trained now."""

    async def go() -> None:
        async with residents(Setting(tmp_path, SLOW), 1) as (one,):
            heard = one.neighbours.probed
            first = await one.trainee(noise())
            heard(made_up(2), standing(layout=b"x" * 32), "127.0.0.1")
            compared = dict(one.neighbours._compared)
            await first.leave()
            second = await one.trainee(noise(OTHER_LAYOUT.size), OTHER_LAYOUT)
            heard(made_up(2), standing(layout=b"x" * 32), "127.0.0.1")
            assert one.neighbours._compared != compared
            await second.leave()

    asyncio.run(go())


def test_looking_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path, SLOW), 1) as (one,):
            around, began = one.neighbours, one.neighbours._began
            now = began
            monkeypatch.setattr("covey.node.neighbours.time.monotonic", lambda: now)
            assert not around.looked_around()
            now = began + 0.11
            assert around.looked_around()
            around._dialling.add("10.0.0.1:1")
            assert not around.looked_around()
            now = began + 12.0  # whoever announces false addresses must not keep us looking
            assert around.looked_around()
            monkeypatch.undo()
            around._dialling.clear()

    asyncio.run(go())


def test_a_peer_without_an_address(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path, SLOW), 1) as (one,):
            with pytest.raises(Unreachable) as caught:
                one.neighbours.call(made_up(2))
            assert caught.value.kind is Kind.NO_ROUTE
            with pytest.raises(Unreachable):
                await one.neighbours.state_offer(made_up(2))

    asyncio.run(go())


def test_what_peers_did_wrong_is_counted_by_reason(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path, SLOW), 1) as (one,):
            one.neighbours.rejected(made_up(2), Forged("a signature"))
            one.neighbours.rejected(None, Forged("a handshake"))
            assert one.neighbours.rejections == {"forged": 2}
            told = [event.data["peer"] for event in one.events.since(0, ["peer.rejected"])]
            assert told == [made_up(2).short, "unknown"]

    asyncio.run(go())


def test_a_bug_in_the_background_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path), 1, 2) as (one, two):
            one.knows(two)
            await until(lambda: one.sees(two) is Life.ALIVE)

            def broken() -> None:
                raise ZeroDivisionError("a bug")

            monkeypatch.setattr(one.neighbours, "_standing", broken)
            await until(lambda: one.bugs)
            assert {type(bug) for bug in one.bugs} == {ZeroDivisionError}
            monkeypatch.undo()
            await one.vanish()
            one.bugs.clear()
            one.neighbours.tell()  # after the end: nothing begins any more

    asyncio.run(go())


def test_learning_over_real_sockets(tmp_path: Path) -> None:
    """Founding, copying, exchanging and settling of three nodes."""
    steady = Pace(probe_s=0.5, suspect_s=10.0, dead_s=20.0)

    async def go() -> None:
        async with residents(Setting(tmp_path, steady), 1, 2, 3) as three:
            three[0].knows(*three[1:])
            await until(lambda: all(len(r.membership.alive()) == 2 for r in three))
            learners = [await r.trainee(noise(seed=n)) for n, r in enumerate(three)]
            assert all(np.array_equal(learner.vector, noise(seed=0)) for learner in learners)
            progress = np.zeros(LAYOUT.size, np.float32)
            for number in range(5):
                for weight, learner in enumerate(learners):
                    step = 0.1 * weight * noise(seed=number)
                    learner.step(step)
                    progress += step
                    learner.apply()
                    learner.hand_over()
                await until(lambda: all(learner.consumed for learner in learners))
            mean = noise(seed=0) + progress / 3
            await asyncio.gather(*(learner.settled() for learner in learners))
            for learner, resident in zip(learners, three, strict=True):
                assert np.linalg.norm(learner.vector - mean) < 0.02 * np.linalg.norm(mean)
                held = resident.host.learning
                assert held is not None
                assert held.tally.exchanges > 1
                assert not held.tally.reasons.get("implausible")
            for learner in learners:
                await learner.leave()

    asyncio.run(go())
