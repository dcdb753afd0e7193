"""Paging through a room, looking around an event, finding one by time (CS "Getting events for a room")."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeserver.eventgraph.event import Event
from homeserver.ids import EventId
from homeserver.storage.stored_event import EventRow
from tests.client import Client, bodies, refused

if TYPE_CHECKING:
    from homeserver.storage.database import Transaction
    from tests.server import Server

V1 = "/_matrix/client/v1"


def ids(events: list[dict[str, Any]]) -> list[str]:
    return [event["event_id"] for event in events]


async def walk(
    client: Client,
    room_id: str,
    direction: str,
    limit: int,
    start: str | None,
    stop: str | None,
    **query: Any,
) -> tuple[list[str], list[tuple[str, int]]]:
    """All pages from a token to another; the events' ids, and each `end` with the number of events before it."""
    walked: list[str] = []
    ends: list[tuple[str, int]] = []
    while True:
        page = await client.messages(
            room_id, dir=direction, limit=limit, **{"from": start, "to": stop}, **query
        )
        assert page["start"] == (start or page["start"])
        walked += ids(page["chunk"])
        start = page.get("end")
        if start is None:
            return walked, ends
        assert len(ends) < 100
        ends.append((start, len(walked)))


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(1, 4)),
        st.tuples(st.just("topic"), st.just(1)),
        st.tuples(st.just("redact"), st.just(1)),
        st.tuples(st.just("sync"), st.integers(1, 5)),
    ),
    min_size=4,
    max_size=14,
)


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(actions=ACTIONS, data=st.data())
async def test_every_token_is_a_gap_from_which_both_directions_lead_on(
    alice: Client, actions: list[tuple[str, int]], data: st.DataObject
) -> None:
    room_id = await alice.create_room()
    timeline = ids((await alice.messages(room_id, dir="f"))["chunk"])
    gaps: list[tuple[str, int]] = []
    since = None
    for number, (deed, count) in enumerate(actions):
        if deed == "say":
            timeline += [await alice.send(room_id, f"{number} {index}") for index in range(count)]
        elif deed == "topic":
            timeline.append(await alice.set_state(room_id, "m.room.topic", {"topic": f"{number}"}))
        elif deed == "redact":
            timeline.append(await alice.redact(room_id, timeline[-1]))
        else:
            answer = await alice.sync(
                since if count % 2 else None, filter={"room": {"timeline": {"limit": count}}}
            )
            since = answer["next_batch"]
            gaps.append((since, len(timeline)))
            section = answer.get("rooms", {}).get("join", {}).get(room_id, {}).get("timeline", {})
            if section.get("events"):
                gaps.append((section["prev_batch"], timeline.index(section["events"][0]["event_id"])))
    gaps.append(((await alice.sync())["next_batch"], len(timeline)))
    limit = data.draw(st.integers(1, 6), "limit")
    backwards, ends = await walk(alice, room_id, "b", limit, None, None)
    assert backwards == timeline[::-1]
    gaps += [(token, len(timeline) - walked) for token, walked in ends]
    forwards, ends = await walk(alice, room_id, "f", limit, None, None)
    assert forwards == timeline
    gaps += ends
    for _ in range(6):
        start, stop = data.draw(st.sampled_from(gaps)), data.draw(st.sampled_from(gaps))
        limit = data.draw(st.integers(1, 6), "limit")
        between, _ = await walk(alice, room_id, "b", limit, start[0], stop[0])
        assert between == timeline[stop[1] : start[1]][::-1]
        between, _ = await walk(alice, room_id, "f", limit, start[0], stop[0])
        assert between == timeline[start[1] : stop[1]]
        before, _ = await walk(alice, room_id, "b", limit, start[0], None)
        after, _ = await walk(alice, room_id, "f", limit, start[0], None)
        assert before[::-1] + after == timeline


async def test_a_page_ends_where_the_room_begins_and_where_it_ends(alice: Client) -> None:
    room_id = await alice.create_room()
    count = len((await alice.messages(room_id))["chunk"])
    for direction in ("b", "f"):
        assert "end" not in await alice.messages(room_id, dir=direction, limit=count)
        assert "end" in await alice.messages(room_id, dir=direction, limit=count - 1)
    page = await alice.messages(room_id, limit=0)
    assert page["chunk"] == []
    assert (await alice.messages(room_id, **{"from": page["end"]}))["chunk"]


