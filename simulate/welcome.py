"""A node that was left behind copies a peer's model, as the daemon's node/welcome.py has it do.

That is one that was off or cut away for so long that its model is less than half as far, or that
nearly everyone refuses again and again.  Copies take time and bytes.
"""

from collections.abc import Callable, Mapping, Sequence

from covey.gossip import lineage as lineages
from covey.gossip.quantiser import Floats
from covey.protocols.identity import PeerId
from covey.protocols.messages import Lineage
from covey.simulate.agenda import Agenda
from covey.simulate.resident import Resident
from covey.simulate.roster import Reaches, Roster
from covey.simulate.scenario import Network

_LOOK_S = 1.0


class Welcome:
    """Keeps nodes in the lineage that stands."""

    def __init__(
        self,
        residents: Mapping[PeerId, Resident],
        roster: Roster,
        reaches: Reaches,
        agenda: Agenda,
        network: Network,
    ) -> None:
        self.copies = 0
        self._residents = residents
        self._roster = roster
        self._reaches = reaches
        self._agenda = agenda
        self._network = network
        self._minded: set[Resident] = set()

    def left_behind(self, resident: Resident) -> bool:
        """Whether it is about to copy a model."""
        return resident in self._minded and bool(self._elders(resident))

    def mind(self, resident: Resident) -> None:
        """From now on, look whether ``resident`` was left behind."""
        self._minded.add(resident)

        def look() -> None:
            elders = self._elders(resident) if resident.up else ()
            if elders:
                self._copy(resident, self._residents[elders[0]], again)
            else:
                again()

        def again() -> None:
            self._agenda.at(self._agenda.now + _LOOK_S, look)

        again()

    def _elders(self, resident: Resident) -> Sequence[PeerId]:
        elders = self._roster.elders(resident)
        return elders or resident.verdict.against(self._roster.partners(resident))

    def _copy(self, resident: Resident, elder: Resident, then: Callable[[], None]) -> None:
        """Ask for ``elder``'s model, wait for it, and take it over; ``then`` in any case."""

        def asked() -> None:
            if not self._reaches(resident, elder):
                then()
                return
            vector, lineage = elder.core.replica.x.copy(), elder.core.lineage
            elder.sent += vector.nbytes
            took_s = vector.nbytes / self._network.bytes_per_s + self._network.latency_s
            self._agenda.at(self._agenda.now + took_s, lambda: arrived(vector, lineage))

        def arrived(vector: Floats, lineage: Lineage) -> None:
            if self._reaches(elder, resident):
                resident.when_idle(lambda: take_over(vector, lineage))
            then()

        def take_over(vector: Floats, lineage: Lineage) -> None:
            refused = resident.verdict.against(self._roster.partners(resident))
            if refused or lineages.should_copy(resident.core.lineage, lineage):
                resident.adopt(vector, lineage)
                self.copies += 1

        # The offer is asked for first: a round trip.
        self._agenda.at(self._agenda.now + 3 * self._network.latency_s, asked)
