"""The door for any framework: a model as one float32 numpy vector.  The torch door is built on it.

    vector = np.zeros(layout.size, np.float32)
    flock = covey.attach(layout, vector)      # vector now holds the swarm's weights
    for …:
        vector -= rate * gradient
        flock.step()                          # hands over and takes in what is due; never waits
    flock.leave()                             # settles: vector is the flock's average

A framework whose weights are not a numpy array uses ``publish`` and ``poll`` instead of ``step``.
"""

import atexit
import functools
import os
import sys
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, SupportsFloat

import numpy as np

from covey.cadence import Cadence, Every
from covey.errors import CoveyError, ShareError
from covey.launch import LocalNode, say
from covey.protocols.layout import Layout
from covey.protocols.link import LOG_NAME_CHARS_MAX, LOG_VALUES_MAX, SettledReport
from covey.session import Learner, Phase, Session
from covey.weights import ArrayWeights, Vector, Weights

SETTLE_S = 15.0  # the longest that ``leave`` waits for a period to end, and for the flock to agree
HAND_OVER_S = 5.0  # and the end of a script for the node to take its last steps


@dataclass(frozen=True)
class Options:
    """How a learner takes part.  ``home``: of the node; None: COVEY_HOME or the user's own."""

    every: Every = None
    name: str | None = None
    home: str | os.PathLike[str] | None = None
    environ: Mapping[str, str] | None = None  # None: this process's


def attach(
    layout: Layout,
    vector: Vector,
    *,
    every: Every = None,
    name: str | None = None,
    home: str | os.PathLike[str] | None = None,
) -> "Attachment":
    """Join the swarm with a model of ``layout`` whose initial weights are ``vector``.

    ``vector``: float32 (layout.size,), writeable; overwritten by the swarm's weights if it has
    some.  Returns when training may begin.  ``every``: steps, a time such as ``"2s"``, or None.
    Raises NodeError, or ShareError if ``vector`` does not fit.
    """
    if vector.dtype != np.float32 or vector.shape != (layout.size,) or not vector.flags.writeable:
        raise ShareError(
            f"the vector is {vector.dtype}{list(vector.shape)}; the layout needs a writeable "
            f"float32[{layout.size}]"
        )
    try:
        return Attachment(layout, ArrayWeights(vector), Options(every, name, home))
    except CoveyError as error:
        raise error.with_traceback(None) from None  # our own frames tell the user nothing


