"""Watches honest nodes among attackers: does any exchange move one farther than it allows?"""

from collections.abc import Callable
from typing import ClassVar

from covey.gossip.core import Outgoing
from covey.gossip.mixing import norm
from covey.protocols.identity import PeerId
from covey.simulate.attackers import attackers_of
from covey.simulate.resident import Resident
from covey.simulate.scenario import Scenario
from covey.simulate.workload import Workload
from covey.simulate.world import World, peer_id


class Watched(Resident):
    """An honest node.  ``pushes``: how far the exchanges with each peer moved its parameters at
    most, in units of half its clip bound when the exchange opened."""

    pushes: dict[PeerId, float]

    def receive(self, sender: PeerId, out: Outgoing) -> Outgoing:
        note = self._watch(sender)
        try:
            return super().receive(sender, out)
        finally:
            note()

    def answered(self, answer: Outgoing, then: Callable[[Outgoing | None], None]) -> None:
        note = self._watch(answer.peer)
        super().answered(answer, then)
        note()

    def _watch(self, peer: PeerId) -> Callable[[], None]:
        """Look now; what is returned looks again and takes down what changed."""
        replica = self.core.replica
        before = replica.x[: replica.parameters].copy()
        allowed = self.core._bounds().parameters.clip / 2

        def note() -> None:
            moved = norm(replica.x[: replica.parameters], before)
            if moved:
                self.pushes[peer] = max(self.pushes.get(peer, 0.0), moved / allowed)

        return note


class WatchedWorld(World):
    """A world whose honest nodes are watched."""

    honest_kind: ClassVar[type[Resident]] = Watched

    def __init__(self, scenario: Scenario, workload: Workload) -> None:
        super().__init__(scenario, workload)
        self._liars = {peer_id(number) for number in attackers_of(scenario)}
        self._watched = [r for r in self.residents if isinstance(r, Watched)]  # those who flip too
        for resident in self._watched:
            resident.pushes = {}

    @property
    def pushed(self) -> float:
        """The most that an attacker moved anybody; 1 is as far as was allowed."""
        honest = [r for r in self._watched if r.core.me not in self._liars]
        pushes = (r.pushes.get(liar, 0.0) for r in honest for liar in self._liars)
        return max(pushes, default=0.0)
