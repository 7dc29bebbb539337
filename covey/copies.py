"""Copies between one tensor and its part of a float32 vector on the same device.

A bfloat16 or float16 tensor cannot hold what an increment adds, so the part that rounding takes
away is kept beside it in float32 (the residual): the vector is tensor + residual, and small
increments add up instead of being lost.

On the host all is done in one thread and in pieces that stay in the cache, without further memory:
torch's threads would wait for each other while the node works on one of their cores.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Values = NDArray[np.floating]
WIDE = (torch.float32, torch.float64)
NARROW = (torch.bfloat16, torch.float16)
_PIECE = 1 << 15  # elements; torch takes no second thread for so few
_FLOAT16_MAX = torch.finfo(torch.float16).max


def values_of(tensor: Tensor) -> Values | None:
    """A wide tensor on the host as an array, which numpy copies fastest; None for any other."""
    return tensor.numpy() if tensor.device.type == "cpu" and tensor.dtype in WIDE else None


def read(tensor: Tensor, residual: Tensor | None, part: Tensor) -> None:
    """``part`` becomes tensor + residual.  ``part``: float32, of the tensor's shape."""
    if residual is None:
        for piece, narrow in _pieces(part, tensor):
            piece.copy_(narrow)
    else:
        for piece, narrow, rest in _pieces(part, tensor, residual):
            piece.copy_(narrow)
            piece.add_(rest)


def put(tensor: Tensor, part: Tensor, added: bool) -> None:
    """A wide tensor becomes ``part``, or (``added``) more by it."""
    if added:
        tensor.add_(part)
    else:
        tensor.copy_(part)


class Narrow:
    """Puts into tensors of 16 bits, with a scratch that it keeps."""

    def __init__(self) -> None:
        self._scratch = torch.empty(_PIECE)

    def put(self, tensor: Tensor, residual: Tensor, part: Tensor, added: bool) -> None:
        """tensor + residual becomes ``part``, or (``added``) tensor + residual + part."""
        for narrow, rest, piece in _pieces(tensor, residual, part):
            if added:
                rest.add_(piece).add_(self._wide(narrow))
            else:
                rest.copy_(piece)
            narrow.copy_(rest)
            if tensor.dtype is torch.float16:
                narrow.clamp_(-_FLOAT16_MAX, _FLOAT16_MAX)  # infinite otherwise
            rest.sub_(self._wide(narrow))

    def _wide(self, narrow: Tensor) -> Tensor:
        """A piece in float32, for which torch would take fresh memory on the host."""
        if narrow.device.type != "cpu" or narrow.numel() > _PIECE:
            return narrow
        return self._scratch[: narrow.numel()].view(narrow.shape).copy_(narrow)


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same elements of each, so few at a time that they stay in the cache."""
    whole = tensors[0].numel() <= _PIECE or tensors[0].device.type != "cpu"
    if whole or not all(tensor.is_contiguous() for tensor in tensors):
        yield tensors
        return
    flat = [tensor.view(-1) for tensor in tensors]
    for start in range(0, len(flat[0]), _PIECE):
        yield tuple(tensor[start : start + _PIECE] for tensor in flat)
