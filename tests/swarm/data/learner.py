"""A numpy learner for the swarm tests: it pulls its vector towards a mark of its own, for ever.

Every mark lies near 10 and every initial vector near 0, so a vector shows where it comes from.
Writes what it starts with, and what it ends with, beside the file that tells it to end.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import covey

parser = argparse.ArgumentParser()
parser.add_argument("--number", type=int, default=1, help="of this learner: its mark and its start")
parser.add_argument("--tensors", default="w=40x25,b=24", help="name=shape, …")
parser.add_argument("--folder", type=Path, required=True, help="for start.npy and end.npy")
parser.add_argument("--until", type=Path, required=True, help="train until this file exists")
parser.add_argument("--every", default="200ms")
parser.add_argument("--deaf", action="store_true", help="ignore SIGTERM")


def layout_of(text: str) -> covey.Layout:
    named = (part.split("=") for part in text.split(","))
    return covey.Layout(
        tuple(covey.Tensor(name, tuple(map(int, shape.split("x")))) for name, shape in named)
    )


def write(path: Path, vector: NDArray[np.float32]) -> None:
    """Whoever sees the file sees all of it."""
    temporary = path.with_suffix(".tmp.npy")
    np.save(temporary, vector)
    temporary.rename(path)


def main(options: argparse.Namespace) -> None:
    if options.deaf:
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    random = np.random.default_rng(options.number)
    layout = layout_of(options.tensors)
    vector = random.normal(size=layout.size).astype(np.float32)
    mark = random.normal(10, 0.5, layout.size).astype(np.float32)
    with covey.attach(layout, vector, every=options.every) as flock:
        write(options.folder / f"start-{os.getpid()}.npy", vector)
        while not options.until.exists():
            vector += 0.02 * (mark - vector)
            flock.log(loss=float(((mark - vector) ** 2).mean()))
            flock.step()
            time.sleep(0.005)  # a model that takes its time
        flock.leave()
        write(options.folder / "end.npy", vector)


if __name__ == "__main__":
    try:
        main(parser.parse_args())
    except KeyboardInterrupt:
        sys.exit(130)  # as a script does that says nothing of it
