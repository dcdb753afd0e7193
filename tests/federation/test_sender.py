"""Sending to other servers: in order, once where that can be, whatever the others do; in virtual time."""

from __future__ import annotations

import asyncio
from bisect import bisect
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import structlog.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import BadAnswer, Refused, Unreachable
from federation.outgoing import (
    MAX_BYTES,
    Item,
    Waiting,
    back_off_seconds,
    how_many_fit,
    passing_that_fit,
    transaction_id_of,
)
from tests.federation.destinations import FAR, World, edu, event, now
from tests.federation.virtual_time import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.federation.destinations import Sent

HOUR = 3600


def away(sent: Sent) -> None:
    raise Unreachable(sent.destination, "no answer")


def refusing(*names: str, status: int = 400) -> Callable[[Sent], None]:
    def behave(sent: Sent) -> None:
        if set(names) & {*sent.pdus, *(str(one["content"].get("n")) for one in sent.edus)}:
            raise Refused(sent.destination, status, "M_UNKNOWN", "no")

    return behave


def names(numbers: Iterable[int]) -> list[str]:
    return [f"${number}" for number in numbers]


# -- order, limits ---------------------------------------------------------------------------------------


def test_what_waits_is_sent_in_order_and_never_more_than_the_limits() -> None:
    async def scene() -> None:
        world = World()
        world.put([event(n) for n in range(1, 121)] + [edu(n) for n in range(121, 371)])
        await asyncio.sleep(60)
        sizes = [(len(sent.pdus), len(sent.edus)) for sent in world.internet.taken]
        # The third holds the last events and as many EDUs as it may.
        assert sizes == [(50, 0), (50, 0), (20, 100), (0, 100), (0, 50)]
        assert world.internet.events_taken() == names(range(1, 121))
        assert not world.outbox.of(FAR).items
        await world.sender.stop()

    run(scene())


def test_what_comes_while_a_transaction_is_under_way_goes_into_the_next() -> None:
    async def scene() -> None:
        world = World()
        world.put([event(1)])
        await asyncio.sleep(0.05)
        world.put([event(2), event(3)])
        await asyncio.sleep(1)
        assert [sent.pdus for sent in world.internet.taken] == [["$1"], ["$2", "$3"]]
        await world.sender.stop()

    run(scene())


ITEMS = st.lists(
    st.builds(
        lambda has_pdu, edus, size: (has_pdu, edus, size),
        st.booleans(),
        st.integers(0, 60),
        st.integers(1, 300_000),
    ),
    max_size=300,
).map(
    lambda drawn: [
        Item(n, f"{n}", {} if has_pdu else None, ({},) * edus, size)
        for n, (has_pdu, edus, size) in enumerate(drawn)
    ]
)


@given(ITEMS, st.integers(1, 150))
def test_a_transaction_holds_as_much_as_it_may_and_no_more(items: list[Item], at_most: int) -> None:
    count = how_many_fit(items, at_most)
    assert count <= min(at_most, len(items))

    def fits(taken: Sequence[Item]) -> bool:
        return (
            sum(item.pdu is not None for item in taken) <= 50
            and sum(len(item.edus) for item in taken) <= 100
            and sum(item.size for item in taken) <= MAX_BYTES
        )

    assert (count > 0) == bool(items)
    assert count <= 1 or fits(items[:count])
    assert count == min(at_most, len(items)) or not fits(items[: count + 1])


@given(
    ITEMS.map(lambda items: items[: how_many_fit(items, 150)]), st.integers(0, 200), st.integers(1, 50_000)
)
def test_passing_edus_take_the_room_that_is_left(items: list[Item], number: int, size: int) -> None:
    passing = [{"x": "y" * size}] * number
    fitting = passing_that_fit(passing, items)
    edus = sum(len(item.edus) for item in items)
    bytes_of_items = sum(item.size for item in items)
    assert not fitting or len(fitting) + edus <= 100
    assert not fitting or len(fitting) * size + bytes_of_items <= MAX_BYTES


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 60_000), min_size=1, max_size=200),
    st.lists(st.sampled_from(["ok", "away", "lost"]), max_size=30),
    # How long it is well, and out of order after that.
    st.lists(st.tuples(st.floats(1, 100), st.floats(1, 1000)), max_size=4),
    st.data(),
)
def test_everything_arrives_in_order_whatever_goes_wrong(
    sizes: list[int], fates: list[str], outages: list[tuple[float, float]], data: st.DataObject
) -> None:
    async def scene() -> None:
        world = World()
        ahead = iter(fates)
        changes = list(accumulate(length for outage in outages for length in outage))

        def behave(sent: Sent) -> None:
            if bisect(changes, now()) % 2:
                raise Refused(sent.destination, 500, None, "out of order")
            fate = next(ahead, "ok")
            if fate == "away":
                away(sent)
            elif fate == "lost":
                # It was taken, and the answer did not come back.
                world.internet.taken.append(sent)
                away(sent)

        world.internet.behaviours[FAR] = behave
        items = [event(n, size) if n % 3 else edu(n, size) for n, size in enumerate(sizes, 1)]
        cut = data.draw(st.integers(0, len(items)))
        world.put(items[:cut])
        await asyncio.sleep(data.draw(st.floats(0, 10)))
        if data.draw(st.booleans()):
            await world.crash()
        world.put(items[cut:])
        await asyncio.sleep(10 * 24 * HOUR)
        assert not world.outbox.of(FAR).items
        arrived = list(dict.fromkeys(world.internet.events_taken()))
        assert arrived == [item.name for item in items if item.pdu is not None]
        assert not world.outbox.of(FAR).aside
        await world.sender.stop()

    run(scene())


