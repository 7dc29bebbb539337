"""One frozen dataclass per message, and the union of them.

Control messages (Standing, Introduction, StateOffer) rely on the mutually authenticated connection.
Exchange messages travel in a signed envelope (envelope.py) with a payload whose size and hash the
envelope states; what the payload holds is the codec's business (gossip/codecs.py).
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from covey.protocols import limits


class Phase(StrEnum):
    """What a node is doing, as it tells its peers."""

    IDLE = "idle"  # no learner
    JOINING = "joining"  # a learner waits for the swarm's weights
    TRAINING = "training"
    SETTLING = "settling"  # exchanging without training, before the learner leaves
    PAUSED = "paused"  # the learner is gone without a goodbye; the node holds its vector
    LEFT = "left"  # the node says goodbye


@dataclass(frozen=True, slots=True)
class Lineage:
    """Which common initial weights a model descends from, and how far it has come.

    ``founder`` is 32 bytes (empty: no model yet); ``age`` counts the outer steps of the eldest
    node known, so all nodes of one flock tell nearly the same age.
    """

    founder: bytes = b""
    age: int = 0

    def __post_init__(self) -> None:
        if len(self.founder) not in (0, 32) or not 0 <= self.age <= limits.AGE_MAX:
            raise ValueError("a founder is 32 bytes, an age is not negative")


@dataclass(frozen=True, slots=True)
class Introduction:
    """A peer's id and where it was reached, passed on by a peer that reached it."""

    peer: bytes
    addresses: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.peer) != 32:
            raise ValueError("a peer is 32 bytes")
        _check_addresses(self.addresses)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a node says of itself in every probe and in every answer to one."""

    instance: bytes  # 16 random bytes per boot
    name: str
    version: str
    protocol: int
    port: int  # its peer port; the address is where the connection comes from
    addresses: tuple[str, ...]  # other addresses it listens on, "host:port"
    phase: str
    layout: bytes = b""  # digest, empty without a model
    lineage: Lineage = Lineage()
    step: int = 0
    loss: float | None = None
    introductions: tuple[Introduction, ...] = ()

    def __post_init__(self) -> None:
        if len(self.instance) != 16 or len(self.layout) not in (0, 32):
            raise ValueError("an instance is 16 bytes, a layout digest 32")
        _check_text(limits.NAME_CHARS_MAX, self.name, self.version, self.phase)
        if not 0 <= self.port < 65536 or not 0 <= self.step < 2**62:
            raise ValueError("the port or step is out of range")
        if self.loss is not None and not math.isfinite(self.loss):
            raise ValueError("the loss is not finite")
        _check_addresses(self.addresses)
        if len(self.introductions) > limits.PEERS_PER_PROBE_MAX:
            raise ValueError("too many introductions")


@dataclass(frozen=True, slots=True)
class StateOffer:
    """A copy of the vector that a joiner may fetch in ranges: little-endian float32."""

    digest: bytes  # SHA-256 of the bytes, also their name
    length: int  # bytes
    lineage: Lineage
    step: int

    def __post_init__(self) -> None:
        if len(self.digest) != 32 or not 0 < self.length <= 4 * limits.PARAMETERS_MAX:
            raise ValueError("a state has a 32-byte digest and a length within bounds")


@dataclass(frozen=True, slots=True)
class Propose:
    """Open an exchange.  Payload: the codec's scales of the proposer."""

    exchange: bytes  # 16 random bytes; names the exchange and seeds the dither
    codec: str
    lineage: Lineage
    reach: float  # the farthest pair distance the sender accepts (gate)
    clip: float  # the distance the sender clips to
    buffers_reach: float = float("inf")  # the same for buffers, which are screened on their own
    buffers_clip: float = float("inf")

    def __post_init__(self) -> None:
        _check_exchange(self.exchange)
        _check_distances(self.reach, self.clip, self.buffers_reach, self.buffers_clip)


@dataclass(frozen=True, slots=True)
class Accept:
    """Answer to Propose.  Payload: the accepter's scales and first codes."""

    exchange: bytes
    nonce: bytes  # 16 random bytes; the other half of the dither's seed
    reach: float
    clip: float
    buffers_reach: float = float("inf")
    buffers_clip: float = float("inf")

    def __post_init__(self) -> None:
        _check_exchange(self.exchange)
        _check_exchange(self.nonce)
        _check_distances(self.reach, self.clip, self.buffers_reach, self.buffers_clip)


@dataclass(frozen=True, slots=True)
class Commit:
    """The proposer's codes, with all further layers it knows to be needed."""

    exchange: bytes

    def __post_init__(self) -> None:
        _check_exchange(self.exchange)


@dataclass(frozen=True, slots=True)
class More:
    """The accepter's further layers; blocks are still unsure, so another Commit must follow."""

    exchange: bytes

    def __post_init__(self) -> None:
        _check_exchange(self.exchange)


@dataclass(frozen=True, slots=True)
class Settled:
    """The accepter has applied its half.  The factors in [0, 1] are the clip both sides use, of
    parameters and of buffers; 0 means that the gate refused them and nothing was applied."""

    exchange: bytes
    factor: float
    buffers_factor: float = 1.0

    def __post_init__(self) -> None:
        _check_exchange(self.exchange)
        if not (0.0 <= self.factor <= 1.0 and 0.0 <= self.buffers_factor <= 1.0):
            raise ValueError("a factor is not in [0, 1]")


