"""The node a learner uses: the one that runs in its home, or one started for the learner's life."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from covey.channel import close_in_children
from covey.errors import NodeError
from covey.node.home import Home

_PATIENCE_S = 30.0  # for a node to listen; it takes under a second on an idle machine
_RETRY_S = 0.02
_GOODBYE_S = 10.0
_LOG_LINES = 5


def say(text: str) -> None:
    """Tell the person at the terminal, beside the script's own output."""
    print(f"covey: {text}", file=sys.stderr, flush=True)


class LocalNode:
    """Connects to the node of ``home``, and starts it if none is there.

    A node started here leaves when its standard input ends: at ``close``, or when this process
    ends in whatever way.
    """

    def __init__(self, home: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> None:
        self._home = Home.find(home, environ)
        self._named = bool(home or environ.get("COVEY_HOME"))
        self.supervisor = environ.get("COVEY_SUPERVISED")  # pid of the node that runs this script
        self._process: subprocess.Popen[bytes] | None = None

    def open(self) -> socket.socket:
        """A connection, waited for.  Raises NodeError."""
        connection = self.connect()
        if connection is None and self.supervisor is None:
            self.start()
            say(f"started a node for this script; its log: {self._log_file}")
        deadline = time.monotonic() + _PATIENCE_S
        while connection is None:
            ended = self._process is not None and self._process.poll() is not None
            connection = self.connect()  # another learner's node may have been faster than ours
            if connection is None and ended:
                raise NodeError(f"the node did not start: {self.last_words()}")
            if connection is None and time.monotonic() > deadline:
                raise NodeError(f"no node listens at {self._home.link_socket}; see `covey status`")
            if connection is None:
                time.sleep(_RETRY_S)
        return connection

    def connect(self) -> socket.socket | None:
        """A connection if a node listens now."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            connection.connect(os.fspath(self._home.link_socket))
        except OSError:  # no socket, nobody behind it, or too many waiting
            connection.close()
            return None
        return connection

    @property
    def running(self) -> bool:
        """Whether a node started here runs, if only just."""
        return self._process is not None and self._process.poll() is None

    def revive(self) -> None:
        """Start the node again if it was started here and has ended."""
        if self._process is not None and not self.running:
            self._close_input()
            with suppress(NodeError):  # e.g. a full disk for now; the next try may do
                self.start()

    def start(self) -> None:
        """Start a node.  Raises NodeError if that cannot even be tried."""
        # -P: nothing in the folder where the script runs may stand in for an installed module.
        command = [sys.executable, "-P", "-m", "covey.node", "up", "--until-eof"]
        if self._named:
            command += ["--home", str(self._home.root)]
        try:
            self._home.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(self._log_file, "wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for the script, which then says goodbye
                )
            assert self._process.stdin is not None
            close_in_children(self._process.stdin)
        except OSError as error:
            raise NodeError(
                f"cannot start a node in {self._home.root}: {error.strerror}; "
                "choose another folder with home=… or COVEY_HOME"
            ) from error

    def close(self) -> None:
        """Let a node started here say goodbye to its peers; wait for that, within bounds."""
        if self._process is None:
            return
        self._close_input()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GOODBYE_S)

    def last_words(self) -> str:
        """The end of the log of a node started here."""
        if self._process is None:
            return "see its log"
        with suppress(OSError):
            lines = self._log_file.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]
            if lines:
                return "\n  ".join(["", *lines])
        return f"exit code {self._process.poll()}"

    @property
    def _log_file(self) -> Path:
        return self._home.root / "node.log"

    def _close_input(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
