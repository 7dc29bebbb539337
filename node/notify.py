"""Tells systemd how the node is doing (sd_notify), where systemd runs it; elsewhere does nothing.

The watchdog is fed from the event loop: a loop that hangs is a node that systemd should restart.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping

_log = logging.getLogger(__name__)


class Notifier:
    """Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID from ``environ``."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_s = _watchdog_s(environ)  # how often systemd wants to hear, None: never

    def ready(self, status: str = "") -> None:
        """The node answers: listeners, identity and membership are up."""
        self._send("READY=1", f"STATUS={status}")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._send(f"STATUS={text}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Ask for more time to start or stop, e.g. while a checkpoint is written."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    async def watch(self) -> None:
        """Feed the watchdog at half its interval until cancelled; return if there is none."""
        while self.watchdog_s is not None:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / 2)

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        text = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(text.encode(), self._address)
        except OSError as error:  # systemd will judge by its own timeouts
            _log.debug("systemd was not told %r: %s", text, error)


def _address(text: str) -> str | bytes | None:
    if text.startswith("@"):  # Linux's abstract namespace
        return b"\0" + os.fsencode(text[1:])
    return text if text.startswith("/") else None


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    microseconds = environ.get("WATCHDOG_USEC", "")
    pid = environ.get("WATCHDOG_PID", str(os.getpid()))
    if not microseconds.isdecimal() or int(microseconds) == 0 or pid != str(os.getpid()):
        return None
    return int(microseconds) / 1e6
