"""Who is in the swarm, as this node sees it: alive, suspect, dead or left.

Theory of operation.  Every node probes the others itself and believes only what it heard itself,
from an authenticated peer.  It is SWIM (Das, Gupta, Motivala 2002) without hearsay: nobody can talk
a peer to death, so nothing has to be refuted.  Load is constant: at most ``probes_per_s`` probes a
second (probing.py).  With n others each is heard from once in ``interval_s`` = max(1 s, n/4 s), by
its probe or its answer in turn; whoever missed a probe is probed every second until that is clear.

    HEARD      a probe, an answer or a hello, of the boot that is known by its ``instance``
    RESTARTED  the same, of another boot
    GOODBYE    the same, of the known boot, which says that it leaves
    SILENT     nothing for suspect_s, and 3 probes missed in a row or 3 intervals gone by
    EXPIRED    suspect for dead_s (or 1.5 intervals), and a probe missed since: not having asked is
               no evidence, so a stall of this node alone, however long, lets nobody die

A pair that the table lacks changes nothing: a late word of a boot that has left revives nobody.

Slow is not dead (Lifeguard; awareness.py).  Limits run in *awake* time, which leaves out stalls of
this node's own loop, and lag stretches every limit, so that a probe spoiled by a stall is no proof.

A copied data directory gives two machines one identity (boots.py): the elder boot stands, what the
newer says is ignored, and one CONFLICT is reported, as is its end.
"""

import math
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from operator import attrgetter
from random import Random

from covey.gossip.awareness import Awareness
from covey.gossip.boots import Boots, Verdict
from covey.gossip.probing import Pacer, Target
from covey.protocols import limits
from covey.protocols.identity import PeerId
from covey.protocols.messages import Phase, Standing


class Life(StrEnum):
    """What a peer is to this node."""

    ALIVE = "alive"
    SUSPECT = "suspect"  # silent; still a member, but nobody to exchange with now
    DEAD = "dead"
    LEFT = "left"


class Event(Enum):
    """What can happen to a peer; the head of this file says when."""

    HEARD = auto()
    RESTARTED = auto()
    GOODBYE = auto()
    SILENT = auto()
    EXPIRED = auto()


_TALKING = {Event.HEARD: Life.ALIVE, Event.RESTARTED: Life.ALIVE, Event.GOODBYE: Life.LEFT}
TRANSITIONS: dict[Life | None, dict[Event, Life]] = {
    None: {Event.HEARD: Life.ALIVE},
    Life.ALIVE: {**_TALKING, Event.SILENT: Life.SUSPECT},
    Life.SUSPECT: {**_TALKING, Event.EXPIRED: Life.DEAD},
    Life.DEAD: _TALKING,
    Life.LEFT: {Event.RESTARTED: Life.ALIVE},
}
_QUIET = (Life.DEAD, Life.LEFT)


@dataclass(frozen=True, slots=True)
class Config:
    """Times in seconds; tests and simulations may scale them."""

    probe_s: float = 1.0  # between two probes of one peer; memberlist's value for a LAN
    probes_per_s: int = 4  # of this node to all peers together
    suspect_s: float = 3.0  # least silence before a suspicion
    suspect_misses: int = 3  # probes missed in a row, or intervals of silence
    dead_s: float = 5.0  # from suspicion to death
    revive_s: float = 30.0  # the most between two probes of one dead or left: heals partitions
    forget_s: float = 24 * 3600.0  # until one dead or left is forgotten
    lag_s: float = 0.1  # the least lag of the own loop that counts; a full collection takes less
    lag_memory_s: float = 10.0  # in which the stretch for past lag decays
    stretch_max: float = 8.0  # as memberlist's awareness
    timeout_min_s: float = 1.0  # of a probe: a busy peer's scheduler sets it, not the network
    timeout_max_s: float = 2.0
    boot_overlap_s: float = 5.0  # in which the old boot's last messages may still arrive
    conflict_s: float = 60.0  # without a word of the other boot until a conflict is over

    def __post_init__(self) -> None:
        if min(self.probe_s, self.probes_per_s, self.suspect_misses) <= 0:
            raise ValueError("a period, rate or count is above 0")
        if not self.probe_s <= self.suspect_s <= self.dead_s <= self.revive_s <= self.forget_s:
            raise ValueError("probe, suspect, dead, revive and forget come in this order")
        if not 0 < self.timeout_min_s <= self.timeout_max_s or self.stretch_max < 1:
            raise ValueError("timeouts are above 0 and in order, a stretch is at least 1")
        if self.lag_s <= 0 or self.lag_memory_s <= 0 or self.boot_overlap_s >= self.conflict_s:
            raise ValueError("lags are above 0, and a conflict outlasts the overlap of two boots")