@dataclass(frozen=True, slots=True)
class Busy:
    """In another exchange, with ``partner`` if that is known; nothing was held.  Try a third."""

    exchange: bytes
    partner: bytes = b""

    def __post_init__(self) -> None:
        _check_exchange(self.exchange)
        if len(self.partner) not in (0, 32):
            raise ValueError("a peer is 32 bytes")


@dataclass(frozen=True, slots=True)
class Refuse:
    """No exchange, and why: a short machine-readable reason and one human line."""

    exchange: bytes
    reason: str
    detail: str = ""

    def __post_init__(self) -> None:
        _check_exchange(self.exchange)
        _check_text(limits.REASON_CHARS_MAX, self.reason)
        _check_text(limits.DETAIL_CHARS_MAX, self.detail)


@dataclass(frozen=True, slots=True)
class Pull:
    """Ask for a peer's vector, which does not change by it.  Payload: the asker's scales."""

    exchange: bytes  # 16 random bytes
    codec: str
    lineage: Lineage

    def __post_init__(self) -> None:
        _check_exchange(self.exchange)


@dataclass(frozen=True, slots=True)
class Pulled:
    """Answer to Pull.  Payload: the scales and the first codes of who was asked."""

    exchange: bytes
    nonce: bytes  # 16 random bytes; the other half of the dither's seed

    def __post_init__(self) -> None:
        _check_exchange(self.exchange)
        _check_exchange(self.nonce)


@dataclass(frozen=True, slots=True)
class Turn:
    """Where a model that is handed on is on its way: how often it was, since it was issued for the
    ``number``-th time, as ``origin`` (random).  A node that has had none is before all others."""

    number: int = 0
    origin: bytes = b""
    hop: int = 0

    def __post_init__(self) -> None:
        if len(self.origin) not in (0, 16):
            raise ValueError("an origin is 16 bytes")
        if not (0 <= self.number <= limits.AGE_MAX and 0 <= self.hop <= limits.AGE_MAX):
            raise ValueError("a number or hop is out of range")

    @property
    def generation(self) -> tuple[int, bytes]:
        """Of two models of one swarm the one of the higher generation stands."""
        return self.number, self.origin


@dataclass(frozen=True, slots=True)
class Handover:
    """The model is yours now.  Payload: its vector, little-endian float32."""

    exchange: bytes  # 16 random bytes
    turn: Turn
    lineage: Lineage  # its age: the periods in which it was trained

    def __post_init__(self) -> None:
        _check_exchange(self.exchange)


@dataclass(frozen=True, slots=True)
class Taken:
    """Answer to Handover: the sender need only watch."""

    exchange: bytes
    distance: float  # between the two vectors, parameters only

    def __post_init__(self) -> None:
        _check_exchange(self.exchange)
        _check_distances(self.distance)


@dataclass(frozen=True, slots=True)
class Onward:
    """The model that you handed to the sender has been handed on."""

    exchange: bytes
    turn: Turn

    def __post_init__(self) -> None:
        _check_exchange(self.exchange)


@dataclass(frozen=True, slots=True)
class Noted:
    """Answer to Onward."""

    exchange: bytes

    def __post_init__(self) -> None:
        _check_exchange(self.exchange)


@dataclass(frozen=True, slots=True)
class Push:
    """A part of the sender's mass.  Payload: its vector, little-endian float32."""

    exchange: bytes  # 16 random bytes, the same when the push is repeated
    weight: float
    lineage: Lineage

    def __post_init__(self) -> None:
        _check_exchange(self.exchange)
        if not 0.0 < self.weight <= limits.PUSH_WEIGHT_MAX:
            raise ValueError("a weight is out of range")


@dataclass(frozen=True, slots=True)
class Pushed:
    """Answer to Push: it was taken in, now or when it came first."""

    exchange: bytes
    distance: float  # between the two vectors, parameters only

    def __post_init__(self) -> None:
        _check_exchange(self.exchange)
        _check_distances(self.distance)


ExchangeMessage = (
    (Propose | Accept | Commit | More | Settled | Busy | Refuse)
    | (Pull | Pulled)
    | (Push | Pushed)
    | (Handover | Taken | Onward | Noted)
)

# The messages that open an exchange, each with the algorithm (gossip/algorithms.py) it is of.
ALGORITHM_OF: dict[type, str] = {
    Propose: "pair",
    Pull: "robust-pull",
    Push: "push-sum",
    Handover: "relay",
    Onward: "relay",
}


def _check_exchange(value: bytes) -> None:
    if len(value) != 16:
        raise ValueError("an exchange id or nonce is 16 bytes")


def _check_text(most: int, *texts: str) -> None:
    """Texts of peers are shown in terminals, so nothing in them may steer one."""
    if any(len(text) > most or not text.isprintable() for text in texts):
        raise ValueError("a text is too long or not printable")


def _check_addresses(addresses: tuple[str, ...]) -> None:
    if len(addresses) > limits.ADDRESSES_PER_PEER_MAX:
        raise ValueError("too many addresses")
    _check_text(limits.ADDRESS_CHARS_MAX, *addresses)


def _check_distances(*distances: float) -> None:
    if not all(distance >= 0 for distance in distances):
        raise ValueError("a distance is a number and not negative")
