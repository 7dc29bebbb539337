"""The event log: ids, filters, gaps, and waiting."""

import asyncio

from covey.node.events import GAP, EventLog


def log_of(count: int, ring: int = 100) -> EventLog:
    log = EventLog(clock=lambda: 0.0, ring=ring)
    for number in range(count):
        log.emit("peer.alive" if number % 2 == 0 else "train.step", number=number)
    return log


def test_ids_grow_by_one_from_one() -> None:
    assert [event.id for event in log_of(5).since(0)] == [1, 2, 3, 4, 5]
    assert log_of(5).latest == 5


def test_json_has_the_documented_keys() -> None:
    event = EventLog(clock=lambda: 1.5).emit("peer.suspect", peer="ABC")
    assert event.as_json() == {
        "id": 1,
        "time": "1970-01-01T00:00:01.500Z",
        "type": "peer.suspect",
        "data": {"peer": "ABC"},
    }


def test_since_gives_only_what_is_newer() -> None:
    log = log_of(5)
    assert [event.id for event in log.since(3)] == [4, 5]
    assert log.since(5) == []


def test_types_by_name_and_by_family() -> None:
    log = log_of(5)
    assert [event.id for event in log.since(0, ["train.step"])] == [2, 4]
    assert [event.id for event in log.since(0, ["peer.*"])] == [1, 3, 5]
    assert len(log.since(0, ["peer.*", "train.step"])) == 5
    assert log.since(0, ["peer"]) == []


def test_an_overrun_ring_tells_how_many_are_lost() -> None:
    log = log_of(10, ring=4)
    gap, *rest = log.since(2, ["train.step"])
    assert (gap.type, gap.id, gap.data) == (GAP, 6, {"missed": 4})
    assert [event.id for event in rest] == [8, 10]
    assert all(event.type != GAP for event in log.since(gap.id))


def test_an_id_of_an_earlier_boot_is_a_gap() -> None:
    gap, *rest = log_of(3).since(900)
    assert (gap.type, gap.id, gap.data) == (GAP, 0, {"missed": None})
    assert [event.id for event in rest] == [1, 2, 3]
    assert EventLog().since(7)[0].id == 0


def test_wait_returns_at_once_when_there_is_something() -> None:
    found = asyncio.run(log_of(3).wait(2))
    assert [event.id for event in found] == [3]


def test_wait_wakes_every_reader_whose_type_came() -> None:
    async def scenario() -> None:
        log = EventLog()
        readers = [asyncio.create_task(log.wait(0, ["peer.dead"])) for _ in range(3)]
        await asyncio.sleep(0)
        log.emit("peer.alive")
        await asyncio.sleep(0)
        assert not any(reader.done() for reader in readers)
        log.emit("peer.dead")
        for found in await asyncio.gather(*readers):
            assert [event.id for event in found] == [2]

    asyncio.run(scenario())


def test_wait_gives_nothing_when_the_time_is_up() -> None:
    assert asyncio.run(EventLog().wait(0, timeout_s=0.01)) == []
