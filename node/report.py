"""What a node says of itself: the status and the peers as frozen records, and their JSON.

The keys are those of ``/api/v1/status`` and ``/api/v1/peers``.  Durations are in seconds, sizes in
bytes, times RFC 3339 in UTC; what is not known is None, never a guess.
"""

import dataclasses
import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How much a warning matters.  Anything above INFO makes the node degraded."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class WarningReport:
    """Something the operator should know: what and why, and the command that fixes it."""

    code: str  # stable, machine-readable, e.g. "no_fresh_peer"
    severity: Severity
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class NodeReport:
    id: str  # PeerId.text
    name: str
    instance: str  # hex
    version: str
    uptime_s: float
    pid: int
    home: str


@dataclass(frozen=True, slots=True)
class SwarmReport:
    """``members`` counts this node and all peers that have not left; dead ones are in it."""

    id: str  # hex of the swarm id, shortened
    name: str
    mode: str = "open"
    members: int = 1
    alive: int = 1
    suspect: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class TrainingReport:
    state: str  # a protocols.messages.Phase
    reason: str = ""  # why it is in that state, one clause
    learner: str = ""  # the name the learner gave, empty without one
    learner_pid: int | None = None
    step: int = 0
    swarm_step_median: float | None = None
    loss: float | None = None
    values: Mapping[str, float] = field(default_factory=dict)  # the last of each swarm.log() value
    samples_per_s: float | None = None
    steps_per_s: float | None = None
    parameters: int = 0  # float32 values in the node vector
    layout: str = ""  # hex of the layout digest
    founder: str = ""  # hex; which common initial weights the model descends from
    age: int = 0  # outer steps of the eldest node known
    last_checkpoint: str | None = None


@dataclass(frozen=True, slots=True)
class ConsensusReport:
    """``distance`` is between this node and its partners, relative to the norm of its vector."""

    distance: float | None = None
    trend: float | None = None
    confidence: str = ""  # e.g. "sampled 4/5"


@dataclass(frozen=True, slots=True)
class ExchangeReport:
    """``raw_bytes`` is 4 * parameters * exchanges: what plain float32 would have cost to send."""

    algorithm: str = ""
    codec: str = ""
    exchanges: int = 0  # completed by this node, as proposer or accepter
    accepted: int = 0  # of these, applied (the gate may refuse)
    busy: int = 0
    failed: int = 0  # given up because the peer went silent
    rejected: Mapping[str, int] = field(default_factory=dict)  # reason -> count
    last_merge: str | None = None
    last_peer: str | None = None  # short id
    wire_bytes_sent: int = 0
    wire_bytes_received: int = 0
    raw_bytes: int = 0
    outer_steps: int = 0  # periods closed with somebody to learn with
    missed: int = 0  # of these, with no exchange in them or in the one before; usual by relay


@dataclass(frozen=True, slots=True)
class DiscoveryReport:
    state: str = "off"  # starting | working | silent | off | failed
    detail: str = ""


@dataclass(frozen=True, slots=True)
class NetReport:
    listen: str = ""  # host:port of the peer port
    api: str = ""  # host:port of the HTTP API
    addresses: tuple[str, ...] = ()  # where peers may reach this node
    up_Bps: float = 0.0
    down_Bps: float = 0.0
    sent_bytes: Mapping[str, int] = field(default_factory=dict)  # lane -> bytes on the wire
    received_bytes: Mapping[str, int] = field(default_factory=dict)
    caps: Mapping[str, float | None] = field(default_factory=dict)  # up_Bps, down_Bps
    discovery: DiscoveryReport = DiscoveryReport()
    event_loop_lag_s: float | None = None


@dataclass(frozen=True, slots=True)
class StatusReport:
    node: NodeReport
    swarm: SwarmReport
    training: TrainingReport
    consensus: ConsensusReport = ConsensusReport()
    exchange: ExchangeReport = ExchangeReport()
    net: NetReport = NetReport()
    warnings: tuple[WarningReport, ...] = ()

    @property
    def health(self) -> str:
        """ "ok", or "degraded" when a warning is more than information."""
        serious = any(warning.severity is not Severity.INFO for warning in self.warnings)
        return "degraded" if serious else "ok"


@dataclass(frozen=True, slots=True)
class AddressReport:
    addr: str
    ok: bool | None = None  # None: not tried yet
    source: tuple[str, ...] = ()  # static | mdns | remembered | exchange
    last_error: str | None = None
    at: str | None = None  # of the last try


@dataclass(frozen=True, slots=True)
class PeerReport:
    id: str
    name: str
    state: str  # alive | suspect | dead | left | unverified
    source: tuple[str, ...] = ()  # where it was learned: static | mdns | remembered | exchange
    addresses: tuple[AddressReport, ...] = ()
    rtt_s: float | None = None
    heard_s: float | None = None  # since it was last heard
    version: str = ""
    protocol: tuple[int, ...] = ()
    instance: str = ""
    phase: str = ""
    step: int | None = None
    lag: int | None = None  # our step minus its step
    loss: float | None = None
    exchanges: int = 0  # completed with it
    in_Bps: float | None = None
    out_Bps: float | None = None
    note: str = ""  # why it does not take part, e.g. which tensor differs


def as_json(report: StatusReport | PeerReport) -> dict[str, Any]:
    """The report as plain data for ``json.dumps``; a status also gets its ``health``."""
    plain = _plain(dataclasses.asdict(report))
    assert isinstance(plain, dict)
    if isinstance(report, StatusReport):
        plain["health"] = report.health
    return plain


def rfc3339(epoch_s: float) -> str:
    """A time in seconds since the epoch as RFC 3339 in UTC, to the millisecond."""
    moment = datetime.datetime.fromtimestamp(epoch_s, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    """JSON knows neither infinity nor NaN: both become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
