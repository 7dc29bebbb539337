"""A torch model as one float32 vector: copies to and from the tensors that it shares.

In the vector every element is float32.  Tensors on other devices go through a vector of their own
device, and cross at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from covey import choice, copies
from covey.crossing import Crossing
from covey.protocols.layout import Layout
from covey.weights import Vector

_HOST = "cpu"  # where vectors are


class _Place:
    """One shared tensor and its part [start, stop) of the vector.

    The tensor is looked up in its module each time: ``model.to`` and training code may replace it.
    """

    def __init__(self, module: nn.Module, key: str, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.residual: Tensor | None = None  # float32, of a narrow tensor's shape; see copies.py
        self._module, self._key = module, key
        self._live: Tensor | None = None
        self._pointer = 0
        self.refresh()

    def refresh(self) -> bool:
        """Look the tensor up; whether it is another one than before."""
        live = self._module._parameters.get(self._key)  # getattr takes ten times as long
        if live is None:
            live = getattr(self._module, self._key)
        assert isinstance(live, Tensor)
        if live is self._live and live.data_ptr() == self._pointer:
            return False
        self._live, self._pointer = live, live.data_ptr()
        self.tensor: Tensor = live.detach()
        self.values = copies.values_of(self.tensor)
        if self.residual is not None:
            self.residual = self.residual.to(self.tensor.device)
        return True

    def part(self, flat: Tensor, start: int) -> Tensor:
        """Its part of ``flat``, which begins at ``start`` of the vector, in the tensor's shape."""
        return flat[self.start - start : self.stop - start].view(self.tensor.shape)

    def read(self, flat: Tensor, start: int) -> None:
        copies.read(self.tensor, self.residual, self.part(flat, start))

    def put(self, flat: Tensor, start: int, added: bool, narrow: copies.Narrow) -> None:
        part = self.part(flat, start)
        if self.tensor.dtype not in copies.NARROW:
            copies.put(self.tensor, part, added)
            return
        if self.residual is None:
            self.residual = torch.zeros_like(self.tensor, dtype=torch.float32)
        narrow.put(self.tensor, self.residual, part, added)


class TensorWeights:
    """The shared tensors of ``model``; implements covey.weights.Weights.

    ``share``: name patterns as of fnmatch, replacing the default choice; one that begins with
    ``!`` takes names out.  Raises ShareError.
    """

    def __init__(self, model: nn.Module, share: str | Sequence[str] | None = None) -> None:
        chosen = choice.chosen(model, share)
        self.layout = Layout.of(choice.described(one) for one in chosen)
        self._places: list[_Place] = []
        self._crossings: dict[tuple[torch.device, int], Crossing] = {}
        self._known: list[_Run] = []
        self._narrow = copies.Narrow()
        self._coming: list[tuple[_Run, Crossing]] = []  # of a snapshot, still on their way
        self._into: Vector | None = None  # where that snapshot goes
        paths = {one.name: one.path for one in chosen}
        start = 0
        for tensor in self.layout.tensors:
            path, _, key = paths[tensor.name].rpartition(".")
            module = model.get_submodule(path)
            self._places.append(_Place(module, key, start, start + tensor.size))
            start += tensor.size

    @torch.no_grad()
    def gather(self, into: Vector, wait: bool = True) -> bool:
        """Copy the model out: on its own device first, then across at once."""
        if wait or self._into is not into:
            self._into = into
            self._depart(into)
        while self._coming:
            run, crossing = self._coming[-1]
            if not crossing.done(wait):
                return False
            np.copyto(into[run.start : run.stop], crossing.here.numpy())
            self._coming.pop()
        self._into = None
        return True

    def add(self, increment: Vector) -> None:
        """Add to the live tensors, keeping what does not fit into narrow ones."""
        self._put(increment, added=True)

    def set(self, vector: Vector) -> None:
        """Make the live tensors, with their residuals, equal to ``vector``."""
        self._put(vector, added=False)

    def _depart(self, into: Vector) -> None:
        while self._coming:  # a snapshot that nobody waits for any more
            self._coming.pop()[1].done(wait=True)
        whole = torch.from_numpy(into)
        for run in self._runs():
            if run.abroad:
                crossing = self._crossing(run)
                for place in run.places:
                    place.read(crossing.there, run.start)
                crossing.fetch()
                self._coming.append((run, crossing))
                continue
            for place in run.places:
                if (values := place.values) is not None:
                    part = into[place.start : place.stop].reshape(values.shape)
                    np.copyto(part, values, casting="same_kind")
                else:
                    place.read(whole, 0)

    @torch.no_grad()
    def _put(self, vector: Vector, added: bool) -> None:
        whole = torch.from_numpy(vector)
        for run in self._runs():
            if run.abroad:
                crossing = self._crossing(run)
                crossing.done(wait=True)
                np.copyto(crossing.here.numpy(), vector[run.start : run.stop])
                crossing.bring()
                for place in run.places:
                    place.put(crossing.there, run.start, added, self._narrow)
                crossing.used()
                continue
            for place in run.places:
                if (values := place.values) is not None:
                    part = vector[place.start : place.stop].reshape(values.shape)
                    np.add(values, part, out=values) if added else np.copyto(values, part)
                else:
                    place.put(whole, 0, added, self._narrow)

    def _runs(self) -> list["_Run"]:
        """Neighbours in the vector that are on one device, as the tensors are now."""
        if any([place.refresh() for place in self._places]) or not self._known:
            groups = groupby(self._places, key=lambda place: place.tensor.device)
            self._known = [_Run(device, tuple(places)) for device, places in groups]
        return self._known

    def _crossing(self, run: "_Run") -> Crossing:
        kept = self._crossings.get((run.device, run.start))
        if kept is None or len(kept.here) != run.stop - run.start:
            kept = Crossing(run.stop - run.start, run.device)
            self._crossings[run.device, run.start] = kept
        return kept


@dataclass(frozen=True)
class _Run:
    device: torch.device
    places: tuple[_Place, ...]

    @property
    def start(self) -> int:
        return self.places[0].start

    @property
    def stop(self) -> int:
        return self.places[-1].stop

    @property
    def abroad(self) -> bool:
        return self.device.type != _HOST
