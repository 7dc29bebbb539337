"""The node's identity and its swarm on disk, made at first start and never lost by an accident."""

import json
import os
import secrets
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from covey.node.faults import OperatorError, file_faults
from covey.node.home import Home, sync_folder, write_atomically
from covey.protocols import limits
from covey.protocols.certificates import SECRET_BYTES
from covey.protocols.identity import Identity
from covey.protocols.invite import Invite

_VERSION = 1
T = TypeVar("T")


@dataclass(frozen=True)
class SwarmRecord:
    """The swarm this home belongs to, and addresses of members that the invite named."""

    name: str
    secret: bytes  # 32 bytes; whoever has them is a member
    addresses: tuple[str, ...] = ()

    def __repr__(self) -> str:  # the secret stays out of logs and tracebacks
        return f"SwarmRecord({self.name!r})"


def load_or_create_identity(home: Home) -> Identity:
    """The node's Ed25519 identity.  The file is 0600; a damaged or open one is an OperatorError."""
    path = home.identity_file
    seed = _load(path, lambda plain: _bytes(plain["seed"], 32), f"mv {path} {path}.bad")
    if seed is None:
        seed = secrets.token_bytes(32)
        _save(path, {"seed": seed.hex()})
    return Identity(seed)


def load_swarm(home: Home) -> SwarmRecord | None:
    """The swarm this home belongs to, or None before the first start or join."""

    def read(plain: dict[str, Any]) -> SwarmRecord:
        addresses = tuple(str(address) for address in plain.get("addresses", ()))
        return SwarmRecord(str(plain["name"]), _bytes(plain["secret"], SECRET_BYTES), addresses)

    return _load(home.swarm_file, read, "join again with `covey join --force covey1-…`")


def create_swarm(home: Home, name: str) -> SwarmRecord:
    """A new swarm with a random 256-bit secret, stored in ``home``.  None may be there yet."""
    assert load_swarm(home) is None
    record = SwarmRecord(name, secrets.token_bytes(SECRET_BYTES))
    _save_swarm(home, record)
    return record


def save_swarm(home: Home, invite: Invite, force: bool = False) -> SwarmRecord:
    """Make ``home`` a member of the invite's swarm; its addresses join those already known.

    Another swarm's record is replaced with ``force`` only; then its peers are forgotten and
    its checkpoints set aside under another name.  Raises OperatorError.
    """
    try:
        known = load_swarm(home)
        other = known is not None and known.secret != invite.secret
    except OperatorError:
        if not force:
            raise
        known, other = None, True
    if other and not force:
        assert known is not None
        raise OperatorError(
            f"the home {home.root} already belongs to the swarm {known.name!r}",
            "leave that with `covey join --force …`, or take another --home FOLDER",
        )
    if other:
        _set_aside(home)
        known = None
    addresses = dict.fromkeys(invite.addresses + (known.addresses if known else ()))
    kept = tuple(addresses)[: limits.ADDRESSES_PER_PEER_MAX]
    record = SwarmRecord(invite.name, invite.secret, kept)
    _save_swarm(home, record)
    return record


def _save_swarm(home: Home, record: SwarmRecord) -> None:
    plain = {"name": record.name, "secret": record.secret.hex(), "addresses": record.addresses}
    _save(home.swarm_file, plain)


def _set_aside(home: Home) -> None:
    with file_faults("write", home.state):
        home.peers_file.unlink(missing_ok=True)
    set_checkpoints_aside(home)


def set_checkpoints_aside(home: Home) -> None:
    """The next model begins anew; nothing is deleted."""
    with file_faults("write", home.state):
        if home.checkpoints.is_dir() and any(home.checkpoints.iterdir()):
            stamp = time.strftime("%Y%m%d-%H%M%S")
            home.checkpoints.rename(home.state / f"checkpoints-before-{stamp}")
        sync_folder(home.state)


def _save(path: Path, plain: dict[str, Any]) -> None:
    with file_faults("use the home", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, json.dumps({"version": _VERSION, **plain}).encode() + b"\n")


def _load(path: Path, read: Callable[[dict[str, Any]], T], fix: str) -> T | None:
    """What ``read`` makes of the JSON in ``path``; None if there is no such file."""
    with file_faults("read", path):
        try:
            mode = stat.S_IMODE(os.stat(path).st_mode)
            data = path.read_bytes()
        except FileNotFoundError:
            return None
    if mode & 0o077:
        raise OperatorError(
            f"{path} holds a secret but other users may read it (mode {mode:04o})",
            f"close it with `chmod 600 {path}`",
        )
    try:
        plain = json.loads(data)
        if plain["version"] != _VERSION:
            raise ValueError(f"version {plain['version']!r}")
        return read(plain)
    except (ValueError, KeyError, TypeError) as error:
        raise OperatorError(f"{path} is damaged or from another version ({error})", fix) from error


def _bytes(text: str, length: int) -> bytes:
    value = bytes.fromhex(text)
    if len(value) != length:
        raise ValueError(f"{len(value)} bytes, not {length}")
    return value
