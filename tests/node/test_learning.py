"""Periods, increments and settling: whatever comes between, no progress is lost or counted twice.

The vectors hold small whole numbers where that makes every sum exact.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from covey.gossip.config import Config, OuterStep
from covey.gossip.core import Core
from covey.node.learning import pace_s
from covey.protocols.identity import PeerId
from covey.protocols.messages import Phase
from tests.node.hosts import LAYOUT, PLAIN, nodes, noise
from tests.node.learners import move, whole
from tests.node.waiting import until


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


@pytest.mark.parametrize(("spent_s", "wanted_s"), [(0.01, 0.5), (0.2, 2.0), (9.0, 30.0)])
def test_exchanges_take_a_tenth_of_the_time(spent_s: float, wanted_s: float) -> None:
    assert pace_s(spent_s) == pytest.approx(wanted_s), "from half a second to half a minute"


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
            learners[1].step(0.5)
            learners[1].hand_over()
            await until(lambda: two.learning.tally.outer_steps == 1)
            assert two.learning.tally.exchanges == 3, "having been called counts as having called"
            assert one.learning.tally.missed == two.learning.tally.missed == 0
            for learner in learners:
                await learner.leave()

    asyncio.run(go())


def test_a_period_that_nobody_exchanges_in_is_missed(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path, 2, PLAIN) as (one, two):
            learners = [await node.trainee(noise()) for node in (one, two)]
            two.learning._core.accepting = False
            learners[0].hand_over()
            await until(lambda: one.learning.tally.outer_steps == 1)
            assert one.learning.tally.missed == 1
            for learner in learners:
                await learner.leave()

    asyncio.run(go())


def test_who_finds_all_busy_stands_back_for_long_and_else_asks_on(tmp_path: Path) -> None:
    stranger = PeerId(bytes(32))

    async def go(count: int, place: int) -> list[float]:
        """For how long the node with the ``place``-th id stood back, where all others are busy."""
        spans: list[float] = []
        folder = tmp_path / f"{count}-{place}"
        folder.mkdir()
        async with nodes(folder, count, PLAIN) as flock:
            ranked = sorted(flock, key=lambda node: node.me)
            one = ranked.pop(place)
            learners = {node: await node.trainee(noise()) for node in flock}
            learning = one.learning

            async def stand_back(span_s: float) -> None:
                spans.append(span_s)
                if span_s == 99.0:
                    for other in ranked:
                        other.learning._core.failed(stranger, "lost")

            learning._stand_back = stand_back  # type: ignore[method-assign]
            learning._span_s = lambda in_vain: 99.0  # type: ignore[method-assign]
            for other in ranked:
                other.learning._core.open_period(1)
                assert other.learning._core.propose([stranger], 0.0) is not None
            learners[one].hand_over()
            await until(lambda: learning.tally.outer_steps == 1)
            assert learning.tally.exchanges == 1
            for learner in learners.values():
                await learner.leave()
        return spans

    assert asyncio.run(go(2, 0)) == [99.0], "there is nobody else"
    first, second = asyncio.run(go(3, 2))
    assert first < 99.0, "the other may be free, and about to ask us"
    assert second == 99.0
    assert asyncio.run(go(3, 0)) == [99.0], "if both asked, ours would be answered"


def test_settling_begins_with_a_look_back_that_the_learner_gets(tmp_path: Path) -> None:
    async def go() -> None:
        config = replace(PLAIN, outer=OuterStep())
        async with nodes(tmp_path, 2, config) as flock:
            learners = [await node.trainee(noise()) for node in flock]
            moved: list[bool] = []
            for node in flock:
                core = node.learning._core

                def look_back(core: Core = core, made: Callable[[], None] = core.look_back) -> None:
                    before = core.replica.x.copy()
                    made()
                    moved.append(not np.allclose(core.replica.x[:200], before[:200]))

                core.look_back = look_back  # type: ignore[method-assign]
            for learner in learners:
                learner.step(0.5)
            await asyncio.gather(*(learner.settled() for learner in learners))
            assert moved == [True, True]
            for node, learner in zip(flock, learners, strict=True):
                assert not node.learning._core.replica.momentum.any()
                assert np.allclose(learner.vector, node.learning._core.replica.x, atol=1e-6)
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