class Kind(StrEnum):
    """What a Change tells."""

    LIFE = "life"
    RESTART = "restart"  # a new boot; it may have been ALIVE before
    CONFLICT = "conflict"  # two machines use this identity
    CONFLICT_OVER = "conflict_over"


@dataclass(frozen=True, slots=True)
class Change:
    """News of a peer, or of this node if its own identity is in use elsewhere."""

    peer: PeerId
    before: Life | None  # None: was not known
    after: Life
    why: str
    kind: Kind = Kind.LIFE


@dataclass(frozen=True, slots=True)
class Member:
    """One peer as it is now; times in the caller's clock."""

    peer: PeerId
    life: Life
    standing: Standing  # the last one heard
    since: float  # in this life
    heard_at: float
    rtt_s: float | None  # smoothed; None before the first answer
    instance: bytes
    conflicted: bool


@dataclass(slots=True)
class _Record:
    """A Member in the making; ``_awake`` times are in awake time."""

    standing: Standing
    target: Target
    boots: Boots
    heard_at: float
    heard_awake: float = 0.0
    life: Life | None = None
    since: float = 0.0
    since_awake: float = 0.0
    misses: int = 0  # in a row, since anything was heard
    missed_at: float = -math.inf

    @property
    def peer(self) -> PeerId:
        return self.target.peer

    @property
    def quiet(self) -> bool:
        return self.life in _QUIET

    def member(self) -> Member:
        assert self.life is not None
        said, conflicted = self.standing, self.boots.disputed_at is not None
        times = self.since, self.heard_at, self.target.rtt_s
        return Member(self.peer, self.life, said, *times, said.instance, conflicted)


