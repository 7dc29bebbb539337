"""Sampling: everyone once per turn, whoever comes, goes or is excluded."""

from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.gossip.sampling import Cycle
from covey.protocols.identity import PeerId

PEERS = [PeerId(n.to_bytes(32, "big")) for n in range(40)]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
def test_everyone_once_per_turn(count: int) -> None:
    cycle, peers = Cycle(Random(1)), PEERS[:count]
    turns = [[cycle.next(peers) for _ in peers] for _ in range(20)]
    assert all(set(turn) == set(peers) for turn in turns)
    if count > 3:
        assert len({tuple(turn) for turn in turns}) > 10
    flat = [peer for turn in turns for peer in turn]
    assert count == 1 or all(a != b for a, b in pairwise(flat))


def test_nobody_and_nobody_allowed() -> None:
    cycle = Cycle(Random(1))
    assert cycle.next([]) is None
    assert cycle.next(PEERS[:2], exclude=PEERS[:2]) is None
    assert cycle.next(PEERS[:1], exclude=[]) == PEERS[0]
    assert cycle.next([]) is None


def test_excluded_peer_comes_once_it_may() -> None:
    for seed in range(20):
        cycle, peers = Cycle(Random(seed)), PEERS[:5]
        for _ in range(30):
            assert cycle.next(peers, exclude=[PEERS[0]]) != PEERS[0]
        assert cycle.next(peers) == PEERS[0]


def test_others_are_met_again_while_the_rest_is_excluded() -> None:
    cycle, peers = Cycle(Random(3)), PEERS[:3]
    first = cycle.next(peers)
    others = [peer for peer in peers if peer != first]
    assert [cycle.next(peers, exclude=others) for _ in range(3)] == [first] * 3


def test_newcomer_joins_the_running_turn() -> None:
    for seed in range(50):
        cycle = Cycle(Random(seed))
        met = [cycle.next(PEERS[:10]) for _ in range(5)]
        met += [cycle.next(PEERS[:11]) for _ in range(6)]
        assert set(met) == set(PEERS[:11])


def test_uniform_over_many_turns() -> None:
    """Pairs that follow each other are uniform too: chi-squared far below its 0.999 quantile."""
    cycle, peers = Cycle(Random(4)), PEERS[:8]
    drawn = [cycle.next(peers) for _ in range(8 * 7 * 500)]
    counts = Counter(drawn)
    assert set(counts.values()) == {7 * 500}
    followed = Counter(pair for pair in pairwise(drawn))
    expected = (len(drawn) - 1) / (8 * 7)
    assert len(followed) == 8 * 7
    assert sum((n - expected) ** 2 / expected for n in followed.values()) < 93.2  # 55 degrees


def test_same_seed_same_draws() -> None:
    one, other = Cycle(Random(5)), Cycle(Random(5))
    assert [one.next(PEERS) for _ in range(90)] == [other.next(PEERS) for _ in range(90)]


PRESENT = st.lists(st.sampled_from(PEERS[:8]), unique=True)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(PRESENT, st.sets(st.sampled_from(PEERS[:8]))), max_size=60), st.integers()
)
def test_any_history_returns_who_may_be_and_starves_nobody(
    steps: list[tuple[list[PeerId], set[PeerId]]], seed: int
) -> None:
    cycle = Cycle(Random(seed))
    waited: Counter[PeerId] = Counter()
    for candidates, excluded in steps:
        chosen = cycle.next(candidates, excluded)
        allowed = set(candidates) - excluded
        assert (chosen in allowed) if allowed else chosen is None
        for peer in PEERS[:8]:
            waited[peer] = waited[peer] + 1 if peer in allowed and peer != chosen else 0
            assert waited[peer] < 2 * 60
    # From any state, everyone is met within two turns.
    met = [cycle.next(PEERS[:8]) for _ in range(15)]
    assert set(met) == set(PEERS[:8])
