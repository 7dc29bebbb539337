"""How examples are dealt to the nodes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Split:
    """``kind``: iid; parts (contiguous, as books are); and with a ``value``: dirichlet (its
    concentration), classes (so many per node), sizes (iid; the largest share over the smallest)."""

    kind: str = "iid"
    value: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("iid", "parts", "dirichlet", "classes", "sizes"):
            raise ValueError(f"unknown split {self.kind!r}: iid, parts, dirichlet, classes, sizes")
        if self.kind in ("iid", "parts") and self.value:
            raise ValueError(f"the split {self.kind} takes no value")
        if self.kind not in ("iid", "parts") and not 0 < self.value < np.inf:
            raise ValueError(f"a {self.kind} split needs a value above 0, as in {self.kind}:2")
        if self.kind == "classes" and self.value % 1:
            raise ValueError("a node has a whole number of classes")

    @classmethod
    def parse(cls, text: str) -> "Split":
        """Read ``iid``, ``dirichlet:0.1``, ``classes:2`` or ``sizes:8``.  Raises ValueError."""
        kind, _, value = text.partition(":")
        try:
            number = float(value or 0)
        except ValueError:
            raise ValueError(f"{value!r} in the split {text!r} is not a number") from None
        return cls(kind, number)

    def __str__(self) -> str:
        return self.kind if not self.value else f"{self.kind}:{self.value:g}"


def deal(labels: NDArray[np.int64], nodes: int, split: Split, seed: int) -> list[Indices]:
    """The examples of each node, each example to one node; nobody goes without."""
    rng = np.random.default_rng([seed, 7])
    if split.kind == "dirichlet":
        shares = _by_class(
            labels, rng.dirichlet(np.full(nodes, split.value), labels.max() + 1), rng
        )
    elif split.kind == "classes":
        shares = _by_class(labels, _few_classes(labels, nodes, int(split.value), rng), rng)
    elif split.kind == "parts":
        shares = list(np.array_split(np.arange(len(labels)), nodes))
    else:
        ratio = split.value if split.kind == "sizes" else 1.0
        weights = ratio ** np.linspace(0, 1, nodes) if nodes > 1 else np.ones(1)
        ends = np.cumsum(weights / weights.sum() * len(labels)).astype(int)[:-1]
        shares = list(np.split(rng.permutation(len(labels)), ends))
    return _nobody_without(shares)


def _by_class(
    labels: NDArray[np.int64], proportions: NDArray[np.float64], rng: np.random.Generator
) -> list[Indices]:
    """Deal each class by its row of ``proportions``, shape (classes, nodes)."""
    parts: list[list[Indices]] = [[] for _ in range(proportions.shape[1])]
    for label, row in enumerate(proportions):
        members = rng.permutation(np.flatnonzero(labels == label))
        ends = (np.cumsum(row)[:-1] * len(members)).round().astype(int)
        for part, share in zip(parts, np.split(members, ends), strict=True):
            part.append(share)
    return [np.concatenate(part) for part in parts]


def _few_classes(
    labels: NDArray[np.int64], nodes: int, count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Each node gets ``count`` classes; a class is shared evenly by those who have it."""
    classes = int(labels.max()) + 1
    owned = np.zeros((classes, nodes))
    deck = np.concatenate([rng.permutation(classes) for _ in range(-(-nodes * count // classes))])
    for node in range(nodes):
        owned[deck[node * count : (node + 1) * count], node] = 1
    for label in np.flatnonzero(owned.sum(axis=1) == 0):
        owned[label, rng.integers(nodes)] = 1
    shares: NDArray[np.float64] = owned / owned.sum(axis=1, keepdims=True)
    return shares


def _nobody_without(shares: list[Indices]) -> list[Indices]:
    """Whoever got nothing gets one example of whoever has most."""
    for number, share in enumerate(shares):
        if not len(share):
            richest = max(range(len(shares)), key=lambda k: len(shares[k]))
            shares[number], shares[richest] = shares[richest][:1], shares[richest][1:]
    return shares