# -- failures and back-off -------------------------------------------------------------------------------


def test_a_server_that_is_away_is_left_in_peace_for_longer_and_longer_up_to_an_hour() -> None:
    async def scene() -> None:
        world = World()
        world.internet.behaviours[FAR] = away
        world.put([event(1)])
        await asyncio.sleep(10 * HOUR)
        times = [sent.at for sent in world.internet.tried]
        gaps = [round(after - before) for before, after in pairwise(times)]
        assert gaps[:7] == [2, 8, 32, 128, 512, 2048, 3600]
        assert set(gaps[7:]) == {3600}
        assert world.outbox.of(FAR).why == "no answer"
        # In between it holds neither a connection nor what it would send.
        assert world.internet.under_way == 0
        assert world.outbox.loaded == len(times)
        world.internet.behaviours.clear()
        await asyncio.sleep(2 * HOUR)
        assert world.internet.events_taken() == ["$1"]
        await world.sender.stop()

    run(scene())


@given(st.integers(1, 1000), st.floats(0, 1), st.booleans())
def test_the_back_off_is_capped(failures: int, chance: float, recently_alive: bool) -> None:
    seconds = back_off_seconds(failures, lambda: chance, recently_alive=recently_alive)
    assert 1 <= seconds <= (HOUR if recently_alive else 24 * HOUR)
    assert recently_alive or failures < 20 or seconds >= 18 * HOUR


def test_every_transaction_that_fails_is_repeated_with_the_same_id() -> None:
    async def scene() -> None:
        world = World()
        world.internet.behaviours[FAR] = away
        world.put([event(1), edu(2)])
        await asyncio.sleep(100)
        await world.crash()
        await asyncio.sleep(1000)
        assert len(world.internet.tried) > 4
        assert len({sent.transaction_id for sent in world.internet.tried}) == 1
        world.internet.behaviours.clear()
        world.put([event(3)])
        await asyncio.sleep(HOUR)
        # With other content it has another id.
        (sent,) = world.internet.taken
        assert sent.pdus == ["$1", "$3"]
        assert sent.transaction_id != world.internet.tried[0].transaction_id
        await world.sender.stop()

    run(scene())


def test_what_was_said_a_minute_ago_may_be_said_again() -> None:
    typing = ({"edu_type": "m.typing", "content": {"typing": True}},)
    assert transaction_id_of((), typing, 1) != transaction_id_of((), typing, 2)
    assert transaction_id_of([event(1)], (), 1) == transaction_id_of([event(1)], (), 2)
    assert transaction_id_of([event(1)], (), 1) != transaction_id_of([event(2)], (), 1)


def test_the_back_off_survives_a_restart() -> None:
    async def scene() -> None:
        world = World()
        world.internet.behaviours[FAR] = away
        world.put([event(1)])
        await asyncio.sleep(1000)
        tried = len(world.internet.tried)
        await world.crash()
        await asyncio.sleep(200)
        assert len(world.internet.tried) == tried
        assert world.outbox.of(FAR).failures == tried
        await world.sender.stop()

    run(scene())


def test_a_request_of_the_server_ends_its_back_off_at_once() -> None:
    async def scene() -> None:
        world = World()
        world.internet.behaviours[FAR] = away
        world.put([event(1)])
        await asyncio.sleep(5 * HOUR)
        world.internet.behaviours.clear()
        world.sender.heard_from(FAR)
        await asyncio.sleep(1)
        assert world.internet.events_taken() == ["$1"]
        await world.sender.stop()

    run(scene())


