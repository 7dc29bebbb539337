"""Experiments: what fits together, and that a run repeats to the bit in another process."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from covey.gossip.config import Config
from covey.simulate.cli import main
from covey.simulate.experiment import BASELINE_NAMES, Experiment
from covey.simulate.scenario import Attack, Churn, Cut, Network, Outer, Scenario
from covey.simulate.splits import Split

SHORT = Scenario(nodes=4, periods=3, steps=2, measures=1)
ARGS = [
    *("--nodes", "5", "--periods", "4", "--split", "dirichlet:0.3", "--loss", "0.2"),
    *("--spread", "2", "--attack", "flip", "--json"),
]


@pytest.mark.parametrize(
    "troubled",
    [
        replace(SHORT, spread=2.0),
        replace(SHORT, network=Network(loss=0.1)),
        replace(SHORT, churn=Churn(1, 1)),
        replace(SHORT, cut=Cut(0, 1)),
        replace(SHORT, attack=Attack("noise")),
        replace(SHORT, config=Config(exchanges=2)),
    ],
)
def test_a_baseline_has_no_troubles(troubled: Scenario) -> None:
    with pytest.raises(ValueError, match="diloco is a baseline"):
        Experiment(troubled, baseline="diloco")
    assert Experiment(SHORT, baseline="diloco").algorithm == "diloco"


@pytest.mark.parametrize(
    ("experiment", "why"),
    [
        (lambda: Experiment(baseline="magic"), "unknown baseline 'magic'; there are isolated"),
        (lambda: Experiment(baseline="average", outer=Outer()), "average has no"),
        (lambda: Experiment(outer=Outer()), "covey has no baseline's"),
        (lambda: Experiment(task="text", split=Split("classes", 2)), "no labels"),
        (lambda: Experiment(task="text:FILE", split=Split("dirichlet", 1)), "no labels"),
        (lambda: Experiment(task="consensus", split=Split("parts")), "without training"),
        (lambda: Experiment(task="consensus", baseline="average"), "without training"),
        (lambda: Experiment(task="consensus:none"), "not 'none'"),
        (lambda: Experiment(replace(SHORT, attack=Attack("flip")), "consensus"), "no labels"),
        (lambda: Experiment(task="chess").prepare(), "unknown task 'chess'"),
    ],
)
def test_what_does_not_fit_is_refused(experiment: object, why: str) -> None:
    assert callable(experiment)
    with pytest.raises(ValueError, match=why):
        experiment()


def test_every_baseline_learns_its_share() -> None:
    finals = {
        name: Experiment(SHORT, split=Split("dirichlet", 0.1), baseline=name).run().final
        for name in BASELINE_NAMES
    }
    assert {final.steps for final in finals.values()} == {6.0}
    # On pooled data the skew is gone: all gradients at each step see all classes.
    assert finals["central"].sent == 0
    assert finals["central"].loss < finals["isolated"].loss


def test_covey_learns_digits_and_agrees_on_vectors() -> None:
    digits = Experiment(replace(SHORT, periods=12, steps=10)).run()
    assert digits.final.mean > 0.8
    assert digits.exchanges > 12
    vectors = Experiment(replace(SHORT, periods=8, steps=1), "consensus:100").run()
    assert vectors.parameters == 100
    assert vectors.final.loss < 0.3


def test_those_who_flip_labels_are_not_scored() -> None:
    flipped = Experiment(replace(SHORT, periods=10, steps=10, attack=Attack("flip", 0.25)))
    silent = replace(flipped, scenario=replace(flipped.scenario, attack=Attack("silent", 0.25)))
    assert flipped.run().final.mean > silent.run().final.mean - 0.15


def test_two_processes_say_the_same_to_the_bit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(ARGS) == 0
    here = capsys.readouterr().out
    argv = [sys.executable, "-P", "-m", "covey.simulate", *ARGS]
    # Sets and dicts in another order; the arithmetic in numpy, whatever it is in here.
    env = {**os.environ, "PYTHONHASHSEED": "7", "COVEY_NUMPY": "1"}
    there = subprocess.run(argv, capture_output=True, text=True, check=True, env=env).stdout
    assert len(here) > 1000
    assert here == there
