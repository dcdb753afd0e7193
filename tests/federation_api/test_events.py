"""Events and states of rooms, for servers that are in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from homeserver.eventgraph.hashing import event_id_of
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from tests.client import refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.client import Client
    from tests.federation_api.remote import Remote
    from tests.server import Server

V12 = ROOM_VERSIONS["12"]


def ids(pdus: list[dict[str, Any]]) -> list[str]:
    return [event_id_of(V12, pdu) for pdu in pdus]


def bodies(pdus: list[dict[str, Any]]) -> list[str | None]:
    return [pdu["content"].get("body") for pdu in pdus if pdu["type"] == "m.room.message"]


def questions(one: Remote, room: str, event_id: str) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Every question about a room and one of its events."""
    event = quote(event_id, safe="")
    missing = {"latest_events": [event_id], "earliest_events": []}
    return {
        "event": lambda: one.get(f"/event/{event}"),
        "state": lambda: one.get(f"/state/{room}", event_id=event_id),
        "state_ids": lambda: one.get(f"/state_ids/{room}", event_id=event_id),
        "event_auth": lambda: one.get(f"/event_auth/{room}/{event}"),
        "backfill": lambda: one.get(f"/backfill/{room}", v=event_id, limit=5),
        "missing_events": lambda: one.post(f"/get_missing_events/{room}", missing),
        "timestamp": lambda: one.get(f"/timestamp_to_event/{room}", ts=0, dir="f"),
    }


async def test_an_event_comes_as_it_was_signed(alice: Client, one: Remote, room: str) -> None:
    event_id = await alice.send(room, "hello")
    pdu = await one.event(event_id)
    assert event_id_of(V12, pdu) == event_id
    assert pdu["content"]["body"] == "hello"
    assert "example.org" in pdu["signatures"]
    assert "unsigned" not in pdu


async def test_the_state_before_an_event_and_what_it_rests_on(alice: Client, one: Remote, room: str) -> None:
    before = {event["event_id"] for event in await alice.get(f"/rooms/{room}/state")}
    topic = await alice.set_state(room, "m.room.topic", {"topic": "new"})
    after = await alice.send(room, "later")
    answer = await one.get(f"/state/{room}", event_id=topic)
    assert set(ids(answer["pdus"])) == before
    chain = set(ids(answer["auth_chain"]))
    assert {cited for pdu in answer["pdus"] for cited in pdu["auth_events"]} <= chain <= before
    named = await one.get(f"/state_ids/{room}", event_id=topic)
    assert set(named["pdu_ids"]) == before
    assert set(named["auth_chain_ids"]) == chain
    assert topic in (await one.get(f"/state_ids/{room}", event_id=after))["pdu_ids"]


async def test_the_auth_chain_of_an_event(alice: Client, one: Remote, room: str) -> None:
    event_id = await alice.send(room, "hello")
    answer = await one.get(f"/event_auth/{room}/{quote(event_id, safe='')}")
    chain = {event_id_of(V12, pdu): pdu for pdu in answer["auth_chain"]}
    ahead, walked = list((await one.event(event_id))["auth_events"]), set()
    while ahead:
        cited = ahead.pop()
        walked.add(cited)
        ahead += chain[cited]["auth_events"]
    # From version 12 on nobody cites the create event: the room is called after it.
    assert set(chain) == walked | {"$" + room[1:]}


async def test_backfill_goes_back_from_the_events_that_are_named(
    alice: Client, one: Remote, room: str
) -> None:
    sent = [await alice.send(room, f"{number}") for number in range(8)]
    answer = await one.get(f"/backfill/{room}", v=sent[5], limit=4)
    assert answer["origin"] == "example.org"
    assert ids(answer["pdus"]) == sent[5:1:-1]
    whole = await one.get(f"/backfill/{room}", v=[sent[2], sent[7], "$unknown"], limit=1000)
    assert ids(whole["pdus"])[:8] == sent[::-1]
    assert ids(whole["pdus"])[-1] == "$" + room[1:]
    assert (await one.get(f"/backfill/{room}", v=sent[0], limit=0))["pdus"] == []
    with refused(400, "M_MISSING_PARAM"):
        await one.get(f"/backfill/{room}", limit=4)


