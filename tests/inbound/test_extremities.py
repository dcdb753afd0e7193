"""However many ends a room has, we can write into it, and tie them together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.services.inbound.extremities import DUMMY, MANY
from homeserver.storage.stored_event import Status
from tests.client import bodies
from tests.eventgraph.rooms import ALICE, BOB, CHARLIE, member, public_room
from tests.inbound.foreign_rooms import ForeignRoom, Resident
from tests.inbound.test_backfill import use_as_source, whole_history

if TYPE_CHECKING:
    from tests.server import Server


async def test_many_ends_are_tied_together_by_an_event_of_ours(server: Server) -> None:
    alice = await server.register("alice")
    room = public_room("11", BOB)
    room.join(alice.user_id)
    foreign = ForeignRoom(server, room)
    await foreign.arrive(room.newest())
    fork = room.newest()
    since = (await alice.sync())["next_batch"]
    for number in range(MANY + 1):
        await foreign.take(room.send("m.room.message", BOB, {"body": str(number)}, prev=[fork]))
    while len(await foreign.extremities()) > 1:
        since = (await alice.sync(since=since, timeout=1_000))["next_batch"]
    (tip,) = await foreign.extremities()
    tied = await server.application.stores.events.get(tip)
    assert tied is not None
    assert (tied.event.type, tied.event.sender) == (DUMMY, alice.user_id)
    assert len(tied.event.prev_event_ids) == MANY + 1


async def test_where_nobody_may_tie_them_we_can_still_write(server: Server) -> None:
    alice = await server.register("alice")
    room = public_room("11", BOB, users={alice.user_id: 0})
    levels = {"users": {"@alice:one.example": 100}, "events": {DUMMY: 100}}
    room.set_levels("@alice:one.example", levels)
    room.join(alice.user_id)
    foreign = ForeignRoom(server, room)
    await foreign.arrive(room.newest())
    fork = room.newest()
    for number in range(30):
        await foreign.take(room.send("m.room.message", BOB, {"body": str(number)}, prev=[fork]))
    assert len(await foreign.extremities()) == 30
    await alice.send(room.room_id, "hello")
    assert len(await foreign.extremities()) == 11
    await alice.send(room.room_id, "hello")
    assert len(await foreign.extremities()) == 1


async def test_what_comes_late_from_before_our_join_counts_once_it_is_tied_in(server: Server) -> None:
    alice = await server.register("alice")
    room = public_room("11", BOB)
    room.join(alice.user_id)
    foreign = ForeignRoom(server, room)
    await foreign.arrive(room.newest())
    known = room.newest()
    # Nobody told us: the join rests on the one, and the other stands beside it. Depth alone does not tell them apart.
    late = room.set_topic(ALICE, "late", prev=[known])
    beside = room.set_topic(ALICE, "beside", prev=[known])
    room.set_member(ALICE, alice.user_id, "leave", prev=[late])
    room.set_topic(ALICE, "newer")
    joined = room.join(alice.user_id)
    await foreign.arrive(joined)
    for event in (late, beside):
        assert await foreign.take(event) is Status.TIMELINE
        assert await foreign.extremities() == [joined.event_id]
        assert await foreign.current_state() == room.state_after[joined.event_id]
    tie = room.send("m.room.message", BOB, {"body": "tie"}, prev=[joined, beside])
    assert await foreign.take(tie) is Status.TIMELINE
    assert await foreign.extremities() == [tie.event_id]
    assert await foreign.current_state() == room.state_after[tie.event_id]


async def test_a_depth_that_a_server_makes_up_takes_nothing_from_what_others_build_on_it(
    server: Server,
) -> None:
    """A depth is what a server says: one that says little has all others say little, too."""
    alice = await server.register("alice")
    room = public_room("11", BOB, CHARLIE)
    for number in range(5):
        room.send("m.room.message", BOB, {"body": str(number)})
    foreign = ForeignRoom(server, room)
    await foreign.arrive(room.join(alice.user_id))
    low = room.send("m.room.message", BOB, {"body": "low"}, depth=1)
    said = room.send("m.room.message", CHARLIE, {"body": "not so fast"}, prev=[low])
    ban = room.set_member(ALICE, BOB, "ban", prev=[low])
    for event in (low, said, ban):
        assert await foreign.take(event) is Status.TIMELINE
    assert await foreign.extremities() == [said.event_id, ban.event_id]
    assert (await foreign.current_state())[member(BOB)] == ban.event_id
    after = room.send("m.room.message", CHARLIE, {"body": "goodbye"}, prev=[said, ban])
    assert await foreign.take(after) is Status.TIMELINE
    assert await foreign.extremities() == [after.event_id]
    assert (
        await foreign.take(room.send("m.room.message", BOB, {"body": "still here"}, prev=[said]))
        is Status.SOFT_FAILED
    )


async def test_a_made_up_depth_in_a_gap_hides_nothing(server: Server) -> None:
    alice = await server.register("alice")
    room = public_room("11", BOB, CHARLIE)
    for number in range(5):
        room.send("m.room.message", BOB, {"body": str(number)})
    foreign = ForeignRoom(server, room)
    await foreign.arrive(room.join(alice.user_id))
    since = (await alice.sync())["next_batch"]
    room.send("m.room.message", BOB, {"body": "low"}, depth=1)
    ban = room.set_member(ALICE, BOB, "ban")
    missed = [room.send("m.room.message", CHARLIE, {"body": f"missed {number}"}) for number in range(3)]
    last = room.send("m.room.message", CHARLIE, {"body": "last"})
    assert last.depth < 8
    assert await foreign.receive(last, Resident(room)) is Status.TIMELINE
    assert await foreign.current_state() == room.state_after[last.event_id]
    assert (await foreign.current_state())[member(BOB)] == ban.event_id
    use_as_source(foreign, Resident(room))
    timeline = (await alice.sync(since=since))["rooms"]["join"][room.room_id]["timeline"]
    history = await whole_history(alice, room.room_id)
    shown = {event["event_id"] for event in (*timeline["events"], *history)}
    assert shown >= {event.event_id for event in (*missed, last)}
    assert timeline["limited"] or "missed 0" in bodies(timeline["events"])
