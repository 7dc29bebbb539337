"""The guard by itself: which host names and tokens it lets pass.  test_api.py tries it whole."""

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from covey.node.guard import LOCAL_HOSTS, ApiError, Guard

SECRET = "s" * 43


def admit(guard: Guard, method: str, path: str, **headers: str) -> int:
    """200, or the status of the refusal."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = make_mocked_request(method, path, CIMultiDict({"Host": "localhost"} | named))
    try:
        guard.admit(request)
    except ApiError as error:
        return error.status
    return 200


@pytest.mark.parametrize(
    ("trusted", "open_reads", "read", "change"),
    [(True, True, 200, 200), (False, True, 200, 401), (False, False, 401, 401)],
)
def test_who_needs_a_token(trusted: bool, open_reads: bool, read: int, change: int) -> None:
    guard = Guard(LOCAL_HOSTS, SECRET, trusted, open_reads)
    json = "application/json"
    assert admit(guard, "GET", "/api/v1/status") == read
    assert admit(guard, "HEAD", "/metrics") == read
    assert admit(guard, "GET", "/livez") == 200
    assert admit(guard, "POST", "/api/v1/shutdown", Content_Type=json) == change
    assert admit(guard, "POST", "/livez", Content_Type=json) == change
    bearer = f"bearer {SECRET}"
    assert admit(guard, "DELETE", "/x", Content_Type=json, Authorization=bearer) == 200


def test_a_token_of_any_bytes_is_only_wrong() -> None:
    guard = Guard(LOCAL_HOSTS, SECRET, trusted=False, open_reads=False)
    for token in ("", "Bearer", "Bearer ", f"Bearer {SECRET}x", f"Basic {SECRET}"):
        assert admit(guard, "GET", "/metrics", Authorization=token) == 401


@pytest.mark.parametrize("host", ["localhost:", "localhost:x", "localhost.", "[::1", "127.1"])
def test_what_only_looks_like_one_of_our_hosts_is_refused(host: str) -> None:
    guard = Guard(LOCAL_HOSTS, SECRET, trusted=True, open_reads=True)
    assert admit(guard, "GET", "/livez", Host=host) == 403
