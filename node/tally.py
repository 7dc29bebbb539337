"""What became of this node's exchanges, in counts for status, metrics and the event log."""

import time
from dataclasses import dataclass, field

from covey.gossip.core import Outcome
from covey.node.events import EventLog
from covey.protocols.errors import Forged, Malformed, Stale, TooLarge, Unsupported
from covey.protocols.identity import PeerId
from covey.protocols.link import LOG_VALUES_MAX

# A peer's faults are counted where they are caught, with those outside of exchanges.
_FAULTS = {kind.reason for kind in (Malformed, TooLarge, Unsupported, Forged, Stale)}


@dataclass(slots=True)
class Tally:
    """Exchanges are those completed, in either role; distances are relative to |x|."""

    exchanges: int = 0
    busy: int = 0
    failed: int = 0
    outer_steps: int = 0
    missed: int = 0  # of these, with no exchange in them or in the one before
    last_merge_s: float | None = None  # epoch
    last_peer: PeerId | None = None
    distance: float | None = None  # smoothed
    trend: float | None = None
    apart: dict[PeerId, float] = field(default_factory=dict)  # when last met
    reasons: dict[str, int] = field(default_factory=dict)  # of exchanges that moved nothing
    per_peer: dict[PeerId, int] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)  # what the script logged last
    steps_per_s: float | None = None

    def count(self, outcome: Outcome, distance: float, events: EventLog) -> None:
        """An exchange has ended; ``distance`` is 0 if it did not come so far, or they agreed."""
        if distance or not outcome.reason:
            self._note_distance(outcome.peer, distance)
        if not outcome.reason:
            self.exchanges += 1
            self.per_peer[outcome.peer] = self.per_peer.get(outcome.peer, 0) + 1
            self.last_merge_s, self.last_peer = time.time(), outcome.peer
        elif outcome.reason == "busy":
            self.busy += 1
            return  # too common for an event
        else:
            self.failed += 1
            if outcome.reason not in _FAULTS:
                self.reasons[outcome.reason] = self.reasons.get(outcome.reason, 0) + 1
        events.emit(
            "merge.none" if outcome.reason else "merge.applied",
            peer=outcome.peer.short,
            reason=outcome.reason,
            detail=outcome.detail,
            distance=outcome.distance,
            factor=outcome.factor,
            proposed=outcome.proposed,
        )

    def note_values(self, values: dict[str, float]) -> None:
        """The script logged these; of ever new names only the last are kept."""
        for name, value in values.items():
            self.values.pop(name, None)
            self.values[name] = value
        while len(self.values) > LOG_VALUES_MAX:
            del self.values[next(iter(self.values))]

    def _note_distance(self, peer: PeerId, distance: float) -> None:
        self.apart[peer] = distance
        before = self.distance
        self.distance = distance if before is None else 0.5 * before + 0.5 * distance
        self.trend = None if before is None else self.distance - before
