"""One model goes round: who trains it, and that no death, loss or split ends or doubles it."""

from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.gossip.config import Config
from covey.gossip.core import Core
from covey.gossip.relay import Relay, Role
from covey.protocols.errors import Malformed, Unsupported
from covey.protocols.messages import (
    ExchangeMessage,
    Handover,
    Lineage,
    Noted,
    Onward,
    Refuse,
    Settled,
    Taken,
    Turn,
)
from tests.gossip.relays import POINTS, Node, World
from tests.gossip.test_learning import PARAMETERS, School

if TYPE_CHECKING:
    from tests.gossip.conftest import Flock

CONFIG = Config(algorithm="relay")
Flocks = type["Flock"]
# The bounds that gossip/relay.py's numbers give, when a visit takes a second or two.
WATCHED_S = 15.0  # a holder's death: it is noticed, the watcher's next period comes
UNWATCHED_S = 140.0  # the watcher's too: until somebody misses the model


def of(core: Core) -> Relay:
    assert isinstance(core, Relay)
    return core


# --- in virtual time -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 9])
@pytest.mark.parametrize("spread", [1.0, 5.0])
def test_one_model_visits_the_nodes_in_turn(size: int, spread: float) -> None:
    world = World(size, seed=size, spread=spread)
    visited: list[int] = []

    def note(caller: Node, called: Node, message: ExchangeMessage, point: str) -> None:
        if isinstance(message, Handover) and point == "heard":
            visited.append(called.number)

    world.fate = note
    world.run(100 * spread)
    assert len(world.holders()) <= 1
    assert max(node.core.turn.number for node in world.nodes) == 1, "it was issued once"
    assert world.furthest() > 30
    for here, there in pairwise(visited[2 * size :]):  # by then all have begun
        assert there == here % size + 1
    newest = max(world.nodes, key=lambda node: node.core.lineage.age)
    shares = newest.x[1 : size + 1]
    assert shares.max() - shares.min() <= 1, "each has trained it as often as any other"


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("kind", [Handover, Onward])
@pytest.mark.parametrize("victims", ["caller", "called", "both"])
def test_a_death_at_any_point_of_a_message_ends_nothing(
    victims: str, kind: type, point: str
) -> None:
    for which in (1, 4, 9):  # the first hand-over, one of the first round, a later one
        world = World(5, seed=which)
        left, furthest = which, 0

        def strike(caller: Node, called: Node, message: ExchangeMessage, where: str) -> None:
            nonlocal left, furthest
            if isinstance(message, kind) and where == point and left:
                left -= 1
                if not left:
                    furthest = world.furthest()  # noqa: B023
                    for node in (caller, called):
                        if victims == "both" or node is (caller if victims == "caller" else called):
                            node.die()

        world.fate = strike
        world.run(120)
        assert not left
        assert world.longest_without <= (UNWATCHED_S if victims == "both" else WATCHED_S)
        assert len(world.holders()) <= 1
        lost = 2 if victims == "both" else 1  # the visits of those who died
        assert world.furthest() >= furthest - lost + 5
        dead = {node.number for node in world.nodes if not node.alive}
        newest = max(world.living(), key=lambda node: node.core.lineage.age)
        went_on = [newest.x[n.number] for n in world.living()]
        assert min(went_on) > max(newest.x[number] for number in dead)


def test_the_holder_dies_again_and_again() -> None:
    world = World(8, seed=3)
    for _ in range(6):
        world.run(40)
        furthest = world.furthest()
        for holder in world.holders():
            holder.die()
            assert world.furthest() >= furthest - 1
    world.run(60)
    assert world.longest_without <= WATCHED_S
    assert world.furthest() > 60


@settings(max_examples=40)
@given(
    size=st.integers(2, 7),
    loss=st.sampled_from([0.0, 0.1, 0.4]),
    spread=st.sampled_from([1.0, 6.0]),
    seed=st.integers(0, 2**32),
)
def test_losses_and_deaths_at_any_time(size: int, loss: float, spread: float, seed: int) -> None:
    """Two models of one generation there are never: the world checks that after each event."""
    world = World(size, seed, spread)
    world.loss = loss
    world.run(60)
    for _ in range(size - 1):
        world.rng.choice(list(world.living())).die()
        world.run(world.rng.uniform(1, 40))
    world.loss = 0.0
    before = world.furthest()
    world.run(150)
    assert world.furthest() > before + 5, "whoever is left goes on"
    assert world.longest_without <= UNWATCHED_S + 20
    assert len({node.core.turn.generation for node in world.living() if world.holds(node)}) <= 1


