"""One node of a simulated flock as a learner of its own: its model, data, batches and optimiser are
the simulator's, so that only time and network differ.

It begins and ends together with the others, in step with a clock, its periods out of step with
theirs; and writes its model in the middle, at the end, and settled.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import covey
from covey.simulate.learning import Learning
from covey.simulate.splits import Split
from covey.simulate.tasks import load

parser = argparse.ArgumentParser()
parser.add_argument("--task", required=True)
parser.add_argument("--split", required=True)
parser.add_argument("--node", type=int, required=True, help="which, from 0")
parser.add_argument("--nodes", type=int, required=True)
parser.add_argument("--periods", type=int, required=True)
parser.add_argument("--steps", type=int, required=True, help="per period")
parser.add_argument("--period", type=float, required=True, help="seconds")
parser.add_argument("--folder", type=Path, required=True, help="of all nodes")


def together(options: argparse.Namespace, what: str) -> None:
    """Wait until all nodes have come so far."""
    (options.folder / f"{what}-{options.node}").touch()
    while not all((options.folder / f"{what}-{k}").exists() for k in range(options.nodes)):
        time.sleep(0.005)


def main(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    learning = Learning(load(options.task), options.nodes, Split.parse(options.split), seed=0)
    mine = np.array([options.node])
    vector = learning.vectors[options.node]
    first = vector.copy()

    def keep(what: str) -> None:
        np.save(options.folder / f"{what}-{options.node}.npy", vector)

    with covey.attach(learning.layout, vector, every=options.steps) as flock:
        assert np.array_equal(vector, first), "all begin with the same weights"
        together(options, "begun")
        due = time.monotonic()
        steps = options.periods * options.steps
        late = (options.node + 0.5) * options.steps / options.nodes  # its periods, in steps
        for step in range(1, steps + 1):
            time.sleep(max(0.0, due - time.monotonic()))
            due += options.period / options.steps
            learning.step(mine)
            if step in (steps // 2, steps):
                keep("middle" if step < steps else "end")
            if step > late:
                flock.step()
        together(options, "done")
        flock.leave()
        keep("settled")


if __name__ == "__main__":
    main(parser.parse_args())
