"""The learner's side of the link as a state machine: what was said, whose turn each area is.

    GREETING ──Attached──► OFFERING ──snapshot 0──► WAITING ──Start──► TRAINING
        ▲                      │                       │                  │
        └── a node listens ── LONE ◄── the connection ends ───────────────┘
                               any ── Rejected, or goodbye ──► OVER

The first round is waited for (``covey.join``).  Later ones go on beside the training, one look at a
time, so that a script outlives its node.  Nothing here blocks but ``wait``.
"""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import SupportsFloat

import numpy as np
from numpy.typing import NDArray

from covey.cadence import Cadence
from covey.channel import Channel, Lost, open_map
from covey.errors import NodeError
from covey.launch import LocalNode, say
from covey.protocols import link
from covey.protocols.errors import RemoteError
from covey.protocols.layout import Layout
from covey.protocols.messages import Lineage

_LOOK_S = 1.0  # between looks for a node's death, which rings no bell
_GREETING_LOOK_S = 0.01  # before there is a bell
_RETRY_S = 5.0  # between tries to find a node again, doubling up to …
_RETRY_S_MAX = 60.0
_LOG_S = 0.5  # between two Log frames
_GOODBYE_S = 2.0  # for the node to hang up after our goodbye
_TELL_S = 2.0  # of waiting before it is mentioned


class Phase(Enum):
    GREETING = auto()
    OFFERING = auto()
    WAITING = auto()
    TRAINING = auto()
    LONE = auto()
    OVER = auto()


@dataclass(frozen=True)
class Learner:
    """What a learner tells its node of itself."""

    layout: Layout
    name: str
    cadence: Cadence


