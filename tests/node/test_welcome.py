"""Which weights a learner starts from: its own, a peer's, the node's, or those it founds with."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from covey.gossip.core import Outcome
from covey.node.welcome import Welcome
from covey.protocols.messages import Lineage, Phase, StateOffer
from tests.node.hosts import LAYOUT, Node, nodes, noise
from tests.node.waiting import until


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_NEWS_S", "_LINEAGE_CHECK_S", "_RETRY_S"):
        monkeypatch.setattr(f"covey.node.welcome.{name}", 0.01)


async def grow_old(node: Node, age: int) -> None:
    """As if ``node`` had closed so many periods."""
    core = node.learning.runner.core

    def grow() -> None:
        core.lineage = Lineage(core.lineage.founder, age)

    await node.learning.runner.run(grow)


async def looked(node: Node) -> None:
    """Wait until it has looked for elders many times."""
    many = node.view.looks + 20
    await until(lambda: node.view.looks >= many)


async def lost(kind: str) -> str:
    return "lost"


def test_whoever_is_alone_founds(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            learner = await node.trainee(noise())
            assert not learner.replaced
            assert np.array_equal(await node.x(), noise())
            assert learner.lineage == node.host.lineage
            assert node.happened("train.founded") == node.happened("train.started") == 1
            assert node.view.consulted == 1
            await learner.leave()

    asyncio.run(go())


def test_nobody_founds_before_it_has_looked_around(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            node.view.wire.looked_around = False
            learner = await node.learner(noise())
            await until(lambda: node.host.learning is not None)
            await until(lambda: node.learning.phase is Phase.JOINING)
            await looked(node)
            assert learner.lineage is None
            node.view.wire.looked_around = True
            await learner.started()
            await learner.leave()

    asyncio.run(go())


def test_of_two_that_wait_the_least_founds(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path, 2) as pair:
            least, other = sorted(pair, key=lambda node: node.me)
            least.view.wire.looked_around = False
            learners = [await n.learner(noise(seed=s)) for s, n in enumerate((least, other))]
            await until(lambda: all(n.host.learning is not None for n in pair))
            await until(lambda: all(n.learning.phase is Phase.JOINING for n in pair))
            least.view.wire.looked_around = True
            for learner in learners:
                await learner.started()
                assert np.array_equal(learner.vector, noise(seed=0))
            assert not learners[0].replaced
            assert learners[1].replaced
            assert other.happened("train.copied") == 1
            assert other.happened("train.founded") == 0
            for learner in learners:
                await learner.leave()

    asyncio.run(go())


def test_a_late_joiner_starts_from_the_flocks_weights(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path, 2) as (one, two):
            first = await one.trainee(noise())
            for _ in range(5):
                first.step(1.0)
                first.hand_over()
                await until(lambda: first.consumed)
            second = await two.trainee(noise(seed=2))
            assert np.array_equal(second.vector, await one.x())
            assert two.learning.step == one.learning.step == 5
            assert two.host.lineage.founder == one.host.lineage.founder
            for learner in (first, second):
                await learner.leave()

    asyncio.run(go())


@pytest.mark.parametrize("yields", [0, 1])
def test_two_that_founded_apart_find_together(tmp_path: Path, yields: int) -> None:
    """The elder's weights stand; what the other trained since its last snapshot is added."""

    async def go() -> None:
        async with nodes(tmp_path, 2) as pair:
            wire = pair[0].view.wire
            wire.silent = {node.me for node in pair}
            learners = [await node.trainee(noise(seed=s)) for s, node in enumerate(pair)]
            await grow_old(pair[1 - yields], 100)
            giving, taking = learners[1 - yields], learners[yields]
            taking.step(1.0)
            wire.silent.clear()
            await until(lambda: taking.pending)
            taking.apply()
            assert np.allclose(taking.vector, giving.vector + 1, atol=1e-6)
            assert taking.lineage is not None
            assert giving.lineage is not None
            assert taking.lineage.founder == giving.lineage.founder
            assert pair[yields].happened("train.copied") == 1
            for learner in learners:
                await learner.leave()

    asyncio.run(go())


def test_two_young_flocks_do_not_swap(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path, 2) as pair:
            wire = pair[0].view.wire
            wire.silent = {node.me for node in pair}
            learners = [await node.trainee(noise(seed=s)) for s, node in enumerate(pair)]
            wire.silent.clear()
            await until(lambda: pair[0].host.lineage.founder == pair[1].host.lineage.founder)
            for node in pair:
                await looked(node)
            assert sum(node.happened("train.copied") for node in pair) == 1
            for learner in learners:
                await learner.leave()

    asyncio.run(go())


def test_a_joiner_waits_for_an_elder_that_cannot_give_its_weights_now(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path, 2) as (one, two):
            first = await one.trainee(noise())
            one.view.wire.fate = lost
            second = await two.learner(noise(seed=2))
            await until(lambda: two.happened("train.copy_failed"))
            assert two.learning.phase is Phase.JOINING
            assert "waits for the weights of" in two.learning.reason
            assert second.lineage is None

            async def ok(kind: str) -> str:
                return "ok"

            one.view.wire.fate = ok
            await second.started()
            assert np.array_equal(second.vector, noise())
            assert not two.learning.reason
            for learner in (first, second):
                await learner.leave()

    asyncio.run(go())


def test_an_elder_that_fails_is_asked_ever_more_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("covey.node.welcome._RETRY_S", 3.0)

    async def go() -> None:
        async with nodes(tmp_path, 2) as (one, two):
            first = await one.trainee(noise())
            one.view.wire.fate = lost
            second = await two.learner(noise(seed=2))
            await until(lambda: two.happened("train.copy_failed"))
            await looked(two)
            assert two.happened("train.copy_failed") == 1
            await second.crash()
            await first.leave()

    asyncio.run(go())


