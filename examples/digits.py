"""Handwritten digits, split so unevenly that each node hardly knows some of them.

covey run examples/digits.py --shard 1/3        # and 2/3, 3/3 on two more machines
python examples/digits.py --shard 1/3 --alone   # the same data and steps without a swarm
"""

import argparse
import json
import time
from contextlib import nullcontext

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import covey

parser = argparse.ArgumentParser(description="Learn digits together")
parser.add_argument("--shard", default="1/1", help="which part of the data, e.g. 2/3")
parser.add_argument("--alpha", type=float, default=0.2, help="the smaller, the unevener the split")
parser.add_argument("--seed", type=int, default=0, help="of the split and the weights")
parser.add_argument("--steps", type=int, default=1200)
parser.add_argument("--pace", type=float, default=0.01, help="seconds to rest after a shared step")
parser.add_argument("--alone", action="store_true", help="train without a swarm")
parser.add_argument("--json", action="store_true", help="end with the result as JSON")


def load(shard: int, shards: int, alpha: float, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """This shard's images float32 (n, 64) and labels, and the common test set's.

    Each digit's images are divided among the shards by a draw from Dirichlet(alpha)."""
    images, labels = load_digits(return_X_y=True)
    random = np.random.default_rng(seed)
    test, train = np.split(random.permutation(len(labels)), [450])
    parts = [np.empty(0, int)] * shards
    while min(map(len, parts)) < 32:  # too few to train on: draw again
        parts = [np.empty(0, int)] * shards
        for digit in range(10):
            these = train[labels[train] == digit]
            cuts = np.cumsum(random.dirichlet([alpha] * shards))[:-1] * len(these)
            pieces = np.split(these, cuts.astype(int))
            parts = [np.append(part, piece) for part, piece in zip(parts, pieces, strict=True)]
    x, y, mine = torch.tensor(images / 16).float(), torch.tensor(labels), parts[shard]
    return x[mine], y[mine], x[test], y[test]


def main(options: argparse.Namespace) -> None:
    shard, shards = map(int, options.shard.split("/"))
    x, y, test_x, test_y = load(shard - 1, shards, options.alpha, options.seed)
    torch.set_num_threads(1)
    torch.manual_seed(1000 * options.seed + shard)  # the nodes begin with different weights
    layers = [nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def accuracy() -> float:
        with torch.no_grad():
            return float((model(test_x).argmax(1) == test_y).float().mean())

    with nullcontext() if options.alone else covey.join(model, optimizer, every=20) as swarm:
        for step in range(1, options.steps + 1):
            batch = torch.randint(len(y), (32,))
            loss = cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if swarm is not None:
                time.sleep(options.pace)  # digits are learned too fast to watch
                if step % 50 == 0:
                    swarm.log(loss=loss, accuracy=accuracy())
            if step % 50 == 0:
                print(f"step {step:5}  loss {loss.item():.3f}  accuracy {accuracy():.3f}")
    result = {"accuracy": round(accuracy(), 4), "steps": options.steps, "images": len(y)}
    print(json.dumps(result) if options.json else f"accuracy {result['accuracy']:.3f}")


if __name__ == "__main__":
    main(parser.parse_args())
