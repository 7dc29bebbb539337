"""The daemon's own membership, a node each: whom it knows is what its probes have told it.

As node/neighbours.py drives it, with probes that travel in virtual time and are lost when the other
is off or cut away.  A node that is off stands still as a machine that sleeps: when it wakes, its
loop is late by all that time and it lets nobody die for that.  All know each other at the start.
Probes are not counted as bytes: they follow the clock, not the model.
"""

from collections.abc import Sequence
from random import Random

from covey.gossip import lineage as lineages
from covey.gossip.membership import Change, Config, Life, Member, Membership
from covey.protocols import PROTOCOL
from covey.protocols.identity import PeerId
from covey.protocols.messages import Phase, Standing
from covey.simulate.agenda import Agenda
from covey.simulate.resident import Resident
from covey.simulate.roster import Reaches

_TURN_S = 0.25  # the longest sleep of a node's loop


class Observer:
    """One node's membership."""

    def __init__(self, resident: Resident, rng: Random) -> None:
        self.resident = resident
        self.instance = rng.randbytes(16)
        self.membership = Membership(resident.core.me, self.instance, Config(), rng)

    @property
    def standing(self) -> Standing:
        """What it says of itself just now."""
        lineage = self.resident.core.lineage
        return Standing(
            self.instance, "", "", PROTOCOL, 0, (), phase=Phase.TRAINING, lineage=lineage
        )

    def hear(self, other: "Observer", said: Standing, now: float, rtt_s: float | None) -> None:
        self._news(self.membership.heard(other.resident.core.me, said, now, rtt_s))

    def miss(self, other: "Observer", now: float) -> None:
        self._news(self.membership.missed(other.resident.core.me, now))

    def turn(self, now: float, lag_s: float) -> list[PeerId]:
        """Whom to probe now."""
        self._news(self.membership.tick(now, lag_s))
        return self.membership.to_probe(now)

    def _news(self, changes: list[Change]) -> None:
        """Let go of an exchange with whoever went silent."""
        for change in changes:
            if change.after is not Life.ALIVE:
                self.resident.failed(change.peer, "silent")


class Probes:
    """A roster of what nodes have found out themselves."""

    def __init__(
        self,
        residents: Sequence[Resident],
        reaches: Reaches,
        rng: Random,
        agenda: Agenda,
        latency_s: float,
    ) -> None:
        self._reaches = reaches
        self._agenda = agenda
        self._latency_s = latency_s
        self._observers = {
            resident.core.me: Observer(resident, Random(rng.getrandbits(64)))
            for resident in residents
        }
        for observer in self._observers.values():
            for other in self._observers.values():
                if other is not observer:
                    observer.hear(other, other.standing, agenda.now, None)
            self._turn_at(observer, agenda.now)

    def renew(self, resident: Resident) -> None:
        """A period begins: what is known is known."""

    def partners(self, resident: Resident) -> Sequence[PeerId]:
        mine = resident.core.lineage
        alive = self._alive(resident)
        return [m.peer for m in alive if lineages.mixable(mine, m.standing.lineage)]

    def elders(self, resident: Resident) -> Sequence[PeerId]:
        mine = resident.core.lineage
        found = [m for m in self._alive(resident) if lineages.should_copy(mine, m.standing.lineage)]
        found.sort(key=lambda member: -member.standing.lineage.age)
        return [member.peer for member in found]

    def _alive(self, resident: Resident) -> list[Member]:
        return self._observers[resident.core.me].membership.alive()

    def _turn_at(self, observer: Observer, planned: float) -> None:
        """A turn of the loop that was due at ``planned``; asleep, it looks again a little later."""

        def turn() -> None:
            now = self._agenda.now
            if not observer.resident.up:
                self._agenda.at(now + _TURN_S, turn)
                return
            for peer in observer.turn(now, now - planned):
                self._probe(observer, self._observers[peer])
            pause_s = min(_TURN_S, max(0.01, observer.membership.deadline() - now))
            self._turn_at(observer, now + pause_s)

        self._agenda.at(max(planned, self._agenda.now), turn)

    def _probe(self, caller: Observer, called: Observer) -> None:
        agenda, began = self._agenda, self._agenda.now
        said, open_ = caller.standing, [True]

        def arrived() -> None:
            if self._reaches(caller.resident, called.resident):
                called.hear(caller, said, agenda.now, None)
                answer = called.standing
                agenda.at(agenda.now + self._latency_s, lambda: answered(answer))

        def answered(answer: Standing) -> None:
            if open_[0] and self._reaches(called.resident, caller.resident):
                open_[0] = False
                caller.hear(called, answer, agenda.now, agenda.now - began)

        def timed_out() -> None:
            if open_[0] and caller.resident.up:
                open_[0] = False
                caller.miss(called, agenda.now)

        agenda.at(began + self._latency_s, arrived)
        agenda.at(began + caller.membership.timeout_s(called.resident.core.me), timed_out)
