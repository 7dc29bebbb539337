"""A result as JSON and as a table."""

import json
from dataclasses import replace

import pytest
from rich.console import Console

from covey.simulate.experiment import Experiment
from covey.simulate.report import document, table
from covey.simulate.result import Point, Result
from covey.simulate.scenario import Churn, Network, Outer, Scenario
from covey.simulate.splits import Split

FIRST = Point(10.0, 50.0, 1000.0, 0.5, 0.25, 0.6, 1.25, 1.0, 0.125)
LAST = Point(20.0, 100.0, 48_100.0, 0.75, 0.625, 0.76, 0.5, 0.4375, 0.00125)
RESULT = Result((FIRST, LAST), 33.5, {"unreachable": 8, "busy": 20}, 4810)
SCENARIO = Scenario(nodes=4, network=Network(bytes_per_s=float("inf")), churn=Churn(3, 1), seed=9)


def shown(experiment: Experiment, result: Result) -> str:
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(table(experiment, result))
    return capture.get()


def test_json_tells_all_there_is() -> None:
    experiment = Experiment(SCENARIO, "digits", Split("dirichlet", 0.1))
    told = json.loads(json.dumps(document(experiment, RESULT), allow_nan=False))
    assert told["scenario"]["nodes"] == 4
    assert told["scenario"]["churn"] == {"on_s": 3, "off_s": 1}
    assert told["scenario"]["network"]["bytes_per_s"] is None
    assert told["scenario"]["config"]["codec"] == "mod4"
    assert (told["task"], told["split"]) == ("digits", "dirichlet:0.1")
    assert (told["algorithm"], told["outer"]) == ("pair", None)
    assert told["points"] == [
        {name: getattr(point, name) for name in Point.__dataclass_fields__}
        for point in (FIRST, LAST)
    ]
    assert told["final"] == told["points"][1]
    assert told["bytes_per_parameter"] == 10.0
    assert told["exchanges_per_node"] == 33.5
    assert told["failed_exchanges"] == {"busy": 20, "unreachable": 8}
    assert told["version"]


def test_json_has_no_nan() -> None:
    nan = float("nan")
    points = tuple(replace(p, mean=nan, least=nan, averaged=nan) for p in RESULT.points)
    told = document(Experiment(task="consensus"), replace(RESULT, points=points))
    assert told["final"]["mean"] is None
    json.dumps(told, allow_nan=False)


def test_json_names_a_baseline_and_its_outer_step() -> None:
    told = document(Experiment(baseline="diloco", outer=Outer(0.8, 0.5)), RESULT)
    assert told["algorithm"] == "diloco"
    assert told["outer"] == {"momentum": 0.8, "rate": 0.5}


@pytest.mark.parametrize(
    ("experiment", "words"),
    [
        (
            Experiment(SCENARIO, split=Split("classes", 2)),
            ("pair on digits, split classes:2", "4 nodes", "seed 9", "busy", "33.5", "5.0"),
        ),
        (Experiment(baseline="average"), ("average on digits", "16 nodes")),
    ],
)
def test_the_table_fits_a_terminal(experiment: Experiment, words: tuple[str, ...]) -> None:
    text = shown(experiment, RESULT)
    both = ("75.00%", "62.50%", "76.00%", "0.4375", "50.00%", "48.1 kB", "10.0 B", "0.12%")
    for word in (*words, *both):
        assert word in text
    assert "…" not in text
    assert ("exchanges" in text) == (not experiment.baseline)


def test_without_accuracy_there_is_loss() -> None:
    nan = float("nan")
    points = tuple(replace(p, mean=nan, least=nan, averaged=nan) for p in RESULT.points)
    text = shown(Experiment(task="consensus"), replace(RESULT, points=points))
    assert "accuracy" not in text
    assert "split" not in text
    assert "0.5000" in text
