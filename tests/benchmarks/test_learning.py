"""The learning benchmark: its arithmetic, and all of it from end to end on a tiny flock."""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from covey.gossip.screening import Bound
from covey.simulate import scaling
from covey.simulate.result import Point, Result
from covey.simulate.scenario import Attack, Outer, Scenario
from covey.simulate.splits import Split
from tests.benchmarks.learning import __main__ as entry
from tests.benchmarks.learning import rows
from tests.benchmarks.learning.claims import CLAIMS, SHORT, Plan, everyone
from tests.benchmarks.learning.questions import Comparison, Pushes, Scaling
from tests.benchmarks.learning.rows import Row, Target
from tests.benchmarks.learning.runs import Runs, run

ROOT = Path(__file__).parents[2]
CALM = Scenario(nodes=4, periods=4, steps=2, measures=2)
TINY = Plan(
    seeds=(10, 11),
    tuning=(0,),
    tasks=("digits",),
    scenario=CALM,
    text=replace(CALM, nodes=2, periods=1, steps=1),
    text_seeds=(10,),
    attacks=("negate", "flip", "silent"),
    attack_seeds=(10,),
    skewed_seeds=(10, 12),
    nodes=(8,),
    effort=16,
    flocks=(6, 12, 24),
    flock_periods=40,
)


def result(mean: float, sent: float, loss: float = 1.0, least: float = 0.5) -> Result:
    point = Point(1.0, 1.0, sent, mean, least, mean, loss, loss, 0.0)
    return Result((point,), 1.0, {}, 100)


def row(**changes: object) -> Row:
    made = Row("codec", "digits", 97.5, 97.25, 0.25, 7.5, "≥ -0.5 points", True)
    return replace(made, **changes)  # type: ignore[arg-type]


# --- arithmetic ----------------------------------------------------------------------------------


def test_differences_are_paired() -> None:
    difference, error = rows.paired([90.0, 50.0, 71.0], [89.0, 49.0, 67.0])
    assert difference == pytest.approx(2.0)
    assert error == pytest.approx(math.sqrt(3.0) / math.sqrt(3)), "that of 1, 1 and 4"


def test_one_seed_has_no_error() -> None:
    difference, error = rows.paired([1.0], [3.0])
    assert difference == -2.0
    assert math.isnan(error)


def test_accuracy_is_in_points_and_bytes_in_times() -> None:
    ours = [result(0.97, 100.0, least=0.96), result(0.95, 300.0, least=0.9)]
    theirs = [result(0.98, 1600.0), result(0.94, 1600.0)]
    made = rows.accuracy_row("codec", "digits", ours, theirs, Target(-0.5, fewer=8))
    assert made.ours == pytest.approx(96.0)
    assert made.reference == pytest.approx(96.0)
    assert made.difference == pytest.approx(0.0)
    assert made.error == pytest.approx(1.0)
    assert made.least == pytest.approx(90.0)
    assert made.bytes_ratio == pytest.approx(8.0)
    assert (made.ok, made.seeds) == (True, 2)
    assert made.target == "≥ -0.5 points, ≥ 8x fewer bytes"


def test_loss_is_in_percent_of_the_reference() -> None:
    ours, theirs = [result(0.5, 1.0, 2.02), result(0.5, 1.0, 4.0)], [result(0.5, 8.0, 2.0)] * 2
    made = rows.loss_row("text", "text", ours, theirs, Target(most=1.0, fewer=8))
    assert made.difference == pytest.approx((1 + 100) / 2)
    assert made.error == pytest.approx(99 / 2)
    assert made.ours == pytest.approx(3.01)
    assert (made.reference, made.unit) == (2.0, "%")
    assert (made.ok, made.target) == (False, "≤ +1 %, ≥ 8x fewer bytes")


