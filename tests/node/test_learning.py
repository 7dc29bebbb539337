"""Periods, increments and settling: whatever comes between, no progress is lost or counted twice.

The vectors hold small whole numbers where that makes every sum exact.
"""

import asyncio
from pathlib import Path
from random import Random

import numpy as np
import pytest

from covey.gossip.config import Config
from covey.protocols.messages import Phase
from tests.node.hosts import LAYOUT, PLAIN, Learner, Vector, nodes, noise, until


def whole(seed: int, most: int = 8) -> Vector:
    """Whole numbers, so that sums of them are exact in any order."""
    rng = np.random.default_rng(seed)
    return rng.integers(-most, most, LAYOUT.size).astype(np.float32)


async def move(rng: Random, learner: Learner, seed: int) -> Vector:
    """One random move of a learner; returns its local step."""
    step = np.zeros(LAYOUT.size, np.float32)
    match rng.choice(["step", "step", "hand over", "hand over", "apply", "wait", "rest"]):
        case "step":
            step = whole(seed)
            learner.step(step)
        case "hand over":
            learner.hand_over()
        case "apply":
            learner.apply()
        case "wait":
            await until(lambda: learner.consumed)
        case _:
            await asyncio.sleep(0)
    return step


@pytest.mark.parametrize("seed", range(12))
def test_alone_a_learner_trains_as_if_there_were_no_node(tmp_path: Path, seed: int) -> None:
    """Also under the default outer step: with nobody to learn from it does nothing."""

    async def go() -> None:
        rng = Random(seed)
        plain = whole(seed)
        async with nodes(tmp_path, 1, Config()) as (node,):
            learner = await node.trainee(plain.copy())
            for number in range(rng.randrange(60)):
                plain += await move(rng, learner, 1000 * seed + number)
                assert np.array_equal(learner.vector, plain)
            report = await learner.settled()
            assert np.array_equal(learner.vector, plain)
            assert np.array_equal(await node.x(), plain)
            assert learner.increments == 0
            assert (report.exchanges, report.peers, report.distance_relative) == (0, 0, None)
            await learner.leave()

    asyncio.run(go())


@pytest.mark.parametrize("seed", range(12))
def test_what_moves_x_reaches_the_learner_once(tmp_path: Path, seed: int) -> None:
    """Increments and snapshots cross each other in every way."""

    async def go() -> None:
        rng = Random(seed)
        total = whole(seed)
        async with nodes(tmp_path) as (node,):
            learner = await node.trainee(total.copy())
            for number in range(60):
                total += await move(rng, learner, 1000 * seed + number)
                if rng.random() < 0.3:
                    by = whole(1000 * seed + number + 500)
                    total += by
                    await node.nudge(by)
            await learner.settled()
            assert np.array_equal(learner.vector, total)
            assert np.array_equal(await node.x(), total)
            assert learner.increments > 0
            await learner.leave()

    asyncio.run(go())


@pytest.mark.parametrize("seed", range(6))
def test_a_snapshot_taken_before_an_increment_was_added(tmp_path: Path, seed: int) -> None:
    """The learner hands over, then adds, and the node hears of both in one breath."""

    async def go() -> None:
        total = whole(seed)
        async with nodes(tmp_path) as (node,):
            learner = await node.trainee(total.copy())
            for number in range(10):
                by, step = whole(number), whole(100 + number)
                await node.nudge(by)
                await until(lambda: learner.pending is not None)
                learner.step(step)
                assert learner.hand_over()
                assert learner.apply()
                total += by + step
                await until(lambda: learner.consumed)
            await learner.settled()
            assert np.array_equal(learner.vector, total)
            assert np.array_equal(await node.x(), total)
            await learner.leave()

    asyncio.run(go())


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


