"""Where a node keeps its files, the lock that gives them to one node at a time, and safe writing.

    config   config.toml                                  ~/.config/covey
    state    identity.key swarm.json peers.json           ~/.local/state/covey
             ports.json checkpoints/ lock api.token run
    runtime  api.sock link.sock                           $XDG_RUNTIME_DIR/covey/…, /tmp/covey-UID/…
    maps     the learner's memory-mapped file             /dev/shm/covey-UID/… or state/maps

``--home FOLDER`` puts config and state into that folder.  The runtime folder is elsewhere because
the path of a Unix socket is limited to about 100 bytes; ``state/run`` is a link to it, so that a
client with another environment than the node's finds the same sockets.
"""

import fcntl
import hashlib
import json
import os
import secrets
import shlex
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from covey.node.faults import OperatorError, file_faults

SOCKET_PATH_BYTES_MAX = 100
_LOCK_TRIES = 10
_OWNER = "home"  # a link in a map folder to the home it belongs to
_SHARED_MEMORY = Path("/dev/shm")
_SHARED_MEMORY_FREE_MIN = 1 << 30  # a container often has 64 MB, where a large map would not fit


class HomeInUse(OperatorError):
    """Another node runs in this home."""


@dataclass(frozen=True)
class Home:
    """The folders of one node.  Nothing is created before ``lock``."""

    config: Path
    state: Path

    @classmethod
    def find(cls, folder: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> "Home":
        """The home that --home, else COVEY_HOME, else the XDG base directories name."""
        chosen = folder or environ.get("COVEY_HOME")
        if chosen:
            root = Path(chosen).expanduser().absolute()
            return cls(root, root)
        user = Path.home()
        config = Path(environ.get("XDG_CONFIG_HOME") or user / ".config")
        state = Path(environ.get("XDG_STATE_HOME") or user / ".local" / "state")
        return cls(config / "covey", state / "covey")

    @property
    def root(self) -> Path:
        """The folder to name in messages: the one with the node's state."""
        return self.state

    @property
    def option(self) -> str:
        """What a command line needs to mean this home: `` --home FOLDER`` or nothing."""
        return f" --home {shlex.quote(str(self.state))}" if self.config == self.state else ""

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def identity_file(self) -> Path:
        return self.state / "identity.key"

    @property
    def swarm_file(self) -> Path:
        return self.state / "swarm.json"

    @property
    def peers_file(self) -> Path:
        return self.state / "peers.json"

    @property
    def ports_file(self) -> Path:
        return self.state / "ports.json"

    @property
    def token_file(self) -> Path:
        return self.state / "api.token"

    @property
    def handout(self) -> Path:
        """Where copies of the model for joiners are, as long as the node runs."""
        return self.state / "handout"

    @property
    def lock_file(self) -> Path:
        return self.state / "lock"

    @property
    def checkpoints(self) -> Path:
        return self.state / "checkpoints"

    @property
    def runtime(self) -> Path:
        """The folder of the sockets, as the last node that had the lock chose it."""
        with suppress(OSError):
            chosen = Path(os.readlink(self._runtime_link))
            if chosen.name == self._short:  # else this home is a copy of another
                return chosen
        return self._runtime_choices(os.environ)[-1]

    @property
    def api_socket(self) -> Path:
        return self.runtime / "api.sock"

    @property
    def link_socket(self) -> Path:
        return self.runtime / "link.sock"

    @property
    def maps(self) -> Path:
        """Where memory-mapped files go: shared memory if there is room, else beside the state."""
        with suppress(OSError):
            room = os.statvfs(_SHARED_MEMORY)
            roomy = room.f_bavail * room.f_frsize >= _SHARED_MEMORY_FREE_MIN
            if roomy and _is_private(self._shared_maps):
                return self._shared_maps
        return self.state / "maps"

    @contextmanager
    def lock(self, environ: Mapping[str, str] = os.environ) -> Iterator[None]:
        """Have this home alone: creates the folders and removes what a killed node left behind.

        Raises HomeInUse, which names the other process, or OperatorError.
        """
        with file_faults("use the home", self.state):
            self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._take(descriptor)
            self._prepare(environ)
            try:
                yield
            finally:
                self._tidy()
        finally:
            os.close(descriptor)

    def holder(self) -> int | None:
        """The process that has the lock, None if nobody has; 0 if it is not known."""
        try:
            descriptor = os.open(self.lock_file, os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 20, 0).strip()
            return int(pid) if pid.isdigit() else 0
        finally:
            os.close(descriptor)
        return None

    def _take(self, descriptor: int) -> None:
        for _ in range(_LOCK_TRIES):
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.02)  # it may only be somebody's look at ``holder``
        else:
            raise HomeInUse(
                f"the home {self.root} is in use by another node (pid {self.holder()})",
                f"end that one with `covey stop{self.option}`, or take another --home FOLDER",
            )
        with file_faults("write", self.lock_file):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def _prepare(self, environ: Mapping[str, str]) -> None:
        """Make the private folders and point ``run`` at the sockets' one."""
        with file_faults("use the home", self.state):
            self.checkpoints.mkdir(exist_ok=True, mode=0o700)
            self._tidy()
            (self.state / "maps").mkdir(exist_ok=True, mode=0o700)
            with suppress(OperatorError):
                _make_private(self._shared_maps)
                (self._shared_maps / _OWNER).symlink_to(self.state)
                _sweep(self._shared_maps.parent)
            runtime = _first_private(self._runtime_choices(environ))
            self._runtime_link.unlink(missing_ok=True)
            self._runtime_link.symlink_to(runtime)

    def _tidy(self) -> None:
        """Remove the sockets, maps, handed out copies and temporary files of a node that ended."""
        for folder in (self.runtime, self._shared_maps, self.state / "maps", self.handout):
            if _is_private(folder):
                shutil.rmtree(folder, ignore_errors=True)
        for folder in (self.state, self.checkpoints):
            for leftover in folder.glob(".*.????????.tmp"):
                leftover.unlink(missing_ok=True)

    @property
    def _runtime_link(self) -> Path:
        return self.state / "run"

    @property
    def _short(self) -> str:
        return hashlib.sha256(os.fsencode(self.state.resolve())).hexdigest()[:12]

    @property
    def _shared_maps(self) -> Path:
        return _SHARED_MEMORY / f"covey-{os.getuid()}" / self._short

    def _runtime_choices(self, environ: Mapping[str, str]) -> list[Path]:
        choices = [Path("/tmp") / f"covey-{os.getuid()}" / self._short]
        given = environ.get("XDG_RUNTIME_DIR")
        if given and os.path.isabs(given):
            choices.insert(0, Path(given) / "covey" / self._short)
        longest = len("/api.sock") + 1
        return [c for c in choices if len(os.fsencode(c)) + longest <= SOCKET_PATH_BYTES_MAX]


