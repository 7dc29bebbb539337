"""The algorithms by which nodes learn together: the one place that knows them all.

    pair         random pairs average (the default): fewest bytes, the mean is preserved
    push-sum     each sends half of its mass to another: the exact mean over one-way links
    relay        one model visits the nodes in turn: few nodes, slow links, like data
    robust-pull  each asks several others and mixes robustly: for swarms with hostile members

All nodes of a swarm need the same; two that differ refuse each other by name (Core.receive).
"""

from random import Random

from covey.gossip.config import ALGORITHMS, Config
from covey.gossip.core import Core
from covey.gossip.pair import Pair
from covey.gossip.push_sum import PushSum
from covey.gossip.relay import Relay
from covey.gossip.robust_pull import RobustPull
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout

_ALL: tuple[type[Core], ...] = (Pair, PushSum, Relay, RobustPull)
_CLASSES = {kind.algorithm: kind for kind in _ALL}
assert tuple(_CLASSES) == ALGORITHMS


def create(me: PeerId, config: Config, layout: Layout, rng: Random) -> Core:
    """A node's core with the algorithm that ``config`` names."""
    return _CLASSES[config.algorithm](me, config, layout, rng)
