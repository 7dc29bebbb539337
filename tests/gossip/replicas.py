"""A replica to be tested, and what moves it."""

import numpy as np

from covey.gossip.codecs import Coder, Side, coder
from covey.gossip.quantiser import Floats
from covey.gossip.replica import Replica, Saved
from covey.protocols.layout import Kind, Layout, Tensor

LAYOUT = Layout((Tensor("w", (10, 13)), Tensor("mean", (7,), kind=Kind.BUFFER)))


def vector(seed: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(LAYOUT.size).astype(np.float32)


def replica(seed: int = 0) -> Replica:
    """Begun at one vector, which the learner has too."""
    made = Replica(LAYOUT)
    made.restore(Saved.fresh(vector(seed), LAYOUT.parameters))
    made.learner_has(made.x)
    return made


def difference(x: Floats, seed: int) -> tuple[Coder, Floats]:
    """An exchange's, decoded, with a vector that is near x but for some blocks; and its values."""
    other = x + vector(seed) * np.float32(0.01)
    other[70:75] += np.float32(seed % 2)  # which takes further layers
    scales = np.full(3, 0.02, np.float32)
    mine, theirs = (coder("mod4", Side(v, LAYOUT.parameters, scales)) for v in (x.copy(), other))
    mine.open(theirs.scales(), bytes(32))
    theirs.open(mine.scales(), bytes(32))
    while mine.pending:
        codes = bytes(mine.write()), bytes(theirs.write())
        mine.read(codes[1])
        theirs.read(codes[0])
    values = np.zeros_like(x)
    mine.apply(values, (1.0, 1.0))
    return mine, values
