"""Membership under any history: the table holds, nobody dies unasked, one identity is one boot."""

from hypothesis import given, settings
from hypothesis import strategies as st

from covey.gossip.membership import TRANSITIONS, Change, Kind, Life
from covey.protocols.identity import PeerId
from covey.protocols.messages import Phase
from tests.gossip.worlds import LAN, lone, peer_id, standing

_GONE = (Life.DEAD, Life.LEFT)
STEP = st.tuples(
    st.sampled_from(["heard", "answered", "left", "missed", "tick", "probe"]),
    st.integers(0, 4),  # peer; 0 is this node
    st.integers(1, 3),  # boot
    st.sampled_from([0.0, 0.01, 0.4, 1.0, 3.0, 6.0, 40.0, 90_000.0]),  # time to the step
    st.sampled_from([0.0, 0.05, 0.3, 2.0, 1e6]),  # reported lag
)


@settings(max_examples=300)
@given(st.lists(STEP, max_size=80), st.integers(0, 2**32))
def test_any_history_follows_the_table(
    steps: list[tuple[str, int, int, float, float]], seed: int
) -> None:
    membership, now = lone(seed=seed), 0.0
    lives: dict[PeerId, Life] = {}
    missed_at: dict[PeerId, float] = {}
    suspected_at: dict[PeerId, float] = {}
    for what, number, boot, wait_s, lag_s in steps:
        now += wait_s
        peer = peer_id(number)
        changes: list[Change] = []
        if what == "heard":
            changes = membership.heard(peer, standing(boot), now)
        elif what == "answered":
            changes = membership.heard(peer, standing(boot), now, 0.002)
        elif what == "left":
            changes = membership.heard(peer, standing(boot, Phase.LEFT), now)
        elif what == "missed":
            missed_at[peer] = now
            changes = membership.missed(peer, now)
        elif what == "tick":
            changes = membership.tick(now, lag_s)
        elif what == "probe":
            probed = membership.to_probe(now)
            assert len(probed) == len(set(probed)) <= LAN.probes_per_s
        known = {member.peer: member for member in membership.members()}
        lives = {peer: life for peer, life in lives.items() if peer in known or life not in _GONE}
        for change in changes:
            assert change.why
            if change.peer == peer_id(0) or change.kind in (Kind.CONFLICT, Kind.CONFLICT_OVER):
                continue
            before = lives.get(change.peer)
            assert change.before is before
            assert change.after in TRANSITIONS[before].values()
            lives[change.peer] = change.after
            if change.after is Life.SUSPECT:
                suspected_at[change.peer] = now
            if change.after is Life.DEAD:
                assert missed_at[change.peer] > suspected_at[change.peer]
                assert now - suspected_at[change.peer] >= LAN.dead_s
        assert {peer: member.life for peer, member in known.items()} == lives
        assert all(member.peer != peer_id(0) for member in known.values())
        assert 1.0 <= membership.stretch <= LAN.stretch_max
        assert LAN.timeout_min_s <= membership.timeout_s(peer) <= 16.0


# --- one identity, two machines -------------------------------------------------------------------


def test_copied_identity_is_reported_once_and_the_elder_stands() -> None:
    membership, twin = lone(), peer_id(1)
    elder, newer = standing(1), standing(2)
    changes: list[tuple[float, Change]] = []
    for second in range(120):
        for offset, said in ((0.0, elder), (0.5, newer)):
            now = second + offset
            if said is newer and second < 10:
                continue
            changes += [(now, change) for change in membership.heard(twin, said, now, 0.001)]
            changes += [(now, change) for change in membership.tick(now)]
    kinds = [change.kind for _, change in changes]
    assert kinds == [Kind.LIFE, Kind.RESTART, Kind.CONFLICT]
    assert changes[2][0] - changes[1][0] <= LAN.boot_overlap_s + 1.0
    member = membership.get(twin)
    assert member is not None
    assert (member.instance, member.conflicted) == (elder.instance, True)
    # The elder stops; the newer one may stand after the elder's death, and the conflict ends.
    for second in range(120, 240):
        now = float(second)
        changes += [(now, change) for change in membership.tick(now)]
        changes += [(now, change) for change in membership.heard(twin, newer, now, 0.001)]
    assert [change.kind for _, change in changes[3:]] == [
        Kind.LIFE,  # suspect
        Kind.LIFE,  # dead
        Kind.RESTART,
        Kind.CONFLICT_OVER,
    ]
    member = membership.get(twin)
    assert member is not None
    assert (member.instance, member.conflicted) == (newer.instance, False)


def test_last_words_of_the_boot_before_are_no_conflict() -> None:
    membership = lone()
    membership.heard(peer_id(1), standing(1), 0.0)
    assert membership.heard(peer_id(1), standing(2), 1.0)[0].kind is Kind.RESTART
    assert membership.heard(peer_id(1), standing(1), 1.01, 0.5) == []
    assert membership.heard(peer_id(1), standing(1, Phase.LEFT), 1.02) == []
    member = membership.get(peer_id(1))
    assert member is not None
    assert (member.life, member.instance) == (Life.ALIVE, standing(2).instance)


def test_restart_loop_is_no_conflict_and_forgets_boots() -> None:
    membership = lone()
    for boot in range(1000):
        for change in membership.heard(peer_id(1), standing(boot + 1), float(boot)):
            assert change.kind in (Kind.LIFE, Kind.RESTART)


def test_return_to_the_old_machine_after_the_new_one_left_is_no_conflict() -> None:
    membership = lone()
    membership.heard(peer_id(1), standing(1), 0.0)
    membership.heard(peer_id(1), standing(2), 1.0)
    membership.heard(peer_id(1), standing(2, Phase.LEFT), 100.0)
    (change,) = membership.heard(peer_id(1), standing(1), 200.0)
    assert (change.kind, change.after) == (Kind.RESTART, Life.ALIVE)


def test_own_identity_elsewhere_is_reported() -> None:
    membership = lone()
    assert membership.heard(peer_id(0), standing(99), 0.0) == []  # our own address
    assert membership.heard(peer_id(0), standing(5, Phase.LEFT), 0.5) == []
    (change,) = membership.heard(peer_id(0), standing(5), 1.0)
    assert (change.peer, change.kind) == (peer_id(0), Kind.CONFLICT)
    assert membership.conflicted
    assert membership.heard(peer_id(0), standing(5), 2.0) == []
    assert 60.0 < membership.deadline() <= 62.0
    assert membership.tick(61.9) == []
    (change,) = membership.tick(62.0)
    assert change.kind is Kind.CONFLICT_OVER
    assert not membership.conflicted
    assert membership.members() == []
