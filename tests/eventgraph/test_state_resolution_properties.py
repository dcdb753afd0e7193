"""What holds for every resolution: of random rooms, in every room version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from homeserver.eventgraph.auth_rules import CREATE
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from tests.eventgraph.random_rooms import RandomRoom
from tests.eventgraph.rooms import ALICE, BOB, CHARLIE, POWER_LEVELS, Room, public_room

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.ids import EventId

rooms = st.builds(
    RandomRoom,
    version=st.sampled_from(list(ROOM_VERSIONS)),
    seed=st.integers(0, 2**32),
    events=st.integers(8, 40),
)
few = settings(max_examples=40, deadline=None)


@few
@given(rooms, st.randoms(use_true_random=False))
def test_the_order_of_the_states_does_not_matter(made, random):
    for states in made.resolutions:
        resolved = made.room.resolve(states)
        assert made.room.resolve(random.sample(states, len(states))) == resolved
        assert made.room.resolve([*states, random.choice(states)]) == resolved, "one of them twice"


@few
@given(rooms)
def test_a_state_alone_is_resolved_to_itself(made):
    for states in made.resolutions:
        for state in [*states, made.room.resolve(states)]:
            assert made.room.resolve([state]) == state
            assert made.room.resolve([state, state]) == state


@few
@given(rooms)
def test_the_resolved_state_holds_nothing_but_what_the_states_rest_on(made):
    room = made.room
    for states in made.resolutions:
        resolved = room.resolve(states)
        given = {event_id for state in states for event_id in state.values()}
        assert set(resolved.values()) <= _with_chains(room, given)
        assert all(room.events[event_id].key == key for key, event_id in resolved.items())
        assert not any(room.events[event_id].rejected for event_id in resolved.values())
        assert resolved[CREATE] == room.create.event_id


@few
@given(rooms)
def test_what_all_states_have_stays(made):
    for states in made.resolutions:
        resolved = made.room.resolve(states)
        common = set.intersection(*(set(state.items()) for state in states))
        assert common <= set(resolved.items())


@few
@given(rooms, st.randoms(use_true_random=False))
def test_servers_that_got_the_events_in_another_order_agree(made, random):
    room = made.room
    ours = [room.resolve(states) for states in made.resolutions]
    arrived: dict[EventId, None] = {}
    waiting = list(room.events)
    while waiting:
        # Any event may come next whose auth events are there.
        ready = [one for one in waiting if all(cited in arrived for cited in room.events[one].auth_event_ids)]
        chosen = random.choice(ready)
        waiting.remove(chosen)
        arrived[chosen] = None
    room.renumber(arrived)
    assert [room.resolve(states) for states in made.resolutions] == ours


def _with_chains(room: Room, event_ids: Iterable[EventId]) -> set[EventId]:
    found: set[EventId] = set()
    ahead = list(event_ids)
    while ahead:
        event_id = ahead.pop()
        if event_id not in found:
            found.add(event_id)
            ahead += room.events[event_id].auth_event_ids
    return found


# -- cost ----------------------------------------------------------------------------------------------------


def _asked(room: Room) -> int:
    return sum(len(getattr(question, "numbers", ())) for question in room.questions)


def test_a_small_conflict_in_a_large_room_loads_little():
    for version in ("2", "11", "12"):
        room = public_room(version, BOB, users={BOB: 50})
        for number in range(300):
            room.join(f"@user{number}:two.example")
        fork = room.newest()
        tips = [room.set_topic(ALICE, "one", prev=[fork]), room.set_topic(BOB, "two", prev=[fork])]
        room.state_before(tips)
        assert _asked(room) < 50


def test_a_long_fight_over_power_levels_is_resolved_in_linear_work():
    asked = []
    for changes in (100, 400):
        room = public_room("12", BOB, CHARLIE, users={BOB: 50})
        fork = room.newest()
        tips = []
        for sender in (ALICE, BOB):
            tip = fork
            for number in range(changes):
                tip = room.set_levels(
                    sender, {"users": {BOB: 50, CHARLIE: number % 40}}, prev=[tip], ts=10**6 + number
                )
                tip = room.set_topic(sender, f"{number}", prev=[tip])
            assert not tip.rejected
            tips.append(tip)
        state = room.state_before(tips)
        assert room.events[state[POWER_LEVELS]].sender in (ALICE, BOB)
        asked.append(_asked(room))
    assert asked[1] < 4.5 * asked[0]
    assert asked[1] < 20 * 2 * 400
