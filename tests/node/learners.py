"""Random moves of learners, in whole numbers: sums of them are exact in any order."""

import asyncio
from random import Random

import numpy as np

from tests.node.hosts import LAYOUT, Learner, Vector
from tests.node.waiting import until


def whole(seed: int, most: int = 8) -> Vector:
    """Whole numbers, so that sums of them are exact in any order."""
    rng = np.random.default_rng(seed)
    return rng.integers(-most, most, LAYOUT.size).astype(np.float32)


async def move(rng: Random, learner: Learner, seed: int) -> Vector:
    """One random move of a learner; returns its local step."""
    step = np.zeros(LAYOUT.size, np.float32)
    match rng.choice(["step", "step", "hand over", "hand over", "apply", "wait", "rest"]):
        case "step":
            step = whole(seed)
            learner.step(step)
        case "hand over":
            learner.hand_over()
        case "apply":
            learner.apply()
        case "wait":
            await until(lambda: learner.consumed)
        case _:
            await asyncio.sleep(0)
    return step
