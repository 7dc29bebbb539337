"""Conversations for tests: a core, and channels in memory to another's."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from random import Random

from covey.gossip.config import Config
from covey.gossip.core import Outcome
from covey.gossip.pair import Pair
from covey.node.conversation import Conversation
from covey.node.letters import Letters
from covey.node.runner import CoreRunner, Takes
from covey.node.unreachable import Kind, Unreachable
from covey.protocols.envelope import Scope, Sealer
from covey.protocols.errors import RemoteError
from covey.protocols.identity import Identity, PeerId
from covey.protocols.messages import (
    ExchangeMessage,
    Lineage,
)
from tests.node.hosts import LAYOUT, PLAIN, noise
from tests.node.pipes import End, called, listen, say
from tests.protocols.examples import Sealed, sealed

SCOPE = Scope(b"w" * 32, LAYOUT.digest)
LINEAGE = Lineage(b"f" * 32, 0)
EXCHANGE = b"e" * 16
WAYS = {False: Takes.LONG, True: Takes.MOMENT}  # done apart: hardly anything, or all


class Rig:
    """One node's conversation; its courier is the test's."""

    def __init__(
        self, number: int = 1, config: Config = PLAIN, seed: int = 1, apart: bool = False
    ) -> None:
        self.identity = Identity(bytes([number]) * 32)
        self.me = self.identity.peer
        self.sealer = Sealer(self.identity, bytes([number]) * 16)
        self.core = Pair(self.me, config, LAYOUT, Random(number))
        self.core.begin(noise(seed=seed), LINEAGE)
        self.core.accepting = True
        self.outcomes: list[Outcome] = []
        self.bugs: list[BaseException] = []
        self.rejections: list[RemoteError] = []
        self.runner = CoreRunner(self.core, self.outcomes.extend, self.bugs.append, WAYS[apart])
        self.talk = Conversation(self.runner, self.sealer, SCOPE, self)
        self.sent: list[type] = []  # messages
        self.serve: Callable[[Letters], Awaitable[None]] | None = None  # the other end

    @contextlib.asynccontextmanager
    async def call(self, peer: PeerId) -> AsyncIterator[Letters]:
        if self.serve is None:
            raise Unreachable(Kind.REFUSED, "nothing listens there")
        async with called(self.serve) as letters:
            yield letters

    def replies(self, reply: Callable[[ExchangeMessage], Sealed]) -> None:
        """The other end answers by ``reply``, a sealed message without payload."""

        async def serve(letters: Letters) -> None:
            while True:
                message, _ = await listen(letters)
                await say(letters, reply(message))

        self.serve = serve

    def rejected(self, peer: PeerId | None, error: RemoteError) -> None:
        self.rejections.append(error)

    def meet(self, other: "Rig") -> None:
        async def serve(letters: Letters) -> None:
            while True:
                message = await letters.announcement()
                self.sent.append(type(message))
                await other.talk.answer(letters, self.me, message)

        self.serve = serve

    async def asked(self, by: "Rig", sealed: Sealed, payload: bytes = b"") -> ExchangeMessage:
        """What it answers to a message.  Raises RemoteError."""
        near, far = End.pair()
        ours, theirs = Letters(near), Letters(far)
        await say(ours, sealed, payload)
        try:
            await self.talk.answer(theirs, by.me, await theirs.announcement())
            return (await listen(ours))[0]
        finally:
            await theirs.close()

    def says(self, message: ExchangeMessage, scope: Scope = SCOPE) -> Sealed:
        return sealed(self.sealer, scope, message)

    async def propose(self, *peers: PeerId) -> float | None:
        await self.runner.run(lambda: self.core.open_period(1))
        return await self.talk.propose(peers)

    async def idle(self) -> None:
        await self.runner.run(lambda: None)
        assert not self.core.busy
        assert not self.bugs


def play(
    scenario: Callable[[Rig, Rig], Awaitable[None]],
    config: Config = PLAIN,
    apart: Sequence[bool] = (False, True),
) -> None:
    """With cores that are called here, and once more with such that have threads of their own."""

    async def go(apart: bool) -> None:
        rigs = Rig(1, config, 1, apart), Rig(2, config, 2, apart)
        rigs[0].meet(rigs[1])
        rigs[1].meet(rigs[0])
        try:
            await scenario(*rigs)
        finally:
            for rig in rigs:
                await rig.runner.close()
        assert not rigs[0].bugs + rigs[1].bugs

    for each in apart:
        asyncio.run(go(each))
