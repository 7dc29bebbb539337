"""What a caller meets at the desk: this node as it is now."""

import asyncio
from pathlib import Path

import pytest

from covey.gossip.membership import Life
from covey.protocols.errors import Forged
from covey.protocols.messages import Phase
from tests.node.hosts import LAYOUT, noise
from tests.node.residents import SLOW, Setting, made_up, residents, standing
from tests.node.waiting import until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covey.node.neighbours._LOOK_AROUND_S", 0.1)


def test_a_standing_follows_the_model(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path, SLOW), 1) as (one,):
            desk = one.desk
            assert desk.standing() == desk.card
            assert desk.layout() is None
            assert desk.payload_limit() == 0
            learner = await one.trainee(noise())
            learner.log(loss=0.25)
            learner.step(1.0)
            learner.hand_over()
            await until(lambda: desk.standing().step == 1)
            said = desk.standing()
            assert said.phase == Phase.TRAINING
            assert said.layout == LAYOUT.digest
            assert said.lineage == one.host.lineage
            await until(lambda: desk.standing().loss == 0.25)
            assert desk.layout() == LAYOUT
            assert desk.payload_limit() >= 4 * LAYOUT.size
            await learner.leave()
            await until(lambda: desk.standing().phase == Phase.IDLE)
            desk.leaving = True
            assert desk.standing().phase == Phase.LEFT

    asyncio.run(go())


def test_a_probe_is_news_of_the_prober_and_answered_with_introductions(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path, SLOW), 1, 2) as (one, two):
            one.knows(two)
            await until(lambda: one.sees(two) is Life.ALIVE)
            answer = one.desk.probed(made_up(9), standing(), "127.0.0.1")
            assert one.membership.get(made_up(9)) is not None
            assert [known.peer for known in answer.introductions] == [two.me.key]
            assert answer.introductions[0].addresses == (two.address,)
            assert not one.desk.standing().introductions

    asyncio.run(go())


def test_states_by_their_digest(tmp_path: Path) -> None:
    async def go() -> None:
        async with residents(Setting(tmp_path, SLOW), 1) as (one,):
            assert await one.desk.state() is None
            learner = await one.trainee(noise())
            offer = await one.desk.state()
            assert offer is not None
            path = one.desk.state_file(offer.digest)
            assert path is not None
            assert path.read_bytes() == noise().tobytes()
            assert one.desk.state_file(b"x" * 32) is None
            one.desk.rejected(None, Forged("a handshake"))
            assert one.neighbours.rejections == {"forged": 1}
            await learner.leave()

    asyncio.run(go())
