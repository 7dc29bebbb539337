"""What an exchange costs a node: ``python tests/benchmarks/quantiser.py [--parameters N]``.

Each operation beside a copy of the same float32 vector, so that machines compare, and a whole
exchange between two cores with the bytes that it puts on the wire.
"""

import argparse
import os
import time
from collections.abc import Callable
from random import Random

# As in the node: one thread, the rest is the learner's.  Read when numpy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from covey.gossip import mixing, quantiser
from covey.gossip.config import Config, OuterStep
from covey.gossip.pair import Pair
from covey.gossip.quantiser import Floats, Quantiser
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


def operations(parameters: int) -> dict[str, Callable[[], object]]:
    x, y, scales = vectors(parameters)
    out, third = np.empty_like(x), np.zeros_like(x)
    mine, theirs = Quantiser(x, scales, 1), Quantiser(y, scales, 1)
    layer = theirs.write(0)
    mine.write(0)

    return {
        "copy of the vector": lambda: np.copyto(out, x),
        "write layer 0": lambda: mine.write(0),
        "read layer 0": lambda: mine.read(0, layer),
        "distance": mine.distance,
        "largest per block": mine.largest,
        "apply": lambda: mine.apply(out, 0.5),
        "own scales": lambda: quantiser.own_scales(x, scales, scales),
        "progress (x += new - old)": lambda: mixing.add_difference(out, x, y),
        "outer step": lambda: mixing.outer_step(out, y, third, OuterStep()),
        "finite": lambda: mixing.finite(x),
        "norm": lambda: mixing.norm(x),
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
    print(f"{'':28}{'ms':>8}{'copies':>9}{'ns/param':>10}")
    copy = None
    for name, work in operations(given.parameters).items():
        spent = milliseconds(work, given.rounds)
        copy = copy or spent
        each = spent * 1e6 / given.parameters
        print(f"{name:28}{spent:8.1f}{spent / copy:9.1f}{each:10.2f}")
    assert copy is not None
    for codec in ("mod4", "f32"):
        couple = Couple(given.parameters, codec)
        spent = milliseconds(couple.exchange, given.rounds) / 2
        each = spent * 1e6 / given.parameters
        wire = couple.wire / 2 / given.parameters
        name = f"{codec} exchange, per node"
        print(f"{name:28}{spent:8.1f}{spent / copy:9.1f}{each:10.2f}  {wire:.3f} B/param sent")


if __name__ == "__main__":
    main()
