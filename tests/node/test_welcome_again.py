"""A node that restarted, or a learner that comes back: whose weights are the newer ones."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from covey.node.welcome import Welcome
from covey.protocols.messages import Lineage, Phase, StateOffer
from tests.node.hosts import LAYOUT, nodes, noise
from tests.node.test_welcome import grow_old
from tests.node.waiting import until


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_NEWS_S", "_LINEAGE_CHECK_S", "_RETRY_S"):
        monkeypatch.setattr(f"covey.node.welcome.{name}", 0.01)


def test_a_restarted_node_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            learner = await node.trainee(noise())
            learner.step(2.0)
            learner.hand_over()
            await until(lambda: node.host.lineage.age == 1)
            founded = node.host.lineage
            await learner.leave()
        async with nodes(tmp_path) as (node,):
            learner = await node.trainee(noise(seed=5))
            assert np.array_equal(learner.vector, noise() + 2)
            assert node.host.lineage == founded
            assert node.learning.step == 1
            assert node.host.saved_s is not None
            assert node.happened("train.restored") == 1
            assert node.happened("train.founded") == 0
            await learner.leave()

    asyncio.run(go())


@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_learner_that_trained_on_keeps_what_it_has(tmp_path: Path, checkpoint: bool) -> None:
    """The node was killed and came back: the learner's vector is the newer one."""

    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            first = await node.trainee(noise())
            lineage = first.lineage
            assert lineage is not None
            await first.crash()
        if not checkpoint:
            for path in (tmp_path / "1" / "checkpoints").iterdir():
                path.unlink()
        newer = Lineage(lineage.founder, lineage.age + 5)
        async with nodes(tmp_path) as (node,):
            learner = await node.learner(noise() + 3, resumed=newer)
            await learner.started()
            assert not learner.replaced
            assert np.array_equal(await node.x(), noise() + 3)
            assert node.host.lineage == newer
            await learner.leave()

    asyncio.run(go())


@pytest.mark.parametrize(
    ("offered", "giver", "taken"),
    [(40, 72, True), (40, 45, False), (20, 72, False)],
)
def test_a_copy_that_took_long_is_taken_if_it_brings_nearer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offered: int, giver: int, taken: bool
) -> None:
    """This node came to age 25 meanwhile, and its giver far beyond what it had offered."""
    monkeypatch.setattr("covey.node.welcome._LINEAGE_CHECK_S", 3600.0)

    async def go() -> None:
        async with nodes(tmp_path, 2) as (node, elder):
            learners = [await one.trainee(noise()) for one in (node, elder)]
            for one, age in ((node, 25), (elder, giver)):
                await grow_old(one, age)
            assert isinstance(node.host._welcome, Welcome)
            theirs = Lineage(node.host.lineage.founder, offered)
            offer = StateOffer(b"d" * 32, 4 * LAYOUT.size, theirs, 7)
            assert await node.host._welcome._take_over(noise(seed=2), offer) is taken
            wanted = noise(seed=2) if taken else noise()
            assert np.allclose(await node.x(), wanted, atol=1e-5)
            for learner in learners:
                await learner.leave()

    asyncio.run(go())


def test_a_learner_that_resumes_another_model_takes_the_nodes(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            first = await node.trainee(noise())
            await first.crash()
            await until(lambda: node.learning.phase is Phase.PAUSED)
            other = Lineage(b"o" * 32, 1000)
            learner = await node.learner(noise(seed=2), pid=2, resumed=other)
            await learner.started()
            assert learner.replaced  # which a learner that resumes adds as a difference
            assert np.array_equal(await node.x(), noise())
            await learner.leave()

    asyncio.run(go())


def test_what_moves_x_while_a_learner_is_let_in_reaches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            first = await node.trainee(noise())
            await first.crash()
            await until(lambda: node.learning.phase is Phase.PAUSED)
            train, replica = node.learning.train, node.learning.runner.core.replica
            by = np.ones(LAYOUT.size, np.float32)

            async def later(*args: object) -> None:

                def move() -> None:
                    replica.moving()[:] += by

                await node.learning.runner.run(move)
                await train(*args)  # type: ignore[arg-type]

            monkeypatch.setattr(node.learning, "train", later)
            learner = await node.trainee(noise(), pid=2)
            await until(lambda: learner.apply())
            assert np.allclose(learner.vector, noise() + 1)
            await learner.leave()

    asyncio.run(go())