@pytest.mark.parametrize(
    ("target", "difference", "ratio", "met"),
    [
        (Target(), -50.0, None, True),
        (Target(least=-0.5), -0.5, None, True),
        (Target(least=-0.5), -0.51, None, False),
        (Target(most=1.0), 1.01, None, False),
        (Target(fewer=6), 9.0, 5.9, False),
        (Target(fewer=6), 9.0, 6.0, True),
        (Target(fewer=6), 9.0, None, False),
        (Target(least=-0.5), math.nan, 9.0, False),
        (Target(most=0.5), math.nan, 9.0, False),
    ],
)
def test_a_target_is_met_or_not(
    target: Target, difference: float, ratio: float | None, met: bool
) -> None:
    assert target.met(difference, ratio) is met


def test_a_formula_may_be_missed_by_so_much_either_way() -> None:
    assert rows.formula_row("formulas", "x", 0.51, 0.5, 3.0).ok
    assert not rows.formula_row("formulas", "x", 0.48, 0.5, 3.0).ok
    assert not rows.formula_row("formulas", "x", math.nan, 0.5, 3.0).ok
    made = rows.formula_row("formulas", "x", 0.51, 0.5, 3.0, error=0.01)
    assert made.difference == pytest.approx(2.0)
    assert made.error == pytest.approx(2.0), "percent, as the difference"


@pytest.mark.parametrize(
    ("pushes", "ok"), [([0.2, 1.0001], True), ([0.2, 1.01], False), ([0.0, 0.0], False)]
)
def test_a_push_beyond_the_bound_is_no_success(pushes: list[float], ok: bool) -> None:
    assert rows.push_row("attacks", "negate", pushes).ok is ok


def test_json_has_no_nan() -> None:
    told = row(error=math.nan, bytes_ratio=None).document()
    assert (told["error"], told["bytes_ratio"], told["ok"]) == (None, None, True)
    wanted = {"claim", "setting", "ours", "reference", "difference", "bytes_ratio", "target", "ok"}
    assert wanted <= told.keys()


# --- claims --------------------------------------------------------------------------------------


def questions(plan: Plan, name: str) -> list[Comparison]:
    return [q for q in CLAIMS[name](plan) if isinstance(q, Comparison)]


@pytest.mark.parametrize("plan", [Plan(), SHORT], ids=["long", "short"])
def test_reported_seeds_are_not_those_of_tuning(plan: Plan) -> None:
    reported = {*plan.seeds, *plan.text_seeds, *plan.attack_seeds, *plan.skewed_seeds}
    assert not reported & {*range(5), *plan.tuning}


def test_what_is_skewed_is_judged_by_seeds_of_its_own() -> None:
    for name in ("codec", "baselines", "faults", "attacks"):
        for asked in questions(Plan(), name):
            skewed = asked.ours.split != Split()
            assert asked.seeds == (Plan().skewed_seeds if skewed else Plan().seeds)
            assert len(asked.seeds) == (15 if skewed else 5)
        for asked in questions(Plan().on((0, 1)), name):
            assert asked.seeds == (0, 1), "who tunes sees nothing of what is reported"


def test_what_is_compared_differs_in_what_is_claimed_only() -> None:
    for name in ("codec", "faults", "attacks"):
        for asked in questions(Plan(), name):
            ours, (theirs,) = asked.ours, asked.references
            assert (ours.task, ours.split) == (theirs.task, theirs.split)
            assert ours != theirs
            calm = {"network", "spread", "cut", "attack", "config"}
            for field in Scenario.__dataclass_fields__.keys() - calm:
                assert getattr(ours.scenario, field) == getattr(theirs.scenario, field)


def test_every_attack_is_tried_on_both_splits() -> None:
    tried = {
        (str(q.ours.split), q.ours.scenario.attack.kind)
        for q in questions(Plan(), "attacks")
        if q.ours.scenario.attack
    }
    assert len(tried) == 7 + 6, "silent under skew is what the others are held against"


# --- runs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    with pytest.MonkeyPatch.context() as patch, Runs(1) as made:
        patch.setattr(sys, "path", [*sys.path, str(ROOT)])  # as from the repository's root
        yield made


