"""The model's home: learners come and go, peers ask, disks fill, nodes restart; nothing is lost."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from blockbuster import blockbuster_ctx

from covey.node.faults import OperatorError
from covey.node.host import learning_config
from covey.node.settings import Settings
from covey.protocols.envelope import Sealer
from covey.protocols.errors import Stale
from covey.protocols.messages import Lineage
from tests.node.hosts import OTHER_LAYOUT, Node, nodes, noise
from tests.node.strangers import STRANGER, ask, proposal
from tests.node.waiting import until


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow beyond 500 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def gone(node: Node, times: int) -> None:
    await until(lambda: node.happened("train.detached") == times)


def kept(folder: Path) -> list[Path]:
    return list((folder / "1" / "checkpoints").glob("*.json"))


def test_before_any_learner_there_is_nothing_to_have(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            assert node.host.layout is None
            assert node.host.lineage == Lineage()
            assert node.host.payload_limit == 0
            assert await node.host.state() is None
            sealed = proposal(node, Sealer(STRANGER, b"s" * 16))
            with pytest.raises(Stale):
                await ask(node, sealed)
            node.host.peer_silent(STRANGER.peer)
            await node.host.save()
        assert not kept(tmp_path)

    asyncio.run(go())


def test_a_model_without_weights_is_not_given_to_anybody(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            node.view.wire.looked_around = False
            learner = await node.learner(noise())
            await until(lambda: node.host.layout is not None)
            assert await node.host.state() is None
            await learner.crash()
        assert not kept(tmp_path)

    asyncio.run(go())


def test_settled_weights_are_what_comes_back(tmp_path: Path) -> None:
    """Settling moves the model without closing a period."""

    async def go() -> None:
        async with nodes(tmp_path, 2) as (one, two):
            learners = [await node.trainee(noise()) for node in (one, two)]
            learners[0].step(1.0)
            learners[0].hand_over()
            await until(lambda: one.learning.tally.outer_steps == 1)
            await one.host.save()
            learners[1].step(2.0)
            await asyncio.gather(*(learner.settled() for learner in learners))
            final = learners[0].vector.copy()
            for learner in learners:
                await learner.leave()
        async with nodes(tmp_path, 2) as (one, two):
            again = await one.trainee(noise(seed=5))
            assert np.array_equal(again.vector, final)
            await again.leave()

    asyncio.run(go())


def test_a_model_that_stands_still_is_saved_once(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            learner = await node.trainee(noise())
            await node.host.save()
            first = node.host.saved_s
            assert first is not None
            await node.host.save()
            assert node.host.saved_s == first
            learner.step(1.0)
            learner.hand_over()
            await until(lambda: node.host.lineage.age == 1)
            await asyncio.gather(node.host.save(), node.host.save())
            assert len(kept(tmp_path)) == 2
            await learner.leave()
        assert len(kept(tmp_path)) == 2

    asyncio.run(go())


def test_it_is_saved_now_and_then(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path, checkpoint_every_s=0.01) as (node,):
            learner = await node.trainee(noise())
            await until(lambda: node.host.saved_s)
            await learner.leave()

    asyncio.run(go())


def test_a_full_disk_stops_nobody_and_is_told_until_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            learner = await node.trainee(noise())
            with full_disk():
                await node.host.save()
                await node.host.save()
                assert await node.host.state() is None
            assert node.host.fault is not None
            assert "cannot write" in node.host.fault.message
            assert len(caplog.messages) == 1
            learner.step(1.0)
            learner.hand_over()
            await until(lambda: learner.consumed)
            await node.host.save()
            assert node.host.fault is None
            assert await node.host.state() is not None
            await learner.leave()

    asyncio.run(go())


def test_another_model_takes_the_place_and_both_are_kept(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            first = await node.trainee(noise())
            first.step(1.0)
            await first.settled()
            await first.leave()
            offer = await node.host.state()
            assert offer is not None
            second = await node.trainee(noise(OTHER_LAYOUT.size), OTHER_LAYOUT, pid=2)
            assert node.host.layout == OTHER_LAYOUT
            assert node.handout.file(offer.digest) is None
            sealed = proposal(node, Sealer(STRANGER, b"s" * 16))
            with pytest.raises(Exception, match="another model"):
                await ask(node, sealed)
            await second.leave()
            third = await node.trainee(noise(seed=3), pid=3)
            assert np.array_equal(third.vector, noise() + 1)
            await third.leave()

    asyncio.run(go())


def test_a_learner_that_is_not_finite_is_turned_away(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            vector = noise()
            vector[5] = np.inf
            learner = await node.learner(vector)
            await until(lambda: learner.rejected)
            assert "not finite" in str(learner.rejected)
            await learner.crash()
            assert not node.host.lineage.founder
            again = await node.trainee(noise(), pid=2)
            await again.leave()

    asyncio.run(go())


def test_one_process_may_attach_again(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            first = await node.trainee(noise())
            first.step(1.0)
            first.hand_over()
            await until(lambda: first.consumed)
            second = await node.trainee(noise(seed=2))
            assert first.rejected is not None
            assert np.array_equal(second.vector, noise() + 1)
            other = await node.learner(noise(), pid=2)
            await until(lambda: other.ended)
            assert other.rejected is not None
            for learner in (first, other):
                await learner.crash()
            await second.leave()

    asyncio.run(go())


def test_coming_and_going_leaves_nothing_behind(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path, 2) as (one, two):
            steady = await two.trainee(noise())
            for number in range(12):
                learner = await one.trainee(noise(seed=number), pid=10 + number)
                learner.step(0.1)
                learner.hand_over()
                await (learner.crash() if number % 2 else learner.leave())
                await gone(one, number + 1)
            await steady.leave()

    asyncio.run(go())


def test_logged_values_show(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            learner = await node.trainee(noise())
            learner.log(loss=0.5)
            await until(lambda: node.learning.tally.values == {"loss": 0.5})
            await learner.leave()

    asyncio.run(go())


def test_closing_in_the_middle_of_everything(tmp_path: Path) -> None:
    """A learner trains, an exchange is open, a joiner fetches; then the node stops."""

    async def go() -> None:
        async with nodes(tmp_path, 2) as (one, two):
            learners = [await node.trainee(noise()) for node in (one, two)]
            held = asyncio.Event()

            async def fate(kind: str) -> str:
                held.set()
                await asyncio.Event().wait()
                return "ok"

            one.view.wire.fate = fate
            learners[0].step(1.0)
            learners[0].hand_over()
            await held.wait()
            offers = asyncio.gather(*(one.host.state() for _ in range(3)))
            await one.link.close()
            await one.host.close()
            assert len(set(await offers)) == 1
            one.host.peer_silent(two.me)
            assert await one.host.state() is None
            for learner in learners:
                await learner.crash()
        async with nodes(tmp_path, 2) as (one, two):
            again = await one.trainee(noise(seed=2))
            assert np.array_equal(again.vector, noise() + 1)
            await again.leave()

    asyncio.run(go())


def test_a_bug_on_the_worker_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            learner = await node.trainee(noise())

            def broken(*_: object, **__: object) -> bool:
                raise ZeroDivisionError("a bug")

            monkeypatch.setattr(node.learning.runner.core, "progress", broken)
            learner.hand_over()
            await until(lambda: node.bugs)
            await (
                learner.crash()
            )  # the bug may be told twice: where it struck and who waited for it
            assert {type(bug) for bug in node.bugs} == {ZeroDivisionError}
            node.bugs.clear()

    asyncio.run(go())


@pytest.mark.filterwarnings("ignore")
def test_a_bug_in_what_the_link_calls_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        async with nodes(tmp_path) as (node,):
            learner = await node.trainee(noise())

            def broken(*_: object) -> None:
                raise ZeroDivisionError("a bug")

            monkeypatch.setattr(node.learning, "snapshot", broken)
            learner.hand_over()
            await until(lambda: node.bugs)
            node.bugs.clear()
            await learner.crash()

    asyncio.run(go())


def test_the_event_loop_is_not_blocked(tmp_path: Path) -> None:
    """By nothing that the host does: files, hashes and vectors are the worker's."""

    async def go() -> None:
        async with nodes(tmp_path, 2) as (one, two):
            first = await one.trainee(noise())
            with blockbuster_ctx(scanned_modules=["covey.node"]):
                await one.host.save()
                second = await two.trainee(noise(seed=2))
                for learner in (first, second):
                    learner.step(1.0)
                    learner.hand_over()
                await asyncio.gather(first.settled(), second.settled())
                assert await one.host.state() is not None
                await one.host._put_away()
                await asyncio.to_thread(one.handout.clear)
            for learner in (first, second):
                await learner.crash()

    asyncio.run(go())


def test_what_the_operator_chose() -> None:
    config = learning_config(Settings(codec="f32", exchanges=3, outer_momentum=0.2, outer_rate=0.9))
    assert (config.algorithm, config.codec, config.exchanges) == ("pair", "f32", 3)
    assert (config.outer.momentum, config.outer.rate) == (0.2, 0.9)
    with pytest.raises(OperatorError, match="drives nodes apart"):
        learning_config(Settings(outer_momentum=0.9, outer_rate=1.5))
