"""What deploy/ and the READMEs say fits together, and every covey command in them exists."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from covey.node.cli import cli
from covey.node.settings import PEER_PORT
from covey.simulate.cli import simulate

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
UNIT = (DEPLOY / "covey.service").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = (DEPLOY / "compose.yaml").read_text()
TEXTS = (*ROOT.glob("*.md"), *DEPLOY.iterdir(), *ROOT.glob("examples/*.py"))
SERVICES = ("quail", "grouse", "chukar")


def commands_of(text: str) -> list[list[str]]:
    """The covey command lines in a text, without what surrounds them."""
    found = []
    before = r"(?:^|[`$|=(]|exec \w+)\s*(?:sudo )?(?:\S*/)?"
    line_of = rf"{before}covey ((?:{'|'.join(cli.commands)})\b[^`\n]*)"
    for match in re.finditer(line_of, text, re.MULTILINE):
        line = re.split(r"\s#|\s\||[;<)]|&&|  +|\.$|…", match[1])[0]
        found.append(shlex.split(line))
    return found


def check(words: list[str]) -> None:
    """Fail unless click knows the command and the options before a script's name."""
    command = simulate if words[0] == "simulate" else cli.commands[words[0]]
    assert isinstance(command, click.Command)
    known = {name for option in command.params for name in option.opts}
    for word in words[1:]:
        if word.endswith(".py") or word.startswith("SCRIPT"):
            break
        if word.startswith("-") and word != "-":
            assert word.split("=")[0] in known | {"--help"}, f"covey {' '.join(words)}: {word}?"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_exists(path: Path) -> None:
    for words in commands_of(path.read_text()):
        check(words)


def test_commands_are_found_in_texts() -> None:
    text = "a `covey peers -v`, b\n$ covey run --peer a:1 train.py --x\nExecStart=/opt/bin/covey up"
    assert commands_of(text) == [
        ["peers", "-v"],
        ["run", "--peer", "a:1", "train.py", "--x"],
        ["up"],
    ]
    with pytest.raises(AssertionError, match="--fly"):
        check(["up", "--fly"])


def made(folder: Path) -> str:
    """What ``make install`` would run in ``folder``."""
    done = subprocess.run(
        ["make", "--dry-run", "install"], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_make_sets_up_again_when_pins_change_or_covey_is_no_longer_linked(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "deploy").mkdir()
    (tmp_path / "gossip").mkdir()
    names = ("pyproject.toml", "constraints.txt", "deploy/install.sh", "setup.py")
    pins = [tmp_path / name for name in (*names, "gossip/_kernels.c")]
    info = tmp_path / ".venv/lib/python3.12/site-packages/covey-0.1.0.dist-info"
    info.mkdir(parents=True)
    for path in (*pins, tmp_path / ".venv/.installed"):
        path.touch()
    url = info / "direct_url.json"
    url.write_text('{"dir_info": {"editable": true}, "url": "file:///here"}')
    assert "install.sh" not in made(tmp_path)
    url.write_text('{"dir_info": {}, "url": "file:///here"}')  # as after pip install '.[torch]'
    assert "install.sh" in made(tmp_path)
    url.write_text('{"dir_info":{"editable":true},"url":"file:///here"}')
    assert "install.sh" not in made(tmp_path)
    stamp = (tmp_path / ".venv/.installed").stat()
    os.utime(pins[1], (stamp.st_atime + 60, stamp.st_mtime + 60))
    assert "install.sh" in made(tmp_path)
    url.unlink()
    (tmp_path / ".venv/.installed").unlink()
    assert "install.sh" in made(tmp_path), "the first time"


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return  # elsewhere the tests below are all there is
    unit = tmp_path / "covey.service"
    unit.write_text(UNIT.replace("/opt/covey/bin/covey", shutil.which("true") or "/bin/true"))
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True)
    about_ours = [line for line in done.stderr.splitlines() if "covey" in line]
    assert (done.returncode, about_ours) == (0, [])


def test_the_unit_watches_and_sandboxes() -> None:
    settings = {line for line in UNIT.splitlines() if line and not line.startswith("#")}
    for wanted in ("Type=notify", "NotifyAccess=main", "DynamicUser=yes", "NoNewPrivileges=yes"):
        assert wanted in settings
    for wanted in ("ProtectSystem=strict", "CapabilityBoundingSet=", "UMask=0077"):
        assert wanted in settings
    watchdog = re.search(r"^WatchdogSec=(\d+)$", UNIT, re.MULTILINE)
    stop = re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert watchdog is not None
    assert int(watchdog[1]) >= 10
    assert stop is not None
    assert int(stop[1]) > 10, "a node may take 10 s over its goodbyes"


def test_the_image_gets_every_file_it_copies() -> None:
    let_in = set((ROOT / ".dockerignore").read_text().splitlines())
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    for name in {name for names in copied for name in names if not name.startswith("-")}:
        if not name.startswith("/"):
            assert (ROOT / name).exists(), name
            assert f"!{name}" in let_in, name
    assert f"EXPOSE {PEER_PORT}" in DOCKERFILE


def test_each_container_has_the_others_as_static_peers() -> None:
    commands = re.findall(r"^    command: (.*)$", COMPOSE, re.MULTILINE)
    assert len(commands) == len(SERVICES)
    for name, command in zip(SERVICES, commands, strict=True):
        words = shlex.split(command)
        check(words)
        peers = {words[i + 1] for i, word in enumerate(words) if word == "--peer"}
        assert peers == set(SERVICES) - {name}
        assert f"    hostname: {name}\n    command: {command}" in COMPOSE
    shards = re.findall(r"--shard (\S+)$", COMPOSE, re.MULTILINE)
    assert shards == ["1/3", "2/3", "3/3"]
