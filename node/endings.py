"""What tells a node to end: signals, the end of its standard input, and patience that runs out."""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


def give_up(code: int = 1) -> None:
    """End at once: what must not be lost is on disk already."""
    log.warning("stopping without a goodbye")
    os._exit(code)


class Deadline:
    """Calls ``end`` ``seconds`` after the first ``begin``, unless it is cancelled before.

    From a thread of its own: the event loop may be what hangs.
    """

    def __init__(self, seconds: float, end: Callable[[], None] = give_up) -> None:
        self._timer = threading.Timer(seconds, end)
        self._timer.daemon = True
        self._begun = False

    def begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()


def on_signals(stop: Callable[[bool, bool], None]) -> None:
    """Call ``stop(now, interrupted)`` at SIGTERM and SIGINT: ``now`` from the second one on,
    ``interrupted`` for Ctrl-C, which the terminal sends to the script as well."""
    loop = asyncio.get_running_loop()
    came: list[int] = []

    def handle(number: int) -> None:
        came.append(number)
        stop(len(came) > 1, number == signal.SIGINT)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle, number)


async def end_of_input() -> None:
    """Return when standard input, a pipe, closes: whoever started this process has gone."""
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    pipe = os.fdopen(os.dup(sys.stdin.fileno()), "rb", 0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
    try:
        while await reader.read(4096):
            pass
    finally:
        transport.close()
