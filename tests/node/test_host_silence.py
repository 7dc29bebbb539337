"""Peers that open an exchange and say nothing more hold this node's model for a while only."""

import asyncio
from pathlib import Path

import pytest

from covey.protocols.identity import Identity
from covey.protocols.messages import Lineage
from tests.node.hosts import nodes, noise
from tests.node.strangers import STRANGER, hold
from tests.node.waiting import until


def test_a_silent_proposer_is_given_up_also_while_a_model_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy waits for the exchange to end, so it must not be what keeps it from ending."""
    monkeypatch.setattr("covey.node.welcome._LINEAGE_CHECK_S", 0.01)
    monkeypatch.setattr("covey.gossip.patience._FIRST_S", 0.2)

    async def go() -> None:
        async with nodes(tmp_path, 2) as (one, two):
            one.view.wire.silent = {one.me, two.me}
            learners = [await n.trainee(noise(seed=s)) for s, n in enumerate((one, two))]
            core = one.learning.runner.core
            two_core = two.learning.runner.core
            elder = Lineage(two.host.lineage.founder, 1000)
            await two.learning.runner.run(lambda: setattr(two_core, "lineage", elder))
            await hold(one)
            learners[0].step(1.0)
            learners[0].hand_over()
            one.view.wire.silent.clear()
            await until(lambda: core.lineage.founder == elder.founder and not core.busy)
            await until(lambda: learners[0].consumed)
            assert one.learning.tally.reasons == {"silent": 1}
            for learner in learners:
                await learner.crash()

    asyncio.run(go())


def test_the_death_of_a_peer_frees_what_waits_for_it(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            learner = await node.trainee(noise())
            await hold(node)
            learner.step(1.0)
            learner.hand_over()
            await node.learning.runner.run(lambda: None)
            assert not learner.consumed
            node.host.peer_silent(STRANGER.peer)
            await until(lambda: learner.consumed)
            assert node.learning.tally.reasons == {"silent": 1}
            await learner.leave()

    asyncio.run(go())


def test_a_peer_that_hangs_up_in_an_exchange_holds_nobody(tmp_path: Path) -> None:
    async def go() -> None:
        async with nodes(tmp_path) as (node,):
            learner = await node.trainee(noise())
            await hold(node)
            learner.step(1.0)
            learner.hand_over()
            await node.learning.runner.run(lambda: None)
            node.host.hung_up(Identity(b"o" * 32).peer)  # who has no exchange with us
            await node.learning.runner.run(lambda: None)
            assert node.learning.runner.core.busy
            node.host.hung_up(STRANGER.peer)
            await until(lambda: learner.consumed)
            assert node.learning.tally.reasons == {"silent": 1}
            await learner.leave()

    asyncio.run(go())
