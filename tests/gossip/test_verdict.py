"""A minority that drifted away learns that it did; nobody else is told so."""

from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.gossip.config import Config
from covey.gossip.core import Outcome
from covey.gossip.verdict import Verdict
from covey.protocols.identity import PeerId

if TYPE_CHECKING:
    from tests.gossip.conftest import Flock

PEERS = [PeerId(bytes([n]) * 32) for n in range(1, 8)]


def mixed(peer: int) -> Outcome:
    return Outcome(PEERS[peer], distance=1.0, factor=1.0)


def refused(peer: int, distance: float = 1.0, reason: str = "implausible") -> Outcome:
    return Outcome(PEERS[peer], reason, distance=distance)


def judged(refusals: dict[int, int], settling: bool = False) -> Verdict:
    """``refusals``: how often in a row each peer refused."""
    verdict = Verdict()
    for peer, times in refusals.items():
        verdict.note(mixed(peer))
        for _ in range(times):
            verdict.note(refused(peer), settling)
    return verdict


@pytest.mark.parametrize(
    ("refusals", "partners", "against"),
    [
        ({}, 3, []),
        ({0: 9}, 1, []),  # two that disagree settle it by their histories
        ({0: 3, 1: 3}, 2, [0, 1]),
        ({0: 3, 1: 2}, 2, []),  # a gate that is only late opens before
        ({0: 3, 1: 3, 2: 0}, 3, [0, 1]),
        ({0: 3, 1: 0, 2: 0}, 3, []),
        ({0: 3, 1: 3, 2: 3, 3: 0, 4: 0, 5: 0, 6: 0}, 7, []),
        ({0: 3, 1: 3, 2: 3, 3: 3, 4: 0, 5: 0, 6: 0}, 7, []),  # of two halves neither gives way
        ({0: 3, 1: 3, 2: 3, 3: 3, 4: 3, 5: 0, 6: 0}, 7, [0, 1, 2, 3, 4]),
        ({0: 3, 1: 3}, 7, []),  # most were not met yet
        ({0: 3, 1: 3, 2: 3}, 2, [0, 1]),  # who is gone has no voice
    ],
)
def test_when_many_refuse(refusals: dict[int, int], partners: int, against: list[int]) -> None:
    found = judged(refusals).against(PEERS[:partners])
    assert found == [PEERS[n] for n in against]


def test_one_that_moves_us_takes_its_refusals_back() -> None:
    verdict = judged({0: 5, 1: 5})
    verdict.note(mixed(0))
    verdict.note(refused(0))
    assert verdict.against(PEERS[:2]) == []


@pytest.mark.parametrize("reason", ["busy", "timeout", "not_ready", "lineage"])
def test_what_tells_nothing_of_distances_changes_nothing(reason: str) -> None:
    verdict = judged({0: 5, 1: 5})
    for _ in range(5):
        verdict.note(refused(0, reason=reason))
        verdict.note(refused(2, reason=reason))
    assert verdict.against(PEERS[:3]) == PEERS[:2]


def test_the_nearest_comes_first() -> None:
    """By its latest distance; who was too far to be decoded last, however many blocks were."""
    verdict = Verdict()
    for _ in range(3):
        verdict.note(refused(0, 9.0))
        verdict.note(refused(1, 30.0))
        verdict.note(refused(2, 0.1, "undecoded"))
        verdict.note(refused(3, 2.0))
    verdict.note(refused(0, 1.5))
    assert verdict.against(PEERS[:4]) == [PEERS[n] for n in (0, 3, 1, 2)]


@given(st.dictionaries(st.integers(0, 6), st.integers(0, 3)), st.integers(1, 7))
def test_a_refusal_while_settling_is_as_good_as_three(
    refusals: dict[int, int], partners: int
) -> None:
    thrice = {peer: 3 * times for peer, times in refusals.items()}
    found = judged(refusals, settling=True).against(PEERS[:partners])
    assert found == judged(thrice).against(PEERS[:partners])


def test_one_that_moves_us_while_settling_takes_its_refusals_back() -> None:
    verdict = judged({0: 1, 1: 1, 2: 1}, settling=True)
    assert verdict.against(PEERS[:3]) == PEERS[:3]
    verdict.note(mixed(0), settling=True)
    verdict.note(mixed(1), settling=True)
    assert verdict.against(PEERS[:3]) == []


@given(st.lists(st.floats(0, 9), min_size=2, max_size=7, unique=True), st.booleans())
def test_all_are_copied_from_once_until_one_moves_us(
    distances: list[float], settling: bool
) -> None:
    """Stragglers that copied from each other would do so for ever."""
    verdict, partners, copied = Verdict(), PEERS[: len(distances)], []
    for left in range(len(distances), -1, -1):
        for peer, distance in enumerate(distances):
            for _ in range(3):
                verdict.note(refused(peer, distance), settling)
        found = verdict.against(partners)
        assert len(found) == left
        copied += found[:1]
        verdict.clear()
    assert copied == [PEERS[n] for n in np.argsort(distances)]
    verdict.note(mixed(0), settling)
    for peer in range(len(distances)):
        for _ in range(3):
            verdict.note(refused(peer), settling)
    assert len(verdict.against(partners)) == len(distances)


def test_a_copied_model_begins_anew() -> None:
    verdict = judged({0: 5, 1: 5})
    verdict.clear()
    assert verdict.against(PEERS[:2]) == []


@pytest.mark.parametrize("size", [3, 8])
def test_a_minority_that_drifted_copies_and_nobody_else_does(
    flocks: "type[Flock]", size: int
) -> None:
    drifted = set(range(1 if size == 3 else 2))
    flock = flocks(size, 500, 0, Config(), seed=4).scattered(0.01)
    for _ in range(12):
        flock.match()
        for core, moved in zip(flock.cores, flock.moves(0.01), strict=True):
            flock.learn(core, moved)
            core.close_period(partners=20)
    mean = flock.x.mean(axis=0)
    for number in drifted:
        flock.cores[number].replica.moving()[:] += 10
    verdicts, random, copied = [Verdict() for _ in flock.cores], Random(6), set()
    flock.outcomes.clear()
    for _ in range(30 * size):
        a, b = random.sample(range(size), 2)
        flock.exchange(a, b)
        for outcome in flock.outcomes:
            owner = a if outcome.peer == flock.cores[b].me else b
            verdicts[owner].note(outcome)
            others = [core for core in flock.cores if core is not flock.cores[owner]]
            if against := verdicts[owner].against([core.me for core in others]):
                peer = next(core for core in others if core.me == against[0])
                flock.cores[owner].begin(peer.replica.x.copy(), peer.lineage)
                verdicts[owner].clear()
                copied.add(owner)
        flock.outcomes.clear()
    assert copied == drifted
    assert np.abs(flock.x - mean).max() < 0.2
