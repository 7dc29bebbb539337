"""The metrics: names, and numbers that come from the status report."""

from prometheus_client.parser import text_string_to_metric_families

from covey.node.metrics import Metrics
from covey.node.report import (
    ConsensusReport,
    ExchangeReport,
    NetReport,
    NodeReport,
    StatusReport,
    SwarmReport,
    TrainingReport,
)

STATUS = StatusReport(
    node=NodeReport("ID", "one", "00", "0.1.0", 1.0, 1, "/home"),
    swarm=SwarmReport("ab", "lab", members=4, alive=2, suspect=1, dead=1),
    training=TrainingReport("training", step=120, loss=1.5),
    consensus=ConsensusReport(distance=0.007),
    exchange=ExchangeReport(
        exchanges=9, accepted=8, busy=2, failed=1, rejected={"stale": 3, "forged": 1}, raw_bytes=400
    ),
    net=NetReport(
        sent_bytes={"exchange": 70, "control": 5},
        received_bytes={"exchange": 60},
        caps={"up_Bps": 1.25e6, "down_Bps": None},
    ),
)


def samples(metrics: Metrics, status: StatusReport = STATUS) -> dict[str, float]:
    text = metrics.render(status).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def test_counters_come_from_the_status() -> None:
    found = samples(Metrics())
    assert found["covey_build_info{version=0.1.0}"] == 1
    assert found["covey_peers{state=suspect}"] == 1
    assert found["covey_exchange_bytes_total{direction=sent,lane=exchange}"] == 70
    assert found["covey_exchange_bytes_total{direction=received,lane=exchange}"] == 60
    limits = {key: value for key, value in found.items() if key.startswith("covey_limit_")}
    assert limits == {"covey_limit_bytes_per_second{direction=up}": 1.25e6}
    assert found["covey_updates_received_total{result=accepted}"] == 8
    assert found["covey_updates_received_total{result=rejected}"] == 4
    assert found["covey_update_rejections_total{reason=stale}"] == 3
    assert found["covey_train_steps_total"] == 120
    assert found["covey_train_loss"] == 1.5
    assert found["covey_consensus_distance_ratio"] == 0.007
    assert found["process_resident_memory_bytes"] > 0


def test_what_is_not_known_is_not_shown() -> None:
    status = StatusReport(STATUS.node, SwarmReport("ab", "lab"), TrainingReport("idle"))
    found = samples(Metrics(), status)
    assert "covey_train_loss" not in found
    assert "covey_consensus_distance_ratio" not in found


def test_distributions_are_gathered_as_they_happen() -> None:
    metrics = Metrics()
    metrics.probed(0.0015)
    metrics.exchanged(0.2)
    metrics.lagged(0.3)
    metrics.health(2)
    metrics.checkpointed(1e9)
    found = samples(metrics)
    assert found["covey_peer_probe_seconds_bucket{le=0.002}"] == 1
    assert found["covey_peer_probe_seconds_bucket{le=0.001}"] == 0
    for name in ("exchange", "event_loop_lag"):
        assert found[f"covey_{name}_seconds_count"] == 1
    assert found["covey_membership_health_score"] == 2
    assert found["covey_checkpoint_last_success_timestamp_seconds"] == 1e9


def test_two_nodes_in_one_process_do_not_share() -> None:
    first, second = Metrics(), Metrics()
    first.probed(0.1)
    assert samples(second)["covey_peer_probe_seconds_count"] == 0