def test_a_server_that_calls_all_the_time_and_takes_nothing_is_not_called_all_the_time() -> None:
    async def scene() -> None:
        world = World()
        world.internet.behaviours[FAR] = away
        world.put([event(1)])
        for _ in range(1000):
            await asyncio.sleep(0.1)
            world.sender.heard_from(FAR)
        assert len(world.internet.tried) <= 51
        await world.sender.stop()

    run(scene())


def test_a_server_that_names_a_time_is_not_called_before() -> None:
    async def scene() -> None:
        world = World()

        def busy(sent: Sent) -> None:
            if len(world.internet.tried) == 1:
                raise Refused(sent.destination, 429, "M_LIMIT_EXCEEDED", "later", retry_after_ms=300_000)

        world.internet.behaviours[FAR] = busy
        world.put([event(1)])
        await asyncio.sleep(HOUR)
        first, second = world.internet.tried
        assert round(second.at - first.at) == 300
        await world.sender.stop()

    run(scene())


def test_an_answer_that_is_garbage_counts_as_a_failure() -> None:
    async def scene() -> None:
        world = World()

        def portal(sent: Sent) -> None:
            raise BadAnswer(sent.destination, "the answer is not JSON")

        world.internet.behaviours[FAR] = portal
        world.put([event(1)])
        await asyncio.sleep(2 * HOUR)
        assert world.outbox.of(FAR).items
        assert world.counts.outcomes == {"bad_answer": len(world.internet.tried)}
        await world.sender.stop()

    run(scene())


def test_an_error_of_one_event_is_final() -> None:
    async def scene() -> None:
        world = World()
        world.internet.behaviours[FAR] = lambda _: {
            "$1": {"error": "not\nallowed"},
            "$never sent": {"error": "a lie"},
        }
        world.put([event(1), event(2)])
        with structlog.testing.capture_logs() as logs:
            await asyncio.sleep(HOUR)
        assert [(log["event_id"], log["why"]) for log in logs] == [("$1", r"'not\nallowed'")]
        assert len(world.internet.tried) == 1
        assert not world.outbox.of(FAR).items
        await world.sender.stop()

    run(scene())


def test_an_outbox_that_fails_is_asked_again() -> None:
    async def scene() -> None:
        world = World()
        load, calls = world.outbox.load, iter(range(100))

        async def failing(destination: str) -> Waiting:
            if next(calls) < 3:
                message = "the database is away"
                raise OSError(message)
            return await load(destination)

        world.outbox.load = failing  # type: ignore[method-assign]
        world.put([event(1)])
        await asyncio.sleep(HOUR)
        assert world.internet.events_taken() == ["$1"]
        await world.sender.stop()

    run(scene())


# -- refusals --------------------------------------------------------------------------------------------


def test_the_item_that_a_server_does_not_take_is_found_and_set_aside() -> None:
    async def scene(status: int) -> None:
        world = World()
        world.internet.behaviours[FAR] = refusing("$37", status=status)
        world.put([event(n) for n in range(1, 101)])
        await asyncio.sleep(10 * 60)
        assert world.outbox.of(FAR).aside == ["$37"]
        assert world.internet.events_taken() == [name for name in names(range(1, 101)) if name != "$37"]
        assert world.counts.aside == 1
        assert world.outbox.of(FAR).failures == 0
        await world.sender.stop()

    for status in (400, 413, 500):
        run(scene(status))


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(1, 120), max_size=6), st.sampled_from([400, 413, 500]))
def test_several_bad_items_are_found(bad: set[int], status: int) -> None:
    async def scene() -> None:
        world = World()
        items = [event(n) if n % 2 else edu(n) for n in range(1, 121)]
        world.internet.behaviours[FAR] = refusing(*names(bad), *map(str, bad), status=status)
        world.put(items)
        await asyncio.sleep(HOUR)
        assert world.outbox.of(FAR).aside == [item.name for item in items if item.position in bad]
        assert not world.outbox.of(FAR).items
        await world.sender.stop()

    run(scene())


def test_a_server_that_refuses_everything_loses_nothing() -> None:
    async def scene(status: int) -> None:
        world = World()

        def broken(sent: Sent) -> None:
            raise Refused(sent.destination, status, "M_UNKNOWN", "out of order")

        world.internet.behaviours[FAR] = broken
        world.put([event(n) for n in range(1, 101)])
        await asyncio.sleep(24 * HOUR)
        assert not world.outbox.of(FAR).aside
        assert len(world.outbox.of(FAR).items) == 100
        # It is not called more often for that.
        assert len(world.internet.tried) < 100
        world.internet.behaviours.clear()
        await asyncio.sleep(2 * HOUR)
        assert world.internet.events_taken() == names(range(1, 101))
        await world.sender.stop()

    for status in (400, 401, 403, 404, 413, 500, 502, 503):
        run(scene(status))


