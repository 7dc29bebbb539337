"""Nodes that lie: what they bring into an exchange instead of their own vector.

They know everything, the honest nodes' vectors included, and follow the protocol; so they test what
honest nodes do with numbers that are well-formed and wrong.  They state no bounds of their own.

    negate   the honest mean with its sign turned
    noise    the honest mean and as much noise as it is long
    alie     the mean less 1.5 standard deviations of each coordinate (Baruch et al. 2019)
    empire   the mean less 5 times the honest progress of the period (Xie et al. 2019)
    stale    the initial weights, for ever
    flip     an honest node with wrong labels (learning.py): its data is at fault, not its vector
    silent   nothing: the loss of its data is the yard-stick for all others
"""

import math
from dataclasses import replace
from random import Random
from typing import Protocol

import numpy as np

from covey.gossip.config import Config, Screening
from covey.gossip.core import Core
from covey.gossip.mixing import norm
from covey.gossip.quantiser import Floats
from covey.simulate.resident import Resident, Surroundings
from covey.simulate.scenario import Scenario

_ALIE_Z = 1.5
_EMPIRE = 5.0
_UNBOUNDED = 10**9


class Onlooker(Surroundings, Protocol):
    """A world that shows attackers everything."""

    def honest(self) -> list[Resident]: ...


def attackers_of(scenario: Scenario) -> frozenset[int]:
    """Which nodes attack: at least one if any."""
    if scenario.attack is None:
        return frozenset()
    count = max(1, round(scenario.attack.share * scenario.nodes))
    return frozenset(Random(f"attackers {scenario.seed}").sample(range(scenario.nodes), count))


def unbounded(config: Config) -> Config:
    """The configuration of a node that takes and clips nothing itself."""
    free = replace(Screening(), unscreened=_UNBOUNDED, remembered=_UNBOUNDED, first_reach=math.inf)
    return replace(config, screening=replace(free, undone_share=_UNBOUNDED))


class Attacker(Resident):
    """Brings a false vector of one kind into all its exchanges."""

    def __init__(
        self, number: int, core: Core, vector: Floats, world: Onlooker, rng: Random
    ) -> None:
        super().__init__(number, core, vector, world, rng)
        self.kind = ""
        self._onlooker = world
        self._first = vector.copy()
        self._noise = np.random.default_rng(rng.getrandbits(64))

    def disguise(self) -> None:
        np.copyto(self.core.replica.moving(), self._false())

    def _false(self) -> Floats:
        if self.kind == "stale":
            return self._first
        replicas = [resident.core.replica for resident in self._onlooker.honest()]
        vectors = np.stack([replica.x for replica in replicas])
        mean: Floats = vectors.mean(axis=0)
        if self.kind == "negate":
            return -mean
        if self.kind == "noise":
            noise = self._noise.standard_normal(len(mean), np.float32)
            length = norm(mean) / len(mean) ** 0.5
            return mean + np.float32(length) * noise
        if self.kind == "alie":
            deviation: Floats = vectors.std(axis=0)
            return mean - np.float32(_ALIE_Z) * deviation
        assert self.kind == "empire", self.kind
        split = replicas[0].parameters
        progress = mean[:split] - np.mean([replica.slow for replica in replicas], axis=0)
        mean[:split] -= np.float32(_EMPIRE) * progress
        return mean
