"""Two learners and more: the sum is conserved, settled models agree, a broken exchange frees x."""

import asyncio
from pathlib import Path
from random import Random

import numpy as np
import pytest

from covey.gossip.config import Config
from covey.protocols import link
from covey.protocols.messages import Phase
from tests.node.hosts import LAYOUT, Learner, Vector, nodes, noise
from tests.node.learners import move, whole
from tests.node.waiting import until


async def _chaos(rng: Random, learners: list[Learner], seed: int) -> Vector:
    """Random moves of two learners; returns the sum of their local steps."""
    progress = np.zeros(LAYOUT.size, np.float32)
    for number in range(120):
        learner = rng.choice(learners)
        progress += await move(rng, learner, 1000 * seed + number)
    return progress


@pytest.mark.parametrize("seed", range(6))
def test_two_nodes_conserve_the_sum(tmp_path: Path, seed: int) -> None:
    """x1 + x2 moves by progress alone, whatever the exchanges and whoever proposes them."""

    async def go() -> None:
        rng = Random(seed)
        start = whole(seed)
        async with nodes(tmp_path, 2) as pair:
            learners = [await node.trainee(start.copy()) for node in pair]
            total = 2 * start + await _chaos(rng, learners, seed)
            await asyncio.gather(*(learner.settled() for learner in learners))
            vectors = [await node.x() for node in pair]
            scale = float(np.abs(total).max())
            assert np.allclose(vectors[0] + vectors[1], total, atol=1e-4 * scale)
            assert sum(node.learning.tally.exchanges for node in pair) > 2
            for node, learner in zip(pair, learners, strict=True):
                assert np.allclose(await node.x(), learner.vector, atol=1e-5 * scale)
                await learner.leave()

    asyncio.run(go())


