"""What people see: one screen of status, a line per peer, a line per event."""

import io
from typing import Any

import pytest
from rich.console import Console

from covey.node import views
from covey.node.report import (
    AddressReport,
    ConsensusReport,
    DiscoveryReport,
    ExchangeReport,
    NetReport,
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

NOW = 1_700_000_000.0
STATUS = StatusReport(
    node=NodeReport("K7QX2MF-AAAAAAA", "studio-[1]", "00", "0.1.0", 7500.0, 1, "/home"),
    swarm=SwarmReport("ab", "lab", members=6, alive=5, suspect=1),
    training=TrainingReport(
        "training",
        step=18420,
        swarm_step_median=18402.0,
        loss=1.83,
        values={"loss": 1.83, "accuracy": 0.5},
        parameters=1000,
    ),
    consensus=ConsensusReport(0.007, -0.001, "met 4 of 4"),
    exchange=ExchangeReport(
        exchanges=1200,
        rejected={"stale": 3},
        last_merge=rfc3339(NOW - 2.1),
        last_peer="NAS1AAA",
        wire_bytes_sent=600_000,
        raw_bytes=4_800_000,
    ),
    net=NetReport(
        "0.0.0.0:17700", "127.0.0.1:17701", (), 12.1e6, 11.8e6, discovery=DiscoveryReport("working")
    ),
    warnings=(WarningReport("v", Severity.WARNING, "pi-2 runs [0.3]", "covey peers -v"),),
)


def printed(show: Any, *args: Any) -> str:
    out = io.StringIO()
    show(Console(file=out, highlight=False, soft_wrap=True, width=200), *args)
    return out.getvalue()


def test_status_on_one_screen() -> None:
    lines = printed(views.print_status, as_json(STATUS), NOW).splitlines()
    assert lines == [
        "lab   ● training   step 18,420 (swarm median 18,402)   loss 1.83   accuracy 0.5   "
        "apart 0.70% (close)",
        "this node   studio-[1] (K7QX2MF), up 2 h 5 min, version 0.1.0",
        "peers       4 alive, 1 suspect; mDNS working",
        "exchanges   1,200, the last 2.1 s ago with NAS1AAA; sent 600.0 kB for 4.8 MB (12.5%); "
        "refused 3 stale",
        "network     up 12.1 MB/s, down 11.8 MB/s; peers connect to 0.0.0.0:17700, "
        "status at http://127.0.0.1:17701",
        "! pi-2 runs [0.3]; covey peers -v",
    ]


def test_limits_are_shown_beside_what_is_used() -> None:
    net = NetReport(up_Bps=1e6, caps={"up_Bps": 1.25e6, "down_Bps": None})
    status = StatusReport(STATUS.node, SwarmReport("ab", "lab"), TrainingReport("idle"), net=net)
    text = printed(views.print_status, as_json(status), NOW)
    assert "network     up 1.0 MB/s of 10mbit, down 0 B/s; " in text


def test_status_of_a_node_without_a_learner() -> None:
    status = StatusReport(STATUS.node, SwarmReport("ab", "lab"), TrainingReport("idle", "alone"))
    text = printed(views.print_status, as_json(status), NOW)
    assert text.startswith("lab   ● idle (alone)\n")
    assert "peers       0 alive; mDNS off" in text


def test_peers_with_their_notes_and_addresses() -> None:
    address = AddressReport("10.0.0.2:1", ok=False, source=("mdns",), last_error="refused")
    plain = [
        as_json(
            PeerReport(
                "NAS1AAA-B", "nas-1", "alive", ("mdns", "static"), (address,), rtt_s=0.0021,
                heard_s=0.4, version="0.1.0", instance="00ff", phase="training", step=18400,
                loss=1.5, exchanges=7, note="has another model",
            )
        ),
        as_json(PeerReport("", "", "unverified", ("static",), (AddressReport("10.0.0.9:2"),))),
    ]  # fmt: skip
    text = printed(views.print_peers, plain, False)
    row = next(line for line in text.splitlines() if line.lstrip().startswith("NAS1AAA"))
    assert " ".join(row.split()) == (
        "NAS1AAA nas-1 alive mdns, static training 18,400 1.5 7 2.1 ms 0.4 s"
    )
    assert "10.0.0.9:2" in text
    assert "! nas-1: has another model" in text
    assert "failed" not in text
    verbose = printed(views.print_peers, plain, True)
    assert "NAS1AAA-B" in verbose
    assert "  10.0.0.2:1  failed: refused  (mdns)" in verbose
    assert "  10.0.0.9:2  not tried  ()" in verbose


def test_how_a_peer_was_found_is_in_words_and_its_address_there_once() -> None:
    why = "10.0.0.2:1 does not answer"
    address = AddressReport("10.0.0.2:1", ok=False, source=("exchange", "mdns"), last_error=why)
    peer = PeerReport("NAS1AAA-B", "nas-1", "dead", ("exchange", "mdns"), (address,))
    text = printed(views.print_peers, [as_json(peer)], True)
    assert "  10.0.0.2:1  failed: does not answer  (peers, mdns)\n" in text
    assert text.count("peers, mdns") == 2
    assert "exchange" not in text.replace("exchanges", "")


def test_peers_fit_a_small_terminal() -> None:
    sources = ("exchange", "mdns", "static")
    peer = PeerReport(
        "NAS1AAA-B", "nas-1", "suspect", sources, rtt_s=0.0221, heard_s=12.0, phase="training",
        step=118400, loss=1.523, exchanges=1230,
    )  # fmt: skip
    out = io.StringIO()
    views.print_peers(Console(file=out, width=80), [as_json(peer)], False)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    words = " ".join(out.getvalue().split())
    for word in ("NAS1AAA", "nas-1", "suspect", "training", "118,400", "1.523", "1,230", "22.1 ms"):
        assert word in words


def test_no_peers_says_how_to_get_some() -> None:
    assert "covey invite" in printed(views.print_peers, [], False)


def test_an_event_is_one_line() -> None:
    data = {"peer": "two", "reason": "", "loss": 0.123456, "why": "[red]"}
    event = {"id": 7, "time": rfc3339(NOW), "type": "peer.dead", "data": data}
    text = printed(views.print_event, event)
    assert text.startswith("     7  ")
    assert text.rstrip().endswith("peer.dead             peer=two  loss=0.1235  why=[red]")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (0.44, "0.4 s"),
        (12.3, "12 s"),
        (180, "3 min"),
        (7500, "2 h 5 min"),
        (273600, "3 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert views.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (12_100, "12.1 kB"), (3.4e6, "3.4 MB"), (2e9, "2.0 GB"),
     (5e12, "5.0 TB")],
)  # fmt: skip
def test_sizes(count: float, text: str) -> None:
    assert views.size(count) == text


def test_no_colour_outside_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    views.print_status(views.console(), as_json(STATUS), NOW)
    assert "\x1b" not in capsys.readouterr().out
