"""The node's Prometheus metrics.

What the status report already counts is read from it when somebody scrapes, so a number is kept
in one place; only distributions are gathered here as they happen.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from covey.node.report import StatusReport

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_RTT_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_WORK_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """One registry per node: several nodes may live in one process, as in the tests."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, buckets=buckets, registry=self._registry)

        self._probe = histogram(
            "covey_peer_probe_seconds", "Round trips of answered probes", _RTT_S
        )
        self._exchange = histogram(
            "covey_exchange_seconds", "Exchanges from proposal to settlement", _WORK_S
        )
        self._lag = histogram("covey_event_loop_lag_seconds", "How late timers fire", _RTT_S)
        self._health = Gauge(
            "covey_membership_health_score",
            "0: this node keeps its own deadlines; higher: it is slow and suspects others later",
            registry=self._registry,
        )
        self._checkpoint = Gauge(
            "covey_checkpoint_last_success_timestamp_seconds",
            "When the last checkpoint was complete, seconds since the epoch; 0: none yet",
            registry=self._registry,
        )

    def probed(self, rtt_s: float) -> None:
        self._probe.observe(rtt_s)

    def exchanged(self, seconds: float) -> None:
        self._exchange.observe(seconds)

    def lagged(self, seconds: float) -> None:
        self._lag.observe(seconds)

    def health(self, score: float) -> None:
        self._health.set(score)

    def checkpointed(self, epoch_s: float) -> None:
        self._checkpoint.set(epoch_s)

    def render(self, status: StatusReport) -> bytes:
        """The text exposition of everything, ``status`` included."""
        return generate_latest(_Both(self._registry, status))


@dataclass(frozen=True)
class _Both:
    """What ``generate_latest`` reads: the gathered metrics, then those of one status report."""

    gathered: CollectorRegistry
    status: StatusReport

    def collect(self) -> Iterator[Metric]:
        yield from self.gathered.collect()
        yield from _of_node(self.status)
        yield from _of_learning(self.status)


def _of_node(status: StatusReport) -> Iterator[Metric]:
    build = GaugeMetricFamily("covey_build_info", "The running version", labels=("version",))
    build.add_metric((status.node.version,), 1)
    yield build
    swarm = status.swarm
    states = [("alive", swarm.alive), ("suspect", swarm.suspect), ("dead", swarm.dead)]
    yield _gauges("covey_peers", "Members by state, this node included", "state", states)
    wire = CounterMetricFamily(
        "covey_exchange_bytes", "Bytes on the wire, TLS included", labels=("direction", "lane")
    )
    for direction, lanes in (
        ("sent", status.net.sent_bytes),
        ("received", status.net.received_bytes),
    ):
        for lane, count in lanes.items():
            wire.add_metric((direction, lane), count)
    yield wire
    caps = [(key.removesuffix("_Bps"), cap) for key, cap in status.net.caps.items()]
    text = "What bulk may take, where there is a limit"
    set_ones = [(way, cap) for way, cap in caps if cap is not None]
    yield _gauges("covey_limit_bytes_per_second", text, "direction", set_ones)


def _of_learning(status: StatusReport) -> Iterator[Metric]:
    training, exchange = status.training, status.exchange
    yield CounterMetricFamily("covey_train_steps", "Local training steps", training.step)
    yield CounterMetricFamily("covey_exchanges", "Completed exchanges", exchange.exchanges)
    yield CounterMetricFamily("covey_outer_steps", "Periods closed", exchange.outer_steps)
    text = "Periods closed with no exchange in them or in the one before; usual by relay"
    yield CounterMetricFamily("covey_missed_periods", text, exchange.missed)
    yield CounterMetricFamily(
        "covey_exchange_raw_bytes", "What plain float32 would have cost to send", exchange.raw_bytes
    )
    results = [
        ("accepted", exchange.accepted),
        ("busy", exchange.busy),
        ("failed", exchange.failed),
        ("rejected", sum(exchange.rejected.values())),
    ]
    yield _counters("covey_updates_received", "Updates by what became of them", "result", results)
    yield _counters(
        "covey_update_rejections",
        "Updates not used, by reason",
        "reason",
        exchange.rejected.items(),
    )
    for name, text, value in (
        ("covey_train_loss", "The last loss the learner logged", training.loss),
        ("covey_consensus_distance_ratio", "To partners, relative", status.consensus.distance),
    ):
        if value is not None:
            yield GaugeMetricFamily(name, text, value)


def _gauges(
    name: str, text: str, label: str, items: Iterable[tuple[str, float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for word, value in items:
        family.add_metric((word,), value)
    return family


def _counters(
    name: str, text: str, label: str, items: Iterable[tuple[str, float]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=(label,))
    for word, value in items:
        family.add_metric((word,), value)
    return family