class Attachment:
    """A learner's place in the flock, from joining to leaving.  For one thread: the training's."""

    def __init__(self, layout: Layout, weights: Weights, options: Options) -> None:
        """Join; waits for the swarm's weights.  Raises NodeError; KeyboardInterrupt works."""
        learner = Learner(layout, options.name or _script_name(), Cadence.parse(options.every))
        environ = os.environ if options.environ is None else options.environ
        self.layout = layout
        self._weights = weights
        self._session = Session(learner, LocalNode(options.home, environ))
        self._copying = False  # a snapshot is on its way out of the model
        self._pid = os.getpid()
        try:
            self._begin()
        except BaseException:
            self._session.close(clean=True)
            raise
        self._exit_hook = functools.partial(_at_exit, weakref.ref(self))
        atexit.register(self._exit_hook)

    @property
    def steps(self) -> int:
        """Training steps so far."""
        return self._session.steps

    @property
    def attached(self) -> bool:
        """Whether a node serves this learner now; if not, it trains on alone."""
        return self._session.phase is Phase.TRAINING

    def step(self, *, take: bool = True) -> None:
        """After each training step: apply what came, hand over what is due.  Never waits.

        Without ``take`` what came is left for ``take_in``.
        """
        session = self._session
        if not session.stepped() and not self._copying:
            return
        if take:
            self.take_in()
        if session.due or self._copying:
            self._hand_over(wait=False)

    def take_in(self) -> None:
        """Apply what came, unless a snapshot is just on its way out of the model."""
        if not self._copying:
            self._take_in()

    def publish(self, vector: Vector, *, step: int | None = None) -> bool:
        """Hand over the model's vector; False if the node has not read the last one yet: train on.

        ``vector`` contains all increments that ``poll`` has returned.  ``step``: training steps so
        far; by default one more than at the last call.
        """
        session = self._session
        session.steps = session.steps + 1 if step is None else step
        session.attend()
        session.acknowledge()
        slot = session.slot
        if slot is None:
            return False
        np.copyto(slot, vector)
        session.hand_over()
        return True

    def poll(self) -> Vector | None:
        """The increment to add to the model, if one came: valid until the next call of anything."""
        session = self._session
        session.attend()
        session.acknowledge()
        return session.take()

    def log(self, **values: SupportsFloat) -> None:
        """Show numbers such as ``loss=…, accuracy=…`` in the node's status.

        Cheap enough for every step: a tensor is read only when its number is sent.
        """
        if len(values) > LOG_VALUES_MAX or any(len(name) > LOG_NAME_CHARS_MAX for name in values):
            raise ValueError(
                f"at most {LOG_VALUES_MAX} values with names of {LOG_NAME_CHARS_MAX} characters"
            )
        for name, value in values.items():
            detach = getattr(value, "detach", None)
            values[name] = float(value) if detach is None else detach()
        self._session.log(values)

    def leave(self) -> SettledReport | None:
        """Settle and leave: afterwards the model is the flock's average, as near as it came.

        Hands over the last snapshot, then lets the node exchange without training; waits up to
        ``SETTLE_S``.  Returns how far apart the flock still is; None if nobody could say.
        """
        if os.getpid() != self._pid or self._session.phase is Phase.OVER:
            return self._session.report
        try:
            if self._session.phase is Phase.TRAINING:
                self._settle()
        finally:
            self._close(clean=True)
        report = self._session.report
        say(_in_words(report))
        return report

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave; after an error without settling, and as a crash unless it was Ctrl-C."""
        if kind is None:
            self.leave()
        else:
            self._close(clean=issubclass(kind, KeyboardInterrupt))

    def _begin(self) -> None:
        session = self._session
        session.open()
        self._hand_over()
        session.wait_start()
        took = self._take_in()
        say(f"training with node {session.node_id}" + (" from the weights it has" if took else ""))

    def _take_in(self) -> bool:
        session = self._session
        vector = session.take()
        if vector is None:
            return False
        if session.replaced:
            self._weights.set(vector)
        else:
            self._weights.add(vector)
        session.acknowledge()
        return True

    def _hand_over(self, wait: bool = True) -> None:
        """Hand over the model, if the node can take it; later, if it must not be waited for."""
        slot = self._session.slot
        self._copying = slot is not None and not self._weights.gather(slot, wait)
        if slot is not None and not self._copying:
            self._session.hand_over()

    def _settle(self) -> None:
        session = self._session
        deadline = time.monotonic() + SETTLE_S
        asked = False
        while session.report is None and session.phase is Phase.TRAINING:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            session.look(time.monotonic())
            self._take_in()
            if not asked and session.slot is not None:
                self._hand_over()
                session.settle()
                asked = True
                deadline = time.monotonic() + SETTLE_S  # before, a period had to end
            elif session.report is None:
                session.wait(min(left_s, 1.0))
        self._take_in()

    def _close(self, clean: bool) -> None:
        if os.getpid() == self._pid:
            self._session.close(clean)
            atexit.unregister(self._exit_hook)

    def _end_of_script(self) -> None:
        """No ``leave`` was called: hand over the last steps; a crash says no goodbye."""
        error = getattr(sys, "last_value", None)  # what the script died of
        try:
            if error is None and self.attached and os.getpid() == self._pid:
                with suppress(SystemExit):  # the node that ran this script is gone: as well
                    self._hand_over_last()
        finally:
            self._close(clean=error is None or isinstance(error, KeyboardInterrupt))

    def _hand_over_last(self) -> None:
        """Hand over the model as it is now, and wait until the node has taken it."""
        session = self._session
        deadline = time.monotonic() + HAND_OVER_S
        handed = False
        while session.phase is Phase.TRAINING and (left_s := deadline - time.monotonic()) > 0:
            session.look(time.monotonic())
            if session.slot is None:
                session.wait(min(left_s, 1.0))
            elif handed:
                return
            else:
                self._hand_over()
                handed = True


def _at_exit(reference: "weakref.ref[Attachment]") -> None:
    attachment = reference()
    if attachment is not None:
        attachment._end_of_script()


def _script_name() -> str:
    """What to call this learner: its script."""
    name = Path(sys.argv[0]).stem if sys.argv else ""
    return "notebook" if name in ("", "-c", "ipykernel_launcher") else name[:64]


def _in_words(report: SettledReport | None) -> str:
    if report is None:
        return "left the flock without settling"
    if report.distance_relative is None:
        return "left; no peer was there to settle with"
    return (
        f"settled in {report.exchanges} exchanges with {report.peers} "
        f"peer{'s' if report.peers != 1 else ''}; "
        f"the models differ by {100 * report.distance_relative:.2g} %"
    )
