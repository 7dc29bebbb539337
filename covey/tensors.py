"""A torch model as one float32 vector: which tensors are shared, and copies to and from them.

Parameters that train and persistent floating-point buffers are shared, tied ones once, frozen ones
never.  In the vector every element is float32.  A bfloat16 or float16 tensor cannot hold what
an increment adds, so the part that rounding takes away is kept beside it in float32 (the residual):
the vector handed over is tensor + residual, and small increments add up instead of being lost.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from covey.errors import ShareError
from covey.protocols import layout as wire
from covey.protocols.layout import Kind, Layout
from covey.weights import Vector

_WIDE = (torch.float32, torch.float64)
_NARROW = (torch.bfloat16, torch.float16)
_FLOAT16_MAX = torch.finfo(torch.float16).max
_HOST = "cpu"  # where vectors are; tensors elsewhere go through a vector of their own device


@dataclass
class _Place:
    """One shared tensor and its part [start, stop) of the vector.

    The tensor is looked up in its module each time: ``model.to`` and training code may replace it.
    """

    module: nn.Module
    key: str
    start: int
    stop: int
    residual: Tensor | None = None  # float32, of the tensor's shape, once something was added

    @property
    def tensor(self) -> Tensor:
        tensor = getattr(self.module, self.key)
        assert isinstance(tensor, Tensor)
        return tensor.detach()


class TensorWeights:
    """The shared tensors of ``model``; implements covey.weights.Weights.

    ``share``: name patterns as of fnmatch, replacing the default choice; one that begins with
    ``!`` takes names out.  Raises ShareError.
    """

    def __init__(self, model: nn.Module, share: str | Sequence[str] | None = None) -> None:
        model = _unwrapped(model)
        chosen = _chosen(model, share)
        self.layout = Layout.of(_described(name, tensor, kind) for name, tensor, kind in chosen)
        self._places: list[_Place] = []
        self._staging: dict[tuple[torch.device, int], Tensor] = {}
        start = 0
        for tensor in self.layout.tensors:
            path, _, key = tensor.name.rpartition(".")
            module = model.get_submodule(path)
            self._places.append(_Place(module, key, start, start + tensor.size))
            start += tensor.size

    @torch.no_grad()
    def gather(self, into: Vector) -> None:
        """Copy the model out: on its own device first, then across at once."""
        whole = torch.from_numpy(into)
        for run in self._runs():
            flat = run.flat(whole, self._staging)
            for place, tensor in zip(run.places, run.tensors, strict=True):
                piece = flat[place.start - run.start : place.stop - run.start].view(tensor.shape)
                piece.copy_(tensor)
                if place.residual is not None:
                    piece.add_(place.residual.to(tensor.device))
            if run.abroad:
                whole[run.start : run.stop].copy_(flat)

    def add(self, increment: Vector) -> None:
        """Add to the live tensors, keeping what does not fit into narrow ones."""
        self._put(increment, add=True)

    def set(self, vector: Vector) -> None:
        """Make the live tensors, with their residuals, equal to ``vector``."""
        self._put(vector, add=False)

    @torch.no_grad()
    def _put(self, vector: Vector, add: bool) -> None:
        whole = torch.from_numpy(vector)
        for run in self._runs():
            flat = run.flat(whole, self._staging)
            if run.abroad:
                flat.copy_(whole[run.start : run.stop])
            for place, tensor in zip(run.places, run.tensors, strict=True):
                piece = flat[place.start - run.start : place.stop - run.start].view(tensor.shape)
                if tensor.dtype in _NARROW:
                    _put_narrow(place, tensor, piece, add)
                elif add:
                    tensor.add_(piece)
                else:
                    tensor.copy_(piece)

    def _runs(self) -> Iterator["_Run"]:
        """Neighbours in the vector that are on one device."""
        pairs = ((place, place.tensor) for place in self._places)
        for device, group in groupby(pairs, key=lambda pair: pair[1].device):
            places, tensors = zip(*group, strict=True)
            yield _Run(device, places, tensors)


@dataclass(frozen=True)
class _Run:
    device: torch.device
    places: tuple[_Place, ...]
    tensors: tuple[Tensor, ...]

    @property
    def start(self) -> int:
        return self.places[0].start

    @property
    def stop(self) -> int:
        return self.places[-1].stop

    @property
    def abroad(self) -> bool:
        return self.device.type != _HOST

    def flat(self, whole: Tensor, staging: dict[tuple[torch.device, int], Tensor]) -> Tensor:
        """This run's part of ``whole``; abroad, a vector over there, kept in ``staging``."""
        if not self.abroad:
            return whole[self.start : self.stop]
        kept = staging.get((self.device, self.start))
        if kept is None or kept.numel() != self.stop - self.start:
            kept = torch.empty(self.stop - self.start, dtype=torch.float32, device=self.device)
            staging[self.device, self.start] = kept
        return kept


