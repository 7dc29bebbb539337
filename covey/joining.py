"""The door for torch: ``covey.join(model, optimizer)`` is all that a training script needs.

It hooks ``optimizer.step()``: after each step, increments that have come are added to the model and
a snapshot is handed over when one is due.  A step that has nothing to do costs a few comparisons.
"""

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, SupportsFloat

from torch import distributed, nn
from torch.optim import Optimizer

from covey import choice
from covey.attachment import Attachment, Options
from covey.cadence import Every
from covey.errors import CoveyError, ShareError
from covey.protocols.link import SettledReport
from covey.ranks import Follower, Leader, Line, Seat
from covey.tensors import TensorWeights


def join(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    *,
    every: Every = None,
    name: str | None = None,
    share: str | Sequence[str] | None = None,
    home: str | os.PathLike[str] | None = None,
) -> "Swarm":
    """Train ``model`` together with the swarm from now on; returns when it has the swarm's weights.

    Finds this machine's node, or starts one for as long as the script runs.  Shared are trainable
    parameters and persistent floating-point buffers, or what the patterns in ``share`` match, such
    as ``"encoder.*"``; ``"!head.*"`` takes some out.  ``every``: a snapshot every so many steps
    (``20``), every so long (``"2s"``), or as the network allows (None).  With several
    optimizers the first one's steps count.

    Under DistributedDataParallel every process calls it with the wrapped model, and ``leave`` too.
    The first joins; what it gets is added in all of them after the same step.

    Raises NodeError, ShareError, or ValueError for a bad ``every``.
    """
    several = optimizer if isinstance(optimizer, Sequence) else [optimizer]
    first = several[0] if several else None
    if not isinstance(first, Optimizer):
        raise TypeError("covey.join needs a torch optimizer, or a list of some")
    options = Options(every, name, home)
    try:
        weights = TensorWeights(model, share)
        return Swarm(_seat(model, weights, options), first)
    except CoveyError as error:
        raise error.with_traceback(None) from None  # our own frames tell the user nothing


class Swarm:
    """This script's place in the swarm.  Use it as a context manager, or call ``leave``."""

    def __init__(self, seat: Seat, optimizer: Optimizer) -> None:
        self._seat = seat
        self._step = seat.step
        self._hook = optimizer.register_step_post_hook(self._stepped)

    @property
    def steps(self) -> int:
        """Optimizer steps since joining."""
        return self._seat.steps

    @property
    def attached(self) -> bool:
        """Whether a node serves this script now; if not, it trains on alone."""
        return self._seat.attached

    def log(self, **values: SupportsFloat) -> None:
        """Show numbers such as ``loss=…, accuracy=…`` in the node's status; cheap enough for every
        step: a tensor is read only when its number is sent."""
        self._seat.log(**values)

    def leave(self) -> SettledReport | None:
        """Settle and leave: afterwards the model is the flock's average, as near as it came.

        Waits up to 15 s.  Returns how far apart the flock still is; None if nobody could say.
        """
        self._hook.remove()
        return self._seat.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave; after an error without settling, and as a crash unless it was Ctrl-C."""
        self._hook.remove()
        self._seat.__exit__(kind, error, traceback)

    def _stepped(self, *_: Any) -> None:
        self._step()


def _seat(model: nn.Module, weights: TensorWeights, options: Options) -> Seat:
    """This process's place: of several that must stay equal the first one joins."""
    wrapped = choice.parallel(model)
    processes = _processes()
    if wrapped is None and processes > 1:
        raise ShareError(
            f"this is one of {processes} torch.distributed processes, and the model is not in "
            "DistributedDataParallel, by which covey keeps them equal: give it the wrapped model"
        )
    if wrapped is None or distributed.get_world_size(wrapped.process_group) == 1:
        return Attachment(weights.layout, weights, options)
    line = Line(wrapped.process_group)
    if line.leads:
        return Leader(weights.layout, weights, options, line)
    return Follower(weights.layout, weights, line)


def _processes() -> int:
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()
