"""The remembered addresses: kept and found again, and no fault of theirs stops a node."""

import resource
import time
from pathlib import Path
from random import Random

import pytest

from covey.node.addresses import AddressBook, Source
from covey.node.remembered import keep, recall
from covey.protocols.identity import Identity

ME, ONE = Identity(b"0" * 32).peer, Identity(b"1" * 32).peer


def book() -> AddressBook:
    return AddressBook(ME, Random(1))


def test_what_worked_is_found_again(tmp_path: Path) -> None:
    first, second = book(), book()
    first.learn("10.0.0.2:17700", Source.MDNS, 0.0)
    first.reached("10.0.0.2:17700", ONE, 0.0)
    keep(tmp_path / "peers.json", first.plain())
    recall(tmp_path / "peers.json", second)
    (entry,) = second.entries(ONE)
    assert entry.address == "10.0.0.2:17700"
    assert entry.sources == {Source.REMEMBERED}
    assert second.due(time.monotonic()) == ["10.0.0.2:17700"]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b"7", b"[7]", b'{"peer": 1}', b'[{"peer": "x"}]', b"[" * 10**5]
)
def test_a_damaged_file_is_as_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "peers.json").write_bytes(data)
    found = book()
    recall(tmp_path / "peers.json", found)
    assert not found.entries(None)


def test_no_file_and_no_file_at_all(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    recall(tmp_path / "nothing", book())
    recall(tmp_path / "folder", book())


def test_a_full_disk_is_only_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        keep(tmp_path / "peers.json", [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "not kept" in caplog.text
    assert not list(tmp_path.iterdir())
