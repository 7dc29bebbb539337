"""Finds the weights that a learner starts from, and those that its model must give way to.

A learner that attaches gets, in this order: its own weights back if it was attached before and the
node restarted; a peer's, if the peer's lineage stands (late joiner, fresh node, long absence); the
node's own, from memory or a checkpoint; and if nobody else is there, it is the founder.
"""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from covey.gossip import lineage as lineages
from covey.gossip import mixing
from covey.gossip.quantiser import Floats
from covey.node.events import EventLog
from covey.node.learner_link import Attachment
from covey.node.learning import Flock, Learning
from covey.node.unreachable import Unreachable
from covey.protocols.errors import Malformed, RemoteError
from covey.protocols.identity import PeerId
from covey.protocols.messages import Lineage, Phase, StateOffer

_NEWS_S = 0.25
_LINEAGE_CHECK_S = 1.0
_RETRY_S = 1.0  # until a peer that could not give its model is asked again; doubles up to …
_RETRY_S_MAX = 60.0
_GIVE_UP_S = 16.0  # of that wait: who has failed so long, or gave nonsense, holds up nobody


class Neighbours(Flock, Protocol):
    """What is needed of the neighbourhood beyond what learning needs (neighbours.py)."""

    def elders(self, layout: bytes, lineage: Lineage) -> Sequence[PeerId]:
        """Alive peers with this layout whose lineage stands over ours, the eldest first."""

    def waiting(self, layout: bytes) -> Sequence[PeerId]:
        """Alive peers whose learner waits for weights, and that have none themselves."""

    def looked_around(self) -> bool:
        """Whether whoever is there would have been found by now."""

    async def consult(self) -> None:
        """Tell everyone alive what this node is now, and hear what they are."""

    async def state_offer(self, peer: PeerId) -> StateOffer: ...

    async def fetch_state(self, peer: PeerId, offer: StateOffer, into: memoryview) -> None: ...


