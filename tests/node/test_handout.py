"""Copies for joiners: named by their hash, offered while fresh, few, and never torn."""

import hashlib
import resource
import time
from pathlib import Path

import numpy as np
import pytest

from covey.node.faults import OperatorError
from covey.node.handout import Handout
from covey.protocols.messages import Lineage

LINEAGE = Lineage(b"f" * 32, 7)
VECTOR = np.arange(1000, dtype=np.float32)


@pytest.fixture
def handout(tmp_path: Path) -> Handout:
    return Handout(tmp_path / "handout")


def test_a_copy_is_named_by_its_hash(handout: Handout, tmp_path: Path) -> None:
    offer = handout.write(VECTOR, LINEAGE, 12)
    path = handout.file(offer.digest)
    assert path is not None
    data = path.read_bytes()
    assert data == VECTOR.tobytes()
    assert offer.digest == hashlib.sha256(data).digest()
    assert (offer.length, offer.lineage, offer.step) == (4000, LINEAGE, 12)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_copy_stays_as_it_is_while_training_goes_on(handout: Handout) -> None:
    x = VECTOR.copy()
    offer = handout.write(x, LINEAGE, 1)
    x += 1
    path = handout.file(offer.digest)
    assert path is not None
    assert path.read_bytes() == VECTOR.tobytes()


def test_it_is_offered_again_while_it_is_fresh(
    handout: Handout, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert handout.fresh(LINEAGE) is None
    offer = handout.write(VECTOR, LINEAGE, 1)
    now[0] += 4.9
    assert handout.fresh(Lineage(b"f" * 32, 8)) == offer
    assert handout.fresh(Lineage(b"g" * 32, 7)) is None  # another model
    now[0] += 0.2
    assert handout.fresh(LINEAGE) is None


def test_initial_weights_are_not_offered_once_there_are_better(handout: Handout) -> None:
    offer = handout.write(VECTOR, Lineage(b"f" * 32), 0)
    assert handout.fresh(Lineage(b"f" * 32)) == offer
    assert handout.fresh(Lineage(b"f" * 32, 1)) is None
    handout.write(VECTOR, Lineage(b"f" * 32, 100), 900)
    assert handout.fresh(Lineage(b"f" * 32, 125)) is not None
    assert handout.fresh(Lineage(b"f" * 32, 126)) is None


def test_a_slow_joiner_can_finish_the_one_before(handout: Handout) -> None:
    offers = [handout.write(VECTOR + number, LINEAGE, number) for number in range(3)]
    paths = [handout.file(offer.digest) for offer in offers]
    assert paths[0] is None
    assert all(path is not None and path.exists() for path in paths[1:])
    assert handout.file(b"x" * 32) is None


def test_a_model_that_has_not_moved_is_one_file(handout: Handout, tmp_path: Path) -> None:
    first, second = (handout.write(VECTOR, LINEAGE, 1) for _ in range(2))
    assert first == second
    other = handout.write(VECTOR + 1, LINEAGE, 2)
    assert handout.file(first.digest) is not None
    assert handout.file(other.digest) is not None


def test_a_full_disk_leaves_nothing_behind(handout: Handout, tmp_path: Path) -> None:
    kept = handout.write(VECTOR, LINEAGE, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OperatorError, match="cannot write a copy of the model"):
            handout.write(VECTOR + 1, LINEAGE, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(list((tmp_path / "handout").iterdir())) == 1
    assert handout.file(kept.digest) is not None
    assert handout.fresh(LINEAGE) == kept


def test_clear_removes_all_also_what_a_killed_node_left(handout: Handout, tmp_path: Path) -> None:
    offer = handout.write(VECTOR, LINEAGE, 1)
    (tmp_path / "handout" / f"state-{'0' * 64}.f32").write_bytes(b"old")
    (tmp_path / "handout" / f"state-{'0' * 64}.tmp").write_bytes(b"half")
    handout.clear()
    assert not list((tmp_path / "handout").iterdir())
    assert handout.file(offer.digest) is None
    assert handout.fresh(LINEAGE) is None
    handout.clear()  # nothing is there any more


def test_clear_where_there_never_was_a_copy(tmp_path: Path) -> None:
    Handout(tmp_path / "nowhere").clear()
