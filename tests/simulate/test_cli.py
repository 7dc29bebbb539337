"""``covey simulate``: options, exit codes, what goes where."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from covey.gossip.config import ALGORITHMS
from covey.simulate.cli import main
from covey.simulate.experiment import BASELINE_NAMES
from covey.simulate.scenario import ATTACKS

ROOT = Path(__file__).resolve().parents[2]
SHORT = ("--nodes", "3", "--periods", "2", "--steps", "2")
Captured = pytest.CaptureFixture[str]


def test_help_names_everything_and_its_units(capsys: Captured) -> None:
    assert main(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for word in (*ALGORITHMS, *BASELINE_NAMES, *ATTACKS, "digits", "mnist", "text:FILE"):
        assert word in text
    for words in ("in milliseconds", "in Mbit/s", "in seconds", "dirichlet:ALPHA", "Examples:"):
        assert words in text


def test_json_is_all_that_is_printed(capsys: Captured) -> None:
    options = ["--split", "classes:2", "--exchanges", "2", "--momentum", "0.3", "--rate", "0.9"]
    options += ["--latency", "20", "--bandwidth", "8", "--loss", "0.1", "--churn", "30:5"]
    options += ["--cut", "0.2:0.4", "--attack", "noise:0.4", "--spread", "2", "--seed", "5"]
    assert main([*SHORT, *options, "--period", "3", "--codec", "f32", "--no-settle", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    scenario = told["scenario"]
    assert scenario["network"] == {"latency_s": 0.02, "bytes_per_s": 1e6, "loss": 0.1}
    outer = scenario["config"]["outer"]
    assert (outer["momentum"], outer["rate"]) == (0.3, 0.9)
    assert (scenario["config"]["codec"], scenario["config"]["exchanges"]) == ("f32", 2)
    assert (scenario["churn"], scenario["cut"]) == (
        {"on_s": 30, "off_s": 5},
        {"begin": 0.2, "end": 0.4},
    )
    assert scenario["attack"] == {"kind": "noise", "share": 0.4}
    assert (scenario["spread"], scenario["seed"], scenario["settle"]) == (2, 5, False)
    assert (scenario["nodes"], scenario["periods"], scenario["period_s"]) == (3, 2, 3)
    assert told["split"] == "classes:2"


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "noloco"])
def test_every_algorithm_can_be_named(algorithm: str, capsys: Captured) -> None:
    assert main([*SHORT, "--algorithm", algorithm]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{algorithm} on digits")
    assert "accuracy" in out
    assert "\x1b" not in out + err
    assert err.startswith("simulated in")


def test_the_outer_step_of_a_baseline_is_its_own(capsys: Captured) -> None:
    assert main([*SHORT, "--algorithm", "diloco", "--momentum", "0.5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["algorithm"], told["outer"]) == ("diloco", {"momentum": 0.5, "rate": 0.7})


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ("--nodes 0", "--nodes"),
        ("--loss 1", "--loss"),
        ("--spread 0.5", "--spread"),
        ("--split dirichlet", "needs a value above 0, as in dirichlet:2"),
        ("--split pie", "unknown split 'pie'"),
        ("--churn 30", "not two numbers"),
        ("--cut 0.5:0.2", "begins before it ends"),
        ("--attack shout", "unknown attack 'shout'"),
        ("--attack noise:2", "share of attackers"),
        ("--algorithm magic", "magic"),
        ("--task chess", "unknown task 'chess'"),
        ("--task text:/no/such/file", "No such file"),
        ("--momentum 0.99", "momentum 0.99"),
        ("--momentum 2", "momentum is in [0, 1)"),
        ("--algorithm average --momentum 0.5", "average"),
        ("--algorithm average --codec f32", "no --codec"),
        ("--algorithm average --loss 0.5", "lock-step"),
        ("--plot out.xyz", "does not end in .png"),
        ("--nonsense", "--nonsense"),
        ("extra", "extra"),
    ],
)
def test_wrong_usage_is_code_2_and_says_why(args: str, why: str, capsys: Captured) -> None:
    assert main(args.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert why in " ".join(err.split())
    assert "Traceback" not in err


def test_a_picture_is_drawn(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "out.png"
    assert main([*SHORT, "--plot", str(path), "--json"]) == 0
    assert path.stat().st_size > 10_000
    json.loads(capsys.readouterr().out)
    assert main([*SHORT, "--plot", str(tmp_path / "no" / "out.png")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_a_bug_is_not_blamed_on_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("operands could not be broadcast")

    monkeypatch.setattr("covey.simulate.world.World.__init__", broken)
    with pytest.raises(ValueError, match="broadcast"):
        main(SHORT)


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"no\", name='torch')\n")
    path = os.pathsep.join((str(tmp_path), str(ROOT / ".src")))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "covey.simulate"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "error: torch is not installed; pip install 'covey[simulate]'\n"


def test_a_terminal_sees_how_far_it_is() -> None:
    """Standard error is a terminal, standard output is not: the bar is on the one alone."""
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "covey.simulate", *SHORT, "--task", "consensus", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT / ".src"), "TERM": "xterm", "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=slave,
    )
    os.close(slave)
    seen = b""
    while True:
        try:
            more = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        if not more:
            break
        seen += more
    os.close(master)
    out, _ = child.communicate()
    assert child.returncode == 0
    assert b"100%" in seen
    assert json.loads(out)["task"] == "consensus"
