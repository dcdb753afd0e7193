"""Events whose predecessors never came: fetched, or stepped over with the state at the near end of the gap."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.ids import UserId
from homeserver.services.inbound import gaps
from homeserver.services.inbound.events import Unplaceable
from homeserver.services.inbound.sources import SourceFailed, SourceRefused, SourceUnreachable
from homeserver.storage.stored_event import Status
from tests.client import bodies
from tests.eventgraph.random_rooms import RandomRoom
from tests.eventgraph.rooms import ALICE, BOB, CHARLIE, Room, member, public_room
from tests.inbound.foreign_rooms import ForeignRoom, Resident
from tests.inbound.test_backfill import use_as_source, whole_history

if TYPE_CHECKING:
    from homeserver.eventgraph.event import Event
    from homeserver.ids import EventId
    from tests.server import Server


async def timeline(foreign: ForeignRoom) -> list[EventId]:
    """The events that the server shows, in order of arrival."""
    database = foreign.application.database
    rows = await database.fetch_all("SELECT event_id FROM events WHERE status = 0 ORDER BY stream_id")
    return [row[0] for row in rows]


async def arrived(server: Server, room: Room) -> ForeignRoom:
    foreign = ForeignRoom(server, room)
    await foreign.arrive(room.newest())
    return foreign


async def test_missing_events_are_fetched_and_shown_in_order(server: Server) -> None:
    room = public_room("11", BOB)
    foreign = await arrived(server, room)
    before = await timeline(foreign)
    sent = [room.send("m.room.message", ALICE, {"body": str(number)}) for number in range(45)]
    assert await foreign.receive(sent[-1], Resident(room)) is Status.TIMELINE
    assert await timeline(foreign) == [*before, *(event.event_id for event in sent)]
    assert await foreign.extremities() == [sent[-1].event_id]


async def test_missing_events_that_their_sender_does_not_give_come_from_others(server: Server) -> None:
    """As where the sender has gone away meanwhile, and others have heard of them."""
    room = public_room("11", BOB)
    foreign = await arrived(server, room)
    before = await timeline(foreign)
    sent = [room.send("m.room.message", ALICE, {"body": str(number)}) for number in range(5)]

    class Away(Resident):
        async def missing_events(self, *_: Any, **__: Any) -> list[Any]:
            raise SourceFailed

    assert await foreign.receive(sent[-1], Away(room)) is Status.TIMELINE
    assert await timeline(foreign) == [*before, *(event.event_id for event in sent)]


async def test_a_gap_that_nobody_fills_is_stepped_over_with_the_state_at_its_end(server: Server) -> None:
    room = public_room("11", BOB)
    foreign = await arrived(server, room)
    before = await timeline(foreign)
    room.set_topic(ALICE, "in the gap")
    for number in range(15):
        room.send("m.room.message", ALICE, {"body": str(number)})
    last = room.send("m.room.message", BOB, {"body": "after the gap"})
    assert await foreign.receive(last, Resident(room, missing_limit=0, backfills=False)) is Status.TIMELINE
    assert await timeline(foreign) == [*before, last.event_id]
    assert await foreign.current_state() == room.state_after[last.event_id]


async def test_a_jump_of_hundreds_of_events_is_walked_back_page_by_page(server: Server) -> None:
    room = public_room("11", BOB)
    foreign, resident = await arrived(server, room), Resident(room)
    before = await timeline(foreign)
    sent = [room.send("m.room.message", ALICE, {"body": str(number)}) for number in range(320)]
    assert await foreign.receive(sent[-1], resident) is Status.TIMELINE
    assert await timeline(foreign) == [*before, *(event.event_id for event in sent)]
    assert resident.asked == ["missing_events", *["backfill"] * 4]


class Slow(Resident):
    """Takes its time for every page."""

    server: Server

    async def backfill(self, *args, **kwargs):
        self.server.clock.offset_ms += 25_000
        return await super().backfill(*args, **kwargs)


@pytest.mark.parametrize(
    ("bound", "most", "missing"),
    [
        ("events", 200, 500),
        ("time", 309, 500),
        pytest.param("events", 2_000, 2_600, marks=pytest.mark.soak),
    ],
)
async def test_a_walk_back_ends_at_its_bounds_and_the_rest_is_paged_in(
    bound: str, most: int, missing: int, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await server.register("alice")
    room = public_room("11", BOB)
    foreign, resident = ForeignRoom(server, room), Slow(room)
    await foreign.arrive(room.join(alice.user_id))
    resident.server = server
    if bound == "events":
        monkeypatch.setattr(gaps, "_MAX_EVENTS", most)
        monkeypatch.setattr(gaps, "_MAX_SECONDS", 10_000)
    since = (await alice.sync())["next_batch"]
    before = await timeline(foreign)
    room.set_topic(ALICE, "in the gap")
    sent = [room.send("m.room.message", BOB, {"body": str(number)}) for number in range(missing)]
    assert await foreign.receive(sent[-1], resident) is Status.TIMELINE
    # The newest come as news, in order; before them the state is believed.
    walked = [event.event_id for event in sent[-most - 1 :]]
    assert await timeline(foreign) == [*before, *walked]
    assert await foreign.current_state() == room.state_after[sent[-1].event_id]
    assert (await alice.get_state(room.room_id, "m.room.topic"))["topic"] == "in the gap"
    told = (await alice.sync(since=since))["rooms"]["join"][room.room_id]
    assert told["timeline"]["limited"]
    assert bodies(told["timeline"]["events"])[-1] == f"{missing - 1}"
    assert [event["type"] for event in told["state"]["events"]] == ["m.room.topic"]
    # The others come by asking, where they belong.
    use_as_source(foreign, Resident(room))
    history = await whole_history(alice, room.room_id, to=since)
    assert bodies(history) == [str(number) for number in range(missing)]


async def test_what_was_before_our_arrival_is_not_fetched(server: Server) -> None:
    room = public_room("11", BOB)
    fork = room.newest()
    for number in range(5):
        room.send("m.room.message", ALICE, {"body": str(number)})
    other = room.newest()
    room.send("m.room.message", ALICE, {"body": "a fork"}, prev=[fork])
    side = room.newest()
    room.join(CHARLIE, prev=[other])
    foreign = await arrived(server, room)
    before = await timeline(foreign)
    merged = room.send("m.room.message", ALICE, {"body": "merges"}, prev=[room.newest(), side])
    assert await foreign.receive(merged, Resident(room)) is Status.TIMELINE
    assert await timeline(foreign) == [*before, merged.event_id]


async def test_a_state_of_another_room_is_not_believed(server: Server) -> None:
    room, other = public_room("11", BOB), Room("11", name="other")
    other.join(ALICE)
    foreign = await arrived(server, room)
    room.send("m.room.message", ALICE, {"body": "in the gap"})
    last = room.send("m.room.message", ALICE, {"body": "after the gap"})

    class Liar(Resident):
        def _state_before(self, event_id):
            self.room.events.update(other.events)
            return other.state_after[other.newest().event_id]

    with pytest.raises((SourceFailed, Unplaceable)):
        await foreign.receive(last, Liar(room, missing_limit=0, backfills=False))
    assert last.event_id not in await timeline(foreign)


async def test_a_state_that_leaves_out_a_ban_does_not_undo_it(server: Server) -> None:
    """What a server says of the state before an event is resolved against what is known."""
    room = public_room("11", BOB, CHARLIE, users={CHARLIE: 50})
    foreign = await arrived(server, room)
    fork = room.newest()
    ban = room.set_member(CHARLIE, BOB, "ban")
    await foreign.take(ban)
    gap = room.send("m.room.message", ALICE, {"body": "in the gap"}, prev=[fork])
    last = room.send("m.room.message", ALICE, {"body": "follows both"}, prev=[gap, ban])
    assert await foreign.receive(last, Resident(room, missing_limit=0, backfills=False)) is Status.TIMELINE
    assert (await foreign.current_state())[member(BOB)] == ban.event_id


class Silent(Resident):
    """Tells nothing, whatever it is asked."""

    why: type[SourceFailed] = SourceRefused

    async def _tell_nothing(self, *_: Any, **__: Any) -> Any:
        raise self.why

    missing_events = backfill = state_ids = event_auth = event = state = _tell_nothing


async def put_out_while_away(server: Server, membership: str) -> tuple[ForeignRoom, UserId, Event, Event]:
    """A user of ours is in a room and is put out of it, after something that does not come here."""
    client = await server.register("mina")
    room = public_room("11", BOB)
    foreign = ForeignRoom(server, room)
    await foreign.arrive(room.join(client.user_id))
    missing = room.set_topic(ALICE, "missing")
    return foreign, UserId(client.user_id), missing, room.set_member(ALICE, client.user_id, membership)


@pytest.mark.parametrize("membership", ["leave", "ban"])
async def test_whoever_was_put_out_while_this_server_was_away_is_out(server: Server, membership: str) -> None:
    """Nobody tells this server any more what went before."""
    foreign, user_id, _, put_out = await put_out_while_away(server, membership)
    assert await foreign.receive(put_out, Silent(foreign.room)) is Status.TIMELINE
    assert (await foreign.current_state())[member(user_id)] == put_out.event_id
    row = await server.application.rooms.reader.membership(foreign.room.room_id, user_id)
    assert row is not None
    assert row.membership == membership


async def test_whoever_may_not_put_anybody_out_does_not(server: Server) -> None:
    foreign, user_id, *_ = await put_out_while_away(server, "leave")
    room = foreign.room
    usurped = room.send(
        "m.room.message",
        BOB,
        {"body": "missing"},
        prev=[room.events[one] for one in await foreign.extremities()],
    )
    put_out = room.set_member(BOB, user_id, "leave", prev=[usurped])
    assert await foreign.receive(put_out, Silent(room)) is Status.REJECTED
    assert (await foreign.current_state())[member(user_id)] != put_out.event_id


async def test_as_long_as_others_of_ours_are_in_the_room_nothing_is_guessed(server: Server) -> None:
    """They would build on it."""
    noah = await server.register("noah")
    room = public_room("11", BOB, noah.user_id)
    mina = await server.register("mina")
    foreign = ForeignRoom(server, room)
    await foreign.arrive(room.join(mina.user_id))
    room.set_topic(ALICE, "missing")
    with pytest.raises(SourceRefused):
        await foreign.receive(room.set_member(ALICE, mina.user_id, "leave"), Silent(room))


async def test_of_others_nothing_is_guessed(server: Server) -> None:
    """Nor of ours, as long as somebody may tell what went before."""
    foreign, _, _, put_out = await put_out_while_away(server, "leave")
    topic = foreign.room.set_topic(ALICE, "after something else")
    with pytest.raises(SourceRefused):
        await foreign.receive(topic, Silent(foreign.room))
    unreachable = Silent(foreign.room)
    unreachable.why = SourceUnreachable
    with pytest.raises(SourceUnreachable):
        await foreign.receive(put_out, unreachable)


@pytest.mark.parametrize("version", ["2", "11", "12"])
async def test_random_rooms_of_which_only_a_few_events_come(version: str, server: Server) -> None:
    """Whatever a server is told of, it ends with the state that the resident has."""
    for seed in range(3):
        room = RandomRoom(version, seed, 40, without_effect=True).room
        foreign = ForeignRoom(server, room)
        events = list(room.events.values())
        await foreign.arrive(events[1])
        random = Random(seed)
        for event in events[2:]:
            if random.random() < 0.3 and not event.rejected:
                resident = Resident(room, missing_limit=random.randint(0, 5))
                await foreign.receive(event, resident)
                assert await foreign.state_after(event.event_id) == room.state_after[event.event_id]
        tips = await foreign.extremities()
        assert await foreign.current_state() == room.resolve([room.state_after[tip] for tip in tips])


@pytest.mark.parametrize("late", [True, False])
async def test_a_gap_behind_an_event_that_was_refused_is_one(late: bool, server: Server) -> None:
    """Whoever follows the refused event follows what is missing behind it, too."""
    alice = await server.register("alice")
    room = public_room("11", BOB, CHARLIE)
    foreign = ForeignRoom(server, room)
    await foreign.arrive(room.join(alice.user_id))
    since = (await alice.sync())["next_batch"]
    fork = room.newest()
    ban = room.set_member(ALICE, BOB, "ban")
    missing = room.send("m.room.message", CHARLIE, {"body": "missing"}, prev=[fork])
    refused = room.send("m.room.message", BOB, {"body": "refused"}, prev=[missing])
    last = room.send("m.room.message", CHARLIE, {"body": "after the gap"}, prev=[refused, ban])
    await foreign.take(ban)
    stingy = Resident(room, missing_limit=0, backfills=False)
    assert await foreign.receive(refused, stingy) is Status.SOFT_FAILED
    assert await foreign.receive(last, stingy) is Status.TIMELINE
    use_as_source(foreign, Resident(room))
    timeline = (await alice.sync(since=since))["rooms"]["join"][room.room_id]["timeline"]
    if late:
        # Its own server sends it after all.
        assert await foreign.receive(missing, stingy) is Status.TIMELINE
        assert await foreign.extremities() == [last.event_id]
    else:
        assert timeline["limited"]
        gap = await whole_history(alice, room.room_id, **{"from": timeline["prev_batch"], "to": since})
        assert [event["event_id"] for event in gap] == [missing.event_id, ban.event_id]
    assert bodies(await whole_history(alice, room.room_id)) == ["missing", "after the gap"]
