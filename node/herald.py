"""Tells the person at the terminal who comes, goes and is learned with, and whose weights it has.

Follows the event log.  A suspicion is not told, and the same line about a peer comes once a minute
at most; what is true then is told late rather than never.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from covey.node.events import Event, EventLog
from covey.protocols import limits

_QUIET_S = 60.0  # between two equal lines about one peer
_TYPES = (
    *("peer.alive", "peer.dead", "peer.left", "merge.applied"),
    *("train.restored", "train.copied", "train.founded"),
)


def say(text: str) -> None:
    """To standard error: standard output is the script's."""
    print(f"covey: {text}", file=sys.stderr, flush=True)


@dataclass(slots=True)
class _Peer:
    """``told`` is what was said last, ``told_at`` when each of the two was."""

    name: str
    here: bool = False
    why: str = ""  # it is not
    told: bool = False
    told_at: dict[bool, float] = field(default_factory=dict)
    learned: bool = False

    def due_at(self) -> float:
        """When to say whether it is here; inf if that was said."""
        if self.told == self.here:
            return math.inf
        return self.told_at.get(self.here, -math.inf) + _QUIET_S


class Herald:
    """Reads ``events`` and says lines.  Times are seconds of one monotonic clock."""

    def __init__(self, events: EventLog, say: Callable[[str], object] = say) -> None:
        self._events = events
        self._say = say
        self._peers: dict[str, _Peer] = {}  # by short id

    async def run(self) -> None:
        """Until cancelled."""
        after = 0
        while True:
            due_at = min((peer.due_at() for peer in self._peers.values()), default=math.inf)
            pause_s = min(max(0.0, due_at - time.monotonic()), _QUIET_S)
            for event in await self._events.wait(after, _TYPES, pause_s):
                self.note(event, time.monotonic())
                after = event.id
            self.tell(time.monotonic())

    def note(self, event: Event, now: float) -> None:
        """Something has happened.  A gap in the log is passed over."""
        data = event.data
        id = data.get("peer", "")
        match event.type:
            case "peer.alive":
                self._moved(id, data["name"], True, "")
            case "peer.left":
                self._moved(id, data["name"], False, "has left")
            case "peer.dead":
                self._moved(id, data["name"], False, f"is gone: {data['why']}")
            case "merge.applied" if id in self._peers and not self._peers[id].learned:
                self._peers[id].learned = True
                self._say(f"learning with {self._peers[id].name}")
            case "train.restored":
                self._say(f"going on from this node's checkpoint of step {data['step']:,}")
            case "train.copied":
                self._say(f"copied the weights of {self._name(id)}")
            case "train.founded":
                self._say("nobody has weights of this model yet: beginning with the script's")
        self.tell(now)

    def tell(self, now: float) -> None:
        """Say what is due."""
        for peer in self._peers.values():
            if now < peer.due_at():
                continue
            here = "is back" if peer.told_at else "is here"
            self._say(f"{peer.name} {here if peer.here else peer.why}")
            peer.told = peer.here
            peer.told_at[peer.here] = now

    def _name(self, id: str) -> str:
        return self._peers[id].name if id in self._peers else id

    def _moved(self, id: str, name: str, here: bool, why: str) -> None:
        while id not in self._peers and len(self._peers) >= limits.PEERS_MAX:
            del self._peers[next(iter(self._peers))]
        peer = self._peers.setdefault(id, _Peer(""))
        peer.name, peer.here, peer.why = f"{name} ({id})", here, why
