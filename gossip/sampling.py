"""Whom to talk to next: a shuffled cycle, which meets everyone once per turn.

Against drawing each time anew, a cycle bounds the wait: nobody is left out for two turns, where
independent draws leave somebody out for about n ln n draws.  Over many turns it is uniform, which
the known rates of gossip averaging assume.
"""

from collections.abc import Collection, Sequence
from random import Random

from covey.protocols.identity import PeerId


class Cycle:
    """A shuffled cycle over candidates that may change between any two calls.

    Everyone who stays is returned once per turn.  Newcomers enter the running turn at a random
    place; whoever is missing from the candidates loses its place in it.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._waiting: list[PeerId] = []  # still to come in this turn, in order
        self._met: list[PeerId] = []  # had in this turn, in the order in which they were returned
        self._followed: list[PeerId] = []  # the candidates of the last call

    def next(self, candidates: Sequence[PeerId], exclude: Collection[PeerId] = ()) -> PeerId | None:
        """The next of ``candidates`` that is not in ``exclude``; None if there is none.

        An excluded peer keeps its place: it comes as soon as it is no longer excluded.
        """
        self._follow(candidates)
        excluded = set(exclude)
        chosen = self._take(excluded)
        if chosen is None and self._met:
            # The rest of this turn is excluded: let it wait in front of the next turn.
            self._waiting += self._shuffled()
            chosen = self._take(excluded)
        return chosen

    def _follow(self, candidates: Sequence[PeerId]) -> None:
        if self._followed == candidates:
            return
        self._followed = list(candidates)
        present = set(candidates)
        self._waiting = [peer for peer in self._waiting if peer in present]
        self._met = [peer for peer in self._met if peer in present]
        known = {*self._waiting, *self._met}
        for peer in candidates:  # in the given order: a set's differs from process to process
            if peer not in known:
                known.add(peer)
                self._waiting.insert(self._rng.randrange(len(self._waiting) + 1), peer)

    def _take(self, excluded: set[PeerId]) -> PeerId | None:
        for place, peer in enumerate(self._waiting):
            if peer not in excluded:
                self._met.append(self._waiting.pop(place))
                return peer
        return None

    def _shuffled(self) -> list[PeerId]:
        """Those met, for a new turn; the last one met does not come first again."""
        turn, self._met = self._met, []
        last = turn[-1]
        self._rng.shuffle(turn)
        if turn[0] == last and len(turn) > 1:
            place = self._rng.randrange(1, len(turn))
            turn[0], turn[place] = turn[place], turn[0]
        return turn
