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

from covey.attachment import Attachment, Options
from covey.cadence import Every
from covey.errors import CoveyError, ShareError
from covey.protocols.link import SettledReport
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

    Raises NodeError, ShareError, or ValueError for a bad ``every``.
    """
    several = optimizer if isinstance(optimizer, Sequence) else [optimizer]
    first = several[0] if several else None
    if not isinstance(first, Optimizer):
        raise TypeError("covey.join needs a torch optimizer, or a list of some")
    try:
        weights = TensorWeights(model, share)
        _check_alone()
        return Swarm(Attachment(weights.layout, weights, Options(every, name, home)), first)
    except CoveyError as error:
        raise error.with_traceback(None) from None  # our own frames tell the user nothing


class Swarm:
    """This script's place in the swarm.  Use it as a context manager, or call ``leave``."""

    def __init__(self, attachment: Attachment, optimizer: Optimizer) -> None:
        self._attachment = attachment
        self._step = attachment.step
        self._hook = optimizer.register_step_post_hook(self._stepped)

    @property
    def steps(self) -> int:
        """Optimizer steps since joining."""
        return self._attachment.steps

    @property
    def attached(self) -> bool:
        """Whether a node serves this script now; if not, it trains on alone."""
        return self._attachment.attached

    def log(self, **values: SupportsFloat) -> None:
        """Show numbers such as ``loss=…, accuracy=…`` in the node's status; cheap enough for every
        step: a tensor is read only when its number is sent."""
        self._attachment.log(**values)

    def leave(self) -> SettledReport | None:
        """Settle and leave: afterwards the model is the flock's average, as near as it came.

        Waits up to 15 s.  Returns how far apart the flock still is; None if nobody could say.
        """
        self._hook.remove()
        return self._attachment.leave()

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
        self._attachment.__exit__(kind, error, traceback)

    def _stepped(self, *_: Any) -> None:
        self._step()


def _check_alone() -> None:
    """Refuse to join from one of several processes that must stay equal (DDP, FSDP)."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    processes = distributed.get_world_size()
    if processes > 1:
        raise ShareError(
            f"this is one of {processes} torch.distributed processes, which covey cannot keep "
            "equal; run the script as one process per machine"
        )
