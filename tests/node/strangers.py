"""A peer that opens an exchange with a node of hosts.py."""

import numpy as np

from covey.protocols.envelope import Scope, Sealer, open_sealed
from covey.protocols.identity import Identity
from covey.protocols.messages import Propose
from tests.node.hosts import LAYOUT, SWARM, Node

STRANGER = Identity(b"\x77" * 32)


def proposal(node: Node, sealer: Sealer) -> tuple[bytes, bytes]:
    """The first message of an exchange with a stranger that has this node's lineage."""
    message = Propose(b"e" * 16, "f32", node.host.lineage, np.inf, np.inf)
    return sealer.seal(Scope(SWARM, LAYOUT.digest), message), b""


async def hold(node: Node) -> None:
    """A stranger opens an exchange with ``node`` and is never heard of again."""
    sealed, payload = proposal(node, Sealer(STRANGER, b"s" * 16))
    await node.host.answer(open_sealed(sealed[4:]), bytearray(payload))
    assert node.learning.runner.core.busy
