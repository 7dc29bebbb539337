"""The reports: their JSON shape, health, and times."""

import json
import math

from covey.node.report import (
    AddressReport,
    ExchangeReport,
    NodeReport,
    PeerReport,
    Severity,
    StatusReport,
    SwarmReport,
    TrainingReport,
    WarningReport,
    as_json,
    rfc3339,
)


def status(*warnings: WarningReport, loss: float | None = None) -> StatusReport:
    return StatusReport(
        node=NodeReport("AAAAAAA-B", "one", "00ff", "0.1.0", 12.5, 42, "/home"),
        swarm=SwarmReport("abcd", "lab"),
        training=TrainingReport("training", loss=loss, values={"accuracy": 0.5}),
        exchange=ExchangeReport(rejected={"stale": 3}),
        warnings=warnings,
    )


def test_status_has_the_documented_keys() -> None:
    plain = json.loads(json.dumps(as_json(status()), allow_nan=False))
    assert {"id", "name", "instance", "version", "uptime_s"} <= plain["node"].keys()
    assert {"id", "name", "mode", "members", "alive", "suspect"} <= plain["swarm"].keys()
    training = {"state", "reason", "step", "swarm_step_median", "loss", "samples_per_s"}
    assert training <= plain["training"].keys()
    assert {"distance", "trend", "confidence"} <= plain["consensus"].keys()
    assert {"last_merge", "accepted", "wire_bytes_sent", "raw_bytes"} <= plain["exchange"].keys()
    assert plain["exchange"]["rejected"] == {"stale": 3}
    assert {"up_Bps", "down_Bps", "caps"} <= plain["net"].keys()
    assert plain["warnings"] == []


def test_health_is_degraded_by_more_than_information() -> None:
    note = WarningReport("alone", Severity.INFO, "no peer yet")
    fault = WarningReport("no_fresh_peer", Severity.WARNING, "nobody answers", "covey peers -v")
    assert as_json(status())["health"] == "ok"
    assert as_json(status(note))["health"] == "ok"
    assert as_json(status(note, fault))["health"] == "degraded"
    assert as_json(status(fault))["warnings"][0]["severity"] == "warning"


def test_what_json_cannot_hold_becomes_null() -> None:
    assert as_json(status(loss=math.nan))["training"]["loss"] is None
    assert as_json(status(loss=math.inf))["training"]["loss"] is None


def test_a_peer_shows_each_address_with_its_error() -> None:
    address = AddressReport("10.0.0.2:7700", ok=False, last_error="refused", source=("static",))
    plain = as_json(PeerReport("ID", "two", "dead", source=("static",), addresses=(address,)))
    assert plain["addresses"][0]["last_error"] == "refused"
    assert plain["source"] == ["static"]
    assert "health" not in plain


def test_times_are_rfc_3339_in_utc() -> None:
    assert rfc3339(0.25) == "1970-01-01T00:00:00.250Z"