class Membership:
    """The peers of one node.

    The caller calls ``tick`` by ``deadline`` with the lag of its own loop, probes whom ``to_probe``
    returns for up to ``timeout_s``, and tells the result by ``heard`` or ``missed``.  ``now`` is
    monotonic, in seconds.  A Change is news for logs and events; whatever it says is already so.
    """

    def __init__(self, me: PeerId, instance: bytes, config: Config, rng: Random) -> None:
        self._me = me
        self._boots = Boots(instance, config.boot_overlap_s, config.conflict_s)
        self._config = config
        self._rng = rng
        self._records: dict[PeerId, _Record] = {}
        self._active = 0  # records not quiet
        self._awareness = Awareness(
            config.probe_s, config.lag_s, config.lag_memory_s, config.stretch_max
        )
        given_up_s = 2 * config.timeout_max_s * config.stretch_max
        self._pacer = Pacer(config.probes_per_s, given_up_s, rng)
        self._look_at = math.inf  # when to look for limits that have passed

    def heard(
        self, peer: PeerId, standing: Standing, now: float, rtt_s: float | None = None
    ) -> list[Change]:
        """``peer``, authenticated, said this of itself; ``rtt_s`` if it answered our probe."""
        leaving = standing.phase == Phase.LEFT
        if peer == self._me:
            return [] if leaving else self._heard_myself(standing, now)
        record = self._records.get(peer)
        if record is None:
            if leaving or not self._make_room():
                return []
            record = self._meet(peer, standing, now)
        if rtt_s is not None:
            record.target.answered(rtt_s)
        changes: list[Change] = []
        match record.boots.judge(standing.instance, now, gone=record.life in _QUIET):
            case Verdict.STANDS:
                event = Event.GOODBYE if leaving else Event.HEARD
            case Verdict.NEXT if not leaving:
                event = Event.RESTARTED
            case (Verdict.ELDER | Verdict.RIVAL) as verdict if not leaving:
                if record.boots.dispute(now):
                    changes.append(_conflict(peer, record.life, Kind.CONFLICT))
                if verdict is Verdict.RIVAL:  # which answered a probe of the boot that stands
                    return changes if rtt_s is None else changes + self.missed(peer, now)
                event = Event.HEARD
            case _:  # the last words of a boot that does not stand
                return []
        if event in TRANSITIONS[record.life]:
            changes += self._accept(record, event, standing, now)
            if rtt_s is None and record.life is Life.ALIVE:
                self._pacer.called(record.target, now, self.interval_s)
        return changes + self._look(record, now)

    def missed(self, peer: PeerId, now: float) -> list[Change]:
        """A probe of ``peer`` failed or timed out."""
        if (record := self._records.get(peer)) is None:
            return []
        target = record.target
        began_at, target.began_at = target.began_at, None
        target.unanswered += 1
        record.misses += 1
        record.missed_at = now
        again = (now if began_at is None else began_at) + self._period(record, now)
        target.due = min(target.due, again)
        return self._look(record, now)

    def tick(self, now: float, lag_s: float = 0.0) -> list[Change]:
        """Apply what is due.  ``lag_s``: how late the caller's loop has come to this call."""
        changes: list[Change] = []
        self._awareness.note(now, lag_s)
        if now < self._look_at:
            return changes
        if self._boots.settle(now):
            changes.append(_conflict(self._me, Life.ALIVE, Kind.CONFLICT_OVER))
        self._look_at = self._boots.settled_at()
        for record in list(self._records.values()):
            changes += self._look(record, now)
        if self._records:  # the stretch and the interval move limits, but not far in a period
            self._look_at = min(self._look_at, now + self._config.probe_s)
        return changes

    def to_probe(self, now: float) -> list[PeerId]:
        """Whom to probe now; each is out until ``heard`` with its time, or ``missed``."""
        chosen = self._pacer.take(self._targets(), now)
        for target in chosen:
            target.due = now + self._period(self._records[target.peer], now)
        return [target.peer for target in chosen]

    def deadline(self) -> float:
        """When ``tick`` or ``to_probe`` has something to do at the latest; inf if never."""
        return min(self._look_at, self._pacer.next_at(self._targets()))

    def timeout_s(self, peer: PeerId) -> float:
        """How long to wait for the answer to a probe of ``peer``: as measured, stretched."""
        least, most = self._config.timeout_min_s, self._config.timeout_max_s
        record = self._records.get(peer)
        return self.stretch * (most if record is None else record.target.timeout_s(least, most))

    def members(self) -> list[Member]:
        """Everyone known, by id."""
        return [self._records[peer].member() for peer in sorted(self._records)]

    def alive(self) -> list[Member]:
        """Whom one may exchange with, by id."""
        return [member for member in self.members() if member.life is Life.ALIVE]

    def get(self, peer: PeerId) -> Member | None:
        return self._records[peer].member() if peer in self._records else None

    def introductions(self, to: PeerId, limit: int = limits.PEERS_PER_PROBE_MAX) -> list[Member]:
        """Peers alive to tell ``to`` about: all of them while they are few, else a fair draw."""
        others = [member for member in self.alive() if member.peer != to]
        return others if len(others) <= limit else self._rng.sample(others, limit)

    @property
    def conflicted(self) -> bool:
        """Whether another machine uses this node's own identity."""
        return self._boots.disputed_at is not None

    @property
    def stretch(self) -> float:
        """By how much own lag stretches every limit just now: 1 in health."""
        return self._awareness.stretch

    @property
    def interval_s(self) -> float:
        """Between two probes of one peer that answers."""
        return max(self._config.probe_s, self._active / self._config.probes_per_s)

    def _meet(self, peer: PeerId, standing: Standing, now: float) -> _Record:
        config = self._config
        boots = Boots(standing.instance, config.boot_overlap_s, config.conflict_s)
        target = Target(peer, now + self._rng.random() * self.interval_s)
        record = self._records[peer] = _Record(standing, target, boots, heard_at=now)
        return record

    def _accept(
        self, record: _Record, event: Event, standing: Standing, now: float
    ) -> list[Change]:
        silent = f"{now - record.heard_at:.1f} s"
        why = {
            Event.GOODBYE: "said goodbye",
            Event.RESTARTED: f"restarted, silent for {silent}",
            Event.HEARD: "first heard" if record.life is None else f"heard again after {silent}",
        }[event]
        record.standing = standing
        record.boots.adopt(standing.instance, now)
        record.heard_at, record.heard_awake = now, self._awareness.awake(now)
        record.misses, record.missed_at = 0, -math.inf
        return self._move(record, event, now, why)

    def _heard_myself(self, standing: Standing, now: float) -> list[Change]:
        if standing.instance == self._boots.stands:
            return []
        began = self._boots.dispute(now)
        self._look_at = min(self._look_at, self._boots.settled_at())
        return [_conflict(self._me, Life.ALIVE, Kind.CONFLICT)] if began else []

    def _make_room(self) -> bool:
        """Whether one more may be remembered, if need be in place of whoever is gone longest."""
        if len(self._records) < limits.PEERS_MAX:
            return True
        quiet = [record for record in self._records.values() if record.quiet]
        if quiet:
            del self._records[min(quiet, key=attrgetter("since")).peer]
        return bool(quiet)

    def _limit(self, record: _Record) -> float:
        """When ``record`` changes its life, or is forgotten, if nothing is heard until then."""
        config, stretch = self._config, self.stretch
        if record.quiet:
            return record.since + config.forget_s
        if record.life is Life.ALIVE:
            silent_s = config.suspect_s
            if record.misses < config.suspect_misses * stretch:
                silent_s = max(silent_s, config.suspect_misses * self.interval_s)
            return self._awareness.clock(record.heard_awake + silent_s * stretch)
        if record.missed_at <= record.since:
            return math.inf
        suspect_s = max(config.dead_s, 1.5 * self.interval_s)
        return self._awareness.clock(record.since_awake + suspect_s * stretch)

    def _look(self, record: _Record, now: float) -> list[Change]:
        """Apply what is due to ``record``, and note when to look again."""
        changes: list[Change] = []
        limit = self._limit(record)
        if now >= limit:
            if record.quiet:
                del self._records[record.peer]
                return []
            event = Event.SILENT if record.life is Life.ALIVE else Event.EXPIRED
            why = f"silent for {now - record.heard_at:.1f} s, {record.misses} probes missed"
            changes += self._move(record, event, now, why)
            limit = self._limit(record)
        if record.boots.settle(now):
            changes.append(_conflict(record.peer, record.life, Kind.CONFLICT_OVER))
        self._look_at = min(self._look_at, limit, record.boots.settled_at())
        return changes

    def _move(self, record: _Record, event: Event, now: float, why: str) -> list[Change]:
        before, after = record.life, TRANSITIONS[record.life][event]
        kind = Kind.RESTART if event is Event.RESTARTED else Kind.LIFE
        if before is not after:
            active = before is not None and not record.quiet
            record.life = after
            record.since, record.since_awake = now, self._awareness.awake(now)
            self._active += (not record.quiet) - active
            due, again = record.target.due, now + self._period(record, now)
            record.target.due = again if record.quiet else min(due, again)
        elif kind is Kind.LIFE:
            return []
        return [Change(record.peer, before, after, why, kind)]

    def _targets(self) -> list[Target]:
        return [record.target for record in self._records.values()]

    def _period(self, record: _Record, now: float) -> float:
        """From one probe of ``record`` to the next; all who are quiet share one probe a second."""
        if record.quiet:  # the dead: when dead as long again, so a cut heals within its length
            revive_s, shared_s = self._config.revive_s, float(len(self._records) - self._active)
            dead_s = now - record.since if record.life is Life.DEAD else revive_s
            period_s = max(self._config.probe_s, shared_s, min(dead_s, revive_s))
        elif record.misses or record.life is Life.SUSPECT:
            period_s = self._config.probe_s
        else:
            period_s = self.interval_s
        return self._pacer.jittered(period_s)


def _conflict(peer: PeerId, life: Life | None, kind: Kind) -> Change:
    assert life is not None
    copied = "two machines use this identity: a data directory was copied"
    why = copied if kind is Kind.CONFLICT else "one machine uses this identity now"
    return Change(peer, life, life, why, kind)
