"""A training loop of a model with over a million parameters on one thread, alone or with covey.

Each line on standard input is a number of steps to take; the answer is the seconds they took.
"""

import argparse
import json
import sys
import time

import torch
from torch import nn

import covey

BATCH = 32
EVERY = 50  # steps

parser = argparse.ArgumentParser()
parser.add_argument("--home", help="of the node to learn through; without one alone")


def main(home: str | None) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 10))
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    if home is not None:
        covey.join(model, optimizer, every=EVERY, home=home)
    inputs, labels = torch.randn(BATCH, 512), torch.randint(10, (BATCH,))
    count = sum(parameter.numel() for parameter in model.parameters())
    print(json.dumps({"ready": count}), flush=True)
    for line in sys.stdin:
        start = time.monotonic()
        for _ in range(int(line)):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), labels)
            torch.autograd.backward(loss)
            optimizer.step()
        print(json.dumps({"start": start, "end": time.monotonic()}), flush=True)


if __name__ == "__main__":
    main(parser.parse_args().home)
