"""One valid message of each kind, a layout, and how a message is sealed."""

from typing import Any, NamedTuple

from covey.protocols.envelope import Hash, Scope, Sealer, announce
from covey.protocols.layout import Kind, Layout, Tensor
from covey.protocols.messages import (
    Accept,
    Busy,
    Commit,
    ExchangeMessage,
    Handover,
    Introduction,
    Lineage,
    More,
    Noted,
    Onward,
    Phase,
    Propose,
    Pull,
    Pulled,
    Push,
    Pushed,
    Refuse,
    Settled,
    Standing,
    StateOffer,
    Taken,
    Turn,
)

SECRET = bytes(range(32))
LINEAGE = Lineage(b"f" * 32, 12)
LAYOUT = Layout(
    (
        Tensor("layers.0.weight", (64, 128)),
        Tensor("layers.0.bias", (128,), "bfloat16"),
        Tensor("scale", ()),
        Tensor("norm.running_mean", (64,), "float32", Kind.BUFFER),
    )
)
STANDING = Standing(
    instance=b"i" * 16,
    name="laptop",
    version="0.1.0",
    protocol=1,
    port=4711,
    addresses=("192.168.1.7:4711", "[fe80::1%eth0]:4711"),
    phase=Phase.TRAINING,
    layout=LAYOUT.digest,
    lineage=LINEAGE,
    step=1200,
    loss=0.25,
    introductions=(Introduction(b"p" * 32, ("10.0.0.2:4711",)), Introduction(b"q" * 32, ())),
)
EXCHANGE: list[ExchangeMessage] = [
    Propose(b"e" * 16, "mod4", LINEAGE, 2.5, 1.0),
    Accept(b"e" * 16, b"n" * 16, 3.0, float("inf")),
    Commit(b"e" * 16),
    More(b"e" * 16),
    Settled(b"e" * 16, 0.75),
    Busy(b"e" * 16),
    Refuse(b"e" * 16, "codec", "unknown codec 'zip'"),
    Pull(b"e" * 16, "mod4", LINEAGE),
    Pulled(b"e" * 16, b"n" * 16),
    Push(b"e" * 16, 0.5, LINEAGE),
    Pushed(b"e" * 16, 0.25),
    Handover(b"e" * 16, Turn(2, b"o" * 16, 5), LINEAGE),
    Taken(b"e" * 16, 0.25),
    Onward(b"e" * 16, Turn(2, b"o" * 16, 6)),
    Noted(b"e" * 16),
]
MESSAGES: list[Any] = [STANDING, StateOffer(b"d" * 32, 4096, LINEAGE, 7), *EXCHANGE]


class Sealed(NamedTuple):
    """What goes before and behind a payload."""

    announcement: bytes
    envelope: bytes


def sealed(
    sealer: Sealer, scope: Scope, message: ExchangeMessage, payload: bytes | memoryview = b""
) -> Sealed:
    plain, announcement = memoryview(payload).cast("B"), announce(message)
    digest = Hash(plain).digest()
    return Sealed(announcement, sealer.seal(scope, announcement, len(plain), digest))