class Session:
    """One learner's dealings with its node, over any number of the node's lives."""

    def __init__(self, learner: Learner, node: LocalNode) -> None:
        self.phase = Phase.GREETING
        self.steps = 0
        self.replaced = False  # the pending vector is the whole model, to be set
        self.report: link.SettledReport | None = None
        self.node_id = ""
        self._learner = learner
        self._node = node
        self._channel: Channel | None = None
        self._areas: link.Areas | None = None
        self._words: Sequence[int] = (0,)
        self._heard = 0  # frames, as the bell counts them
        self._lineage: Lineage | None = None
        self._reason = ""
        # Increments: pending → taken → applied.
        self._pending: int | None = None
        self._taken: int | None = None
        self._applied = 0
        # Snapshots, and when the next one is due.
        self._sent = 0
        self._sent_step = 0
        self._sent_at = 0.0
        self._consumed = True
        self._pace_s: float | None = None
        self._due_step = 0
        self._due_at = math.inf
        self._look_at = 0.0
        self._retry_s = _RETRY_S
        self._retry_at = 0.0
        self._log: dict[str, SupportsFloat] = {}
        self._logged_at = 0.0

    # -- the training loop's side ---------------------------------------------------------------

    def stepped(self) -> bool:
        """Count a training step; returns whether there may be something to do."""
        self.steps += 1
        now = time.monotonic()
        if self._words[link.BELL] == self._heard and now < self._look_at:
            return now >= self._due_at and self.steps >= self._due_step
        self.look(now)
        return True

    def attend(self) -> None:
        """Look if the bell has rung or it is time to."""
        now = time.monotonic()
        if self._words[link.BELL] != self._heard or now >= self._look_at:
            self.look(now)

    @property
    def due(self) -> bool:
        """Whether a snapshot should be written, and may."""
        return time.monotonic() >= self._due_at and self.steps >= self._due_step

    @property
    def slot(self) -> NDArray[np.float32] | None:
        """The snapshot area, if it is ours to write."""
        if self._areas is None or not self._consumed:
            return None
        return self._areas.snapshot if self.phase in (Phase.OFFERING, Phase.TRAINING) else None

    def hand_over(self) -> None:
        """The slot has been filled."""
        self.acknowledge()
        assert self.slot is not None
        self._sent = 0 if self.phase is Phase.OFFERING else self._sent + 1
        self._sent_step, self._sent_at = self.steps, time.monotonic()
        self._consumed = False
        if self.phase is Phase.OFFERING:
            self.phase = Phase.WAITING
        self._send(link.Snapshot(self._sent, self.steps, self._applied))
        self._set_due()

    def take(self) -> NDArray[np.float32] | None:
        """The increment to add (set, if ``replaced``), good until ``acknowledge``."""
        if self._pending is None or self._areas is None:
            return None
        self._taken, self._pending = self._pending, None
        return self._areas.increment

    def acknowledge(self) -> None:
        """What was taken is in the model now."""
        if self._taken is None:
            return
        self._applied, self._taken = self._taken, None
        self.replaced = False
        self._send(link.Applied(self._applied))

    def log(self, values: dict[str, SupportsFloat]) -> None:
        """Keep values for status.  The newest go out twice a second; only then are they floats."""
        self._log |= values
        if time.monotonic() >= self._logged_at + _LOG_S:
            self._flush_log()

    # -- waiting: at the beginning and the end --------------------------------------------------

    def open(self) -> None:
        """Connect and wait until the initial vector can be written.  Raises NodeError."""
        self._greet(Channel(self._node.open()))
        self._wait_while(Phase.GREETING, "waiting for the node to answer …")

    def wait_start(self) -> None:
        """Wait until training may begin.  Raises NodeError."""
        self._wait_while(Phase.WAITING, "waiting for the swarm's weights …")

    def wait(self, timeout_s: float) -> None:
        """Until the node says something, or has gone."""
        assert self._channel is not None
        self._channel.wait(timeout_s)
        self.look(time.monotonic())

    def settle(self) -> None:
        """Ask the node to settle; ``report`` will be set."""
        self._flush_log()
        self._send(link.Settle())

    def close(self, clean: bool) -> None:
        """Say goodbye (``clean``) or only hang up, and let a node of our own go."""
        try:
            if clean and self._channel is not None:
                self._flush_log()
                self._send(link.Detach())
                self._channel.drain(_GOODBYE_S)
        finally:
            self._end()
            self._node.close()

    # -- the node's side ------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Take what the node has said; notice its death; look for it again."""
        self._look_at = now + _LOOK_S
        if self._channel is None:
            if self.phase is Phase.LONE:
                self._search(now)
            return
        if self.phase is Phase.GREETING:
            self._look_at = now + _GREETING_LOOK_S
        if self._log and now >= self._logged_at + _LOG_S:
            self._flush_log()
        try:
            for frame in self._channel.receive():
                self._heard += self._areas is not None
                self._receive(frame)
        except (Lost, RemoteError, OSError) as error:
            self._lose(now, error)

    def _receive(self, frame: link.Frame) -> None:
        match frame:
            case link.Attached():
                self._areas = open_map(frame.path, self._learner.layout.size)
                self._words, self._heard = self._areas.words, 0
                self.node_id = frame.node
                self.phase = Phase.OFFERING
                self._sent_at, self._sent_step = -math.inf, -self._learner.cadence.steps
            case link.Start():
                self._start(frame)
            case link.Consumed():
                self._consumed = frame.sequence == self._sent
            case link.Increment():
                self._pending = frame.sequence
                self._lineage = frame.lineage
            case link.Pace():
                self._pace_s = frame.seconds
            case link.SettledReport():
                self.report = frame
            case link.Rejected():
                self._reason = frame.reason
                if self._lineage is not None:
                    say(f"this script trains on alone: {frame.reason}")
                self._end()
        self._set_due()

    def _start(self, start: link.Start) -> None:
        assert self._areas is not None
        self.phase, self._consumed = Phase.TRAINING, True
        if self._lineage is not None:
            say("the node is back; training goes on with it")
        if start.replace:
            self._pending = 0
            self.replaced = self._lineage is None
            if not self.replaced:  # we have trained since snapshot 0, and keep that
                np.subtract(self._areas.increment, self._areas.snapshot, self._areas.increment)
        self._lineage = start.lineage
        self._retry_s = _RETRY_S
        self._sent_step, self._sent_at = self.steps, time.monotonic()

    def _set_due(self) -> None:
        cadence = self._learner.cadence
        self._due_step = self._sent_step + cadence.steps
        may = self.slot is not None
        self._due_at = self._sent_at + cadence.pause_s(self._pace_s) if may else math.inf

    def _greet(self, channel: Channel) -> None:
        self._channel = channel
        self.phase = Phase.GREETING
        self._consumed, self._pending, self._taken = True, None, None
        self._sent = self._applied = 0
        learner = self._learner
        self._send(
            link.Attach(
                version=link.LINK,
                layout=learner.layout.encoded,
                name=learner.name,
                pid=os.getpid(),
                every=learner.cadence.text,
                resumed=self._lineage,
            )
        )

    def _search(self, now: float) -> None:
        connection = self._node.connect()
        if connection is not None:
            self._greet(Channel(connection))
            self._look_at = now + _GREETING_LOOK_S
            return
        if now >= self._retry_at:
            self._node.revive()
            self._retry_at = now + self._retry_s
            self._retry_s = min(2 * self._retry_s, _RETRY_S_MAX)
        starting = self._node.running
        self._look_at = min(self._retry_at, now + _LOOK_S) if starting else self._retry_at

    def _lose(self, now: float, error: Exception) -> None:
        why = str(error)
        self._end()
        if self._lineage is None:
            detail = why or self._node.last_words()
            self._reason = f"the node went away while this script joined: {detail}"
            return
        if self._node.supervisor is not None:
            raise SystemExit(
                f"covey: the node (pid {self._node.supervisor}) that ran this script is gone, so "
                "the script ends too; start both again with `covey run`"
            )
        say("the node is gone; training goes on alone until it is back")
        self.phase = Phase.LONE
        self._look_at = self._retry_at = now + self._retry_s

    def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = self._areas = None
        self._words, self._heard = (0,), 0
        self._pending = self._taken = None
        self.replaced = False
        self.phase = Phase.OVER
        self._due_at = self._look_at = math.inf

    def _wait_while(self, phase: Phase, text: str) -> None:
        told_at = time.monotonic() + _TELL_S
        while self.phase is phase:
            if time.monotonic() > told_at:
                say(text)
                told_at = math.inf
            self.wait(1.0)
        if self.phase is Phase.OVER:
            raise NodeError(self._reason)

    def _send(self, frame: link.FromLearner) -> None:
        if self._channel is not None:
            self._channel.send(frame)

    def _flush_log(self) -> None:
        """Send what was logged, unless the node is too busy to read: then it keeps."""
        if self.phase is not Phase.TRAINING or self._channel is None or self._channel.congested:
            return
        numbers = {name: float(value) for name, value in self._log.items()}
        finite = {name: number for name, number in numbers.items() if math.isfinite(number)}
        self._log.clear()
        self._logged_at = time.monotonic()
        if finite:
            self._send(link.Log(tuple(finite), tuple(finite.values())))
