"""History from before our time, paged in from those who have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from homeserver.ids import server_name_of
from homeserver.services.inbound import backfill
from tests.client import bodies
from tests.eventgraph.rooms import ALICE, BOB, CHARLIE, Room, public_room
from tests.inbound.foreign_rooms import ForeignRoom, Resident

if TYPE_CHECKING:
    from homeserver.ids import RoomId
    from tests.client import Client
    from tests.server import Server


class Sources:
    def __init__(self, resident: Resident) -> None:
        self.resident = resident

    def of_any(self, room_id: RoomId) -> Resident:
        return self.resident


async def arrive(server: Server, room: Room, user: Client) -> tuple[ForeignRoom, Resident]:
    """The user comes into the room by way of a resident, who can be asked from then on."""
    foreign, resident = ForeignRoom(server, room), Resident(room)
    await foreign.arrive(room.join(user.user_id))
    use_as_source(foreign, resident)
    return foreign, resident


def use_as_source(foreign: ForeignRoom, resident: Resident) -> None:
    """Have the server ask a resident for history of a room."""
    asking = foreign.application.inbound.backfill
    asking._filler, asking._sources = foreign.filler, Sources(resident)


async def whole_history(client: Client, room_id: str, **query: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    token = None
    while True:
        page = await client.messages(room_id, **{**query, **({"from": token} if token else {})})
        events += page["chunk"]
        token = page.get("end")
        if token is None:
            return events[::-1]


def talk(room: Room, number: int, sender: str = BOB) -> list[str]:
    for index in range(number):
        room.send("m.room.message", sender, {"body": str(index)})
    return [str(index) for index in range(number)]


@pytest.mark.parametrize(("version", "limit"), [("2", 30), ("11", 30), ("12", 30), ("12", 1_000)])
async def test_all_that_was_said_before_is_paged_in_once_and_in_order(
    version: str, limit: int, server: Server
) -> None:
    alice = await server.register("alice")
    room = public_room(version, BOB)
    said = talk(room, 250)
    await arrive(server, room, alice)
    events = await whole_history(alice, room.room_id, limit=limit)
    assert [event["event_id"] for event in events] == list(room.events)
    assert bodies(events) == said


async def test_nobody_is_told_of_old_events_as_news(server: Server) -> None:
    alice = await server.register("alice")
    room = public_room("11", BOB)
    talk(room, 50)
    await arrive(server, room, alice)
    first = await alice.sync()
    counts = first["rooms"]["join"][room.room_id]["unread_notifications"]
    await whole_history(alice, room.room_id)
    again = await alice.sync(since=first["next_batch"])
    assert "rooms" not in again
    fresh = (await alice.sync())["rooms"]["join"][room.room_id]
    assert fresh["unread_notifications"] == counts
    assert fresh["timeline"]["limited"]


async def test_the_first_timeline_of_a_joined_room_says_that_there_is_more(server: Server) -> None:
    alice = await server.register("alice")
    since = (await alice.sync())["next_batch"]
    room = public_room("11", BOB)
    said = talk(room, 5)
    await arrive(server, room, alice)
    timeline = (await alice.sync(since=since))["rooms"]["join"][room.room_id]["timeline"]
    assert timeline["limited"]
    page = await alice.messages(room.room_id, **{"from": timeline["prev_batch"]})
    assert bodies(page["chunk"]) == said[::-1]


async def test_who_came_later_does_not_see_what_was_for_members_only(server: Server) -> None:
    alice = await server.register("alice")
    room = public_room("11", BOB)
    room.send("m.room.history_visibility", ALICE, {"history_visibility": "joined"}, state_key="")
    talk(room, 5)
    await arrive(server, room, alice)
    assert bodies(await whole_history(alice, room.room_id)) == []


async def test_what_we_missed_while_we_were_there_is_seen(server: Server) -> None:
    alice = await server.register("alice")
    room = public_room("11", BOB)
    room.send("m.room.history_visibility", ALICE, {"history_visibility": "joined"}, state_key="")
    foreign, _ = await arrive(server, room, alice)
    said = talk(room, 5)
    last = room.send("m.room.message", BOB, {"body": "after the gap"})
    await foreign.receive(last, Resident(room, missing_limit=0, backfills=False))
    assert bodies(await whole_history(alice, room.room_id)) == [*said, "after the gap"]


async def test_a_source_that_has_nothing_ends_the_history(server: Server) -> None:
    alice = await server.register("alice")
    room = public_room("11", BOB)
    talk(room, 5)
    _, resident = await arrive(server, room, alice)
    resident.backfills = False
    assert bodies(await whole_history(alice, room.room_id)) == []
    resident.backfills = True
    assert bodies(await whole_history(alice, room.room_id)) == []
    server.clock.offset_ms += 61_000
    assert len(bodies(await whole_history(alice, room.room_id))) == 5


async def test_a_server_sees_of_fetched_history_what_its_users_were_there_for(server: Server) -> None:
    """By the state at the events: when they came, this server was not there to take down who else was."""
    alice = await server.register("alice")
    room = public_room("12", ALICE)
    room.send("m.room.history_visibility", ALICE, {"history_visibility": "joined"}, state_key="")
    talk(room, 2, ALICE)
    room.join(BOB)
    talk(room, 3, ALICE)
    room.set_member(BOB, BOB, "leave")
    talk(room, 2, ALICE)
    room.join(BOB)
    await arrive(server, room, alice)
    assert bodies(await whole_history(alice, room.room_id)) == []
    stored = await server.application.stores.events.load(room.events)
    messages = [one for one in stored.values() if one.event.type == "m.room.message"]
    assert len(messages) == 7
    assert all(one.stream_id < 0 for one in messages)
    visibility = server.application.resident.graph._visibility

    async def shown(user_id: str) -> list[bool]:
        hidden = await visibility.hidden(server_name_of(user_id), messages)
        return [one.event_nid not in hidden for one in sorted(messages, key=lambda one: one.event.depth)]

    assert await shown(ALICE) == [True] * 7
    assert await shown(BOB) == [False] * 2 + [True] * 3 + [False] * 2


async def test_old_events_may_follow_more_events_than_new_ones_may(server: Server) -> None:
    """ "The response of backfill MUST NOT be validated on these specific restrictions." """
    alice = await server.register("alice")
    room = public_room("12", BOB)
    before = room.newest()
    many = [room.send("m.room.message", BOB, {"body": str(index)}, prev=[before]) for index in range(25)]
    tie = room.send("m.room.message", BOB, {"body": "all of them"}, prev=many)
    assert len(tie.prev_event_ids) == 25
    talk(room, 3)
    foreign, _ = await arrive(server, room, alice)
    said = bodies(await whole_history(alice, room.room_id))
    assert sorted(said) == sorted([*(str(index) for index in range(25)), "all of them", "0", "1", "2"])
    # A new one may not.
    wide = room.send("m.room.message", BOB, {"body": "too wide"}, prev=many)
    assert foreign.outliers.read(room.version, room.room_id, [wide.pdu]) == {}


async def test_what_was_fetched_is_between_two_syncs_only_if_it_was_missed_between_them(
    server: Server,
) -> None:
    alice = await server.register("alice")
    room = public_room("11", BOB)
    before = talk(room, 30)
    foreign, resident = await arrive(server, room, alice)
    first = (await alice.sync())["next_batch"]
    assert bodies(await whole_history(alice, room.room_id)) == before
    missed = talk(room, 30)
    last = room.send("m.room.message", BOB, {"body": "after the gap"})
    await foreign.receive(last, Resident(room, missing_limit=0, backfills=False))
    second = (await alice.sync())["next_batch"]
    later = room.send("m.room.message", BOB, {"body": "later"})
    await foreign.receive(later, resident)
    for _ in range(2):
        assert bodies(await whole_history(alice, room.room_id, to=second)) == ["later"]
        since_first = await whole_history(alice, room.room_id, to=first, limit=20)
        assert bodies(since_first) == [*missed, "after the gap", "later"]
    assert bodies(await whole_history(alice, room.room_id)) == [*before, *missed, "after the gap", "later"]


async def test_a_client_that_was_there_is_told_of_a_gap_also_once_it_is_filled(server: Server) -> None:
    alice = await server.register("alice")
    room = public_room("11", BOB)
    foreign, resident = await arrive(server, room, alice)
    since = (await alice.sync())["next_batch"]
    before = talk(room, 3)
    await foreign.receive(room.newest(), resident)
    missed = talk(room, 30)
    topic = room.set_topic(ALICE, "in the gap")
    last = room.send("m.room.message", BOB, {"body": "after the gap"})
    await foreign.receive(last, Resident(room, missing_limit=0, backfills=False))
    for _ in range(2):
        answer = await alice.sync(since=since)
        section = answer["rooms"]["join"][room.room_id]
        assert [event["event_id"] for event in section["state"]["events"]] == [topic.event_id]
        timeline = section["timeline"]
        assert bodies(timeline["events"]) == ["after the gap"]
        assert timeline["limited"]
        gap = await whole_history(alice, room.room_id, **{"from": timeline["prev_batch"], "to": since})
        assert bodies(gap) == [*before, *missed]
    # Whoever knows the end of the gap is told of none.
    later = room.send("m.room.message", BOB, {"body": "later"})
    await foreign.receive(later, resident)
    timeline = (await alice.sync(since=answer["next_batch"]))["rooms"]["join"][room.room_id]["timeline"]
    assert bodies(timeline["events"]) == ["later"]
    assert not timeline["limited"]


async def test_what_was_missed_of_a_fork_is_between_two_syncs_however_deep_the_room_was(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others had said less than we had: what they said stands before the end of the room as it was here."""
    monkeypatch.setattr(backfill, "_PAGE", 3)
    alice = await server.register("alice")
    room = public_room("11", BOB, CHARLIE)
    before = talk(room, 3)
    foreign, _ = await arrive(server, room, alice)
    fork = room.newest()
    for number in range(20):
        await foreign.take(room.send("m.room.message", BOB, {"body": f"here {number}"}))
    here = room.newest()
    since = (await alice.sync())["next_batch"]
    missed = [room.send("m.room.message", CHARLIE, {"body": "missed 0"}, prev=[fork])]
    missed += [room.send("m.room.message", CHARLIE, {"body": f"missed {number}"}) for number in range(1, 8)]
    last = room.send("m.room.message", CHARLIE, {"body": "after the gap"}, prev=[missed[-1], here])
    await foreign.receive(last, Resident(room, missing_limit=0, backfills=False))
    assert bodies(await whole_history(alice, room.room_id))[:3] == before
    answer = await alice.sync(since=since)
    for _ in range(2):
        timeline = answer["rooms"]["join"][room.room_id]["timeline"]
        assert bodies(timeline["events"]) == ["after the gap"]
        assert timeline["limited"]
        gap = await whole_history(alice, room.room_id, **{"from": timeline["prev_batch"], "to": since})
        assert bodies(gap) == [event.content["body"] for event in missed]
        answer = await alice.sync(since=since)
    # Whoever knows the end of the gap misses nothing.
    later = room.send("m.room.message", BOB, {"body": "later"})
    await foreign.receive(later, Resident(room))
    assert bodies(await whole_history(alice, room.room_id, to=answer["next_batch"])) == ["later"]


async def test_history_does_not_end_at_an_event_that_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "_PAGE", 1)
    alice = await server.register("alice")
    room = public_room("11", BOB)
    said = talk(room, 2)
    refused = room.set_topic(BOB, "not for Bob to say")
    assert refused.rejected
    for body in ("after it", "and after that"):
        said.append(body)
        room.send("m.room.message", BOB, {"body": body}, prev=[refused] if body == "after it" else None)
    _, resident = await arrive(server, room, alice)
    refused.rejected = False
    assert bodies(await whole_history(alice, room.room_id, limit=1)) == said
    # Now all is here, and nobody is asked any more.
    asked = len(resident.asked)
    server.clock.offset_ms += 61_000
    assert bodies(await whole_history(alice, room.room_id, limit=1)) == said
    assert len(resident.asked) == asked