async def arrive_late(server: Server, event_id: str, depth: int) -> str:
    """A message like another one, from an older part of the room, as another server may send it at any time."""
    events = server.application.stores.events
    stored = await events.get(event_id)  # type: ignore[arg-type]
    assert stored is not None
    event = stored.event
    late = Event.from_json(
        event.version, {**event.pdu, "depth": depth}, event_id=EventId(f"$late{depth}{event_id[1:]}")
    )

    async def work(transaction: Transaction) -> None:
        event_nid = await transaction.next_position()
        row = EventRow(
            event=late,
            event_nid=event_nid,
            room_nid=stored.room_nid,
            sender_nid=1,
            notifies=False,
            thread_root=None,
            state_after=stored.state_after,
            state_before=stored.state_before,
            replaces_state=None,
            device_id=None,
            transaction_id=None,
            stream_id=event_nid,
        )
        await events.insert(transaction, [row])

    await server.application.database.write(work)
    return late.event_id


async def test_what_arrives_late_is_paged_in_its_place_and_closes_gaps(server: Server, alice: Client) -> None:
    room_id = await alice.create_room()
    sent = [await alice.send(room_id, f"{number}") for number in range(6)]
    depth = (await server.application.stores.events.get(sent[-1])).event.depth  # type: ignore[union-attr]
    since = (await alice.sync())["next_batch"]
    late = await arrive_late(server, sent[0], depth - 3)
    middle = (await alice.sync())["next_batch"]
    sent.append(await alice.send(room_id, "6"))
    # It arrived last before `middle`, and stands behind others that came before it.
    expected = [*sent[:3], late, *sent[3:6]]
    before, _ = await walk(alice, room_id, "b", 3, middle, None)
    assert before[: len(expected)] == expected[::-1]
    everything, _ = await walk(alice, room_id, "b", 3, None, None)
    assert everything[: len(expected) + 1] == [*expected, sent[6]][::-1]
    for limit in (1, 2, 10):
        between, _ = await walk(alice, room_id, "b", limit, None, since)
        assert between == [sent[6], late]


async def test_ten_events_are_a_page_where_no_limit_is_given(alice: Client) -> None:
    room_id = await alice.create_room()
    sent = [await alice.send(room_id, f"{number}") for number in range(12)]
    page = await alice.messages(room_id, limit=None)
    assert ids(page["chunk"]) == sent[:1:-1]
    assert ids((await alice.messages(room_id, limit=10**9))["chunk"])[:12] == sent[::-1]


async def test_backward_pages_do_not_shift_while_others_write(alice: Client) -> None:
    room_id = await alice.create_room()
    sent = [await alice.send(room_id, f"{number}") for number in range(9)]
    page = await alice.messages(room_id, limit=4)
    await alice.send(room_id, "new")
    page = await alice.messages(room_id, limit=4, **{"from": page["end"]})
    assert ids(page["chunk"]) == sent[1:5][::-1]


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ({"dir": None}, "M_MISSING_PARAM"),
        ({"dir": "x"}, "M_INVALID_PARAM"),
        ({"limit": "many"}, "M_INVALID_PARAM"),
        ({"limit": -1}, "M_INVALID_PARAM"),
        ({"from": "nonsense"}, "M_INVALID_PARAM"),
        ({"from": "p" + "A" * 48}, "M_INVALID_PARAM"),
        ({"to": "s" + "A" * 48}, "M_INVALID_PARAM"),
        ({"filter": "{"}, "M_INVALID_PARAM"),
        ({"filter": "[]"}, "M_INVALID_PARAM"),
        ({"filter": '{"types": 1}'}, "M_BAD_JSON"),
    ],
)
async def test_pages_that_cannot_be_asked_for(alice: Client, query: dict[str, Any], errcode: str) -> None:
    room_id = await alice.create_room()
    with refused(400, errcode):
        await alice.messages(room_id, **query)


