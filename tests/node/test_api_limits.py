"""The bandwidth limits over the HTTP API."""

from typing import TYPE_CHECKING

import pytest

from covey.node.client import Client
from tests.node.test_api import JSON, TOKEN, V1, ask, code_of

if TYPE_CHECKING:
    from tests.node.conftest import FakeNode


def test_limits_are_read_and_set_one_by_one(node: "FakeNode") -> None:
    client = Client(node.home)
    assert client.get(f"{V1}/limits") == {"up_Bps": None, "down_Bps": None}
    assert client.patch(f"{V1}/limits", {"up_Bps": 1.25e6})["up_Bps"] == 1.25e6
    both = {"up_Bps": 1.25e6, "down_Bps": 2e6}
    assert client.patch(f"{V1}/limits", {"down_Bps": 2_000_000}) == both
    assert client.get(f"{V1}/limits") == node.control.limits.caps == both
    assert client.patch(f"{V1}/limits", {"up_Bps": None})["up_Bps"] is None
    found = [event["data"]["up_Bps"] for event in client.events(types=["net.*"], follow=False)]
    assert found == [1.25e6, 1.25e6, None]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"up_Bps": 1000}, "bad_value"),
        ({"up_Bps": -1}, "bad_value"),
        (b'{"up_Bps": NaN}', "bad_value"),
        (b'{"up_Bps": 1' + b"0" * 400 + b"}", "bad_value"),
        ({"up_Bps": "10mbit"}, "bad_body"),
        ({"up_Bps": True}, "bad_body"),
        ({"down_Bps": 1e9, "up_Bps": 1}, "bad_value"),
        ({"up": 1e9}, "bad_body"),
    ],
)
def test_a_bad_limit_changes_nothing(node: "FakeNode", body: object, code: str) -> None:
    status, plain, _ = ask(node, "PATCH", f"{V1}/limits", body, JSON | TOKEN)
    assert (status, code_of(plain)) == (400, code)
    assert node.control.limits.caps == {"up_Bps": None, "down_Bps": None}
    assert ask(node, "PATCH", f"{V1}/limits", {"up_Bps": 1e9}, JSON)[0] == 401
