"""A learner that hands over as fast as its node takes: each line on standard input is an order.

``fill``: take one step and have a snapshot of it, which is not handed over yet, so that all can at
once.  ``round``: hand it over, wait for the increment that answers it.  ``take``: add that, which
who is done first would else do while others are at it.  ``free SECONDS``: all three without a
break; ``periods SECONDS COUNT``: all, each so long.  No training: a step adds noise as
large as what training does between exchanges.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence

import numpy as np

import covey
from covey.attachment import Attachment
from covey.weights import Vector

NOISE = 1 << 20  # elements of one step's noise, which repeats along the vector
PATIENCE_S = 60.0

parser = argparse.ArgumentParser()
parser.add_argument("--home", required=True)
parser.add_argument("--parameters", type=int, required=True)
parser.add_argument("--number", type=int, default=0)


class Rounds:
    """One learner's rounds."""

    def __init__(self, flock: Attachment, vector: Vector, rng: np.random.Generator) -> None:
        self.vector = vector
        self._flock = flock
        self._session = flock._session  # to wait without spinning, which the door does not offer
        noise = min(NOISE, len(vector))
        self._noise = rng.standard_normal(noise, dtype=np.float32) * np.float32(0.001)
        self._came = np.zeros(0, np.float32)  # the increment of the last round

    def fill(self) -> dict[str, float]:
        """The processor time of the snapshot, which the noise is no part of."""
        self._train()
        before = time.process_time()
        while (slot := self._session.slot) is None:
            self._wait()
        np.copyto(slot, self.vector)
        return {"cpu": time.process_time() - before}

    def round(self) -> dict[str, float]:
        """When the snapshot was handed over, and when the increment was there, in seconds,
        monotonic; and the processor time of both."""
        before, start = time.process_time(), time.monotonic()
        self._hand_over()
        while (came := self._flock.poll()) is None:
            if self._session._pace_s is not None:  # the period has ended without an exchange
                self.fill()
                self._hand_over()
            self._wait()
        self._came = came
        return {"start": start, "end": time.monotonic(), "cpu": time.process_time() - before}

    def take(self) -> dict[str, float]:
        """Add the increment; the processor time of that."""
        before = time.process_time()
        self.vector += self._came
        self._session.acknowledge()
        return {"cpu": time.process_time() - before}

    def turn(self) -> None:
        """All of a round at once."""
        self.fill()
        self.round()
        self.take()

    def follow(self, seconds: float) -> None:
        """Take in what comes."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            if (increment := self._flock.poll()) is not None:
                self.vector += increment
            else:
                self._session.wait(left_s)

    def _train(self) -> None:
        while (increment := self._flock.poll()) is not None:  # of others' exchanges meanwhile
            self.vector += increment
        self._noise = -np.roll(self._noise, 1)
        for start in range(0, len(self.vector), len(self._noise)):
            part = self.vector[start : start + len(self._noise)]
            part += self._noise[: len(part)]

    def _hand_over(self) -> None:
        self._session.steps += 1
        self._session.hand_over()
        self._session._pace_s = None  # comes again when the period ends

    def _wait(self) -> None:
        assert self._flock.attached, "the node is gone"
        self._session.wait(PATIENCE_S)


def main(given: argparse.Namespace) -> None:
    common = np.random.default_rng(0)
    layout = covey.Layout((covey.Tensor("w", (given.parameters,)),))
    vector = common.standard_normal(given.parameters, dtype=np.float32) * np.float32(0.02)
    flock = covey.attach(layout, vector, every=1, home=given.home)
    rounds = Rounds(flock, vector, np.random.default_rng(1 + given.number))
    print(json.dumps({"ready": given.number}), flush=True)
    for line in sys.stdin:
        order, *numbers = line.split()
        print(json.dumps(obey(rounds, order, [float(number) for number in numbers])), flush=True)
    flock._close(clean=True)


def obey(rounds: Rounds, order: str, numbers: Sequence[float]) -> dict[str, float]:
    """Do what one line asks for, and tell of it."""
    orders = {"fill": rounds.fill, "round": rounds.round, "take": rounds.take}
    if order in orders:
        return orders[order]()
    begin, count = time.monotonic(), 0
    if order == "free":
        while time.monotonic() < begin + numbers[0]:
            rounds.turn()
            count += 1
    else:
        assert order == "periods", order
        while count < numbers[1]:
            rounds.turn()
            count += 1
            rounds.follow(begin + count * numbers[0] - time.monotonic())
    return {"start": begin, "end": time.monotonic(), "rounds": count}


if __name__ == "__main__":
    main(parser.parse_args())
