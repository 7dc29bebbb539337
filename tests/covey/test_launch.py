"""Finding a node, and starting one that lives as long as the script."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import covey
from covey.launch import LocalNode
from covey.node.home import Home
from covey.protocols.layout import Layout, Tensor
from tests.covey.conftest import Place

LAYOUT = Layout((Tensor("w", (4,)),))

# Stands for `python -m covey.node up --until-eof --home …`: listens until its input ends.
STAND_IN = """#!{python}
import asyncio, os, sys, threading
from pathlib import Path
from covey.node.home import Home
from covey.node.learner_link import LearnerLink
from covey.protocols.link import SettledReport

assert sys.argv[1:6] == ["-P", "-m", "covey.node", "up", "--until-eof"], sys.argv
home = Home.find(sys.argv[7], {{}})

class Handler:
    async def attached(self, attachment): await attachment.start(False)
    async def snapshot(self, attachment, applied): await attachment.consumed()
    async def logged(self, attachment, values): os._exit(9)  # a crash on demand
    async def settle(self, attachment): await attachment.settled(SettledReport(None, 0, 0))
    async def detached(self, attachment, clean): pass

async def main():
    link = LearnerLink(home.link_socket, home.maps, Handler(), "STANDIN")
    await link.start()
    await asyncio.to_thread(sys.stdin.read)
    await link.close()
    (home.root / "goodbye").touch()

with home.lock({{}}):
    asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home where the stand-in is what LocalNode starts."""
    program = tmp_path / "python"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.delenv("COVEY_SUPERVISED", raising=False)
    home = tmp_path / "home"
    monkeypatch.setenv("COVEY_HOME", str(home))
    yield home
    assert not Home.find(home, {}).link_socket.exists(), "a node was left behind"


def test_a_node_is_started_and_leaves_with_the_script(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = np.zeros(4, np.float32)
    with covey.attach(LAYOUT, weights, every=1) as flock:
        assert flock.attached
        assert not (folder / "goodbye").exists()
    assert (folder / "goodbye").exists()
    assert f"its log: {folder}/node.log" in capsys.readouterr().err


def test_a_running_node_is_found_and_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere")
    node = place.start()
    with covey.attach(LAYOUT, np.zeros(4, np.float32)):
        pass
    with covey.attach(LAYOUT, np.zeros(4, np.float32)):
        pass
    node.until(lambda host: host.calls.count("left") == 2)


def test_home_as_an_argument_wins(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with covey.attach(LAYOUT, np.zeros(4, np.float32), home=other):
        assert (other / "node.log").exists()
    assert not folder.exists()


def test_a_node_of_our_own_that_crashed_is_started_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("covey.session._LOOK_S", 0.0)
    monkeypatch.setattr("covey.session._RETRY_S", 0.0)
    with covey.attach(LAYOUT, np.zeros(4, np.float32), every=1) as flock:
        flock.log(crash=1)
        while flock.attached:
            flock.step()
        while not flock.attached:
            flock.step()


def test_why_a_node_did_not_start(folder: Path) -> None:
    Path(sys.executable).write_text("#!/bin/sh\necho the port is in use >&2\nexit 1\n")
    with pytest.raises(covey.NodeError, match=r"did not start:\s+the port is in use"):
        covey.attach(LAYOUT, np.zeros(4, np.float32))


def test_a_home_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(covey.NodeError, match=r"cannot start a node in .*Not a directory"):
        LocalNode(tmp_path / "file" / "home", {}).open()


def test_under_covey_run_no_node_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("covey.launch._PATIENCE_S", 0.0)
    with pytest.raises(covey.NodeError, match="no node listens at"):
        LocalNode(tmp_path / "home", {"COVEY_SUPERVISED": str(os.getpid())}).open()
    assert not (tmp_path / "home").exists()