def _put_narrow(place: _Place, tensor: Tensor, piece: Tensor, add: bool) -> None:
    """tensor + residual becomes tensor + residual + piece (or piece), without further memory."""
    residual = place.residual
    if residual is None or residual.device != tensor.device:
        kept = torch.zeros(tensor.shape, dtype=torch.float32, device=tensor.device)
        residual = place.residual = kept if residual is None else kept.copy_(residual)
    if add:
        residual.add_(piece).add_(tensor)
    else:
        residual.copy_(piece)
    tensor.copy_(residual)
    if tensor.dtype is torch.float16:
        tensor.clamp_(-_FLOAT16_MAX, _FLOAT16_MAX)  # infinite otherwise
    residual.sub_(tensor)


def _unwrapped(model: nn.Module) -> nn.Module:
    """The module itself, so that names are the same under DDP and torch.compile as without."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, DataParallel | DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _chosen(model: nn.Module, share: str | Sequence[str] | None) -> list[tuple[str, Tensor, Kind]]:
    """Name, tensor and kind of what is shared, in the model's order, tied tensors once."""
    patterns = None if share is None else [share] if isinstance(share, str) else list(share)
    candidates = dict(_candidates(model))
    if patterns is None:
        saved = model.state_dict(keep_vars=True)
        # A buffer that is not saved is derived, such as a mask; one with infinities is one too.
        names = {
            name
            for name, (tensor, kind) in candidates.items()
            if kind is Kind.PARAMETER or (name in saved and bool(torch.isfinite(tensor).all()))
        }
    else:
        names = _matching(patterns, candidates, model)
    chosen, seen = [], set()
    for name, (tensor, kind) in candidates.items():
        where = (tensor.device, tensor.data_ptr(), tensor.numel())
        if name in names and tensor.numel() and where not in seen:
            seen.add(where)
            chosen.append((name, tensor.detach(), kind))
    if not any(kind is Kind.PARAMETER for _, _, kind in chosen):
        raise ShareError("the model has no parameter that trains (requires_grad) and is shared")
    return chosen


def _candidates(model: nn.Module) -> Iterator[tuple[str, tuple[Tensor, Kind]]]:
    """All that may be shared at all."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if nn.parameter.is_lazy(parameter):
            raise ShareError(f"{name} has no shape yet: run one batch before covey.join")
        if parameter.requires_grad:
            yield name, (parameter, Kind.PARAMETER)
    for name, buffer in model.named_buffers(remove_duplicate=False):
        if buffer.is_floating_point():
            yield name, (buffer, Kind.BUFFER)


def _matching(
    patterns: list[str], candidates: dict[str, tuple[Tensor, Kind]], model: nn.Module
) -> set[str]:
    """The names that ``patterns`` leave.  Raises ShareError for one that matches nothing."""
    names = set(candidates) if all(pattern.startswith("!") for pattern in patterns) else set()
    for pattern in patterns:
        found = {name for name in candidates if fnmatchcase(name, pattern.removeprefix("!"))}
        if not found:
            raise ShareError(_no_match(pattern.removeprefix("!"), candidates, model))
        names = names - found if pattern.startswith("!") else names | found
    return names


def _no_match(pattern: str, candidates: dict[str, tuple[Tensor, Kind]], model: nn.Module) -> str:
    frozen = [name for name, _ in model.named_parameters() if name not in candidates]
    if any(fnmatchcase(name, pattern) for name in frozen):
        return f"share pattern {pattern!r} matches only frozen tensors, which are never shared"
    near = difflib.get_close_matches(pattern, candidates, n=3, cutoff=0.3) or list(candidates)[:3]
    return f"share pattern {pattern!r} matches no tensor; near it: {', '.join(near)}"


def _described(name: str, tensor: Tensor, kind: Kind) -> wire.Tensor:
    """Check that a tensor can take part.  Raises ShareError."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.dtype not in (*_WIDE, *_NARROW):
        raise ShareError(
            f"{name} is {dtype}; only float32, float64, bfloat16 and float16 are shared"
        )
    if tensor.device.type == "meta":
        raise ShareError(f"{name} is on the meta device: load the model before covey.join")
    if not torch.isfinite(tensor).all():
        raise ShareError(f"{name} has values that are not finite")
    return wire.Tensor(name, tuple(tensor.shape), dtype, kind)