async def test_missing_events_are_those_between_what_is_known_and_what_came(
    alice: Client, one: Remote, room: str
) -> None:
    sent = [await alice.send(room, f"{number}") for number in range(8)]

    async def between(**changed: Any) -> list[str]:
        question = {"earliest_events": [sent[1]], "latest_events": [sent[6]], "limit": 20, **changed}
        return ids((await one.post(f"/get_missing_events/{room}", question))["events"])

    assert await between() == sent[2:6]
    assert await between(limit=2) == sent[4:6]
    depth = (await one.event(sent[4]))["depth"]
    assert await between(min_depth=depth) == sent[4:6]
    assert await between(latest_events=["$unknown"]) == []
    assert await between(earliest_events=sent) == []
    # A room may have many ends.
    assert await between(earliest_events=[*(f"$end{number}" for number in range(800)), sent[1]]) == sent[2:6]
    with refused(400, "M_BAD_JSON"):
        await between(earliest_events=["$x"] * 1_001)


async def test_a_fork_is_walked_on_both_sides(alice: Client, one: Remote, two: Remote) -> None:
    room = await alice.create_room(preset="public_chat")
    zoe, yan = one.user("zoe"), two.user("yan")
    made = [await one.make("join", room, zoe), await two.make("join", room, yan)]
    joins = [one.event_from(made[0]), two.event_from(made[1])]
    await one.send("join", joins[0])
    await two.send("join", joins[1])
    last = await alice.send(room, "both are here")
    answer = await one.get(f"/backfill/{room}", v=last, limit=3)
    assert ids(answer["pdus"])[0] == last
    assert set(ids(answer["pdus"])[1:]) == {join.event_id for join in joins}


async def test_what_an_event_follows_is_told_before_what_that_follows(
    alice: Client, one: Remote, two: Remote
) -> None:
    """ "a breadth-first walk of the `prev_events`": whoever asks needs these first, however old they are."""
    room = await alice.create_room(preset="public_chat")
    zoe, yan = one.user("zoe"), two.user("yan")
    first = one.event_from(await one.make("join", room, zoe))
    await one.send("join", first)
    late = two.event_from(await two.make("join", room, yan))
    sent = [await alice.send(room, f"{number}") for number in range(12)]
    await two.send("join", late)
    both = await alice.send(room, "follows both")
    question = {"earliest_events": [], "latest_events": [both], "limit": 5}
    told = ids((await one.post(f"/get_missing_events/{room}", question))["events"])
    assert told == [first.event_id, late.event_id, *sent[-3:]]


async def test_the_event_closest_to_a_time(alice: Client, one: Remote, room: str) -> None:
    event_id = await alice.send(room, "hello")
    ts = (await one.event(event_id))["origin_server_ts"]
    path = f"/timestamp_to_event/{room}"
    assert await one.get(path, ts=ts + 1, dir="b") == {"event_id": event_id, "origin_server_ts": ts}
    with refused(404, "M_NOT_FOUND"):
        await one.get(path, ts=ts + 1, dir="f")
    with refused(400, "M_MISSING_PARAM"):
        await one.get(path, ts=ts)
    with refused(400, "M_INVALID_PARAM"):
        await one.get(path, ts="now", dir="f")


# -- who is answered ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", list(questions(None, "", "")))  # type: ignore[arg-type]
async def test_a_server_that_is_not_in_the_room_is_told_nothing(
    alice: Client, one: Remote, two: Remote, room: str, question: str
) -> None:
    event_id = await alice.send(room, "hello")
    await questions(one, room, event_id)[question]()
    with refused(403, "M_FORBIDDEN"):
        await questions(two, room, event_id)[question]()
    await one.become("leave", room, one.user("zoe"))
    with refused(403, "M_FORBIDDEN"):
        await questions(one, room, event_id)[question]()


@pytest.mark.parametrize("question", list(questions(None, "", "")))  # type: ignore[arg-type]
async def test_a_server_that_the_room_denies_access_is_told_nothing(
    alice: Client, one: Remote, room: str, question: str
) -> None:
    event_id = await alice.send(room, "hello")
    await alice.set_state(room, "m.room.server_acl", {"allow": ["*"], "deny": ["*.example"]})
    with refused(403, "M_FORBIDDEN"):
        await questions(one, room, event_id)[question]()


@pytest.mark.parametrize("question", ["state", "state_ids", "event_auth"])
async def test_an_event_of_another_room_is_not_known_in_this_one(
    alice: Client, one: Remote, room: str, question: str
) -> None:
    other = await alice.create_room(preset="private_chat")
    secret = await alice.send(other, "secret")
    with refused(404, "M_NOT_FOUND"):
        await questions(one, room, secret)[question]()
    with refused(404, "M_NOT_FOUND"):
        await questions(one, room, "$unknown")[question]()


