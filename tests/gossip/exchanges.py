"""Two sides of one exchange and the messages that go between them, one by one."""

from random import Random

import numpy as np

from covey.gossip import quantiser
from covey.gossip.codecs import Buffer, Side
from covey.gossip.config import Screening
from covey.gossip.exchange import Accepter, Judges, Proposer
from covey.gossip.outliers import Outliers
from covey.gossip.progress import Progress
from covey.gossip.quantiser import Floats
from covey.gossip.screening import Bound, Bounds
from covey.protocols.identity import PeerId
from covey.protocols.messages import Accept, Commit, Lineage, More, Settled

ALICE, BOB = PeerId(b"a" * 32), PeerId(b"b" * 32)
ID, NONCE = b"e" * 16, b"n" * 16
OPEN = Bounds(Bound(1e18, 1e18), Bound(1e18, 1e18))
CODECS = ["mod4", "f32"]
PARAMETERS, BUFFERS = 1300, 20
MOST = 0.25  # share of blocks that may stay undecoded


class Pair:
    """A proposer and an accepter of one exchange, and the messages that went between them.

    ``fine``: how much finer than their difference their scales are; 1 needs one layer, 1 / 16
    two, 1 / 256 three, less is out of range.  ``few``: in the first block of 21 only.
    """

    def __init__(
        self,
        codec: str = "mod4",
        fine: float = 1.0,
        mine: Bounds = OPEN,
        theirs: Bounds = OPEN,
        few: bool = False,
    ) -> None:
        rng = np.random.default_rng(4)
        self.x = rng.standard_normal(PARAMETERS + BUFFERS).astype(np.float32)
        self.y = self.x + rng.uniform(-0.1, 0.1, len(self.x)).astype(np.float32)
        self.before = self.x.copy(), self.y.copy()
        ways = [self.beginning(vector) for vector in (self.x, self.y)]
        sides = [self.side(vector, fine, few) for vector in (self.x, self.y)]
        self.outliers = Outliers(Screening()), Outliers(Screening())
        judges = [Judges(*of) for of in zip((mine, theirs), ways, self.outliers, strict=True)]
        self.proposer = Proposer(BOB, ID, sides[0], judges[0], codec)
        self.accepter = Accepter(ALICE, ID, sides[1], judges[1])
        self.messages: list[tuple[object, Buffer]] = []

    def side(self, x: Floats, fine: float, few: bool) -> Side:
        typical = np.full(quantiser.blocks_in(PARAMETERS), 0.1, np.float32)
        typical[: 1 if few else None] *= fine
        own = quantiser.own_scales(
            quantiser.block_max(x[:PARAMETERS]), np.zeros_like(typical), typical
        )
        return Side(x, PARAMETERS, own)

    def beginning(self, at: Floats, periods: int = 0) -> Progress:
        """Of a model that began there, so long ago."""
        made = Progress(Screening(), PARAMETERS, Random(0))
        made.begin(at[:PARAMETERS])
        for _ in range(periods):
            made.close_period()
        return made

    @property
    def moved(self) -> tuple[Floats, Floats]:
        return self.x - self.before[0], self.y - self.before[1]

    def keep(self, message: tuple[object, Buffer]) -> Buffer:
        self.messages.append((message[0], bytes(message[1])))
        return self.messages[-1][1]

    def accept(self) -> tuple[Accept, Buffer]:
        propose, payload = self.proposer.propose(Lineage())
        self.keep((propose, payload))
        accept, scales, layer = self.accepter.accept(propose, payload, NONCE)
        return accept, self.keep((accept, b"".join((scales, *layer))))

    def accepted(self, accept: Accept, payload: Buffer) -> tuple[Commit, Buffer]:
        self.proposer.answered(accept)
        self.proposer.take(memoryview(payload))
        commit, rest = self.proposer.accepted()
        assert self.proposer.layer is not None
        return commit, b"".join((*self.proposer.layer, rest))

    def commit(self) -> Buffer:
        return self.keep(self.accepted(*self.accept()))

    def committed(self, payload: Buffer) -> tuple[More | Settled, Buffer]:
        self.accepter.take(memoryview(payload))
        answer = self.accepter.commit(MOST)
        if isinstance(answer[0], Settled):
            self.accepter.coder.apply(self.y, self.accepter.half())
        return answer

    def settled(self, message: Settled, payload: Buffer) -> None:
        self.proposer.settled(message, payload, MOST)
        self.proposer.coder.apply(self.x, self.proposer.half())

    def settle(self) -> tuple[Settled, Buffer]:
        """Up to the last message, which moves the proposer."""
        payload = self.commit()
        answer, payload = self.committed(payload)
        self.keep((answer, payload))
        if isinstance(answer, More):
            payload = self.keep(self.proposer.more(payload))
            answer, payload = self.committed(payload)
            self.keep((answer, payload))
        assert isinstance(answer, Settled)
        return answer, payload

    def run(self) -> None:
        answer, payload = self.settle()
        self.settled(answer, payload)

    @property
    def kinds(self) -> list[type]:
        return [type(message) for message, _ in self.messages]
