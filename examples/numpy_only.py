"""Softmax regression without any framework: covey's numpy door.

covey run examples/numpy_only.py --node 1       # another number on each machine
"""

import argparse

import numpy as np
from numpy.typing import NDArray

import covey

INPUTS, CLASSES, BATCH = 20, 5, 32
LAYOUT = covey.Layout(
    (covey.Tensor("weights", (INPUTS, CLASSES)), covey.Tensor("bias", (CLASSES,)))
)
parser = argparse.ArgumentParser(description="Learn a linear rule together")
parser.add_argument("--node", type=int, default=1, help="which data this node sees")
parser.add_argument("--steps", type=int, default=20_000)


def main(options: argparse.Namespace) -> None:
    rule = np.random.default_rng(0).normal(size=(INPUTS, CLASSES))  # what is to be found

    def draw(
        random: np.random.Generator, count: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        x = random.normal(size=(count, INPUTS))
        return x, (x @ rule).argmax(1)

    vector = np.zeros(LAYOUT.size, np.float32)  # the model, flat, in the layout's order
    weights = vector[: INPUTS * CLASSES].reshape(INPUTS, CLASSES)  # views of it, not copies
    bias = vector[INPUTS * CLASSES :]
    test_x, test_y = draw(np.random.default_rng(0), 2000)

    def accuracy() -> float:
        return float(((test_x @ weights + bias).argmax(1) == test_y).mean())

    random = np.random.default_rng(options.node)
    with covey.attach(LAYOUT, vector, every="200ms") as flock:
        for step in range(1, options.steps + 1):
            x, y = draw(random, BATCH)
            chances = np.exp(x @ weights + bias)
            chances /= chances.sum(1, keepdims=True)
            loss = -np.log(chances[np.arange(BATCH), y]).mean()
            chances[np.arange(BATCH), y] -= 1  # now the gradient by the scores
            weights -= 0.02 / BATCH * x.T @ chances
            bias -= 0.02 * chances.mean(0)
            flock.step()
            if step % 1000 == 0:
                print(f"step {step:6}  loss {loss:.3f}  accuracy {accuracy():.3f}")
                flock.log(loss=loss, accuracy=accuracy())
    print(f"accuracy {accuracy():.3f}")


if __name__ == "__main__":
    main(parser.parse_args())