def test_a_crashed_learner_loses_only_what_it_never_handed_over(tmp_path: Path) -> None:
    async def go() -> None:
        start = whole(1)
        async with nodes(tmp_path) as (node,):
            learner = await node.trainee(start.copy())
            learner.step(3.0)
            learner.hand_over()
            await until(lambda: learner.consumed)
            learner.step(5.0)
            await learner.crash()
            await until(lambda: node.learning.phase is Phase.PAUSED)
            assert "goodbye" in node.learning.reason
            again = await node.trainee(np.zeros(LAYOUT.size, np.float32), pid=2)
            assert again.replaced
            assert np.array_equal(again.vector, start + 3.0)
            await again.leave()
            await until(lambda: node.learning.phase is Phase.IDLE)

    asyncio.run(go())


def test_an_increment_that_a_crash_left_behind_is_not_lost(tmp_path: Path) -> None:
    async def go() -> None:
        start, by = whole(1), whole(2)
        async with nodes(tmp_path) as (node,):
            learner = await node.trainee(start.copy())
            await node.nudge(by)
            await until(lambda: learner.pending)
            await learner.crash()
            await until(lambda: node.learning.phase is Phase.PAUSED)
            again = await node.trainee(start.copy(), pid=2)
            assert np.array_equal(again.vector, start + by)
            again.step(1.0)
            await again.settled()
            assert np.array_equal(again.vector, start + by + 1)
            assert np.array_equal(await node.x(), start + by + 1)
            await again.leave()

    asyncio.run(go())


def test_progress_that_is_not_finite_is_not_shared(tmp_path: Path) -> None:
    async def go() -> None:
        start = whole(1)
        async with nodes(tmp_path) as (node,):
            learner = await node.trainee(start.copy())
            learner.vector[3] = np.inf
            learner.hand_over()
            await until(lambda: learner.consumed)
            assert np.array_equal(await node.x(), start)
            await until(lambda: "not finite" in node.learning.reason)
            assert node.happened("train.error") == 1
            learner.vector[:] = start + 2
            learner.hand_over()
            await until(lambda: learner.consumed and not node.learning.reason)
            assert np.array_equal(await node.x(), start + 2)
            await learner.leave()

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


def test_a_learner_gets_another_model_while_it_trains(tmp_path: Path) -> None:
    """What it trains meanwhile is added to the new one."""

    async def go() -> None:
        mine, theirs = whole(1), whole(2)
        async with nodes(tmp_path) as (node,):
            learner = await node.trainee(mine.copy())
            learner.step(1.0)
            learner.hand_over()
            await until(lambda: learner.consumed)
            learner.step(2.0)
            core = node.learning.runner.core
            await node.learning.runner.run_idle(lambda: core.begin(theirs, core.lineage))
            node.learning.adopted()
            await until(lambda: learner.pending)
            learner.step(4.0)
            learner.hand_over()  # before it takes the other model
            learner.apply()
            await learner.settled()
            assert np.array_equal(learner.vector, theirs + 6)
            assert np.array_equal(await node.x(), theirs + 6)
            await learner.leave()

    asyncio.run(go())


def test_periods_are_counted_and_paced(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path, 2, PLAIN) as (one, two):
            learners = [await node.trainee(noise()) for node in (one, two)]
            for _ in range(3):
                learners[0].step(0.5)
                learners[0].hand_over()
                await until(lambda: learners[0].consumed)
            await until(lambda: one.learning.tally.outer_steps == 3)
            tally = one.learning.tally
            assert tally.exchanges == 3
            assert tally.per_peer == {two.me: 3}
            assert tally.last_peer == two.me
            assert two.learning.tally.exchanges == 3
            assert two.learning.tally.outer_steps == 0
            assert one.learning.step == 3
            assert learners[0].pace_s is not None
            assert learners[0].pace_s >= 0.5
            for learner in learners:
                await learner.leave()

    asyncio.run(go())


def test_a_lone_period_is_no_outer_step(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            learner = await node.trainee(noise())
            learner.hand_over()
            await until(lambda: learner.pace_s is not None)
            assert node.learning.tally.outer_steps == 0
            assert node.learning.lineage.age == 1
            await learner.leave()

    asyncio.run(go())
