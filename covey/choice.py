"""Which tensors of a torch model are shared, and under what names.

Parameters that train and persistent floating-point buffers are shared, tied ones once, frozen ones
never.  Names are those of the plain model: what torch.compile and DistributedDataParallel put into
them is left out, so that wrapped and plain models learn together.
"""

import difflib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from covey.copies import NARROW, WIDE
from covey.errors import ShareError
from covey.protocols import layout as wire
from covey.protocols.layout import Kind


@dataclass(frozen=True)
class Shared:
    """One tensor.  ``path`` leads to it in the model, wrappers and all; ``name`` is without."""

    name: str
    path: str
    tensor: Tensor
    kind: Kind


def chosen(model: nn.Module, share: str | Sequence[str] | None = None) -> list[Shared]:
    """What is shared, in the model's order, tied tensors once.

    ``share``: patterns of names as of fnmatch instead of the default; ``!`` takes some out.  Raises
    ShareError.
    """
    _check_whole(model)
    patterns = None if share is None else [share] if isinstance(share, str) else list(share)
    candidates = {one.name: one for one in _candidates(model)}
    if patterns is None:
        saved = model.state_dict(keep_vars=True)
        # A buffer that is not saved is derived, such as a mask; one with infinities is one too.
        names = {
            name
            for name, one in candidates.items()
            if one.kind is Kind.PARAMETER
            or (one.path in saved and bool(torch.isfinite(one.tensor).all()))
        }
    else:
        names = _matching(patterns, candidates, model)
    found, seen = [], set()
    for name, one in candidates.items():
        where = (one.tensor.device, one.tensor.data_ptr(), one.tensor.numel())
        if name in names and one.tensor.numel() and where not in seen:
            seen.add(where)
            found.append(one)
    if not any(one.kind is Kind.PARAMETER for one in found):
        raise ShareError("the model has no parameter that trains (requires_grad) and is shared")
    return found


def described(shared: Shared) -> wire.Tensor:
    """Check that a tensor can take part.  Raises ShareError."""
    name, tensor = shared.name, shared.tensor
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.dtype not in (*WIDE, *NARROW):
        raise ShareError(
            f"{name} is {dtype}; only float32, float64, bfloat16 and float16 are shared"
        )
    if tensor.device.type == "meta":
        raise ShareError(f"{name} is on the meta device: load the model before covey.join")
    if not torch.isfinite(tensor).all():
        raise ShareError(f"{name} has values that are not finite")
    return wire.Tensor(name, tuple(tensor.shape), dtype, shared.kind)


def parallel(model: nn.Module) -> DistributedDataParallel | None:
    """The DistributedDataParallel that ``model`` is, perhaps compiled."""
    inner: object = model
    while isinstance(inner, nn.Module):
        if isinstance(inner, DistributedDataParallel):
            return inner
        inner = getattr(inner, "_orig_mod", None)
    return None


def _check_whole(model: nn.Module) -> None:
    """Refuse a model of which this process holds a part."""
    # Neither is loaded here: who has sharded a model has loaded them.
    sharding = sys.modules.get("torch.distributed.fsdp")
    names = ("FullyShardedDataParallel", "FSDPModule")
    wrappers = tuple(getattr(sharding, name) for name in names if hasattr(sharding, name))
    tensors = sys.modules.get("torch.distributed.tensor")
    pieces = getattr(tensors, "DTensor", ())
    if any(isinstance(module, wrappers) for module in model.modules()) or any(
        isinstance(parameter, pieces) for parameter in model.parameters()
    ):
        raise ShareError(
            "the model is sharded over several processes (FSDP or tensor parallelism), and covey "
            "shares whole models: wrap it in DistributedDataParallel instead"
        )


def _plain_names(model: nn.Module) -> Callable[[str], str]:
    """A function from a tensor's path in ``model`` to its name without wrappers."""
    plain = {"": ""}
    for path, module in model.named_modules(remove_duplicate=False):
        for key in module._modules:
            parallel = isinstance(module, DataParallel | DistributedDataParallel)
            wrapped = key == "_orig_mod" or (parallel and key == "module")
            parts = [plain[path], "" if wrapped else key]
            plain[f"{path}.{key}" if path else key] = ".".join(filter(None, parts))

    def name(path: str) -> str:
        module, _, key = path.rpartition(".")
        return ".".join(filter(None, [plain[module], key]))

    return name


def _candidates(model: nn.Module) -> Iterator[Shared]:
    """All that may be shared at all."""
    plain = _plain_names(model)
    for path, parameter in model.named_parameters(remove_duplicate=False):
        if nn.parameter.is_lazy(parameter):
            raise ShareError(f"{plain(path)} has no shape yet: run one batch before covey.join")
        if parameter.requires_grad:
            yield Shared(plain(path), path, parameter.detach(), Kind.PARAMETER)
    for path, buffer in model.named_buffers(remove_duplicate=False):
        if buffer.is_floating_point():
            yield Shared(plain(path), path, buffer.detach(), Kind.BUFFER)


def _matching(patterns: list[str], candidates: dict[str, Shared], model: nn.Module) -> set[str]:
    """The names that ``patterns`` leave.  Raises ShareError for one that matches nothing."""
    names = set(candidates) if all(pattern.startswith("!") for pattern in patterns) else set()
    for pattern in patterns:
        found = {name for name in candidates if fnmatchcase(name, pattern.removeprefix("!"))}
        if not found:
            raise ShareError(_no_match(pattern.removeprefix("!"), candidates, model))
        names = names - found if pattern.startswith("!") else names | found
    return names


def _no_match(pattern: str, candidates: dict[str, Shared], model: nn.Module) -> str:
    plain = _plain_names(model)
    names = [plain(path) for path, _ in model.named_parameters()]
    frozen = [name for name in names if name not in candidates]
    if any(fnmatchcase(name, pattern) for name in frozen):
        return f"share pattern {pattern!r} matches only frozen tensors, which are never shared"
    near = difflib.get_close_matches(pattern, candidates, n=3, cutoff=0.3) or list(candidates)[:3]
    return f"share pattern {pattern!r} matches no tensor; near it: {', '.join(near)}"
