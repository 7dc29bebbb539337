"""Asks the node of a home over its Unix socket, with the standard library alone: it starts fast."""

import http.client
import json
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

from covey.node.faults import OperatorError
from covey.node.home import Home

TIMEOUT_S = 10.0
_POLL_S = 30  # one long poll; shorter than the socket's patience for it


class NotRunning(OperatorError):
    """No node answers in this home."""

    exit_code = 3


class Refused(OperatorError):
    """The node answered with an error.  ``code`` is the machine-readable one."""

    def __init__(self, status: int, error: dict[str, str]) -> None:
        super().__init__(error.get("message", f"HTTP status {status}"), error.get("hint", ""))
        self.status = status
        self.code = error.get("code", "http")


class Client:
    """One request, one connection.  Raises NotRunning, Refused, or OperatorError if it hangs."""

    def __init__(self, home: Home, timeout_s: float = TIMEOUT_S) -> None:
        self._home = home
        self._timeout_s = timeout_s

    def get(self, path: str) -> Any:
        """The JSON answer to GET ``path``."""
        return self._ask("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answer to POST ``path``."""
        return self._ask("POST", path, json.dumps(body))

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answer to PATCH ``path``."""
        return self._ask("PATCH", path, json.dumps(body))

    def events(
        self, since: int = 0, types: Sequence[str] = (), follow: bool = True
    ) -> Iterator[dict[str, Any]]:
        """The events after ``since``, and with ``follow`` those to come, until the node ends."""
        while True:
            wait_s = _POLL_S if follow else 0
            query = urlencode({"since": since, "types": ",".join(types), "timeout": wait_s})
            page = self._ask("GET", f"/api/v1/events?{query}", patience_s=wait_s)
            yield from page["items"]
            since = page["next"]
            if not follow:
                return

    def _ask(self, method: str, path: str, body: str | None = None, patience_s: float = 0) -> Any:
        connection = _UnixConnection(self._home, self._timeout_s + patience_s)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        except TimeoutError as error:
            raise OperatorError(
                f"the node in {self._home.root} does not answer",
                f"see its log, or end it with `covey stop --now{self._home.option}`",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._not_running() from error
        finally:
            connection.close()
        plain = json.loads(data)
        if answer.status >= 400 and "error" in plain:
            raise Refused(answer.status, plain["error"])
        return plain

    def _not_running(self) -> NotRunning:
        if pid := self._home.holder():
            return NotRunning(
                f"the node in {self._home.root} (pid {pid}) is just starting or ending",
                "try again in a moment",
            )
        return NotRunning(
            f"no node runs in {self._home.root}", f"start one with `covey up{self._home.option}`"
        )


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, home: Home, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = home.api_socket
        self._home = home

    def connect(self) -> None:
        owners = (os.getuid(), os.stat(self._home.state).st_uid)
        if os.stat(self._path).st_uid not in owners:
            raise ConnectionRefusedError(f"{self._path} belongs to somebody else")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
