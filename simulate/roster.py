"""Whom a simulated node believes it may exchange with."""

from collections.abc import Callable, Sequence
from random import Random

from covey.protocols.identity import PeerId
from covey.simulate.resident import Resident

_EVERYBODY = 64  # up to so many nodes are known to everyone; beyond, a node knows …
_VIEW = 12  # … so many, drawn anew each period

Reaches = Callable[[Resident, Resident], bool]


class Oracle:
    """Everyone knows at once who is up and within reach."""

    def __init__(self, residents: Sequence[Resident], reaches: Reaches, rng: Random) -> None:
        self._residents = residents
        self._reaches = reaches
        self._rng = rng
        self._views: dict[int, list[Resident]] = {}

    def renew(self, resident: Resident) -> None:
        """A period of ``resident`` begins."""
        if len(self._residents) > _EVERYBODY:
            self._views.pop(resident.number, None)

    def partners(self, resident: Resident) -> Sequence[PeerId]:
        view = self._views.get(resident.number)
        if view is None:
            view = self._views[resident.number] = self._view(resident)
        reaches = self._reaches
        return [other.core.me for other in view if reaches(resident, other)]

    def _view(self, resident: Resident) -> list[Resident]:
        residents = self._residents
        if len(residents) <= _EVERYBODY:
            return [other for other in residents if other is not resident]
        drawn = self._rng.sample(range(len(residents)), _VIEW + 1)
        return [residents[k] for k in drawn if k != resident.number][:_VIEW]
