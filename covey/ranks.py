"""One model in several processes that must stay equal, as under DistributedDataParallel.

The first of them joins.  What comes from the swarm it tells the others, and all add it to theirs
after the same optimizer step: a broadcast over gloo, from memory to memory, whatever the gradients
take.  All count their steps; each word says in how many to listen again, so that most steps cost a
comparison and no message.

    Leader       SET, READY │ NOTHING, ADD, NOTHING, … every 20 ms │ leave: ADD, …, OVER
    Follower     joins      │ hears one word in an agreed step     │ leave: hears until OVER
"""

import time
from contextlib import suppress
from datetime import timedelta
from enum import IntEnum, auto
from types import TracebackType
from typing import Protocol, SupportsFloat

import numpy as np
import torch
from torch import distributed

from covey.attachment import Attachment, Options
from covey.errors import NodeError
from covey.protocols.layout import Layout
from covey.protocols.link import SettledReport
from covey.weights import Vector, Weights

_LISTEN_S = 0.02  # between two words: an increment is late by no more
_STEPS_MAX = 1000
_PATIENCE = timedelta(days=7)  # joining may take its time; that a process has died is seen at once


class Word(IntEnum):
    """What the first process says; a vector follows the first two."""

    ADD = auto()
    SET = auto()
    NOTHING = auto()
    READY = auto()  # joined: train
    OVER = auto()  # left, or could not join


class Seat(Protocol):
    """A process's place in the swarm; see Attachment, which is one."""

    @property
    def steps(self) -> int: ...

    @property
    def attached(self) -> bool: ...

    def step(self) -> None: ...

    def log(self, **values: SupportsFloat) -> None: ...

    def leave(self) -> SettledReport | None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Line:
    """From the first process of ``group`` to the others.  Made by all of them, in one order."""

    def __init__(self, group: "distributed.ProcessGroup") -> None:
        ranks = distributed.get_process_group_ranks(group)
        self._first = ranks[0]
        self.leads = distributed.get_rank() == self._first
        self._group = distributed.new_group(
            ranks, backend="gloo", timeout=_PATIENCE, use_local_synchronization=True
        )
        self._header = torch.zeros(3, dtype=torch.int64)

    def tell(self, word: Word, steps: int, attached: bool, vector: Vector | None = None) -> None:
        """Say ``word``, and to listen again in ``steps``.  RuntimeError: a process has died."""
        self._header.copy_(torch.tensor([word, steps, attached]))
        self._pass(self._header)
        if vector is not None:
            self._pass(torch.from_numpy(vector))

    def hear(self) -> tuple[Word, int, bool]:
        """What ``tell`` said; after ADD and SET the vector is to be received."""
        self._pass(self._header)
        word, steps, attached = self._header.tolist()
        return Word(word), steps, bool(attached)

    def receive(self, vector: Vector) -> None:
        self._pass(torch.from_numpy(vector))

    def _pass(self, tensor: torch.Tensor) -> None:
        distributed.broadcast(tensor, self._first, self._group)


class Leader:
    """The process that joins.  Raises what joining raises, and the others NodeError."""

    def __init__(self, layout: Layout, weights: Weights, options: Options, line: Line) -> None:
        self._line = line
        self._joined = self._over = False
        self._pause = self._left = 1  # steps between two words, and until the next
        self._told_at = time.monotonic()
        self._spread = _Spread(weights, self._tell)
        try:
            self._attachment = Attachment(layout, self._spread, options)
            self._joined = True
            vector = np.empty(layout.size, np.float32)
            weights.gather(vector)
            self._tell(Word.SET, vector)
            self._tell(Word.READY)
        except BaseException:
            self._end()
            raise

    @property
    def steps(self) -> int:
        return self._attachment.steps

    @property
    def attached(self) -> bool:
        return self._attachment.attached

    def step(self) -> None:
        self._attachment.step(take=False)
        self._left -= 1
        if self._left or self._over:
            return
        self._pace()
        self._spread.told = False
        self._attachment.take_in()
        if not self._spread.told:
            self._tell(Word.NOTHING)

    def log(self, **values: SupportsFloat) -> None:
        self._attachment.log(**values)

    def leave(self) -> SettledReport | None:
        try:
            return self._attachment.leave()
        finally:
            self._end()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.leave()
        else:
            self._attachment.__exit__(kind, error, traceback)

    def _pace(self) -> None:
        now = time.monotonic()
        step_s = max((now - self._told_at) / self._pause, 1e-9)
        self._told_at = now
        self._pause = self._left = min(max(1, round(_LISTEN_S / step_s)), _STEPS_MAX)

    def _tell(self, word: Word, vector: Vector | None = None) -> None:
        self._line.tell(word, self._pause, self._joined and self.attached, vector)

    def _end(self) -> None:
        if not self._over:
            self._over = True
            with suppress(RuntimeError):  # the others ended without leaving
                self._tell(Word.OVER)


class _Spread:
    """The leader's weights: what changes them is told first."""

    def __init__(self, weights: Weights, tell: "_Tell") -> None:
        self._weights = weights
        self._tell = tell
        self.told = False

    def gather(self, into: Vector, wait: bool = True) -> bool:
        return self._weights.gather(into, wait)

    def add(self, increment: Vector) -> None:
        self._tell(Word.ADD, increment)
        self.told = True
        self._weights.add(increment)

    def set(self, vector: Vector) -> None:
        self._tell(Word.SET, vector)
        self.told = True
        self._weights.set(vector)


class _Tell(Protocol):
    def __call__(self, word: Word, vector: Vector | None = None) -> None: ...


class Follower:
    """Any other process: does as it hears.  Raises NodeError if the first could not join."""

    def __init__(self, layout: Layout, weights: Weights, line: Line) -> None:
        self.steps = 0
        self.attached = False
        self._weights = weights
        self._line = line
        self._vector = np.zeros(layout.size, np.float32)
        self._left = 0  # steps until the next word
        while (word := self._hear()) is not Word.READY:
            if word is Word.OVER:
                raise NodeError("the first process could not join the swarm; it says why")

    def step(self) -> None:
        self.steps += 1
        self._left -= 1
        if not self._left:
            self._hear()

    def log(self, **values: SupportsFloat) -> None:
        """Nothing: the node shows what the first process logs."""

    def leave(self) -> SettledReport | None:
        """Follow the first process until it has left; only that one knows the report."""
        while self._left > 0 and self._hear() is not Word.OVER:
            pass
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.leave()

    def _hear(self) -> Word:
        word, self._left, self.attached = self._line.hear()
        if word in (Word.ADD, Word.SET):
            self._line.receive(self._vector)
            (self._weights.add if word is Word.ADD else self._weights.set)(self._vector)
        elif word is Word.OVER:
            self._left = 0
        return word
