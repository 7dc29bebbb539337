"""``covey bench``: what exchanges cost on this machine and on the way to each peer.

The arithmetic is measured here, with the node's own code; the way by sending bytes to each peer and
having them sent back, as the member that this home's node is.  Peers and addresses are the node's.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.markup import escape

from covey.gossip import codecs, mixing, native, quantiser
from covey.gossip.codecs import Side
from covey.gossip.config import OuterStep
from covey.node import store, views
from covey.node.client import Client, NotRunning
from covey.node.faults import OperatorError
from covey.node.home import Home
from covey.node.learning import pace_s
from covey.node.ledger import Ledger
from covey.node.rate import Rate
from covey.node.throttle import Limits
from covey.node.tls import Credentials
from covey.node.transport import Transport, Unreachable
from covey.protocols import limits
from covey.protocols.errors import RemoteError
from covey.protocols.identity import PeerId

PARAMETERS = 10_000_000  # of a model to reckon with where there is none
_MEASURED_MAX = 10_000_000  # parameters; time grows in proportion, memory need not
_REPEATS = 5
_WARM_BYTES = 256 * limits.KIB  # opens the connection and its window


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Seconds of one core that one exchange of ``parameters`` takes a node."""

    parameters: int
    encode_s: float
    decode_s: float  # and the way to half-way between the two
    rest_s: float  # the learner's progress in, the outer step, the increment out

    @property
    def total_s(self) -> float:
        return self.encode_s + self.decode_s + self.rest_s


@dataclass(frozen=True, slots=True)
class Way:
    """To one peer and back, in bytes/s and seconds.  None is unknown; ``error`` says why."""

    id: str
    name: str
    address: str
    rtt_s: float | None = None
    up_Bps: float | None = None
    down_Bps: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Advice:
    """What one exchange takes, with the median of the peers, and the period that suits it."""

    exchange_s: float
    exchanges_per_min: float
    every_s: float
    every_steps: int | None  # None: nobody trains here


def run(home: Home, parameters: int | None = None) -> dict[str, Any]:
    """Measure; the JSON of ``covey bench --json``.  Raises OperatorError."""
    client, status, peers = Client(home), None, []
    try:
        status = client.get("/api/v1/status")
        peers = [p for p in client.get("/api/v1/peers")["items"] if p["state"] == "alive"]
    except NotRunning:
        pass
    training = status["training"] if status is not None else {}
    count = parameters or training.get("parameters") or PARAMETERS
    work = arithmetic(count)
    caps = status["net"]["caps"] if status is not None else {}
    ways = asyncio.run(measure_ways(home, peers, caps)) if peers else []
    size = payload_bytes(count)
    return {
        "kernels": native.IN_USE,
        "running": status is not None,
        "arithmetic": asdict(work),
        "payload_bytes": size,
        "peers": [asdict(way) for way in ways],
        **asdict(advise(work, ways, size, training.get("steps_per_s"))),
    }


def payload_bytes(parameters: int) -> int:
    """What one exchange sends each way when nothing has to be sent again."""
    blocks = quantiser.blocks_in(parameters)
    return codecs.scales_size("mod4", parameters) + quantiser.layer_bytes(blocks)


def arithmetic(parameters: int) -> Arithmetic:
    """Measured on vectors that differ as in training, of at most ``_MEASURED_MAX``."""
    length = min(parameters, _MEASURED_MAX)
    rng = np.random.default_rng(0)
    x = rng.standard_normal(length, dtype=np.float32) * np.float32(0.02)
    y = x + rng.standard_normal(length, dtype=np.float32) * np.float32(0.001)
    scales = np.full(quantiser.blocks_in(length), 0.004, np.float32)
    mine, theirs = (codecs.coder("mod4", Side(vector, length, scales)) for vector in (x, y))
    mine.open(theirs.scales(), bytes(32))
    theirs.open(mine.scales(), bytes(32))
    layer = bytes(theirs.write())
    mine.write()
    mine.read(layer)
    state = mixing.State.of(x.copy(), np.zeros_like(x))
    movement, increment = np.zeros_like(scales), np.zeros_like(x)

    def encode() -> None:
        fresh = codecs.coder("mod4", Side(x, length, scales))
        fresh.open(theirs.scales(), bytes(32))
        fresh.write()

    def decode() -> None:
        fresh = codecs.coder("mod4", Side(x, length, scales))
        fresh.open(theirs.scales(), bytes(32))
        fresh.write()
        fresh.read(layer)
        fresh.outcome(scales)

    def rest() -> None:
        mixing.follow(state.slow, y, movement, state.sizes)
        mixing.outer_step(y, state, OuterStep(), mine.moves(0.5), increment)

    share = parameters / length
    encode_s = seconds(encode)
    decode_s = max(0.0, seconds(decode) - encode_s)
    return Arithmetic(parameters, share * encode_s, share * decode_s, share * seconds(rest))


