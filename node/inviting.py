"""The line that lets another machine join, from the running node or from its home."""

import time

from covey.node.client import Client, NotRunning
from covey.node.faults import OperatorError
from covey.node.home import Home


def invite_line(home: Home, expires_s: int) -> str:
    """The invite of ``home``'s swarm; 0 never expires.  Raises OperatorError without a swarm."""
    try:
        answer = Client(home).post("/api/v1/swarm/invites", {"expires_s": expires_s})
        return str(answer["token"])
    except NotRunning:
        pass
    from covey.node.store import load_swarm
    from covey.protocols.invite import Invite

    record = load_swarm(home)
    if record is None:
        raise OperatorError(
            f"{home.root} belongs to no swarm yet",
            f"create one with `covey up{home.option}`, or join one with `covey join covey1-…`",
        )
    expires = int(time.time()) + expires_s if expires_s else 0
    return Invite(record.name, record.secret, record.addresses, expires).text
