"""However many ends a room has, we can write into it, and tie them together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.services.inbound.extremities import DUMMY, MANY
from homeserver.storage.stored_event import Status
from tests.eventgraph.rooms import ALICE, BOB, public_room
from tests.inbound.foreign_rooms import ForeignRoom

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