def test_a_run_is_asked_for_once(runs: Runs) -> None:
    experiment = TINY.baseline("average", "digits", Split())
    assert runs.ask(run, experiment) is runs.ask(run, replace(experiment))
    assert runs.ask(run, experiment).result().result == experiment.run()


@pytest.mark.parametrize("kind", ["negate", "flip"])
def test_watching_changes_nothing(kind: str) -> None:
    experiment = TINY.ours("digits", Split(), attack=Attack(kind, 0.3))
    outcome = run(experiment)
    assert outcome.result == experiment.run()
    assert 0 < outcome.pushed <= 1.001


def test_what_is_not_clipped_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bound, "factor", lambda self, distance: 1.0)
    experiment = TINY.ours("digits", Split(), periods=10, attack=Attack("negate"))
    assert run(experiment).pushed > 1.01


def test_pushes_are_measured(runs: Runs) -> None:
    asked = Pushes("attacks", "", (TINY.ours("digits", Split(), attack=Attack("negate")),), (10,))
    (made,) = asked.ask(runs)()
    assert made.ok
    assert 0 < made.ours <= 1.001


def test_the_best_of_the_tuned_is_the_reference(runs: Runs) -> None:
    split = Split()
    tried = tuple(TINY.baseline("diloco", "digits", split, Outer(m)) for m in (0.0, 0.9))
    asked = Comparison(
        "baselines", "DiLoCo", TINY.ours("digits", split), tried, Target(), (10,), tuning=(0, 1)
    )
    (made,) = asked.ask(runs)()
    scores = [
        [replace(t, scenario=replace(t.scenario, seed=s)).run().final.mean for s in (0, 1)]
        for t in tried
    ]
    best = max(range(2), key=lambda k: sum(scores[k]))
    assert made.setting == f"DiLoCo, momentum {tried[best].outer.momentum:g}"  # type: ignore[union-attr]
    wanted = replace(tried[best], scenario=replace(CALM, seed=10)).run().final.mean
    assert made.reference == pytest.approx(100 * wanted)


def test_flocks_are_held_against_the_smallest(runs: Runs) -> None:
    made = Scaling("scale", TINY.flocks, TINY.flock_periods).ask(runs)()
    costs = [scaling.measure(nodes, TINY.flock_periods) for nodes in TINY.flocks]
    a, b = scaling.fit(costs)
    fitted = [a + b * math.log2(cost.nodes) for cost in costs]
    assert [r.ours for r in made] == [
        *(cost.bytes_per_period for cost in costs[1:]),
        *(cost.periods for cost in costs),
    ]
    assert [r.reference for r in made] == pytest.approx([costs[0].bytes_per_period] * 2 + fitted)


# --- all of it -----------------------------------------------------------------------------------


def test_everything_runs_and_says_what_failed(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document, out = tmp_path / "algorithm.md", tmp_path / "bench-learning.json"
    places = [*CLAIMS, "comparison", "facts"]
    document.write_text("".join(f"<!-- table: {name} -->\n<!-- end -->\n" for name in places))
    code = entry.bench(TINY, runs, list(CLAIMS), out, document)
    told = json.loads(out.read_text())
    assert {r["claim"] for r in told["rows"]} == set(CLAIMS)
    assert code == (0 if all(r["ok"] for r in told["rows"]) else 1)
    assert "as claimed" in capsys.readouterr().out
    text = document.read_text()
    for split in (Split(), Split("dirichlet", 0.1)):
        for name in everyone(TINY, split):
            assert f"| {name} |" in text
    figures = sorted(path.name for path in (tmp_path / "algorithm").iterdir())
    assert figures == ["bytes.svg", "faults.svg", "scale.svg"]


def test_a_failed_claim_is_the_exit_code(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(TINY, effort=2)  # too little for 3 %
    assert entry.bench(plan, runs, ["formulas"], tmp_path / "out.json") == 1
