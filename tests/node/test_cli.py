"""The command line: what is printed where, exit codes, one clear line for each fault."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from covey.gossip.native import IN_USE
from covey.node import cli, daemon, store
from covey.node.home import Home
from covey.node.rate import Rate
from covey.node.report import Severity, WarningReport
from covey.node.settings import Endpoint, Settings
from covey.protocols.invite import Invite, parse

if TYPE_CHECKING:
    from tests.node.conftest import FakeNode

LAB = Invite("lab", b"l" * 32, ("10.0.0.1:17700",))
COMMANDS = (
    *("up", "run", "join", "invite", "status", "peers", "demo", "bench", "events"),
    *("limits", "stop", "version"),
)
PROGRAMS = (*COMMANDS, "simulate")  # which is one of its own
Covey = Callable[..., tuple[int, str, str]]


@pytest.fixture
def covey(home: Home, capsys: pytest.CaptureFixture[str]) -> Covey:
    """Run one command on the test's home: exit code, standard output, standard error."""

    def run(command: str, *args: str) -> tuple[int, str, str]:
        code = cli.main([command, "--home", str(home.root), *args])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the daemon was asked to run, instead of running it."""
    calls: list[dict[str, Any]] = []

    def run(settings: Settings, home: Home, script: Sequence[str] | None, until_eof: bool) -> int:
        calls.append({"settings": settings, "home": home, "script": script, "eof": until_eof})
        return 5

    monkeypatch.setattr(daemon, "run", run)
    for key in list(os.environ):
        if key.startswith("COVEY_"):
            monkeypatch.delenv(key)
    return calls


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"  covey {command}" in out.partition("Examples:")[2]
    assert ("--json" in out) or command in ("up", "run")


def test_help_lists_the_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in PROGRAMS)
    assert "3 not running, 4 degraded" in out


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["nonsense"],
        ["status", "--nonsense"],
        ["run"],
        ["invite", "--expires", "soon"],
        ["limits", "--up", "10mb"],
        ["join"],
    ],
)
def test_wrong_usage_is_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(args) == 2
    assert capsys.readouterr().out == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("covey 0.")
    assert second == f"kernels: {IN_USE}"
    assert cli.main(["version", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"version", "protocol", "python", "kernels"}


# --- status, peers, events ---------------------------------------------------------------------


def test_status_for_people_and_for_machines(node: "FakeNode", covey: Covey) -> None:
    code, out, err = covey("status")
    assert (code, err) == (0, "")
    assert "training" in out
    assert "18,420" in out
    code, out, _ = covey("status", "--json")
    assert (code, json.loads(out)["health"]) == (0, "ok")


def test_a_degraded_node_is_4(node: "FakeNode", covey: Covey) -> None:
    node.control.warnings = (WarningReport("x", Severity.WARNING, "no peer answers", "do this"),)
    code, out, _ = covey("status")
    assert code == 4
    assert "! no peer answers; do this" in out


@pytest.mark.parametrize("command", ["status", "peers", "events", "limits", "stop"])
def test_no_node_is_3_and_one_line(covey: Covey, command: str) -> None:
    code, out, err = covey(command)
    assert (code, out) == (3, "")
    assert err.startswith("error: no node runs in ")
    assert err.count("\n") == 1
    code, out, _ = covey(command, "--json")
    assert code == 3
    assert set(json.loads(out)["error"]) == {"code", "message", "hint"}


def test_peers(node: "FakeNode", covey: Covey) -> None:
    code, out, _ = covey("peers")
    assert code == 0
    assert "two" in out
    assert "mdns" in out
    assert "refused" not in out
    assert "10.0.0.9:1  failed: refused  (static)" in covey("peers", "-v")[1]
    assert len(json.loads(covey("peers", "--json")[1])["items"]) == 2


def test_events(node: "FakeNode", covey: Covey) -> None:
    node.emit("peer.alive", peer="two")
    node.emit("train.step", step=3)
    code, out, _ = covey("events")
    assert code == 0
    assert [line.split()[2] for line in out.splitlines()] == ["peer.alive", "train.step"]
    lines = covey("events", "--json", "--type", "train.*")[1].splitlines()
    assert [json.loads(line)["data"] for line in lines] == [{"step": 3}]
    assert covey("events", "--since", "2")[1] == ""


def test_following_events_ends_with_the_node(node: "FakeNode", covey: Covey) -> None:
    node.loop.call_soon_threadsafe(node.loop.call_later, 0.05, node.control.on_stop)
    code, _, err = covey("events", "-f")
    assert (code, err.startswith("error: ")) == (3, True)


# --- limits -------------------------------------------------------------------------------------


def test_limits_are_shown_and_changed_at_once(node: "FakeNode", covey: Covey) -> None:
    assert covey("limits") == (0, "up   off\ndown off\n", "")
    assert covey("limits", "--up", "10mbit")[1] == "up   10mbit\ndown off\n"
    code, out, _ = covey("limits", "--down", "0.5 GB/s", "--json")
    assert (code, json.loads(out)) == (0, {"up_Bps": 1.25e6, "down_Bps": 5e8})
    assert node.control.limits.least_bytes_per_s == 1.25e6
    assert covey("limits", "--up", "off")[1] == "up   off\ndown 4gbit\n"


# --- invite and join ----------------------------------------------------------------------------


def test_an_invite_of_a_running_node_comes_from_it(node: "FakeNode", covey: Covey) -> None:
    code, out, err = covey("invite", "--expires", "2d")
    assert (code, out) == (0, "covey join covey1-fake\n")
    assert "Whoever has this line is a member" in err
    assert node.control.invited == [2 * 86400]


def test_an_invite_without_a_running_node(covey: Covey, home: Home) -> None:
    store.save_swarm(home, LAB)
    code, out, err = covey("invite", "--expires", "never")
    invite = parse(out.removeprefix("covey join "), now=4e9)
    assert code == 0
    assert (invite.name, invite.secret, invite.addresses) == ("lab", LAB.secret, LAB.addresses)
    assert "never expires" in err
    plain = json.loads(covey("invite", "--json")[1])
    assert parse(plain["token"], now=0).expires == plain["expires_at"]


def test_no_swarm_to_invite_to(covey: Covey) -> None:
    code, out, err = covey("invite")
    assert (code, out) == (1, "")
    assert "belongs to no swarm yet; create one with `covey up --home" in err


def test_joining(covey: Covey, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert covey("join", LAB.text)[0] == 0
    record = store.load_swarm(home)
    assert record is not None
    assert (record.name, record.secret) == ("lab", LAB.secret)
    assert covey("join", LAB.text)[0] == 0
    other = Invite("other", b"o" * 32).text
    code, out, err = covey("join", other)
    assert (code, out) == (1, "")
    assert "already belongs to the swarm 'lab'; leave that with `covey join --force" in err
    answer = covey("join", "--force", "--json", other)
    assert (answer[0], json.loads(answer[1])["swarm"]) == (0, "other")


@pytest.mark.parametrize("line", [LAB.text, f"covey join {LAB.text}"])  # as `invite` prints it
def test_joining_from_standard_input(covey: Covey, home: Home, line: str) -> None:
    command = [sys.executable, "-m", "covey.node", "join", "-", "--home", str(home.root)]
    subprocess.run(command, input=line.encode() + b"\n", check=True, capture_output=True)
    assert store.load_swarm(home) is not None


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("covey2-abc", "error: an invite begins with 'covey1-'; run `covey invite`"),
        (LAB.text[:-3], "mistyped or cut off; copy the whole line"),
        (Invite("lab", b"l" * 32, expires=1).text, "expired; run `covey invite` on a member"),
    ],
)
def test_a_bad_invite_is_one_clear_line(covey: Covey, token: str, expected: str) -> None:
    code, out, err = covey("join", token)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert expected in err


def test_a_running_node_cannot_change_its_swarm(node: "FakeNode", covey: Covey, home: Home) -> None:
    store.save_swarm(home, LAB)
    assert covey("join", LAB.text)[0] == 0
    code, _, err = covey("join", "--force", Invite("other", b"o" * 32).text)
    assert code == 1
    assert f"in use by another node (pid {os.getpid()})" in err


# --- up, run, stop ------------------------------------------------------------------------------


def test_up_hands_its_flags_to_the_daemon(
    covey: Covey, home: Home, started: list[dict[str, Any]]
) -> None:
    flags = ["--peer", "a:1", "--peer", "b", "--name", "studio", "--swarm", "lab", "--no-mdns"]
    flags += ["--listen", ":0", "--api", "127.0.0.1:0", "--codec", "f32", "--until-eof"]
    flags += ["--algorithm", "pair", "--up", "10mbit", "--down", "off"]
    assert covey("up", *flags)[0] == 5
    (call,) = started
    assert call["home"] == home
    assert (call["script"], call["eof"]) == (None, True)
    expected = Settings(
        name="studio",
        swarm="lab",
        peers=("a:1", "b:17700"),
        listen=Endpoint("0.0.0.0", 0),
        api=Endpoint("127.0.0.1", 0),
        mdns=False,
        up=Rate(1.25e6),
        codec="f32",
    )
    assert call["settings"] == expected


def test_without_flags_the_file_counts(
    covey: Covey, home: Home, started: list[dict[str, Any]]
) -> None:
    home.root.mkdir()
    home.config_file.write_text("mdns = false\npeers = ['c:3']\n")
    covey("up")
    assert started[0]["settings"].mdns is False
    assert started[0]["settings"].peers == ("c:3",)


def test_run_gives_the_script_what_comes_after_its_name(
    covey: Covey, tmp_path: Path, started: list[dict[str, Any]]
) -> None:
    script = tmp_path / "train.py"
    script.touch()
    covey("run", "--name", "studio", str(script), "--name", "x", "--help", "--", "-v")
    expected = [sys.executable, str(script), "--name", "x", "--help", "--", "-v"]
    assert started[0]["script"] == expected
    assert started[0]["settings"].name == "studio"


def test_a_missing_script_or_misspelt_option(covey: Covey, started: list[dict[str, Any]]) -> None:
    code, _, err = covey("run", "nowhere.py")
    assert (code, err.startswith("error: there is no script nowhere.py; ")) == (1, True)
    assert covey("run", "--nmae", "x", "train.py")[0] == 2
    assert started == []


def test_a_bad_configuration_is_one_clear_line(
    covey: Covey, home: Home, started: list[dict[str, Any]]
) -> None:
    home.root.mkdir()
    home.config_file.write_text("peer = []\n")
    code, out, err = covey("up")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "did you mean 'peers'?" in err
    assert started == []


def test_stop(node: "FakeNode", covey: Covey) -> None:
    code, out, err = covey("stop")
    assert (code, out, err) == (0, "", "stopped\n")
    assert node.control.stopped == [False]
    assert covey("stop")[0] == 3


# --- the command as a process -------------------------------------------------------------------

LOADED = """
import sys
from covey.node.cli import main
code = main(sys.argv[1:])
heavy = {"aiohttp", "numpy", "torch", "zeroconf", "cryptography", "nacl", "prometheus_client"}
print("loaded", *sorted(heavy & set(sys.modules)))
sys.exit(code)
"""


@pytest.mark.parametrize("command", ["status", "peers", "limits", "version", "--help"])
def test_quick_commands_load_nothing_heavy(node: "FakeNode", command: str) -> None:
    home = [] if command in ("version", "--help") else ["--home", str(node.home.root)]
    argv = [sys.executable, "-c", LOADED, command, *home]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "loaded"


@pytest.mark.parametrize(("option", "code"), [("-h", 0), ("--help", 0), ("--nodes=0", 2)])
def test_simulate_is_a_program_of_its_own(option: str, code: int) -> None:
    argv = [sys.executable, "-P", "-m", "covey.node", "simulate", option]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == code
    assert (done.stdout + done.stderr).startswith("Usage: covey simulate [OPTIONS]")
    assert bool(done.stdout) == (code == 0)


def test_a_closed_pipe_is_not_a_traceback(node: "FakeNode") -> None:
    for _ in range(50):
        node.emit("train.step", text="x" * 4000)
    argv = [sys.executable, "-m", "covey.node", "events", "--home", str(node.home.root), "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