# -- many servers ----------------------------------------------------------------------------------------


def test_dead_and_slow_servers_slow_nobody() -> None:
    async def scene() -> None:
        world = World(prompt_places=10, doubtful_places=3)

        async def slow(sent: Sent) -> None:
            await asyncio.sleep(100)

        async def dead(sent: Sent) -> None:
            await asyncio.sleep(10)
            away(sent)

        for number in range(30):
            world.internet.behaviours[f"dead{number}.example"] = dead
            world.internet.behaviours[f"slow{number}.example"] = slow
            # One that nobody has ever heard of.
            world.internet.behaviours[f"new{number}.example"] = dead
            world.outbox.of(f"new{number}.example").recently_alive = False
        for name in list(world.internet.behaviours):
            world.put([event(n) for n in range(1, 2000)], name)
        await asyncio.sleep(HOUR)
        for number in range(1, 101):
            world.put([event(number)])
            asked_at = now()
            while f"${number}" not in world.internet.events_taken():  # noqa: ASYNC110 - time is virtual
                await asyncio.sleep(0.05)
            assert now() - asked_at < 1
        assert world.internet.most_under_way <= 13
        await world.sender.stop()

    run(scene())


def test_so_many_servers_are_called_at_a_time() -> None:
    async def scene() -> None:
        world = World(prompt_places=7)
        for number in range(100):
            world.put([event(1)], f"{number}.example")
        await asyncio.sleep(10)
        assert len(world.internet.taken) == 100
        assert world.internet.most_under_way == 7
        await world.sender.stop()

    run(scene())


def test_a_destination_of_another_process_is_left_to_it() -> None:
    async def scene() -> None:
        world = World()
        world.outbox.of(FAR).is_ours = False
        world.put([event(1)])
        await asyncio.sleep(HOUR)
        assert not world.internet.tried
        # The other process is gone.
        world.outbox.of(FAR).is_ours = True
        await world.sender.resume()
        await asyncio.sleep(1)
        assert world.internet.events_taken() == ["$1"]
        await world.sender.stop()

    run(scene())


def test_the_server_itself_is_no_destination() -> None:
    async def scene() -> None:
        world = World()
        world.put([event(1)], "here.example")
        await asyncio.sleep(HOUR)
        assert not world.internet.tried

    run(scene())


# -- EDUs that tell of a moment --------------------------------------------------------------------------


def test_passing_edus_are_tried_once() -> None:
    async def scene() -> None:
        world = World()
        typing = {"edu_type": "m.typing", "content": {}}
        world.outbox.of(FAR).passing = [typing]
        world.put([event(1)])
        await asyncio.sleep(1)
        assert world.internet.taken[0].edus == [typing]
        world.internet.behaviours[FAR] = away
        world.outbox.of(FAR).passing = [typing]
        world.put([event(2)])
        await asyncio.sleep(1)
        world.internet.behaviours.clear()
        await asyncio.sleep(HOUR)
        assert [sent.edus for sent in world.internet.taken] == [[typing], []]
        await world.sender.stop()

    run(scene())


def test_a_passing_edu_alone_is_sent_too() -> None:
    async def scene() -> None:
        world = World()
        world.outbox.of(FAR).passing = [{"edu_type": "m.typing", "content": {}}] * 150
        world.sender.wake(FAR)
        await asyncio.sleep(HOUR)
        assert [len(sent.edus) for sent in world.internet.taken] == [100]
        await world.sender.stop()

    run(scene())


# -- greetings -------------------------------------------------------------------------------------------


def test_who_is_greeted_is_called_once_with_what_waits_or_with_nothing() -> None:
    async def scene() -> None:
        world = World()
        world.outbox.of(FAR).items.append(event(1))
        for name in (FAR, "idle.example", "here.example"):
            world.sender.greet(name)
        await asyncio.sleep(HOUR)
        taken = sorted((sent.destination, sent.pdus) for sent in world.internet.taken)
        assert taken == [(FAR, ["$1"]), ("idle.example", [])]
        await world.sender.stop()

    run(scene())


def test_a_greeting_that_fails_is_repeated_as_anything_else_is() -> None:
    async def scene() -> None:
        world = World()
        world.internet.behaviours[FAR] = away
        world.sender.greet(FAR)
        await asyncio.sleep(HOUR)
        assert 5 < len(world.internet.tried) < 9
        world.internet.behaviours.clear()
        await asyncio.sleep(HOUR)
        assert len(world.internet.taken) == 1
        assert world.outbox.of(FAR).failures == 0
        await asyncio.sleep(HOUR)
        assert len(world.internet.taken) == 1
        await world.sender.stop()

    run(scene())
