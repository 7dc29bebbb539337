"""One node's copy of the model: the vector it owns and what is kept beside it.

``x`` is exchanged; ``slow`` is x after the last outer step and ``momentum`` that step's (parameters
only; buffers are plainly averaged); ``learner`` is what the learner has, as far as the node knows:
mostly x, or x without the increment that is on its way, which takes no memory.
"""

from math import inf, sqrt

import numpy as np

from covey.gossip import mixing
from covey.gossip.codecs import Coder
from covey.gossip.config import OuterStep
from covey.gossip.gauge import Gauge
from covey.gossip.history import History
from covey.gossip.places import Places, zeros
from covey.gossip.quantiser import Floats, Moves, block_max, blocks_in
from covey.gossip.saved import Saved as Saved
from covey.gossip.screening import Pair
from covey.protocols.layout import Layout

_THERE, _NEAR, _ELSEWHERE = 0, 1, 2  # at x, or some steps away that did not count; at another model
_SUM_LEAST = 1e-20


class Replica:
    """Vectors of one layout, and the operations that move them.

    Memory is what they cost, so each passes once where it can.  x is at home where the last outer
    step left it, in the learner's snapshot, if that was lent, or in its own room once it has moved
    on from either; an exchange's moves wait for what is done to it next.  What the learner has is
    kept only when x does not tell: mostly that, or that without an increment it has yet to apply.
    """

    def __init__(self, layout: Layout) -> None:
        self.size = layout.size
        self.parameters = split = layout.parameters
        self._at = Places(layout.size)  # at home x's parameters are slow
        self.slow: Floats = self._at.home[:split]
        self.momentum: Floats = zeros(split, 2)
        self._state = mixing.State.of(self.slow, self.momentum)
        self._sized = self._summed = False  # whether the state's sizes and energies are of x
        self._plain = False  # x is away from slow by the learner's progress alone
        self.lent = False  # the last snapshot's memory is in use
        self.spoiled = False  # the last snapshot was not finite, and is not part of x
        self._before: tuple[Floats, Floats] | None = None  # x and buffers, till that is known
        self._moves: Moves | None = None  # of an exchange, to be added to x's parameters
        self._known: Floats | None = None  # the learner's parameters, if x does not tell them
        self._shared = False  # those are in memory of x's, which will move
        self._buffers: Floats = np.zeros(layout.size - split, np.float32)  # the learner's
        self._unapplied: Floats | None = None  # an increment the learner has yet to apply
        self._there = False  # nothing but that increment lies between the learner and x
        self._apart = _ELSEWHERE  # where the learner trains on from
        self._joins = False  # the outstanding increment takes it to x
        self.gauge = Gauge(blocks_in(split))
        self.history = History(blocks_in(split))

    @property
    def x(self) -> Floats:
        """To be read: ``moving`` is to be written.  Looking at it changes nothing."""
        self._check()
        if self._moves is None:
            return self._at.view
        moved, split = self._at.x.copy(), self.parameters
        self._moves.add(moved[:split], moved[:split])
        return moved

    @property
    def unchecked(self) -> Floats:
        """x, which may be a snapshot that is yet to be found finite."""
        self._add_moves()
        return self._at.view

    def found_finite(self) -> None:
        """The caller has been through x, and it is."""
        self._before = None

    def moving(self) -> Floats:
        """x, to be written by the caller."""
        self._check()
        self._leave(self._taken_moves())
        return self._at.x

    @property
    def learner(self) -> Floats:
        """What the learner has, as far as the node knows.  A copy."""
        known = self._reckoned() if self._known is None else self._known
        return np.concatenate([known, self._buffers])

    @property
    def saved(self) -> Saved:
        """Mostly views: valid until the replica moves."""
        return Saved(self.x, self.slow, self.momentum)

    def restore(self, saved: Saved) -> None:
        """Begin, or go on from a checkpoint.  The arrays are copied; no history is kept."""
        at_home = np.array_equal(saved.x[: self.parameters], saved.slow)
        self._jump(saved.x, self._at.home if at_home else self._at.room())
        np.copyto(self.slow, saved.slow)
        np.copyto(self.momentum, saved.momentum)
        self.history.forget()

    def learner_has(self, vector: Floats) -> None:
        """The learner was given, or said it holds, exactly ``vector``, which may be x."""
        split, self._there = self.parameters, vector is self._at.view
        self._known, self._shared = None if self._there else vector[:split].copy(), False
        np.copyto(self._buffers, vector[split:])
        self._unapplied = None
        self._apart, self._joins = _THERE, False

    def replace(self, vector: Floats) -> None:
        """Go on from another model, of which the learner is yet to be given the increment."""
        self._jump(vector, self._at.home)
        self.rest()

    def trains_on(self, applied: bool) -> bool:
        """Whether the learner's steps since its last snapshot were taken at x, or near it.

        It adds an increment between two of them; if that was ``applied`` meanwhile, those before
        it count too, but they must not have been taken at another model.
        """
        return self._apart - (applied and self._joins) <= _THERE

    def moved(self, snapshot: Floats) -> tuple[float, float]:
        """How far the learner went since its last snapshot: parameters, buffers."""
        split = self.parameters
        known = self._at.x[:split] if self._follows else self._tell_apart()
        return mixing.norm(snapshot[:split], known), mixing.norm(snapshot[split:], self._buffers)

    def progress(
        self,
        snapshot: Floats,
        applied: bool,
        counts: bool = True,
        lent: bool = False,
        later: bool = False,
    ) -> bool:
        """Add what the learner did since its last snapshot; whether it was finite.

        ``applied``: the outstanding increment is already part of ``snapshot``.  A snapshot that is
        not finite changes nothing; of one that does not count only the place is noted.  Memory that
        is ``lent`` is written, and must not be by others while ``self.lent``; then ``later``, as x
        is used or the period closed, it may be found out not to be finite.
        """
        if counts and self._follows:
            self.spoiled = not self._follow(snapshot, lent, later and lent and self.at_hand)
            return not self.spoiled
        self.spoiled = not mixing.finite(snapshot)
        if self.spoiled:
            return False
        if applied:
            self.applied()
        if counts:
            self._progress(snapshot)
        else:
            self._apart, self._joins = max(self._apart, _NEAR), False
            self._there, split = False, self.parameters
            np.copyto(self._tell_apart(), snapshot[:split])
            np.copyto(self._buffers, snapshot[split:])
        return True

    def _follow(self, snapshot: Floats, lent: bool, later: bool) -> bool:
        """``progress`` of a learner that had x: the snapshot is the new one."""
        split, finite = self.parameters, mixing.finite(snapshot[self.parameters :])
        if finite and not later:
            finite = self._examine(snapshot[:split])
        if not finite:
            return False
        self._before = (self._at.x, self._buffers.copy()) if later else None
        self._summed, buffers = False, self._at.x[split:].copy()
        mixing.add_difference(buffers, snapshot[split:], self._buffers)
        np.copyto(self._buffers, snapshot[split:])
        self._plain = self._at.x is self._at.home
        if lent:
            self._at.go(snapshot)
        else:
            self._at.go(self._at.room())
            np.copyto(self._at.x[:split], snapshot[:split])
        np.copyto(self._at.x[split:], buffers)
        self.lent = lent
        return True

    def _examine(self, snapshot: Floats) -> bool:
        """Whether it is finite; and how far the learner went, if no period has told."""
        if self.gauge.recent:
            return mixing.finite(snapshot)
        sizes, movement = self._state.sizes, self.gauge.measuring()
        mixing.follow(self._at.x[: self.parameters], snapshot, movement, sizes)
        self._sized = bool(np.isfinite(sizes).all())
        if not self._sized:
            movement.fill(0)
        return self._sized

    def _check(self) -> None:
        """If the snapshot that x is turns out not to be finite, x is what it was before."""
        before, self._before = self._before, None
        if before is None or mixing.finite(self._at.x[: self.parameters]):
            return
        self._at.go(before[0])
        self._buffers = before[1]
        self.lent, self.spoiled, self._plain = False, True, False

    def _progress(self, snapshot: Floats) -> None:
        split = self.parameters
        known = self._tell_apart()
        self._leave(self._taken_moves())
        mixing.progress(self._at.x[:split], known, snapshot[:split], self.gauge.measuring())
        mixing.add_difference(self._at.x[split:], snapshot[split:], self._buffers)
        np.copyto(self._buffers, snapshot[split:])

    def applied(self) -> None:
        """The learner has added the outstanding increment."""
        if self._unapplied is None:
            return
        split = self.parameters
        self._buffers += self._unapplied[split:]
        if self._there:
            self._known = None
        elif self._known is not None:
            known = self._tell_apart()
            known += self._unapplied[:split]
        self._unapplied = None
        self._apart = max(self._apart - self._joins, _THERE)
        self._joins = False

    def increment(self, out: Floats) -> bool:
        """Write x - learner into ``out``, which stays untouched until ``applied``.

        False if there is nothing to hand over.  Only one increment may be outstanding.
        """
        assert self._unapplied is None, "the last increment is not applied yet"
        parameters, changed = out[: self.parameters], True
        if self._known is not None:
            self._add_moves()
            changed = mixing.subtract(self._at.x[: self.parameters], self._known, parameters)
        elif self._moves is not None:
            self._move(self._taken_moves(), parameters)
        else:
            parameters.fill(0)
            changed = False
        return self._hand_over(out, changed)

    def _hand_over(self, out: Floats, changed: bool) -> bool:
        """``out`` has the parameters' part."""
        split = self.parameters
        changed |= mixing.subtract(self._at.x[split:], self._buffers, out[split:])
        # To an ulp of the learner's, which is too much where it comes from another model.
        self._there = self._apart < _ELSEWHERE
        if not changed:
            self._known, self._apart = None, _THERE
            return False
        self._unapplied, self._joins = out, True
        return True

    def mix(self, coder: Coder, weights: Pair) -> None:
        """Add an exchange's difference to x, some time before x is read."""
        self._add_moves()
        moves = coder.moves(weights[0])
        if moves is None or moves.many_deep:
            coder.apply(self.moving(), weights)
        else:
            coder.apply(self._at.x, (0.0, weights[1]))
            self._moves = moves

    def outer_step(self, step: OuterStep, out: Floats | None = None) -> bool:
        """Close a period, and write x - learner into ``out``, unless one is outstanding.

        Whether it did, and it is now an increment as by ``increment``.
        """
        self._check()
        if self._unapplied is not None:
            out = None
        if out is None or self._apart == _ELSEWHERE:
            self._tell_apart()  # else the step itself tells what the learner will have
            self._there = False
        moves, split = self._taken_moves(), self.parameters
        if moves is not None and len(moves.rows) and self._at.x is self._at.home:
            self._leave(moves)
            moves = None
        x, parameters = self._at.x[:split], None if out is None else out[:split]
        changed = mixing.outer_step(x, self._state, step, moves, parameters, self._known)
        self._go_home()
        self._sized = self._summed = True
        self.gauge.close(self._state.movement, self._plain)
        self._plain = False
        if out is None or not self._hand_over(out, changed):
            return False
        if self._there:
            self._known = None
        return True

    def rest(self) -> None:
        """Close a period with nobody to learn from: a lone node trains plainly, no momentum."""
        self._check()
        self._add_moves()
        if self._at.x is not self._at.home:
            if self._known is not None:
                self._tell_apart()
            np.copyto(self.slow, self._at.x[: self.parameters])
        self._sized = False
        self._go_home()
        self.momentum.fill(0)
        self.gauge.reset()

    def _jump(self, vector: Floats, place: Floats) -> None:
        """x is ``vector``, at ``place``."""
        self._check()
        self._tell_apart()
        self._moves, self._there = None, False
        np.copyto(place, vector)
        self._at.go(place)
        self.lent = self._sized = self._summed = self._plain = False
        self.gauge.reset()
        self._apart, self._joins = _ELSEWHERE, False

    def _go_home(self) -> None:
        """x is slow now: have it at home."""
        if self._at.x is not self._at.home:
            np.copyto(self._at.home[self.parameters :], self._at.x[self.parameters :])
            self._at.go(self._at.home)
        self.lent = False

    def _taken_moves(self) -> Moves | None:
        moves, self._moves = self._moves, None
        return moves

    def _add_moves(self) -> None:
        if self._moves is not None:
            self._leave(self._taken_moves())

    def _leave(self, moves: Moves | None = None) -> None:
        """x goes on without the learner, to its own room, and by ``moves``."""
        if self._follows and not self._at.in_room:
            self._known, self._shared = self._at.x[: self.parameters], True
        elif self._known is None:
            self._tell_apart()
        self._there = False
        self._move(moves)

    def _move(self, moves: Moves | None, increment: Floats | None = None) -> None:
        """x goes to its own room, and by ``moves``; ``increment`` <- by how much."""
        split, before, room = self.parameters, self._at.x, self._at.room()
        if moves is not None:
            moves.add(before[:split], room[:split], increment)
        elif before is not room:
            np.copyto(room[:split], before[:split])
        np.copyto(room[split:], before[split:])
        self._at.go(room)
        self._sized = self._summed = self._plain = False

    @property
    def at_hand(self) -> bool:
        """Whether a snapshot may be taken over unseen, if its memory is lent."""
        return self._follows and self.gauge.recent and self._moves is None and not self.spoiled

    @property
    def _follows(self) -> bool:
        """Whether the learner has just what x is, but for an exchange's moves."""
        return self._known is None and self._unapplied is None

    def _reckoned(self) -> Floats:
        """The learner's parameters, as x tells them."""
        split = self.parameters
        if self._unapplied is None:
            return self._at.x[:split].copy()
        known = np.empty(split, np.float32)
        mixing.subtract(self._at.x[:split], self._unapplied[:split], known)
        return known

    def _tell_apart(self) -> Floats:
        """Have the learner's parameters in an array of their own, made anew, as that is seldom."""
        if self._known is None:
            self._known = self._reckoned()
        elif self._shared:
            self._known = self._known.copy()
        self._shared = False
        return self._known

    def sizes(self) -> Floats:
        """Largest |x| of each block, or what it was when the last period closed."""
        self._add_moves()
        if not (self._sized or self.gauge.recent):
            self._sized = True
            np.copyto(self._state.sizes, block_max(self._at.x[: self.parameters]))
        return self._state.sizes

    def lengths(self) -> Pair:
        """Euclidean lengths of the parameters and of the buffers."""
        split = self.parameters
        self._check()
        self._add_moves()
        squares = float(np.sum(self._state.energies, dtype=np.float64)) if self._summed else inf
        exact = _SUM_LEAST < squares < inf  # of float32 squares, which overflow and vanish
        x, buffers = self._at.x[:split], mixing.norm(self._at.x[split:])
        return sqrt(squares) if exact else mixing.norm(x), buffers

    def movement(self) -> Floats:
        """Largest movement of each block by the learner, in a recent period or in this."""
        return self.gauge.movement
