"""What peers meet when they call: this node's standing and answers, from the parts that know."""

from dataclasses import dataclass, replace
from pathlib import Path

from covey.node.handout import Handout
from covey.node.host import Host
from covey.node.letters import Letters
from covey.node.neighbours import Neighbours
from covey.protocols.errors import RemoteError
from covey.protocols.identity import PeerId
from covey.protocols.layout import Layout
from covey.protocols.messages import ExchangeMessage, Phase, Standing, StateOffer


@dataclass
class Desk:
    """Implements peer_server.PeerHandler."""

    card: Standing  # what does not change while the node runs
    host: Host
    neighbours: Neighbours
    handout: Handout
    leaving: bool = False

    def standing(self) -> Standing:
        """This node as it is now, without introductions."""
        learning = self.host.learning
        if self.leaving:
            return replace(self.card, phase=Phase.LEFT)
        if learning is None:
            return self.card
        return replace(
            self.card,
            phase=learning.phase,
            layout=learning.layout.digest,
            lineage=learning.lineage,
            step=learning.step,
            loss=learning.tally.values.get("loss"),
        )

    def probed(self, peer: PeerId, standing: Standing, host: str) -> Standing:
        self.neighbours.probed(peer, standing, host)
        return replace(self.standing(), introductions=self.neighbours.introductions(peer))

    async def exchanged(self, peer: PeerId, letters: Letters, message: ExchangeMessage) -> None:
        await self.host.answer(peer, letters, message)

    def hung_up(self, peer: PeerId) -> None:
        self.host.hung_up(peer)

    def payload_limit(self) -> int:
        return self.host.payload_limit

    def layout(self) -> Layout | None:
        return self.host.layout

    async def state(self) -> StateOffer | None:
        return await self.host.state()

    def state_file(self, digest: bytes) -> Path | None:
        return self.handout.file(digest)

    def rejected(self, peer: PeerId | None, error: RemoteError) -> None:
        self.neighbours.rejected(peer, error)