def test_of_two_halves_that_meet_again_one_model_goes_on() -> None:
    world = World(6, seed=2)
    world.run(60)
    world.parted = lambda a, b: (a.number <= 2) != (b.number <= 2)
    world.run(120)
    assert len({node.core.turn.generation for node in world.nodes}) == 2
    furthest = world.furthest()
    world.parted = lambda a, b: False
    world.run(60)
    assert len({node.core.turn.generation for node in world.nodes}) == 1
    assert len(world.holders()) <= 1
    assert world.furthest() >= furthest + 20, "the one that was further"


def test_a_node_without_a_learner_is_passed_over() -> None:
    world = World(4, seed=2)
    world.run(30)
    world.nodes[1].trains = False  # perhaps while it holds the model
    world.run(80)
    before = [node.core.lineage.age for node in world.nodes]
    world.run(40)
    after = [node.core.lineage.age for node in world.nodes]
    assert min(after[i] - before[i] for i in (0, 2, 3)) > 10
    world.nodes[1].trains = True
    world.run(30)
    assert world.nodes[1].core.lineage.age > max(before)


def test_a_node_that_comes_late_is_visited_too() -> None:
    world = World(4, seed=2)
    late = world.nodes[0]
    late.alive, late.died_at = False, -100.0
    world.run(30)
    late.alive = True
    world.after(0, late.period)
    world.run(30)
    assert len(world.holders()) <= 1
    assert late.core.lineage.age > 20
    assert max(node.core.turn.number for node in world.nodes) == 1


def test_settling_takes_the_model_to_all() -> None:
    world = World(5, seed=2)
    world.run(60)
    for node in world.nodes:
        node.settling = True
    world.run(15)
    assert len({node.x.tobytes() for node in world.nodes}) == 1
    assert np.array_equal(world.nodes[0].learner, world.nodes[0].x)


# --- one node ------------------------------------------------------------------------------------


def holding(flock: "Flock") -> tuple[Relay, Relay]:
    """Two nodes, the first of which has trained the model and is to hand it over."""
    a, b = map(of, flock.cores[:2])
    for core in (a, b):
        core.open_period()
        assert core.propose([] if core is a else [a.me], 0.0) is None
        core.close_period(partners=20)
        flock.hand_over(core)
    assert (a.role, b.role) == (Role.HOLDING, Role.WAITING)
    flock.learn(a, np.ones(len(a.replica.x), np.float32))
    a.open_period()
    return a, b


def test_a_hand_over_gives_the_model_exactly(flocks: Flocks) -> None:
    flock = flocks(2, 60, 5, CONFIG, seed=1).scattered()
    a, b = holding(flock)
    assert flock.propose(a)
    assert a.busy
    with pytest.raises(AssertionError, match="held"):
        a.progress(a.replica.learner, applied=False)
    flock.run()
    assert (a.role, b.role, a.lineage.age, b.lineage.age) == (Role.WATCHING, Role.HOLDING, 1, 1)
    assert np.array_equal(a.replica.x, b.replica.x)
    assert [(o.reason, o.proposed) for o in flock.outcomes] == [("", True), ("", False)]
    assert flock.outcomes[0].distance == flock.outcomes[1].distance > 0


def test_steps_from_elsewhere_do_not_count(flocks: Flocks) -> None:
    flock = flocks(2, 60, 5, CONFIG, seed=1).scattered()
    a, b = holding(flock)
    flock.propose(a)
    flock.run()
    came = b.replica.x.copy()
    for _ in range(2):  # it has not been given the model yet, and then only in between
        flock.learn(b, np.full(65, 3, np.float32))
        assert np.array_equal(b.replica.x, came)
        flock.hand_over(b)
        assert np.allclose(b.replica.learner, came, atol=1e-5)
    flock.learn(b, np.full(65, 3, np.float32))
    assert np.allclose(b.replica.x, came + 3, atol=1e-5)
    assert b.lineage.age == 2
    flock.learn(a, np.full(65, 3, np.float32))
    assert np.array_equal(a.replica.x, came), "the one that watches keeps its copy"


def test_a_refusal_leaves_the_model_here(flocks: Flocks) -> None:
    flock = flocks(3, 60, 0, CONFIG, seed=1).scattered()
    a, b = holding(flock)
    b.accepting = False
    turn = a.turn
    assert flock.propose(a, [b])
    flock.run()
    assert (a.role, a.turn, a.due) == (Role.HOLDING, turn, 1)
    c = of(flock.cores[2])
    assert flock.propose(a, [b, c]), "and another is asked"
    flock.run()
    assert (a.role, b.role, c.role) == (Role.HOLDING, Role.WAITING, Role.WAITING)
    assert [o.reason for o in flock.outcomes] == ["not_ready"] * 2, "it has not begun to train"


