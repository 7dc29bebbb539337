"""A peer that opens an exchange with a node of hosts.py."""

import numpy as np

from covey.node.letters import Letters
from covey.protocols.envelope import Scope, Sealer
from covey.protocols.identity import Identity
from covey.protocols.messages import Accept, ExchangeMessage, Propose
from tests.node.hosts import LAYOUT, SWARM, Node
from tests.node.pipes import End, listen, say
from tests.protocols.examples import Sealed, sealed

STRANGER = Identity(b"\x77" * 32)


def proposal(node: Node, sealer: Sealer) -> Sealed:
    """The first message of an exchange with a stranger that has this node's lineage; it has no
    payload."""
    message = Propose(b"e" * 16, "f32", node.host.lineage, np.inf, np.inf)
    return sealed(sealer, Scope(SWARM, LAYOUT.digest), message)


async def ask(node: Node, sealed: Sealed) -> ExchangeMessage:
    """The stranger says something to ``node`` and is answered.  Raises RemoteError."""
    near, far = End.pair()
    ours, theirs = Letters(near), Letters(far)
    await say(ours, sealed)
    try:
        await node.host.answer(STRANGER.peer, theirs, await theirs.announcement())
        return (await listen(ours))[0]
    finally:
        await theirs.close()


async def hold(node: Node) -> None:
    """A stranger opens an exchange with ``node`` and is never heard of again."""
    assert isinstance(await ask(node, proposal(node, Sealer(STRANGER, b"s" * 16))), Accept)
    assert node.learning.runner.core.busy
