"""The two problems that MSC4297 shows, for which room version 12 has a state resolution of its own."""

from __future__ import annotations

from tests.eventgraph.rooms import ALICE, BOB, CHARLIE, JOIN_RULES, POWER_LEVELS, Room, State, public_room


def problem_a(version: str) -> tuple[Room, list[State], str]:
    """Alice sets two join rules and leaves; one state, got from another server, has the older join rules."""
    room = public_room(version, BOB, users={BOB: 100})
    old = room.state_after[room.newest().event_id][JOIN_RULES]
    new = room.set_join_rule(ALICE, "invite")
    room.set_member(ALICE, ALICE, "leave")
    fork = room.newest()
    state = room.state_after[fork.event_id]
    outdated = {**state, JOIN_RULES: old}
    return room, [state, outdated], new.event_id


def problem_b(version: str) -> tuple[Room, list[State], str]:
    """Alice promotes Bob, Bob promotes Charlie; one state, got from another server, has the first power levels."""
    room = public_room(version, BOB, CHARLIE)
    old = room.state_after[room.newest().event_id][POWER_LEVELS]
    users = dict(room.events[old].content["users"])
    room.set_levels(ALICE, {"users": {**users, BOB: 50}})
    newest = room.set_levels(BOB, {"users": {**users, BOB: 50, CHARLIE: 50}})
    # On both sides something cites the newest levels, so that these are in both auth chains.
    one = room.set_member(BOB, BOB, "join")
    other = room.set_member(CHARLIE, CHARLIE, "join", prev=[newest])
    states = [room.state_after[one.event_id], {**room.state_after[other.event_id], POWER_LEVELS: old}]
    assert not room.why_rejected
    return room, states, newest.event_id
