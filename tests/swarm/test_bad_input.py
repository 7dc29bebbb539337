"""What an operator may get wrong: one clear line with what, why and the fix, and nothing lost."""

import contextlib
import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from covey.node import store
from covey.protocols.invite import Invite
from tests.swarm.flock import Flock, Node
from tests.waiting import until

pytestmark = pytest.mark.swarm


def line(said: tuple[int, str], code: int = 1) -> str:
    """The one line that a command ended with, and its exit code."""
    assert said[0] == code, said[1]
    [only] = said[1].splitlines()
    assert only.startswith("error: ")
    return only


@contextlib.contextmanager
def taken() -> Iterator[int]:
    """A port that something else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_wrong_invite(flock: Flock) -> None:
    home = flock.home("node")
    kept = home.swarm_file.read_bytes()
    where = ("--home", str(home.root))
    good = Invite("other", b"o" * 32).text
    old = Invite("other", b"o" * 32, expires=int(time.time()) - 1).text
    mistyped = good[:30] + ("a" if good[30] != "a" else "b") + good[31:]
    for invite, what, fix in (
        (mistyped, "mistyped", "copy the whole line again"),
        ("covey2-abc", "an invite begins with 'covey1-'", "run `covey invite` on a member"),
        (old, "the invite has expired", "run `covey invite` on a member for a new one"),
        (good, "already belongs to the swarm 'flock'", "covey join --force"),
    ):
        said = line(flock.say("join", invite, *where))
        assert what in said
        assert fix in said
    assert home.swarm_file.read_bytes() == kept


def test_a_port_in_use(flock: Flock) -> None:
    home = flock.home("node")
    identity = store.load_or_create_identity(home).peer
    with taken() as port:
        for option in ("--listen", "--api"):
            where = ("--home", str(home.root), "--api", "127.0.0.1:0")
            said = line(flock.say("up", *where, option, f"127.0.0.1:{port}"))
            assert f"127.0.0.1 port {port}" in said or f"127.0.0.1:{port}" in said
            assert "in use" in said
            assert f"choose another with {option}" in said
    assert store.load_or_create_identity(home).peer == identity


def test_a_home_that_cannot_be_written(flock: Flock) -> None:
    """Root may write anywhere but on a file system that is read-only: one in its own namespace."""
    folder = flock.folder / "sealed"
    folder.mkdir()
    mount = 'mount -t tmpfs -o ro none "$1" && exec "$2" -m covey.node up --home "$1"'
    argv = ["unshare", "--mount", "sh", "-c", mount, "sh", str(folder), sys.executable]
    with flock.start(argv) as process:
        output, _ = process.communicate(timeout=60)
    said = line((process.returncode, output))
    assert f"{folder}" in said
    assert "Read-only file system" in said
    assert "--home FOLDER" in said


def test_a_file_where_the_home_should_be(flock: Flock) -> None:
    file = flock.folder / "file"
    file.write_text("precious")
    said = line(flock.say("up", "--home", str(file)))
    assert f"{file}" in said
    assert "Not a directory" in said
    assert "--home FOLDER" in said
    assert file.read_text() == "precious"


def test_two_nodes_on_one_home(training: list[Node]) -> None:
    ada = training[0]
    said = line(ada.flock.say("up", "--home", str(ada.home.root)))
    assert f"in use by another node (pid {ada.process.pid})" in said
    assert "covey stop" in said
    ada.learns_on(1)


def test_an_unknown_key(flock: Flock) -> None:
    home = flock.home("node")
    home.config_file.write_text('lissten = "127.0.0.1:0"\n')
    said = line(flock.say("up", "--home", str(home.root)))
    assert f"{home.config_file}: unknown key 'lissten', did you mean 'listen'?" in said


def test_an_unreachable_static_peer(flock: Flock) -> None:
    with taken() as port:
        pass
    node = flock.up("node", "--no-mdns", "--peer", f"127.0.0.1:{port}").ready()
    node.event("peer.unreachable", address=f"127.0.0.1:{port}")
    [warning] = node.status()["warnings"]
    assert warning["code"] == "peer_unreachable"
    assert f"127.0.0.1:{port} refuses the connection" in warning["message"]
    assert warning["hint"]
    code, said = flock.say("status", "--home", str(node.home.root), "--json")
    assert (code, json.loads(said)["health"]) == (4, "degraded")
    # It is dialled again and again: as soon as it is there, all is well.
    flock.up("peer", "--no-mdns", "--listen", f"127.0.0.1:{port}").ready()
    node.peer("peer")
    assert flock.say("status", "--home", str(node.home.root))[0] == 0


def test_a_corrupt_checkpoint(training: list[Node]) -> None:
    flock = training[0].flock
    home = flock.home("fay")
    home.config_file.write_text("checkpoint_every_s = 1\n")
    fay = flock.run("fay").ready()
    kept = until("two checkpoints", lambda: manifests(home.checkpoints, 2))
    fay.kill()
    newest, before = sorted(home.checkpoints.glob("*.json"), reverse=True)[:2]
    tensors = newest.with_suffix(".safetensors")
    data = bytearray(tensors.read_bytes())
    data[len(data) // 2] ^= 1
    tensors.write_bytes(data)
    assert len(kept) >= 2
    again = flock.run("fay").ready()
    restored = again.event("train.restored")["data"]
    assert restored["step"] == json.loads(before.read_bytes())["step"]
    assert f"checkpoint {newest} is damaged (its hash does not hold)" in again.words
    assert newest.with_suffix(".damaged").exists(), "it is kept for whoever wants to look"
    again.event("train.started")


def test_a_checkpoint_that_cannot_be_written(training: list[Node]) -> None:
    """As on a full disk: status says so, the node learns on, and nothing is lost once it can."""
    flock = training[0].flock
    home = flock.home("gus")
    home.config_file.write_text("checkpoint_every_s = 1\n")
    gus = flock.run("gus").ready()
    until("a checkpoint", lambda: manifests(home.checkpoints, 1))
    aside = home.checkpoints.rename(home.state / "aside")
    home.checkpoints.write_text("in the way")

    def warnings() -> list[str]:
        return [w["code"] for w in gus.status()["warnings"]]

    until("status says so", lambda: "checkpoint_failed" in warnings())
    assert "cannot write a checkpoint to" in gus.words
    gus.learns_on()
    home.checkpoints.unlink()
    aside.rename(home.checkpoints)
    until("it is over", lambda: "checkpoint_failed" not in warnings())


def manifests(folder: Path, least: int) -> list[Path]:
    """The checkpoints in ``folder`` if there are so many."""
    found = list(folder.glob("*.json"))
    return found if len(found) >= least else []
