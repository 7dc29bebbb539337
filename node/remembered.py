"""The peers' addresses that worked, kept from one run of the node to the next."""

import json
import logging
import time
from pathlib import Path

from covey.node.addresses import AddressBook
from covey.node.faults import OperatorError
from covey.node.home import write_atomically

log = logging.getLogger(__name__)


def recall(file: Path, book: AddressBook) -> None:
    """Tell ``book`` what an earlier run kept: only hints, so a damaged file is no fault."""
    try:
        plain = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        log.debug("no remembered peers: %s", error)
    else:
        book.restore(plain, time.monotonic())


def keep(file: Path, plain: list[dict[str, object]]) -> None:
    """Write what ``AddressBook.plain`` gave; a disk that does not take it is only reported."""
    try:
        write_atomically(file, json.dumps(plain).encode() + b"\n")
    except OperatorError as error:
        log.warning("the peers' addresses are not kept: %s", error)