async def test_no_walk_leads_into_another_room(alice: Client, one: Remote, room: str) -> None:
    other = await alice.create_room(preset="private_chat")
    secret = [await alice.send(other, f"secret {number}") for number in range(3)]
    assert (await one.get(f"/backfill/{room}", v=secret, limit=5))["pdus"] == []
    question = {"latest_events": secret, "earliest_events": []}
    assert (await one.post(f"/get_missing_events/{room}", question))["events"] == []
    with refused(403, "M_FORBIDDEN"):
        await one.event(secret[0])


# -- what they may see -------------------------------------------------------------------------------------


async def everything(one: Remote, room: str, last: str) -> list[str | None]:
    """The messages of a room as all questions tell them."""
    pdus = (await one.get(f"/backfill/{room}", v=last, limit=100))["pdus"]
    question = {"latest_events": [last], "earliest_events": [], "limit": 100}
    missing = (await one.post(f"/get_missing_events/{room}", question))["events"]
    assert bodies(missing) == bodies(pdus[1:])[::-1]
    for pdu in pdus:
        assert await one.event(event_id_of(V12, pdu)) == pdu
    return bodies(pdus)[::-1]


@pytest.mark.parametrize(
    ("visibility", "seen"),
    [
        ("world_readable", ["before", "invited", "there", "away", "back"]),
        ("shared", ["before", "invited", "there", "away", "back"]),
        ("invited", [None, "invited", "there", None, "back"]),
        ("joined", [None, None, "there", None, "back"]),
    ],
)
async def test_a_server_sees_what_one_of_its_users_may_see_and_of_the_rest_where_it_stands(
    alice: Client, one: Remote, visibility: str, seen: list[str | None]
) -> None:
    setting = {"type": "m.room.history_visibility", "content": {"history_visibility": visibility}}
    room = await alice.create_room(preset="public_chat", initial_state=[{**setting, "state_key": ""}])
    zoe = one.user("zoe")
    await alice.send(room, "before")
    await one.invited_by(alice, room, zoe)
    await alice.send(room, "invited")
    await one.become("join", room, zoe)
    await alice.send(room, "there")
    await one.become("leave", room, zoe)
    await alice.send(room, "away")
    await one.become("join", room, zoe)
    last = await alice.send(room, "back")
    assert await everything(one, room, last) == seen


async def test_the_event_closest_to_a_time_is_one_that_may_be_seen(alice: Client, one: Remote) -> None:
    setting = {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
    room = await alice.create_room(preset="public_chat", initial_state=[{**setting, "state_key": ""}])
    await alice.send(room, "before")
    join = one.event_from(await one.make("join", room, one.user("zoe")))
    await one.send("join", join)
    found = await one.get(f"/timestamp_to_event/{room}", ts=0, dir="f")
    assert found["event_id"] in {join.event_id, "$" + room[1:]}


async def test_what_was_redacted_goes_out_redacted(alice: Client, one: Remote, room: str) -> None:
    event_id = await alice.send(room, "a mistake")
    await alice.redact(room, event_id)
    assert (await one.event(event_id))["content"] == {}


async def test_a_server_that_came_later_gets_nothing_of_who_was_erased(
    alice: Client, bob: Client, one: Remote, two: Remote, room: str
) -> None:
    await bob.join(room)
    event_id = await bob.send(room, "mine")
    auth = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "bob"},
        "password": "secret",
    }
    await bob.post("/account/deactivate", {"auth": auth, "erase": True})
    await two.become("join", room, two.user("yan"))
    assert (await one.event(event_id))["content"]["body"] == "mine"
    assert (await two.event(event_id))["content"] == {}
    last = await alice.send(room, "later")
    assert (await two.get(f"/backfill/{room}", v=last, limit=50))["pdus"][-1]["type"] == "m.room.create"


async def test_an_event_that_the_room_did_not_allow_is_in_no_answer(
    server: Server, alice: Client, one: Remote, room: str
) -> None:
    topic = one.event_from(
        await one.make("leave", room, one.user("zoe")),
        type="m.room.topic",
        state_key="",
        content={"topic": "mine"},
        auth_events=(await one.event(await alice.send(room, "x")))["auth_events"][:1],
    )
    live = await server.application.rooms.live.get(room)  # type: ignore[arg-type]
    await server.application.inbound.events.place(live, topic)
    last = await alice.send(room, "later")
    pdus = (await one.get(f"/backfill/{room}", v=[topic.event_id, last], limit=50))["pdus"]
    assert topic.event_id not in ids(pdus)
    assert last in ids(pdus)
