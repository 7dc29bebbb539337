"""The door: how many handshakes at once, and who must wait."""

from covey.node import door
from covey.node.door import Door

A, B = "192.0.2.1", "192.0.2.2"


def fail(entrance: Door, host: str, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        assert entrance.admit(host, False, now)
        entrance.ended(host, False, now)


def test_half_open_connections_are_bounded_by_host_and_in_all() -> None:
    entrance = Door()
    assert [entrance.admit(A, False, 0.0) for _ in range(20)].count(True) == 16
    hosts = [f"198.51.100.{n}" for n in range(100)]
    assert [entrance.admit(host, False, 0.0) for host in hosts].count(True) == 64 - 16
    entrance.ended(A, None, 0.0)
    assert entrance.half_open == 63
    assert entrance.admit(B, False, 0.0)


def test_a_host_that_keeps_failing_waits_longer_each_time() -> None:
    entrance, now = Door(), 0.0
    for ban_s in (10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0):
        fail(entrance, A, door.FAILURES_MAX, now)
        assert not entrance.admit(A, False, now + ban_s - 0.1)
        now += ban_s
    assert entrance.admit(B, False, now)


def test_failures_far_apart_do_not_ban() -> None:
    entrance = Door()
    for minute in range(20):
        fail(entrance, A, 1, 16.0 * minute)


def test_a_member_is_forgiven_and_its_host_never_banned() -> None:
    entrance = Door()
    fail(entrance, A, door.FAILURES_MAX)
    assert not entrance.admit(A, False, 1.0)
    assert entrance.admit(A, True, 1.0)
    entrance.ended(A, True, 1.0)
    assert entrance.admit(A, False, 1.0)


def test_giving_up_is_no_failure() -> None:
    entrance = Door()
    for _ in range(100):
        assert entrance.admit(A, False, 0.0)
        entrance.ended(A, None, 0.0)


def test_few_hosts_are_remembered_but_none_in_a_handshake_is_lost() -> None:
    entrance = Door()
    assert entrance.admit(A, False, 0.0)
    for number in range(3 * door.HOSTS_MAX):
        host = f"host-{number}"
        entrance.admit(host, False, 0.0)
        entrance.ended(host, False, 0.0)
        if number == door.HOSTS_MAX - 2:
            assert len(entrance._hosts) == door.HOSTS_MAX  # none is forgotten too early
    assert len(entrance._hosts) <= door.HOSTS_MAX + 2
    entrance.ended(A, True, 0.0)
    assert entrance.half_open == 0