def test_without_an_answer_the_generation_is_higher(flocks: Flocks) -> None:
    flock = flocks(2, 60, 0, CONFIG, seed=1).scattered()
    a, b = holding(flock)
    flock.tamper = lambda flight: flight if flight.request else None
    flock.propose(a)
    flock.run()
    assert (a.role, b.role) == (Role.HOLDING, Role.HOLDING)
    assert a.turn.generation > b.turn.generation
    x = b.replica.x.copy()
    for _ in range(2):
        flock.hand_over(b)
        flock.learn(b, np.full(60, 3, np.float32))
    assert b.lineage.age == 2
    flock.tamper = lambda flight: flight
    assert flock.propose(a)
    flock.run()
    assert (a.role, b.role) == (Role.WATCHING, Role.HOLDING)
    assert a.turn.generation == b.turn.generation
    assert np.allclose(b.replica.x, x + 3, atol=1e-5), "what it has learned meanwhile stays"


def test_the_lower_generation_is_discarded_and_its_holder_waits(flocks: Flocks) -> None:
    flock = flocks(2, 60, 0, CONFIG, seed=1).scattered()
    a, b = holding(flock)
    b.turn = Turn(7, bytes(16), 3)
    x = b.replica.x.copy()
    flock.propose(a)
    flock.run()
    assert (a.role, b.role) == (Role.WAITING, Role.WAITING)
    assert np.array_equal(b.replica.x, x)
    assert [o.reason for o in flock.outcomes] == ["outdated"]


def test_a_repeated_hand_over_changes_nothing(flocks: Flocks) -> None:
    flock = flocks(2, 60, 0, CONFIG, seed=1).scattered()
    a, b = holding(flock)
    out = a.propose([b.me], 0.0)
    assert out is not None
    for _ in range(2):
        made = b.receive(a.me, out.message, out.payload, 0.0)
        assert made is not None
        assert isinstance(made.message, Taken)
        b.role = Role.WATCHING  # it has been handed on meanwhile
    assert b.role is Role.WATCHING


def test_a_model_that_is_not_finite_is_not_kept_from_the_others(flocks: Flocks) -> None:
    flock = flocks(2, 60, 0, CONFIG, seed=1).scattered()
    a, b = holding(flock)
    a._trained = False
    assert not a.progress(a.replica.learner * np.float32("nan"), applied=True)
    a.open_period()
    assert flock.propose(a, [b])


def test_messages_that_nobody_asked_for(flocks: Flocks) -> None:
    flock = flocks(3, 60, 0, CONFIG, seed=1).scattered()
    a, b = holding(flock)
    for message in (Taken(bytes(16), 0.0), Noted(bytes(16)), Refuse(bytes(16), "lineage")):
        assert a.receive(b.me, message, b"", 0.0) is None
    made = a.receive(b.me, Onward(bytes(16), Turn(9, bytes(16), 9)), b"", 0.0)
    assert made is not None
    assert isinstance(made.message, Noted)
    assert a.role is Role.HOLDING
    out = a.propose([b.me], 0.0)
    assert out is not None
    assert a.receive(flock.cores[2].me, Taken(out.message.exchange, 0.0), b"", 0.0) is None
    generation = a.turn.generation
    with pytest.raises(Unsupported):
        a.receive(b.me, Settled(out.message.exchange, 1.0), b"", 0.0)
    assert not a.busy
    assert a.role is Role.HOLDING
    assert a.turn.generation > generation, "it may have been taken"


@settings(max_examples=200)
@given(payload=st.binary(max_size=300))
def test_any_payload_is_taken_or_refused(flocks: Flocks, payload: bytes) -> None:
    flock = flocks(2, 40, 5, CONFIG, seed=2).scattered()
    a, b = holding(flock)
    handover = Handover(bytes(16), Turn(9, bytes(16), 1), a.lineage)
    with suppress(Malformed):
        b.receive(a.me, handover, payload, 0.0)
    assert np.isfinite(b.replica.x).all()
    assert b.role is Role.WAITING or len(payload) == 180


def test_a_new_model_has_no_turn(flocks: Flocks) -> None:
    flock = flocks(2, 60, 0, CONFIG, seed=1).scattered()
    a, _ = holding(flock)
    flock.propose(a)
    a.begin(np.ones(60, np.float32), Lineage(b"f" * 32))
    assert (a.role, a.turn, a.lineage.age, a.busy) == (Role.WAITING, Turn(), 0, False)


# --- learning ------------------------------------------------------------------------------------


def test_it_learns_what_no_node_knows_alone(flocks: Flocks) -> None:
    flock = flocks(4, PARAMETERS, 0, CONFIG, seed=3)
    learners = School(flock, seed=5)
    for _ in range(300):
        flock.now += 1
        for core, shard in zip(flock.cores, learners.shards, strict=True):
            flock.learn(core, shard.descend(core.replica.learner, 1))
            core.open_period()
        flock.mingle()
        for core in flock.cores:
            core.close_period(partners=20)
            flock.hand_over(core)
    assert learners.alone < 0.3
    assert np.mean(learners.accuracies) > learners.alone + 0.3
