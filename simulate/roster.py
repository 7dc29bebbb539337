"""Whom a simulated node believes it may exchange with.

In a small flock where nodes go off or the network is cut, that is what its own probes have told it
(probes.py).  Otherwise an oracle tells: in a calm flock probes would say the same, and a large one
would do little else than probe.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from covey.gossip import lineage as lineages
from covey.protocols.identity import PeerId
from covey.simulate.resident import Resident

_EVERYBODY = 64  # up to so many nodes are known to everyone; beyond, a node knows …
_VIEW = 12  # … so many, drawn anew each period

Reaches = Callable[[Resident, Resident], bool]


class Roster(Protocol):
    """What nodes know of each other."""

    def renew(self, resident: Resident) -> None:
        """A period of ``resident`` begins."""

    def partners(self, resident: Resident) -> Sequence[PeerId]:
        """Whom it may average with."""

    def elders(self, resident: Resident) -> Sequence[PeerId]:
        """Whose model it must copy, the eldest first."""


class Oracle:
    """Everyone knows at once who is up and within reach; in a ``calm`` flock that never changes."""

    def __init__(
        self, residents: Sequence[Resident], reaches: Reaches, rng: Random, calm: bool = False
    ) -> None:
        self._residents = residents
        self._reaches = reaches
        self._rng = rng
        self._calm = calm
        self._views: dict[int, list[Resident]] = {}
        self._reached: dict[int, list[PeerId]] = {}  # of those views, while calm

    def renew(self, resident: Resident) -> None:
        """A period of ``resident`` begins."""
        if len(self._residents) > _EVERYBODY:
            self._views.pop(resident.number, None)
            self._reached.pop(resident.number, None)

    def partners(self, resident: Resident) -> Sequence[PeerId]:
        found = self._reached.get(resident.number)
        if found is None:
            known, reaches = self._known(resident), self._reaches
            if not self._calm:
                return [other.core.me for other in known if reaches(resident, other)]
            found = [other.core.me for other in known if other.up]  # nothing else is in the way
            self._reached[resident.number] = found
        return found

    def elders(self, resident: Resident) -> Sequence[PeerId]:
        mine = resident.core.lineage
        reached = [other for other in self._known(resident) if self._reaches(resident, other)]
        found = [other for other in reached if lineages.should_copy(mine, other.core.lineage)]
        found.sort(key=lambda other: -other.core.lineage.age)
        return [other.core.me for other in found]

    def _known(self, resident: Resident) -> list[Resident]:
        view = self._views.get(resident.number)
        if view is None:
            view = self._views[resident.number] = self._view(resident)
        return view

    def _view(self, resident: Resident) -> list[Resident]:
        residents = self._residents
        if len(residents) <= _EVERYBODY:
            return [other for other in residents if other is not resident]
        drawn = self._rng.sample(range(len(residents)), _VIEW + 1)
        return [residents[k] for k in drawn if k != resident.number][:_VIEW]
