"""What an exchange costs a node: ``python tests/benchmarks/quantiser.py [--parameters N]``.

Each operation in C, where that is built, beside a copy of the same float32 vector, so that machines
compare, and beside numpy; and a whole exchange between two cores with its bytes on the wire.
"""

import argparse
import os
import time
from collections.abc import Callable
from random import Random
from types import ModuleType

# As in the node: one thread, the rest is the learner's.  Read when numpy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from covey.gossip import kernels, native, quantiser, reference
from covey.gossip.blocks import CODED, HALF, LANES, Floats
from covey.gossip.config import Config
from covey.gossip.pair import Pair
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout, Tensor
from covey.protocols.messages import Lineage


def milliseconds(work: Callable[[], object], rounds: int) -> float:
    """The least of a few rounds: what it costs when nobody else wants the core."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times) * 1e3


def vectors(parameters: int) -> tuple[Floats, Floats, Floats]:
    """Two models that differ as they do in training, and scales that fit."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(parameters, dtype=np.float32) * np.float32(0.02)
    y = x + rng.standard_normal(parameters, dtype=np.float32) * np.float32(0.001)
    return x, y, np.full(quantiser.blocks_in(parameters), 0.004, np.float32)


def operations(parameters: int, kernels: ModuleType) -> dict[str, Callable[[], object]]:
    """What an exchange and a period do to a vector, computed by one module."""
    x, y, scales = vectors(parameters)
    z, momentum, lanes = x.copy(), np.zeros_like(x), np.empty(LANES)
    blocks = len(scales)
    inverse, starts = 4 / scales, np.arange(blocks, dtype=np.uint32)
    mine, theirs = np.empty((2, blocks * CODED), np.uint8)
    difference, doubtful = np.empty((blocks, HALF), np.uint8), np.empty(blocks, np.bool_)
    energy, peak = np.empty(blocks, np.int32), np.empty(blocks, np.int16)
    history, most = np.tile(scales, (9, 1)), np.empty_like(scales)
    room = np.empty_like(x)
    stepped = z, x.copy(), momentum, None, np.stack([most, most, most])
    numbers = (0.5, 0.45, 0.7)
    kernels.encode(x, inverse, starts, mine, 0)
    kernels.encode(y, inverse, starts, theirs, 0)
    told = difference, energy, peak, doubtful
    return {
        "largest of each block": lambda: kernels.block_max(x, None, most),
        "encode": lambda: kernels.encode(x, inverse, starts, mine, 0),
        "decode, energy, largest": lambda: kernels.decode(mine, theirs, *told),
        "apply": lambda: kernels.apply(difference, scales, z, z, None, 0.5),
        "typical scales": lambda: kernels.median(history, most),
        "finite": lambda: kernels.is_finite(x),
        "progress": lambda: kernels.progress(z, y, x, most),
        "progress of one that has x": lambda: kernels.follow(z, x, most, most),
        "outer step": lambda: kernels.outer_step(*stepped, None, None, numbers),
        "mix, outer step, increment": lambda: kernels.outer_step(
            *stepped, (difference, scales), room, numbers
        ),
        "increment": lambda: kernels.subtract(x, y, z),
        "norm": lambda: kernels.squares(x, None, lanes),
    }


class Couple:
    """Two nodes that learn apart and exchange."""

    def __init__(self, parameters: int, codec: str) -> None:
        x, y, _ = vectors(parameters)
        layout = Layout((Tensor("weights", (parameters,)),))
        self.cores = []
        for number, progress in enumerate((x, y)):
            peer = PeerId(bytes([number]) * 32)
            core = Pair(peer, Config(codec=codec), layout, Random(number))
            core.begin(x, Lineage(bytes(32)))
            core.replica.learner_has(core.replica.x)
            core.progress(progress, applied=True)
            core.accepting = True
            self.cores.append(core)
        self.wire = 0

    def exchange(self) -> None:
        a, b = self.cores
        a.open_period(1)
        out = a.propose([b.me], 0.0)
        self.wire, sender = 0, a
        while out is not None:
            self.wire += len(out.payload)
            receiver = b if sender is a else a
            out = receiver.receive(sender.me, out.message, out.payload, 0.0)
            sender = receiver


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    print(f"{given.parameters:,} parameters, one thread, the best of {given.rounds} rounds")
    x = vectors(given.parameters)[0]
    out = x.copy()
    copy = milliseconds(lambda: np.copyto(out, x), given.rounds)
    each = copy * 1e6 / given.parameters
    print(f"{'':28}{'ms':>8}{'copies':>9}{'ns/param':>10}{'numpy':>9}{'times':>7}")
    print(f"{'copy of the vector':28}{copy:8.1f}{1:9.1f}{each:10.2f}")
    slow = operations(given.parameters, reference)
    for name, work in operations(given.parameters, kernels.chosen).items():
        spent, numpy = (milliseconds(f, given.rounds) for f in (work, slow[name]))
        each = spent * 1e6 / given.parameters
        line = f"{name:28}{spent:8.1f}{spent / copy:9.1f}{each:10.2f}"
        print(f"{line}{numpy:9.1f}{numpy / spent:7.1f}")
    print(f"with {native.IN_USE}:")
    for codec in ("mod4", "f32"):
        couple = Couple(given.parameters, codec)
        spent = milliseconds(couple.exchange, given.rounds) / 2
        each = spent * 1e6 / given.parameters
        wire = couple.wire / 2 / given.parameters
        name = f"{codec} exchange, per node"
        print(f"{name:28}{spent:8.1f}{spent / copy:9.1f}{each:10.2f}  {wire:.3f} B/param sent")


if __name__ == "__main__":
    main()
