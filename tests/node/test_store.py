"""Identity and swarm on disk: made once, kept private, never replaced by accident."""

import json
from pathlib import Path

import pytest

from covey.node.faults import OperatorError
from covey.node.home import Home
from covey.node.store import (
    create_swarm,
    load_or_create_identity,
    load_swarm,
    save_swarm,
    set_checkpoints_aside,
)
from covey.protocols.invite import Invite

LAB = Invite("lab", b"l" * 32, ("10.0.0.1:17700",))
OTHER = Invite("other", b"o" * 32)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.find(tmp_path / "home", {})


def test_the_identity_is_made_once(home: Home) -> None:
    first = load_or_create_identity(home)
    assert load_or_create_identity(home).peer == first.peer
    assert home.identity_file.stat().st_mode & 0o777 == 0o600


def test_an_identity_that_others_may_read_is_refused(home: Home) -> None:
    load_or_create_identity(home)
    home.identity_file.chmod(0o644)
    with pytest.raises(OperatorError, match=r"mode 0644.*chmod 600"):
        load_or_create_identity(home)


@pytest.mark.parametrize(
    "damage",
    [b"", b"{}", b"[]", b"\xff", b'{"version":2,"seed":""}', b'{"version":1,"seed":"00"}'],
)
def test_a_damaged_identity_is_never_replaced(home: Home, damage: bytes) -> None:
    load_or_create_identity(home)
    home.identity_file.write_bytes(damage)
    with pytest.raises(OperatorError, match=r"damaged .*mv ") as caught:
        load_or_create_identity(home)
    assert "\n" not in str(caught.value)
    assert home.identity_file.read_bytes() == damage


def test_a_home_knows_no_swarm_before_one_is_made_or_joined(home: Home) -> None:
    assert load_swarm(home) is None
    made = create_swarm(home, "lab")
    assert load_swarm(home) == made
    assert len(made.secret) == 32
    assert home.swarm_file.stat().st_mode & 0o777 == 0o600
    assert made.secret.hex() not in repr(made)


def test_joining_keeps_the_hints_and_joining_again_adds_to_them(home: Home) -> None:
    save_swarm(home, LAB)
    save_swarm(home, Invite("lab", LAB.secret, ("10.0.0.2:17700", "10.0.0.1:17700")))
    record = load_swarm(home)
    assert record is not None
    assert record.addresses == ("10.0.0.2:17700", "10.0.0.1:17700")


def test_another_swarm_needs_force_and_sets_the_checkpoints_aside(home: Home) -> None:
    save_swarm(home, LAB)
    home.checkpoints.mkdir()
    (home.checkpoints / "1.safetensors").touch()
    home.peers_file.touch()
    with pytest.raises(OperatorError, match=r"already belongs to the swarm 'lab'.*--force"):
        save_swarm(home, OTHER)
    assert save_swarm(home, OTHER, force=True).name == "other"
    assert not home.peers_file.exists()
    assert not home.checkpoints.exists()
    (aside,) = home.state.glob("checkpoints-before-*")
    assert (aside / "1.safetensors").exists()


def test_checkpoints_are_set_aside_not_deleted(home: Home) -> None:
    save_swarm(home, LAB)
    set_checkpoints_aside(home)  # none yet: nothing to do
    assert not list(home.state.glob("checkpoints*"))
    home.checkpoints.mkdir()
    (home.checkpoints / "1.safetensors").touch()
    home.peers_file.touch()
    set_checkpoints_aside(home)
    (aside,) = home.state.glob("checkpoints-before-*")
    assert (aside / "1.safetensors").exists()
    assert not home.checkpoints.exists()
    assert home.peers_file.exists()
    assert load_swarm(home) is not None


def test_a_damaged_swarm_file_needs_force(home: Home) -> None:
    save_swarm(home, LAB)
    home.swarm_file.write_text(json.dumps({"version": 1, "name": "lab", "secret": "zz"}))
    with pytest.raises(OperatorError, match="damaged"):
        save_swarm(home, LAB)
    assert save_swarm(home, LAB, force=True).secret == LAB.secret