@dataclass(frozen=True)
class Ports:
    """The TCP ports of the last boot, kept so that other machines find the node again; 0: none."""

    peer: int = 0
    api: int = 0


def load_ports(home: Home) -> Ports:
    """The remembered ports; none if the file is missing or damaged, for they are only a hint."""
    try:
        plain = json.loads(home.ports_file.read_bytes())
        ports = Ports(int(plain["peer"]), int(plain["api"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Ports()
    return ports if all(0 <= port < 65536 for port in (ports.peer, ports.api)) else Ports()


def save_ports(home: Home, ports: Ports) -> None:
    write_atomically(
        home.ports_file, json.dumps({"peer": ports.peer, "api": ports.api}).encode() + b"\n"
    )


def load_or_create_token(home: Home) -> str:
    """The API's bearer token, 43 characters, in a file only this user can read."""
    with file_faults("read", home.token_file), suppress(FileNotFoundError):
        token = home.token_file.read_text("ascii", "replace").strip()
        if len(token) >= 32 and not stat.S_IMODE(home.token_file.stat().st_mode) & 0o077:
            return token
    token = secrets.token_urlsafe(32)
    write_atomically(home.token_file, token.encode() + b"\n")
    return token


def write_atomically(path: Path, data: bytes | memoryview, mode: int = 0o600) -> None:
    """Replace ``path`` by ``data`` so that a crash at any instant leaves the old or the new file.

    Raises OperatorError if the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with file_faults("write", path):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with open(descriptor, "wb", buffering=0) as file:
                rest = memoryview(data).cast("B")
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(descriptor)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove maps in shared memory whose nodes were killed: until a reboot they would hold it."""
    for maps in list(folder.iterdir()):
        with suppress(OSError):
            state = Path(os.readlink(maps / _OWNER))
            if Home(state, state).holder() is None:
                shutil.rmtree(maps, ignore_errors=True)


def _first_private(choices: list[Path]) -> Path:
    """The first folder that can be had for this user alone."""
    for choice in choices[:-1]:
        # XDG_RUNTIME_DIR may still be that of the user one was before `su`.
        with suppress(OperatorError):
            _make_private(choice)
            return choice
    _make_private(choices[-1])
    return choices[-1]


def _make_private(folder: Path) -> None:
    """Make ``folder`` and its parent; raise OperatorError if either is not this user's alone."""
    for part in (folder.parent, folder):
        with file_faults("create", part):
            part.mkdir(exist_ok=True, mode=0o700)
        if not _is_private(part):
            raise OperatorError(
                f"{part} is open to other users, so what is put there is not safe",
                f"remove it with `rm -r {part}`",
            )


def _is_private(folder: Path) -> bool:
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    private = stat.S_ISDIR(status.st_mode) and not stat.S_IMODE(status.st_mode) & 0o077
    return private and status.st_uid == os.getuid()