def _lie(offer: StateOffer, path: Path, how: str) -> StateOffer:
    if how == "longer":
        return StateOffer(offer.digest, offer.length + 4, offer.lineage, offer.step)
    vector = np.frombuffer(path.read_bytes(), np.float32).copy()
    vector[7] = np.nan
    path.write_bytes(vector.tobytes())
    return offer


@pytest.mark.parametrize("how", ["longer", "not finite"])
def test_an_elder_that_gives_nonsense_holds_up_nobody(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        async with nodes(tmp_path, 2) as (one, two):
            first = await one.trainee(noise())
            offer = await one.host.state()
            assert offer is not None
            path = one.handout.file(offer.digest)
            assert path is not None
            false = _lie(offer, path, how)

            async def state() -> StateOffer:
                return false

            monkeypatch.setattr(one.host, "state", state)
            second = await two.trainee(noise(seed=2))
            assert np.array_equal(second.vector, noise(seed=2))
            assert two.happened("train.founded") == 1
            assert [error.reason for error in two.view.rejections] == ["malformed"]
            for learner in (first, second):
                await learner.leave()

    asyncio.run(go())


def test_a_node_with_a_model_waits_for_no_broken_elder(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path, 2) as (one, two):
            first = await one.trainee(noise())
            second = await two.trainee(noise(), pid=1)
            await second.crash()
            await until(lambda: two.learning.phase is Phase.PAUSED)
            one.view.wire.fate = lost
            await grow_old(one, 1000)
            third = await two.trainee(noise(seed=3), pid=2)
            assert np.array_equal(third.vector, noise())
            assert two.happened("train.copy_failed") >= 1
            for learner in (first, third):
                await learner.leave()

    asyncio.run(go())


@pytest.mark.parametrize("clean", [True, False])
def test_a_learner_that_goes_while_it_waits(tmp_path: Path, clean: bool) -> None:
    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            node.view.wire.looked_around = False
            learner = await node.learner(noise())
            await until(lambda: node.host.learning is not None)
            await (learner.leave() if clean else learner.crash())
            await until(lambda: node.happened("train.detached"))
            assert node.learning.phase is Phase.IDLE  # there is nothing to hold
            assert not node.host.lineage.founder
            node.view.wire.looked_around = True
            again = await node.trainee(noise(seed=2), pid=2)
            assert np.array_equal(again.vector, noise(seed=2))
            await again.leave()

    asyncio.run(go())


def test_a_joiner_that_goes_while_it_copies(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path, 2) as (one, two):
            first = await one.trainee(noise())
            held = asyncio.Event()

            async def hold(kind: str) -> str:
                held.set()
                await asyncio.Event().wait()
                return "ok"

            one.view.wire.fate = hold
            second = await two.learner(noise(seed=2))
            await held.wait()
            await second.crash()
            await until(lambda: two.happened("train.detached"))
            await first.leave()

    asyncio.run(go())


def test_weights_that_were_outrun_meanwhile_are_not_taken(tmp_path: Path) -> None:
    """It took long to fetch them, and this node's lineage stands by now."""

    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            learner = await node.trainee(noise())
            assert isinstance(node.host._welcome, Welcome)
            theirs = Lineage(b"\xff" * 32, 0)
            offer = StateOffer(b"d" * 32, 4 * LAYOUT.size, theirs, 7)
            await grow_old(node, 100)
            assert not await node.host._welcome._take_over(noise(seed=2), offer)
            assert np.array_equal(await node.x(), noise())
            await learner.leave()

    asyncio.run(go())


def refusal_of(peer: Node) -> Outcome:
    return Outcome(peer.me, "implausible", "far", distance=1.0)


def test_a_node_that_the_flock_left_behind_copies(tmp_path: Path) -> None:
    """Its gate and the others' would refuse each other for good."""

    async def go() -> None:
        async with nodes(tmp_path, 3) as three:
            learners = [await node.trainee(noise()) for node in three]
            await until(lambda: all(len(node.learning._partners()) == 2 for node in three))
            lost = three[0]
            learners[0].step(100.0)
            for peer in three[1:]:
                lost.learning.mixed([refusal_of(peer)] * 3)
            await until(lambda: lost.happened("train.copied") == 1)
            assert np.allclose(await lost.x(), noise(), atol=1e-3)
            assert not lost.learning.left_behind_by()
            for learner in learners:
                await learner.leave()

    asyncio.run(go())


def test_a_node_left_behind_to_the_end_copies_before_it_has_settled(tmp_path: Path) -> None:
    """Else its learner would end with what all the others refused."""

    async def go() -> None:
        async with nodes(tmp_path, 3) as three:
            learners = [await node.trainee(noise()) for node in three]
            await until(lambda: all(len(node.learning._partners()) == 2 for node in three))
            lost = three[0]
            cores = [node.learning.runner.core for node in three]
            for peer, core in zip(three[1:], cores[1:], strict=True):
                core.accepting = False  # no exchange could help
                lost.learning.mixed([refusal_of(peer)] * 3)
            learners[0].step(100.0)
            settled = asyncio.create_task(learners[0].settled())
            await until(lambda: lost.happened("train.copied") == 1)
            for core in cores[1:]:
                core.accepting = True
            await settled
            assert np.allclose(learners[0].vector, noise(), atol=1e-3)
            for learner in learners:
                await learner.leave()

    asyncio.run(go())