class Welcome:
    """Keeps one model in the lineage that stands."""

    def __init__(
        self, me: PeerId, learning: Learning, neighbours: Neighbours, events: EventLog
    ) -> None:
        self._me = me
        self._learning = learning
        self._neighbours = neighbours
        self._events = events
        self._core = learning.runner.core
        self._failed: dict[PeerId, tuple[float, float]] = {}  # wait, and until when it lasts

    async def admit(self, attachment: Attachment) -> None:
        """Find the weights this learner starts from, and let it train."""
        core, learning = self._core, self._learning
        await self._resume(attachment)
        while not core.lineage.founder or self._elders():
            if await self._copy() or core.lineage.founder:
                break  # with a model of its own nobody waits for an elder that cannot give its
            if self._may_found():
                # Two that begin at once would not know yet that the other waits as well.
                await self._neighbours.consult()
                if self._may_found():
                    await self._found(attachment)
                    break
            await asyncio.sleep(_NEWS_S)

        def hand_over() -> bool:
            core.replica.learner_has(core.replica.x)
            same = np.array_equal(core.replica.x, attachment.snapshot)
            if not same:
                np.copyto(attachment.increment, core.replica.x)
            return not same

        replace = await learning.runner.run_idle(hand_over)
        await learning.train(attachment, replace)
        self._neighbours.tell()
        self._events.emit("train.started", age=core.lineage.age)

    async def mind(self) -> None:
        """For as long as the model is here: copy an elder's when two flocks that trained apart
        have met, or this node was long away."""
        while True:
            await asyncio.sleep(_LINEAGE_CHECK_S)
            learning = self._learning
            trained = learning.phase in (Phase.TRAINING, Phase.PAUSED, Phase.SETTLING)
            if trained and learning.lineage.founder and await self._copy():
                learning.adopted()

    async def _resume(self, attachment: Attachment) -> None:
        """The node restarted under a learner that trained on: its vector is the newer one."""
        core, resumed = self._core, attachment.resumed
        if resumed is None or not resumed.founder:
            return
        mine = core.lineage
        if mine.founder in (b"", resumed.founder):
            lineage = resumed if resumed.age >= mine.age else mine
            await self._learning.runner.run_idle(lambda: core.begin(attachment.snapshot, lineage))

    async def _found(self, attachment: Attachment) -> None:
        core = self._core

        def begin() -> bool:
            if core.lineage.founder:
                return False  # a learner that came before and left has founded it
            core.begin(attachment.snapshot, Lineage(_founder(self._me, attachment.snapshot)))
            return True

        if await self._learning.runner.run_idle(begin):
            self._events.emit("train.founded", founder=core.lineage.founder.hex()[:16])

    def _may_found(self) -> bool:
        """Whether nobody else has weights, or will: of those who wait, the least id founds."""
        if not all(self._given_up(elder) for elder in self._elders()):
            return False
        rivals = self._neighbours.waiting(self._learning.layout.digest)
        return self._neighbours.looked_around() and all(self._me < rival for rival in rivals)

    def _given_up(self, elder: PeerId) -> bool:
        """Whether it cannot give its weights.  Should it later, ``mind`` copies them."""
        wait_s, _ = self._failed.get(elder, (0.0, 0.0))
        return wait_s >= _GIVE_UP_S

    def _elders(self) -> Sequence[PeerId]:
        """Whose model we must give way to, the eldest first."""
        learning = self._learning
        elders = self._neighbours.elders(learning.layout.digest, learning.lineage)
        return elders or learning.left_behind_by()

    async def _copy(self) -> bool:
        """Take over the model of the first elder that can give it; whether one could."""
        for peer in self._elders():
            wait_s, until = self._failed.get(peer, (_RETRY_S, 0.0))
            if time.monotonic() < until:
                continue
            try:
                vector, offer = await self._fetch(peer)
            except (RemoteError, Unreachable) as error:
                longer_s = max(2 * wait_s, _GIVE_UP_S if isinstance(error, RemoteError) else 0.0)
                self._failed[peer] = min(longer_s, _RETRY_S_MAX), time.monotonic() + wait_s
                self._note_failure(peer, error)
                continue
            self._failed.pop(peer, None)
            if await self._take_over(vector, offer):
                self._events.emit("train.copied", peer=peer.short, age=offer.lineage.age)
                return True
        return False

    async def _take_over(self, vector: Floats, offer: StateOffer) -> bool:
        learning, core = self._learning, self._core
        # These ask the membership, which is the loop's.
        refused = bool(learning.left_behind_by())
        elders = bool(self._neighbours.elders(learning.layout.digest, learning.lineage))

        def begin() -> bool:
            mine, theirs = core.lineage, offer.lineage
            # While it was fetched its giver may have gone on as far again: it brings us nearer, and
            # over a slow link no copy would ever be new enough.
            nearer = elders and theirs.age > mine.age
            wanted = mine.founder == theirs.founder and (refused or nearer)
            if not wanted and not lineages.should_copy(mine, theirs):
                return False  # it was fetched for long, and ours has changed meanwhile
            if core.settling and not core.accepting:
                return False  # the learner has been given the last it gets
            core.begin(vector, offer.lineage)
            return True

        if not await learning.runner.run_idle(begin):
            return False
        learning.step = max(learning.step, offer.step)
        return True

    async def _fetch(self, peer: PeerId) -> tuple[Floats, StateOffer]:
        """Raises Unreachable or RemoteError."""
        learning = self._learning
        offer = await self._neighbours.state_offer(peer)
        if offer.length != 4 * learning.layout.size:
            raise Malformed(f"a state of {offer.length} bytes, not {4 * learning.layout.size}")
        buffer = bytearray(offer.length)
        await self._neighbours.fetch_state(peer, offer, memoryview(buffer))
        vector = np.frombuffer(buffer, "<f4")
        if not await learning.runner.run(lambda: mixing.finite(vector)):
            raise Malformed("the state holds a value that is not finite")
        return vector, offer

    def _note_failure(self, peer: PeerId, error: RemoteError | Unreachable) -> None:
        if isinstance(error, RemoteError):
            self._neighbours.rejected(peer, error)
        self._events.emit("train.copy_failed", peer=peer.short, why=str(error))
        if self._learning.phase is Phase.JOINING:
            self._learning.reason = f"waits for the weights of {peer.short}: {error}"


def _founder(me: PeerId, vector: Floats) -> bytes:
    """Names a lineage by who founded it and with what."""
    return hashlib.sha256(me.key + hashlib.sha256(vector.data).digest()).digest()
