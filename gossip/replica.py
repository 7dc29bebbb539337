"""One node's copy of the model: the vector it owns and what is kept beside it.

``x`` is exchanged; ``slow`` is x after the last outer step and ``momentum`` that step's (parameters
only; buffers are plainly averaged); ``learner`` is what the learner has, as far as the node knows.
"""

from dataclasses import dataclass

import numpy as np

from covey.gossip import mixing
from covey.gossip.config import OuterStep
from covey.gossip.quantiser import Floats, blocks_in
from covey.protocols.layout import Layout

_THERE, _NEAR, _ELSEWHERE = 0, 1, 2  # at x, or some steps away that did not count; at another model
_HISTORY = 9  # exchanges whose largest differences make the typical one of a block


@dataclass(frozen=True, slots=True)
class Saved:
    """What a checkpoint keeps: float32 vectors of the layout's size and of its parameters."""

    x: Floats
    slow: Floats
    momentum: Floats

    @classmethod
    def fresh(cls, vector: Floats, parameters: int) -> "Saved":
        """The beginning of a model: at ``vector``, at rest."""
        return cls(vector, vector[:parameters], np.zeros(parameters, np.float32))


class Replica:
    """Vectors of one layout, and the operations that move them."""

    def __init__(self, layout: Layout) -> None:
        self.parameters = layout.parameters
        self.x: Floats = np.zeros(layout.size, np.float32)
        self.learner: Floats = np.zeros(layout.size, np.float32)
        self.slow: Floats = np.zeros(layout.parameters, np.float32)
        self.momentum: Floats = np.zeros(layout.parameters, np.float32)
        self._unapplied: Floats | None = None  # an increment the learner has yet to apply
        self._apart = _ELSEWHERE  # where the learner trains on from
        self._joins = False  # the outstanding increment takes it to x
        self._movement: Floats = np.zeros(blocks_in(layout.parameters), np.float32)
        self._history: Floats = np.zeros((_HISTORY, len(self._movement)), np.float32)
        self._remembered = 0  # exchanges; the latest of them make the history
        self._typical: Floats = np.zeros(blocks_in(layout.parameters), np.float32)

    @property
    def saved(self) -> Saved:
        """Views, not copies: valid until the replica moves."""
        return Saved(self.x, self.slow, self.momentum)

    def restore(self, saved: Saved) -> None:
        """Begin, or go on from a checkpoint.  The arrays are copied; no history is kept."""
        self._jump(saved.x)
        np.copyto(self.slow, saved.slow)
        np.copyto(self.momentum, saved.momentum)
        self._movement.fill(0)
        self._remembered = 0
        self._typical.fill(0)

    def learner_has(self, vector: Floats) -> None:
        """The learner was given, or said it holds, exactly ``vector``."""
        np.copyto(self.learner, vector)
        self._unapplied = None
        self._apart, self._joins = _THERE, False

    def replace(self, vector: Floats) -> None:
        """Go on from another model, which the learner has yet to be given by an increment."""
        self._jump(vector)
        self.rest()

    def trains_on(self, applied: bool) -> bool:
        """Whether the learner's steps since its last snapshot were taken at x, or near it.

        It adds an increment between two of them; if that was ``applied`` meanwhile, those before
        it count too, but they must not have been taken at another model.
        """
        return self._apart - (applied and self._joins) <= _THERE

    def progress(self, snapshot: Floats, applied: bool, counts: bool = True) -> bool:
        """Add what the learner did since its last snapshot; whether it was finite.

        ``applied``: the outstanding increment is already part of ``snapshot``.  A snapshot that is
        not finite changes nothing; of one that does not count only the place is noted.
        """
        if not mixing.finite(snapshot):
            return False
        if applied:
            self.applied()
        if counts:
            split = self.parameters
            x, learner = self.x, self.learner
            mixing.progress(x[:split], learner[:split], snapshot[:split], self._movement)
            mixing.add_difference(x[split:], snapshot[split:], learner[split:])
        else:
            self._apart, self._joins = max(self._apart, _NEAR), False
            split = 0
        np.copyto(self.learner[split:], snapshot[split:])
        return True

    def applied(self) -> None:
        """The learner has added the outstanding increment."""
        if self._unapplied is not None:
            self.learner += self._unapplied
            self._unapplied = None
            self._apart = max(self._apart - self._joins, _THERE)
            self._joins = False

    def increment(self, out: Floats) -> bool:
        """Write x - learner into ``out``, which stays untouched until ``applied``.

        False if there is nothing to hand over.  Only one increment may be outstanding.
        """
        assert self._unapplied is None, "the last increment is not applied yet"
        if not mixing.subtract(self.x, self.learner, out):
            self._apart = _THERE
            return False
        self._unapplied, self._joins = out, True
        return True

    @property
    def outstanding(self) -> bool:
        return self._unapplied is not None

    def outer_step(self, step: OuterStep) -> None:
        """Close a period."""
        mixing.outer_step(self.x[: self.parameters], self.slow, self.momentum, step)
        self._movement.fill(0)

    def rest(self) -> None:
        """Close a period with nobody to learn from: a lone node trains plainly, no momentum."""
        np.copyto(self.slow, self.x[: self.parameters])
        self.momentum.fill(0)
        self._movement.fill(0)

    def _jump(self, vector: Floats) -> None:
        np.copyto(self.x, vector)
        self._apart, self._joins = _ELSEWHERE, False

    def movement(self) -> Floats:
        """Largest movement of each block by the learner since the last outer step.

        By the learner alone: exchanges bring nodes together, so that they ask for no coarser scale.
        """
        return self._movement

    def typical(self) -> Floats:
        """Median over recent exchanges of each block's largest difference; zero without any."""
        return self._typical

    def remember(self, largest: Floats) -> None:
        """Keep the largest differences of an exchange for ``typical``."""
        self._history[self._remembered % _HISTORY] = largest
        self._remembered += 1
        mixing.median(self._history[: self._remembered], self._typical)  # of two the larger: safe
