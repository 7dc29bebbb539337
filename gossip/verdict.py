"""Whether the flock has left this node behind, so that it must copy a model to learn on.

After a partition a minority may be so far away that every gate of the majority refuses it, again
and again: from there it looks like a liar.  The minority can tell by how many refuse it.  It takes
two thirds, so that of two halves neither gives way to the other at once.  While it settles it takes
a single refusal of each: nobody's history goes on then, so a gate that is shut stays shut.

Of those that refuse it copies from the nearest: whoever has a model that leads far away is far.
Not twice from one before an exchange has moved us: stragglers would hand theirs to and fro.
"""

from collections.abc import Collection
from math import inf

from covey.gossip.core import Outcome
from covey.protocols.identity import PeerId

_IN_A_ROW = 3  # refusals with one peer: a gate that is only late opens before
_SHARE = 2 / 3
_LEAST = 2  # peers: two that disagree settle it by their histories
_JUDGED = ("", "implausible", "undecoded")  # outcomes that tell how far apart we are


class Verdict:
    """How the last exchanges with each peer ended."""

    def __init__(self) -> None:
        self._refusals: dict[PeerId, int] = {}  # in a row; 0 after one that moved us
        self._distances: dict[PeerId, float] = {}  # when it last refused
        self._copied: set[PeerId] = set()  # the nearest of each time, since an exchange moved us

    def note(self, outcome: Outcome, settling: bool = False) -> None:
        """An exchange has ended; of those that tell how far apart two are, keep how."""
        peer, reason = outcome.peer, outcome.reason
        if reason in _JUDGED:
            more = _IN_A_ROW if settling else 1
            self._refusals[peer] = self._refusals.get(peer, 0) + more if reason else 0
            self._distances[peer] = inf if reason == "undecoded" else outcome.distance
        if not reason:
            self._copied.clear()

    def against(self, partners: Collection[PeerId]) -> list[PeerId]:
        """Those of ``partners`` that keep refusing us, the nearest first, if they are so many that
        we must give way; else nobody.  Those copied from to no avail are left out."""
        met = [peer for peer in partners if peer in self._refusals]
        refusing = [peer for peer in met if self._refusals[peer] >= _IN_A_ROW]
        many = len(refusing) >= max(_LEAST, _SHARE * len(met))
        if not many or 2 * len(met) <= len(partners):
            return []
        return self._untried(refusing)

    def clear(self) -> None:
        """The model is another now: the nearest's, if it was refused."""
        refusing = [peer for peer, times in self._refusals.items() if times >= _IN_A_ROW]
        self._copied.update(self._untried(refusing)[:1])
        self._refusals.clear()
        self._distances.clear()

    def _untried(self, refusing: Collection[PeerId]) -> list[PeerId]:
        """The nearest first."""
        untried = (peer for peer in refusing if peer not in self._copied)
        return sorted(untried, key=self._distances.__getitem__)