@pytest.mark.parametrize("seed", range(4))
def test_two_nodes_conserve_the_sum_when_messages_are_lost(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost request is a lost opportunity; only a lost last answer would move one side alone."""
    for name in ("_FIRST_S", "_LEAST_S", "_MOST_S"):  # before an accepter gives its proposer up
        monkeypatch.setattr(f"covey.gossip.patience.{name}", 0.01)

    async def go() -> None:
        rng = Random(seed)
        start = whole(seed)
        async with nodes(tmp_path, 2) as pair:

            async def fate(kind: str) -> str:
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
                return "lost" if rng.random() < (0.1 if kind == "Commit" else 0.4) else "ok"

            pair[0].view.wire.fate = fate
            learners = [await node.trainee(start.copy()) for node in pair]
            total = 2 * start + await _chaos(rng, learners, seed)
            await asyncio.gather(*(learner.settled() for learner in learners))
            vectors = [await node.x() for node in pair]
            scale = float(np.abs(total).max())
            assert np.allclose(vectors[0] + vectors[1], total, atol=1e-4 * scale)
            assert any(node.learning.tally.failed for node in pair)
            for learner in learners:
                await learner.leave()

    asyncio.run(go())


def test_settled_learners_agree(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path, 3, Config()) as three:
            learners = [await node.trainee(noise()) for node in three]
            for number, learner in enumerate(learners):
                learner.step(0.01 * noise(seed=number))
            reports = await asyncio.gather(*(learner.settled() for learner in learners))
            assert all(report.peers for report in reports)
            mean = sum(learner.vector for learner in learners) / 3
            for learner in learners:
                assert np.linalg.norm(learner.vector - mean) < 0.005 * np.linalg.norm(mean)
                await learner.leave()

    asyncio.run(go())


def test_settling_ends_although_the_partner_vanishes(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path, 2) as (one, two):
            learners = [await node.trainee(noise()) for node in (one, two)]

            async def fate(kind: str) -> str:
                one.view.wire.silent.add(two.me)
                return "lost"

            one.view.wire.fate = fate
            learners[0].step(1.0)
            report = await learners[0].settled()
            assert report.exchanges == 0
            assert np.array_equal(await one.x(), learners[0].vector)
            for learner in learners:
                await learner.leave()

    asyncio.run(go())


def test_a_learner_that_goes_while_it_settles(tmp_path: Path) -> None:
    """And the exchange that was under way does not hold the model for ever."""

    async def go() -> None:
        async with nodes(tmp_path, 2) as (one, two):
            learners = [await node.trainee(noise()) for node in (one, two)]
            held = asyncio.Event()

            async def fate(kind: str) -> str:
                held.set()
                await asyncio.Event().wait()
                return "lost"

            one.view.wire.fate = fate
            learners[0].hand_over()
            learners[0].settle()
            await held.wait()
            assert one.learning.runner.core.busy
            await learners[0].crash()
            await until(lambda: one.learning.phase is Phase.PAUSED)
            await until(lambda: not one.learning.runner.core.busy)
            learner = await one.trainee(noise(seed=9), pid=2)
            await learner.leave()
            await learners[1].leave()

    asyncio.run(go())


@pytest.mark.parametrize("depth", range(1, 7))
def test_cancelling_an_exchange_at_any_message_frees_the_model(tmp_path: Path, depth: int) -> None:
    """``depth`` messages pass before the learner is gone."""

    async def go() -> None:
        async with nodes(tmp_path, 2, Config()) as (one, two):
            learners = [await node.trainee(noise()) for node in (one, two)]
            passed, held = 0, asyncio.Event()

            async def fate(kind: str) -> str:
                nonlocal passed
                passed += 1
                if passed >= depth:
                    held.set()
                    await asyncio.Event().wait()
                return "ok"

            one.view.wire.fate = fate
            while not held.is_set():
                learners[0].step(0.1)
                learners[0].hand_over()
                await until(lambda: learners[0].consumed or held.is_set())
            await learners[0].crash()
            await until(lambda: one.learning.phase is Phase.PAUSED)
            await one.learning.runner.run_idle(lambda: None)
            await learners[1].leave()

    asyncio.run(go())


def test_a_node_without_a_learner_goes_on_answering(tmp_path: Path) -> None:
    """One whose learner crashed holds its place; one whose learner left is out of it."""

    async def go() -> None:
        async with nodes(tmp_path, 2) as (one, two):
            learners = [await node.trainee(noise()) for node in (one, two)]
            await learners[1].crash()
            await until(lambda: two.learning.phase is Phase.PAUSED)
            before = one.learning.tally.exchanges
            learners[0].step(1.0)
            learners[0].hand_over()
            await until(lambda: one.learning.tally.exchanges > before)
            assert np.allclose(await one.x(), await two.x())
            again = await two.trainee(noise(), pid=2)
            await again.leave()
            await until(lambda: two.learning.phase is Phase.IDLE)
            learners[0].hand_over()
            await until(lambda: learners[0].consumed)
            assert one.learning.tally.failed == 0  # nobody was asked
            await learners[0].leave()

    asyncio.run(go())


def test_what_the_last_exchange_brought_comes_before_the_end(tmp_path: Path) -> None:
    """Also when it ends while nothing seems to be left."""

    async def go() -> None:
        async with nodes(tmp_path, 2, Config(codec="f32", settle_exchanges=0)) as (one, two):
            first, second = [await node.trainee(whole(1)) for node in (one, two)]
            committed = asyncio.Event()

            async def fate(kind: str) -> str:
                if kind == "Commit":
                    committed.set()
                    await until(lambda: not one.learning._core.accepting)
                return "ok"

            one.view.wire.fate = fate
            second.step(whole(2))
            second.hand_over()
            await committed.wait()
            first.settle()
            await until(lambda: first.report is not None)
            assert first.heard[-2:] == [link.Increment, link.SettledReport]
            first.apply()
            assert np.allclose(first.vector, await one.x(), atol=1e-5)
            for learner in (first, second):
                await learner.leave()

    asyncio.run(go())
