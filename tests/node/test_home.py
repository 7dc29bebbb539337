"""The home: paths, private folders, the lock, remembered ports, the token, atomic writes."""

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from covey.node.faults import OperatorError
from covey.node.home import (
    SOCKET_PATH_BYTES_MAX,
    Home,
    HomeInUse,
    Ports,
    load_or_create_token,
    load_ports,
    save_ports,
    write_atomically,
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.find(tmp_path / "home", {})


@pytest.fixture
def runtime_dir() -> Iterator[dict[str, str]]:
    """Private and short, as a user's is: pytest's folders are too long for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="run-", dir="/tmp") as folder:
        yield {"XDG_RUNTIME_DIR": folder}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_flag_goes_before_the_environment_before_xdg(tmp_path: Path) -> None:
    environ = {"COVEY_HOME": "/env", "XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s"}
    assert Home.find("/flag", environ).config_file == Path("/flag/config.toml")
    assert Home.find(None, environ).identity_file == Path("/env/identity.key")
    del environ["COVEY_HOME"]
    assert Home.find(None, environ).config_file == Path("/c/covey/config.toml")
    assert Home.find(None, environ).swarm_file == Path("/s/covey/swarm.json")
    assert Home.find(None, {}).state == Path.home() / ".local/state/covey"


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Home.find("here", {}).root == tmp_path / "here"


def test_finding_a_home_creates_nothing(home: Home) -> None:
    assert not home.root.exists()
    assert not home.runtime.exists()


def test_the_lock_makes_private_folders_and_takes_the_sockets_away(home: Home) -> None:
    with home.lock({}):
        runtime, maps = home.runtime, home.maps
        for folder in (home.root, runtime, runtime.parent, maps, home.checkpoints):
            assert mode(folder) == 0o700
        assert len(os.fsencode(home.link_socket)) <= SOCKET_PATH_BYTES_MAX
        home.link_socket.touch()
        assert home.lock_file.read_text() == f"{os.getpid()}\n"
    assert not runtime.exists()
    assert not maps.exists()


def test_a_client_finds_the_sockets_without_the_nodes_environment(
    home: Home, runtime_dir: dict[str, str]
) -> None:
    with home.lock(runtime_dir):
        assert home.api_socket.is_relative_to(runtime_dir["XDG_RUNTIME_DIR"])
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(home.api_socket))


def test_a_foreign_or_missing_runtime_dir_falls_back(home: Home, tmp_path: Path) -> None:
    with home.lock({"XDG_RUNTIME_DIR": str(tmp_path / "missing")}):
        assert home.runtime.is_relative_to("/tmp")
    shared = tmp_path / "shared"
    (shared / "covey").mkdir(parents=True, mode=0o777)
    (shared / "covey").chmod(0o777)
    with home.lock({"XDG_RUNTIME_DIR": str(shared)}):
        assert home.runtime.is_relative_to("/tmp")


def test_a_runtime_path_too_long_for_a_socket_falls_back(home: Home, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir(mode=0o700)
    with home.lock({"XDG_RUNTIME_DIR": str(deep)}):
        assert not home.runtime.is_relative_to(deep)


def test_a_copied_home_does_not_touch_the_originals_sockets(
    home: Home, tmp_path: Path, runtime_dir: dict[str, str]
) -> None:
    with home.lock(runtime_dir):
        home.api_socket.touch()
        copy = Home.find(tmp_path / "copy", {})
        copy.state.mkdir()
        (copy.state / "run").symlink_to(home.runtime)
        assert copy.runtime != home.runtime
        with copy.lock(runtime_dir):
            pass
        assert home.api_socket.exists()


def test_what_a_killed_node_left_behind_is_removed(home: Home, runtime_dir: dict[str, str]) -> None:
    with home.lock(runtime_dir):
        stale = [home.runtime / "api.sock", home.maps / "one.map", home.handout / "state.f32"]
    torn = home.state / ".peers.json.0011aabb.tmp"
    for path in (*stale, torn):
        path.parent.mkdir(exist_ok=True, mode=0o700)
        path.touch()
    with home.lock(runtime_dir):
        assert not any(path.exists() for path in (*stale, torn))


def test_the_maps_of_killed_nodes_are_removed_by_any_other(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("covey.node.home._SHARED_MEMORY", tmp_path)
    monkeypatch.setattr("covey.node.home._SHARED_MEMORY_FREE_MIN", 0)
    other, killed = (Home.find(tmp_path / name, {}) for name in ("other", "killed"))
    with home.lock({}), killed.lock({}):
        maps = killed.maps
        assert maps.is_relative_to(tmp_path)
        (maps / "one.map").touch()
        with other.lock({}):
            assert maps.exists()  # its node is alive
        shutil.copytree(maps, tmp_path / "kept", symlinks=True)
    shutil.copytree(tmp_path / "kept", maps, symlinks=True)
    with home.lock({}), other.lock({}):
        assert not maps.exists()
        assert home.maps.exists()


HOLD = """
import sys
from covey.node.home import Home
with Home.find(sys.argv[1], {}).lock({}):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_node_is_told_who_holds_the_home(home: Home) -> None:
    command = [sys.executable, "-c", HOLD, str(home.root)]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(HomeInUse, match=rf"\(pid {other.pid}\).*covey stop"), home.lock({}):
            pass
        other.kill()
    with home.lock({}):  # a killed holder holds nothing
        pass


def test_a_home_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    home = Home.find(tmp_path / "file" / "home", {})
    with pytest.raises(OperatorError, match=r"cannot use the home .*--home FOLDER"), home.lock({}):
        pass


def test_ports_are_remembered_and_damage_is_forgotten(home: Home) -> None:
    assert load_ports(home) == Ports()
    home.root.mkdir()
    save_ports(home, Ports(17700, 17701))
    assert load_ports(home) == Ports(17700, 17701)
    for damaged in (b"", b"[]", b'{"peer": 1}', b'{"peer": 70000, "api": 1}', b"\xff"):
        home.ports_file.write_bytes(damaged)
        assert load_ports(home) == Ports()


def test_the_token_is_kept_unless_others_could_read_it(home: Home) -> None:
    home.root.mkdir()
    token = load_or_create_token(home)
    assert mode(home.token_file) == 0o600
    assert load_or_create_token(home) == token
    home.token_file.chmod(0o644)
    assert load_or_create_token(home) != token
    assert mode(home.token_file) == 0o600


def test_an_atomic_write_replaces_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"one")
    write_atomically(path, memoryview(b"two"), mode=0o640)
    assert path.read_bytes() == b"two"
    assert mode(path) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OperatorError, match="free some space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