def seconds(work: Callable[[], object]) -> float:
    """The median time, after a first run that maps memory."""
    work()
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


async def measure_ways(
    home: Home, peers: Sequence[Mapping[str, Any]], caps: Mapping[str, float | None]
) -> list[Way]:
    """One peer after the other, each as the API tells of it, within the node's own limits."""
    swarm = store.load_swarm(home)
    if swarm is None:
        raise OperatorError(
            f"{home.root} belongs to no swarm", "join one with `covey join covey1-…`"
        )
    identity = store.load_or_create_identity(home)
    up, down = (Rate.of_json(caps.get(f"{way}_Bps")) for way in ("up", "down"))
    transport = Transport(Credentials(identity, swarm.secret, Ledger()), limits=Limits(up, down))
    try:
        return [await measure_way(transport, peer) for peer in peers]
    finally:
        await transport.close()


async def measure_way(transport: Transport, peer: Mapping[str, Any]) -> Way:
    """By the peer's best address."""
    tried = sorted(peer["addresses"], key=lambda address: address["ok"] is not True)
    rtt_s = peer["rtt_s"]
    way = {"id": peer["id"], "name": peer["name"], "address": tried[0]["addr"] if tried else ""}
    try:
        who = PeerId.parse(peer["id"])
        await transport.sample(who, way["address"], _WARM_BYTES)
        there_s, back_s = await transport.sample(who, way["address"], limits.SAMPLE_BYTES_MAX)
    except (Unreachable, RemoteError) as error:
        return Way(**way, rtt_s=rtt_s, error=str(error))
    bytes_sent = limits.SAMPLE_BYTES_MAX
    there_s = max(there_s - (rtt_s or 0.0), there_s / 2)  # its answer's way is no part of it
    return Way(**way, rtt_s=rtt_s, up_Bps=bytes_sent / there_s, down_Bps=bytes_sent / back_s)


def advise(work: Arithmetic, ways: Sequence[Way], size: int, steps_per_s: float | None) -> Advice:
    """For messages of ``size`` bytes each way; without a peer that answers, of the arithmetic."""
    times = [
        max(size / way.up_Bps, size / way.down_Bps) + 2 * (way.rtt_s or 0.0)
        for way in ways
        if way.up_Bps and way.down_Bps
    ]
    exchange_s = work.total_s + (statistics.median(times) if times else 0.0)
    every_s = pace_s(exchange_s)
    steps = max(1, round(every_s * steps_per_s)) if steps_per_s else None
    return Advice(exchange_s, 60 / exchange_s, every_s, steps)


def print_found(found: Mapping[str, Any]) -> None:
    """For people, from the JSON."""
    out, work = views.console(), found["arithmetic"]
    out.print(f"arithmetic  {escape(found['kernels'])}, {work['parameters']:,} parameters:")
    parts = (f"{name} {_ms(work[f'{name}_s'])}" for name in ("encode", "decode", "rest"))
    out.print(f"            {', '.join(parts)} for an exchange, on one core")
    for peer in found["peers"]:
        out.print(f"{escape(peer['name'] or peer['id'][:7]):<11} {_way(peer)}")
    if not found["peers"]:
        why = "no peer is alive" if found["running"] else "no node runs here"
        out.print(f"peers       {why}: only the arithmetic is reckoned with")
    each, most = views.size(found["payload_bytes"]), found["exchanges_per_min"]
    taken = _ms(found["exchange_s"])
    out.print(f"exchange    about {taken} for {each} each way: at most {most:.0f} a minute")
    steps = f", at this speed every={found['every_steps']}" if found["every_steps"] else ""
    out.print(f'suggested   every="{found["every_s"]:.2g}s"{steps}: a tenth of the time at most')


def _way(peer: Mapping[str, Any]) -> str:
    if peer["error"]:
        return escape(peer["error"])
    rtt = _ms(peer["rtt_s"]) if peer["rtt_s"] is not None else "?"
    up, down = (views.size(peer[f"{way}_Bps"]) for way in ("up", "down"))
    return f"rtt {rtt}, up {up}/s, down {down}/s"


def _ms(value_s: float) -> str:
    return f"{1e3 * value_s:.3g} ms" if value_s < 1 else f"{value_s:.3g} s"