@pytest.mark.parametrize("room", ["!unknown:example.org", "nonsense"])
async def test_there_is_nothing_to_read_in_an_unknown_room(alice: Client, room: str) -> None:
    for path in (f"/rooms/{room}/event/$a", f"/rooms/{room}/context/$a", f"{V1}/rooms/{room}/relations/$a"):
        with refused(404, "M_NOT_FOUND"):
            await alice.get(path)
    for path in ("messages?dir=b", "state", "members", "joined_members"):
        with refused(403, "M_FORBIDDEN"):
            await alice.get(f"/rooms/{room}/{path}")
    for path in ("timestamp_to_event?ts=0&dir=f", "threads"):
        with refused(403, "M_FORBIDDEN"):
            await alice.get(f"{V1}/rooms/{room}/{path}")


async def test_filtered_pages_hold_all_that_passes(server: Server, alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    wanted = []
    for number in range(40):
        sender = bob if number % 5 == 0 else alice
        event_id = await sender.send(
            room_id, {"n": number, **({"url": "mxc://a/b"} if number % 10 == 0 else {})}, "a.b"
        )
        if number % 5 == 0:
            wanted.append(event_id)
    for filter_, expected in (
        ({"senders": [bob.user_id], "types": ["a.*"]}, wanted),
        ({"not_senders": [alice.user_id], "not_types": ["m.*"]}, wanted),
        ({"contains_url": True}, wanted[::2]),
        ({"senders": []}, []),
        ({"not_rooms": [room_id]}, []),
        ({"rooms": [room_id], "senders": [bob.user_id], "types": ["a.b"]}, wanted),
    ):
        found, _ = await walk(alice, room_id, "b", 3, None, None, filter=json.dumps(filter_))
        assert found == expected[::-1]
        found, _ = await walk(alice, room_id, "f", 3, None, None, filter=json.dumps(filter_))
        assert found == expected


async def test_lazily_loaded_members_are_those_who_speak(server: Server, alice: Client, bob: Client) -> None:
    carol = await server.register("carol")
    room_id = await alice.create_room(preset="public_chat")
    for client in (bob, carol):
        await client.join(room_id)
    for client in (alice, bob, alice):
        await client.send(room_id, "hello")
    await carol.send(room_id, "last")
    lazy = json.dumps({"lazy_load_members": True})
    page = await alice.messages(room_id, limit=3, filter=lazy)
    assert {event["state_key"] for event in page["state"]} == {alice.user_id, bob.user_id, carol.user_id}
    page = await alice.messages(room_id, limit=3, filter=lazy, **{"from": page["end"]})
    assert {event["state_key"] for event in page["state"]} == {alice.user_id, bob.user_id, carol.user_id}
    page = await alice.messages(room_id, limit=1, filter=lazy)
    assert [event["state_key"] for event in page["state"]] == [carol.user_id]
    assert "state" not in await alice.messages(room_id, limit=1)


# -- around an event -----------------------------------------------------------------------------------


async def test_the_context_of_an_event_joins_with_pages_on_both_sides(alice: Client) -> None:
    room_id = await alice.create_room()
    timeline = ids((await alice.messages(room_id, dir="f"))["chunk"])
    timeline += [await alice.send(room_id, f"{number}") for number in range(12)]
    for index in (0, 5, len(timeline) - 1):
        for limit in (None, 0, 1, 4, 7, 100):
            context = await alice.get(f"/rooms/{room_id}/context/{quote(timeline[index])}", limit=limit)
            assert context["event"]["event_id"] == timeline[index]
            before, after = ids(context["events_before"])[::-1], ids(context["events_after"])
            assert len(before) + len(after) <= (10 if limit is None else limit)
            assert timeline[index - len(before) : index] == before
            assert timeline[index + 1 : index + 1 + len(after)] == after
            earlier, _ = await walk(alice, room_id, "b", 5, context["start"], None)
            later, _ = await walk(alice, room_id, "f", 5, context["end"], None)
            assert earlier[::-1] + before + [timeline[index]] + after + later == timeline


async def test_the_state_of_a_context_is_that_of_its_last_event(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat", topic="one")
    await bob.join(room_id)
    event_id = await alice.send(room_id, "hello")
    await alice.set_state(room_id, "m.room.topic", {"topic": "two"})
    await alice.set_state(room_id, "m.room.topic", {"topic": "three"})
    path = f"/rooms/{room_id}/context/{quote(event_id)}"

    def state_of(context: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
        return {(event["type"], event["state_key"]): event["content"] for event in context["state"]}

    assert state_of(await alice.get(path, limit=0))["m.room.topic", ""]["topic"] == "one"
    assert state_of(await alice.get(path, limit=2))["m.room.topic", ""]["topic"] == "two"
    whole = state_of(await alice.get(path, limit=10))
    assert whole["m.room.topic", ""]["topic"] == "three"
    assert ("m.room.member", bob.user_id) in whole
    lazy = state_of(await alice.get(path, limit=2, filter=json.dumps({"lazy_load_members": True})))
    assert ("m.room.member", alice.user_id) in lazy
    assert ("m.room.create", "") in lazy
    filtered = await alice.get(path, limit=10, filter=json.dumps({"types": ["m.room.topic"]}))
    assert list(state_of(filtered)) == [("m.room.topic", "")]
    assert {event["type"] for event in filtered["events_after"]} == {"m.room.topic"}
    assert filtered["event"]["type"] == "m.room.message"


async def test_an_unknown_event_is_not_found(alice: Client) -> None:
    room_id, other = await alice.create_room(), await alice.create_room()
    elsewhere = await alice.send(other, "hello")
    for event_id in ("$unknown", "unknown", elsewhere):
        for path in (
            f"/rooms/{room_id}/event/{quote(event_id)}",
            f"/rooms/{room_id}/context/{quote(event_id)}",
            f"{V1}/rooms/{room_id}/relations/{quote(event_id)}",
        ):
            with refused(404, "M_NOT_FOUND"):
                await alice.get(path)


# -- by time -------------------------------------------------------------------------------------------


async def test_the_closest_event_in_a_direction_is_found(server: Server, alice: Client) -> None:
    room_id = await alice.create_room()
    times = []
    for number in range(4):
        server.clock.offset_ms += 60_000
        event = await alice.event(room_id, await alice.send(room_id, f"{number}"))
        times.append((event["origin_server_ts"], event["event_id"]))
    path = f"{V1}/rooms/{room_id}/timestamp_to_event"
    for ts, event_id in times:
        for direction, offset in (("f", 0), ("b", 0), ("f", -1_000), ("b", 1_000)):
            found = await alice.get(path, ts=ts + offset, dir=direction)
            assert found == {"event_id": event_id, "origin_server_ts": ts}
    with refused(404, "M_NOT_FOUND"):
        await alice.get(path, ts=times[-1][0] + 1, dir="f")
    with refused(404, "M_NOT_FOUND"):
        await alice.get(path, ts=0, dir="b")
    first = (await alice.messages(room_id, dir="f", limit=1))["chunk"][0]
    assert (await alice.get(path, ts=0, dir="f"))["event_id"] == first["event_id"]


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ({"dir": "f"}, "M_MISSING_PARAM"),
        ({"ts": 0}, "M_MISSING_PARAM"),
        ({"ts": 0, "dir": "x"}, "M_INVALID_PARAM"),
        ({"ts": "now", "dir": "f"}, "M_INVALID_PARAM"),
    ],
)
async def test_times_that_are_none(alice: Client, query: dict[str, Any], errcode: str) -> None:
    room_id = await alice.create_room()
    with refused(400, errcode):
        await alice.get(f"{V1}/rooms/{room_id}/timestamp_to_event", **query)


# -- what an event tells its reader --------------------------------------------------------------------


async def test_every_endpoint_tells_the_sending_device_its_transaction_id(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    root = await alice.send(room_id, "root", transaction_id="r")
    relates_to = {"rel_type": "m.thread", "event_id": root}
    reply = await alice.send(room_id, {"body": "b", "m.relates_to": relates_to}, transaction_id="t")
    phone = await server.login(alice)

    async def told(client: Client) -> list[str | None]:
        context = await client.get(f"/rooms/{room_id}/context/{quote(root)}", limit=2)
        thread = (await client.get(f"{V1}/rooms/{room_id}/threads"))["chunk"][0]
        events = [
            await client.event(room_id, reply),
            (await client.messages(room_id))["chunk"][0],
            context["events_after"][0],
            (await client.get(f"{V1}/rooms/{room_id}/relations/{quote(root)}"))["chunk"][0],
            thread["unsigned"]["m.relations"]["m.thread"]["latest_event"],
        ]
        assert [event["event_id"] for event in events] == [reply] * 5
        assert thread["unsigned"].get("transaction_id") == context["event"]["unsigned"].get("transaction_id")
        return [event["unsigned"].get("transaction_id") for event in events]

    assert await told(alice) == ["t"] * 5
    assert await told(phone) == [None] * 5
    assert await told(bob) == [None] * 5
    await server.restart()
    assert await told(server.reconnect(alice)) == ["t"] * 5
    assert await told(server.reconnect(phone)) == [None] * 5


async def test_the_age_of_an_event_is_that_of_the_answer(server: Server, alice: Client) -> None:
    room_id = await alice.create_room()
    event_id = await alice.send(room_id, "hello")
    assert (await alice.event(room_id, event_id))["unsigned"]["age"] < 60_000
    server.clock.offset_ms += 3_600_000
    ages = [
        (await alice.event(room_id, event_id))["unsigned"]["age"],
        (await alice.messages(room_id))["chunk"][0]["unsigned"]["age"],
    ]
    assert all(3_600_000 <= age < 3_660_000 for age in ages)


# -- members -------------------------------------------------------------------------------------------


async def test_members_by_membership(server: Server, alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    others = [await server.register(name) for name in ("carol", "dora", "eve")]
    carol, dora, eve = others
    await alice.invite(room_id, bob.user_id)
    await alice.ban(room_id, carol.user_id)
    await dora.join(room_id)
    await dora.leave(room_id)
    await eve.join(room_id)

    async def names(**query: Any) -> set[str]:
        chunk = (await alice.get(f"/rooms/{room_id}/members", **query))["chunk"]
        assert {event["type"] for event in chunk} <= {"m.room.member"}
        return {event["state_key"][1:].partition(":")[0] for event in chunk}

    assert await names() == {"alice", "bob", "carol", "dora", "eve"}
    assert await names(membership="join") == {"alice", "eve"}
    assert await names(membership="ban") == {"carol"}
    assert await names(membership="knock") == set()
    assert await names(not_membership="leave") == {"alice", "bob", "carol", "eve"}
    # "... the two parameters create an 'or' condition."
    assert await names(membership="ban", not_membership="join") == {"bob", "carol", "dora"}
    assert await names(membership="join", not_membership="leave") == {"alice", "bob", "carol", "eve"}
    with refused(400, "M_INVALID_PARAM"):
        await names(membership="away")
    joined = (await alice.get(f"/rooms/{room_id}/joined_members"))["joined"]
    assert joined == {alice.user_id: {"display_name": "alice"}, eve.user_id: {"display_name": "eve"}}


async def test_members_at_a_token(server: Server, alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    tokens = []
    users = [bob, *[await server.register(f"user{number}") for number in range(3)]]
    for user in users:
        tokens.append((await alice.sync())["next_batch"])
        await user.join(room_id)
        await alice.send(room_id, "welcome")

    async def count(at: str) -> int:
        chunk = (await alice.get(f"/rooms/{room_id}/members", at=at, membership="join"))["chunk"]
        return len(chunk)

    assert [await count(token) for token in tokens] == [1, 2, 3, 4]
    limited = await alice.sync(tokens[0], filter={"room": {"timeline": {"limit": 3}}})
    # Left out: a join, a welcome, a join, a welcome, a join.
    assert await count(limited["rooms"]["join"][room_id]["timeline"]["prev_batch"]) == 4
    page = await alice.messages(room_id, limit=5)
    assert await count(page["end"]) == 3
    with refused(400, "M_INVALID_PARAM"):
        await count("nonsense")


async def test_reading_survives_a_restart(server: Server, alice: Client) -> None:
    room_id = await alice.create_room()
    for number in range(5):
        await alice.send(room_id, f"{number}")
    page = await alice.messages(room_id, limit=2)
    await server.restart()
    alice = server.reconnect(alice)
    page = await alice.messages(room_id, limit=2, **{"from": page["end"]})
    assert bodies(page["chunk"]) == ["2", "1"]
