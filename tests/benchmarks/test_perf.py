"""The speed benchmark: its arithmetic, and all that it drives, on tiny models and flocks."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from covey.gossip.quantiser import blocks_in, layer_bytes
from tests.benchmarks.perf import __main__ as entry
from tests.benchmarks.perf import calm, groups, picture, report, stages
from tests.benchmarks.perf.contests import alternate
from tests.benchmarks.perf.drivers.meter import rate
from tests.benchmarks.perf.groups import Bench, Plan
from tests.benchmarks.perf.peers import Drivers, Guest, Peers
from tests.benchmarks.perf.processes import Driver, NoAnswer, cpu_s, elapsed_s, together
from tests.benchmarks.perf.rows import (
    Row,
    Target,
    budgeted,
    compared,
    percentile,
    worst_deviation,
)

ROOT = Path(__file__).parents[2]
TINY = Plan(parameters=2000, repeats=2, flat_out_s=0.5)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(TINY, Peers(tmp_path / "none", tmp_path))


# --- arithmetic ----------------------------------------------------------------------------------


def test_a_ratio_is_of_medians() -> None:
    row = compared("g", "n", "s", [1.0, 2.0, 9.0], [4.0, 5.0, 4.0], "other", Target(most=0.5))
    assert (row.ours, row.reference, row.ratio, row.ok) == (2.0, 4.0, 0.5, True)
    assert (row.spread, row.repeats) == ((1.0, 9.0), 3)


@pytest.mark.parametrize(
    ("target", "ratio", "met", "told"),
    [
        (Target(), 99.0, True, ""),
        (Target(), math.nan, True, ""),
        (Target(most=1.0), 1.0, True, "≤ 1"),
        (Target(most=1.0), 1.01, False, "≤ 1"),
        (Target(least=0.97), 0.96, False, "≥ 0.97"),
        (Target(most=1.1, least=0.9), 1.05, True, "≥ 0.9, ≤ 1.1"),
        (Target(most=1.0), math.nan, False, "≤ 1"),
    ],
)
def test_a_target_is_met_or_not(target: Target, ratio: float, met: bool, told: str) -> None:
    assert target.met(ratio) is met
    assert str(target) == told


def test_a_budget_is_kept_or_not() -> None:
    assert budgeted("g", "memory", "MB", [70.0, 79.0, 90.0], 80.0).ok
    assert not budgeted("g", "memory", "MB", [81.0], 80.0).ok


def test_json_has_what_was_asked_for_and_no_infinity() -> None:
    told = budgeted("g", "memory", "MB", [math.inf], 80.0).document()
    assert {"name", "ours", "reference", "reference_name", "ratio", "target", "ok"} <= told.keys()
    assert (told["ours"], told["ratio"], told["target"], told["ok"]) == (None, None, "≤ 1", False)
    json.dumps(told, allow_nan=False)


def test_a_percentile_is_a_value_that_was_seen() -> None:
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0
    assert percentile([5.0], 0.99) == 5.0


def test_a_line_is_straight_and_a_curve_is_not() -> None:
    sizes, noise = [0.1, 1.0, 10.0, 100.0], [1.0, 1.05, 0.95, 1.0]
    times = [3 + 2 * size for size in sizes]
    assert worst_deviation(sizes, times) < 1e-9
    assert worst_deviation(sizes, [t * f for t, f in zip(times, noise, strict=True)]) < 0.2
    assert worst_deviation(sizes, [1 + size**1.5 for size in sizes]) > 0.2


def test_a_quantile_of_a_histogram_is_linear_within_a_bucket() -> None:
    counts = {0.01: 50.0, 0.05: 90.0, 0.1: 100.0, math.inf: 100.0}
    assert calm.quantile(counts, 0.5) == pytest.approx(0.01)
    assert calm.quantile(counts, 0.95) == pytest.approx(0.075)
    assert calm.quantile({0.1: 0.0, math.inf: 4.0}, 0.99) == 0.1, "beyond the last bound"


def test_the_rate_is_that_of_the_middle() -> None:
    waits = [(0.0, 0, 0), (5.0, 0, 0)]
    bulk = [(5.0 + n / 10, 0, 100 * n) for n in range(11)]
    assert rate([*waits, *bulk, (99.0, 0, 1000)], 2) == pytest.approx(1000.0)


# --- processes -----------------------------------------------------------------------------------

ECHO = """
import sys
print("a framework says hello", flush=True)
for line in sys.stdin:
    sum(range(2_000_000))
    print('{"start": 1.0, "end": ' + line.strip() + "}", flush=True)
    if line == "9\\n":
        raise SystemExit("enough")
