"""The client over the Unix socket: answers, refusals, and a node that is not there."""

import os
import socket
from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from covey.node.client import Client, NotRunning, Refused
from covey.node.faults import OperatorError
from covey.node.home import Home

if TYPE_CHECKING:
    from tests.node.conftest import FakeNode


def test_get_and_post(node: "FakeNode") -> None:
    client = Client(node.home)
    assert client.get("/api/v1/status")["swarm"]["name"] == "lab"
    assert client.post("/api/v1/peers", {"address": "a:1"})["status"] == "dialing"


def test_a_refusal_has_its_code_and_hint(node: "FakeNode") -> None:
    with pytest.raises(Refused, match="'a' has no port; give host:port") as caught:
        Client(node.home).post("/api/v1/peers", {"address": "a"})
    assert (caught.value.status, caught.value.code) == (400, "bad_address")


def test_not_ready_is_an_answer_not_an_error(node: "FakeNode") -> None:
    node.control.readiness["listen"] = "starting"
    assert Client(node.home).get("/readyz")["ready"] is False


def test_events_come_in_pages_and_then_as_they_happen(node: "FakeNode") -> None:
    client = Client(node.home)
    node.emit("peer.alive")
    assert [event["id"] for event in client.events(follow=False)] == [1]
    following = client.events(since=1, types=["train.*"])
    node.emit("peer.dead")
    node.emit("train.step")
    assert [event["type"] for event in islice(following, 1)] == ["train.step"]


def test_a_home_without_a_node(home: Home) -> None:
    with pytest.raises(
        NotRunning, match=r"no node runs in .*home; start one with `covey up --home"
    ):
        Client(home).get("/livez")
    assert NotRunning.exit_code == 3


def test_a_node_that_is_not_ready_to_answer(home: Home) -> None:
    with home.lock({}):
        with pytest.raises(NotRunning, match=rf"pid {os.getpid()}\) is just starting"):
            Client(home).get("/livez")
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(home.api_socket))
        with pytest.raises(NotRunning, match="just starting"):
            Client(home).get("/livez")


def test_a_node_that_hangs(home: Home) -> None:
    with home.lock({}), socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(home.api_socket))
        silent.listen()
        with pytest.raises(OperatorError, match=r"does not answer; .*covey stop --now"):
            Client(home, timeout_s=0.05).get("/livez")


def test_a_socket_of_somebody_else_is_not_asked(
    node: "FakeNode", monkeypatch: pytest.MonkeyPatch
) -> None:
    real_stat, private_socket = os.stat, str(node.home.api_socket)

    def stat(path: object, **options: bool) -> object:
        if str(path) == private_socket:
            return SimpleNamespace(st_uid=os.getuid() + 1)
        assert isinstance(path, (str, os.PathLike))
        return real_stat(path, **options)

    monkeypatch.setattr("covey.node.client.os.stat", stat)
    with pytest.raises(NotRunning):
        Client(node.home).get("/livez")
