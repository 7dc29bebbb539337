"""Which boot of one identity stands, and whether two machines use that identity at once.

A boot is known by its random ``instance``.  A restart brings one never seen before, and the old one
never comes back.  If it does, while the newer one is heard too, a data directory was copied: the
elder boot stands, because it was there first, until one of the two has been silent long enough.
"""

import math
from dataclasses import dataclass, field
from enum import Enum, auto

_REMEMBERED_MAX = 8


class Verdict(Enum):
    STANDS = auto()  # the boot that is known
    NEXT = auto()  # restarted, or back after the other boot was gone
    LATE = auto()  # the last words of the boot before
    ELDER = auto()  # in conflict, and the one to stand
    RIVAL = auto()  # in conflict, and refused


@dataclass(slots=True)
class Boots:
    """The boots of one identity.  Times in seconds."""

    stands: bytes
    overlap_s: float  # in which a boot's last words may arrive after its successor's first
    conflict_s: float  # without a word of the other boot, until a conflict is over
    disputed_at: float | None = None  # when the other boot was last heard; None: no conflict
    _first_heard: dict[bytes, float] = field(default_factory=dict)

    def judge(self, instance: bytes, now: float, gone: bool) -> Verdict:
        """What a word of ``instance`` means; ``gone``: the boot that stands has left or is dead."""
        if instance == self.stands:
            return Verdict.STANDS
        known = instance in self._first_heard
        if gone or not (known or self.disputed_at is not None):
            return Verdict.NEXT
        stands_since = self._first_heard[self.stands]
        if self._first_heard.get(instance, now) >= stands_since:
            return Verdict.RIVAL
        return Verdict.ELDER if now >= stands_since + self.overlap_s else Verdict.LATE

    def adopt(self, instance: bytes, now: float) -> None:
        """``instance`` stands from now on."""
        self.stands = instance
        self._first_heard.setdefault(instance, now)
        while len(self._first_heard) > _REMEMBERED_MAX:
            del self._first_heard[next(i for i in self._first_heard if i != instance)]

    def dispute(self, now: float) -> bool:
        """Another boot was heard.  Returns whether the conflict begins with it."""
        began, self.disputed_at = self.disputed_at is None, now
        return began

    def settled_at(self) -> float:
        """When the conflict is over if the other boot stays silent; inf if there is none."""
        return math.inf if self.disputed_at is None else self.disputed_at + self.conflict_s

    def settle(self, now: float) -> bool:
        """Returns whether a conflict is over with this."""
        over = now >= self.settled_at()
        if over:
            self.disputed_at = None
        return over