"""


@pytest.fixture
def echoes(tmp_path: Path) -> Iterator[list[Driver]]:
    drivers = [Driver([sys.executable, "-c", ECHO], tmp_path / f"{n}.log") for n in range(2)]
    yield drivers
    for driver in drivers:
        driver.close()


def test_drivers_do_a_round_together(echoes: list[Driver]) -> None:
    before = cpu_s([driver.pid for driver in echoes])
    assert elapsed_s(together(echoes, "3.5")) == 2.5
    assert cpu_s([driver.pid for driver in echoes]) > before


def test_the_end_of_a_driver_is_told_with_its_last_words(echoes: list[Driver]) -> None:
    together(echoes, "9")
    with pytest.raises(NoAnswer, match="has ended:\nenough") as caught:
        together(echoes, "3.5")
    assert caught.value.why == "has ended"


def test_a_guest_that_fails_is_ended_and_measures_nothing(echoes: list[Driver]) -> None:
    ended = []

    @contextlib.contextmanager
    def setting_up() -> Iterator[Drivers]:
        yield Drivers(echoes, "3.5")
        ended.append(True)

    with Guest(setting_up()) as guest:
        assert guest.round() == 2.5
        assert guest.cpu_s() > 0
        together(echoes[1:], "9")
        [series] = alternate(2, guest)
        assert ended
        assert all(math.isnan(value) for value in (*series.seconds, *series.cpu_s))
        assert guest.failure is not None
    assert ended == [True]


def test_turns_are_taken() -> None:
    turns = []

    class Player:
        def __init__(self, name: str) -> None:
            self.name = name

        def round(self) -> float:
            turns.append(self.name)
            return float(len(turns))

        def cpu_s(self) -> float:
            return 10.0 * len(turns)

    ours, theirs = alternate(2, Player("ours"), Player("theirs"))
    assert turns == ["ours", "theirs"] * 2
    assert (list(ours.seconds), list(theirs.seconds)) == ([1.0, 3.0], [2.0, 4.0])
    assert list(ours.cpu_s) == [10.0, 10.0]


# --- all of it -----------------------------------------------------------------------------------


def test_the_stages_are_those_of_an_exchange() -> None:
    found = {stage.name: stage for stage in stages.stages(64_000, 1)}
    coded = layer_bytes(blocks_in(64_000))
    assert found["snapshot copy (learner)"].bytes == 8 * 64_000
    assert found["hash, ours and theirs"].bytes == 2 * coded
    assert all(stage.seconds > 0 and stage.limit_s > 0 for stage in found.values())
    told = stages.table(list(found.values()), 0.123)
    assert "| two daemons, snapshot to increment |  | 123.0 ms |" in told


def test_two_daemons_exchange_beside_gloo(bench: Bench) -> None:
    made, whole, processor = groups.loopback(bench)
    assert made.ours >= 1
    assert 0 < whole.spread[0] <= whole.ours <= whole.spread[1]
    assert whole.reference > 0
    assert processor.ours > 0


def test_a_peer_that_fails_is_left_out_and_all_else_measured(
    tmp_path: Path, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "none" / "hivemind" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho no group >&2\nexit 1\n")
    python.chmod(0o755)
    (tmp_path / "none" / "hivemind" / ".installed").touch()
    rows = list(groups.crowd(replace(bench, plan=replace(TINY, nodes=2))))
    assert {row.reference_name for row in rows} == {"one each", "Gloo pair", "Gloo all-reduce"}
    assert bench.left_out == [
        "flower: not installed, see `make bench-peers`",
        "hivemind fp16: has ended",
    ]
    said = capsys.readouterr()
    assert "left out: hivemind fp16: has ended" in said.out
    assert "no group" in said.err


def test_every_group_has_a_place_in_the_document(tmp_path: Path, bench: Bench) -> None:
    rows = [made("loopback", name="2 nodes: exchanges per round", unit="", ours=9.0)]
    rows += [made(name) for name in groups.GROUPS]
    document = tmp_path / "performance.md"
    document.write_text((ROOT / "docs" / "performance.md").read_text())
    report.renew(document, None, replace(bench, plan=replace(TINY, repeats=1)), rows)
    assert "| exchange of 10 M, 2 nodes | 2 s |" in document.read_text()
    assert "| two daemons, snapshot to increment |  | 2000.0 ms |" in document.read_text()
    assert (tmp_path / "performance.svg").exists()


def test_the_readme_has_rounds_and_training(tmp_path: Path, bench: Bench) -> None:
    rows = [
        made("crowd", reference_name="hivemind fp16"),
        made("crowd", name="exchange of 10 M, 4 nodes: processor"),
        made("growth", name="exchange of 1 M: per million parameters"),
        made("training", name="training with covey", unit="steps/s"),
    ]
    readme = tmp_path / "README.md"
    readme.write_text((ROOT / "README.md").read_text())
    report.renew(None, readme, bench, rows)
    _, _, table = readme.read_text().partition("<!-- table: speed -->")
    assert table.partition("<!-- end -->")[0].split("\n")[2:-2] == [
        "|  | covey | beside | ratio |",
        "|---|---|---|---|",
        "| exchange of 10 M, 2 nodes | 2 s | hivemind fp16: 1 s | 2.00 |",
        "| training with covey | 2 steps/s | other: 1 steps/s | 2.00 |",
    ]


def test_the_picture_has_everybody() -> None:
    rows = [
        made("crowd", reference_name="Gloo pair", reference=1.0),
        made("crowd", reference_name="hivemind fp16", reference=9.0),
        made("crowd", name="4 nodes: exchanges per round"),
        made("crowd", name="exchange of 10 M, 4 nodes: processor"),
        made("links", name="exchange of 10 M, 2 nodes, 1000 Mbit/s", reference_name="Gloo pair"),
        made("links", name="goodput of the payload, 1000 Mbit/s"),
    ]
    assert picture.crowd(rows) == [("hivemind fp16", 9.0), ("covey", 2.0), ("Gloo pair", 1.0)]
    assert [name for name, _ in picture.cables(rows)] == [
        "Gloo pair, 1000 Mbit/s",
        "covey, 1000 Mbit/s",
    ]


def test_the_picture_is_the_same_for_the_same_rows(tmp_path: Path) -> None:
    rows = [made("crowd"), made("links", name="exchange of 10 M, 2 nodes, 100 Mbit/s")]
    for name in ("a.svg", "b.svg"):
        picture.draw(rows, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    picture.draw(rows[:1], tmp_path / "c.svg")
    assert not (tmp_path / "c.svg").exists(), "one panel was not measured"


def test_a_row_that_is_not_met_is_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def group(bench: Bench) -> Iterator[Row]:
        bench.left_out.append("flower: not installed")
        yield made("loopback", target=Target(most=1.0 if bench.plan.repeats == 5 else 3.0))

    monkeypatch.setitem(groups.GROUPS, "loopback", group)
    out = tmp_path / "bench.json"
    asked = ["--only", "loopback", "--out", str(out)]
    assert entry.main([*asked, "--repeats", "5"]) == 1
    said = capsys.readouterr().out
    assert "not met: exchange of 10 M, 2 nodes: 2 of other, ≤ 1" in said
    assert "left out: flower: not installed" in said
    assert entry.main([*asked, "--short"]) == 0
    [row] = json.loads(out.read_text())["rows"]
    assert (row["ratio"], row["ok"]) == (2.0, True)


def made(group: str, **changes: Any) -> Row:
    name = "exchange of 10 M, 2 nodes"
    row = Row(group, name, "s", 2.0, 1.0, "other", Target(), (1.0, 3.0), 3)
    return replace(row, **changes)
