"""State resolution of room versions 2 to 11 (v2) and of version 12 (v2.1, MSC4297).

The steps carry the numbers of the specification's "Algorithm".
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from homeserver.eventgraph.auth_chains import auth_difference, conflicted_subgraph
from homeserver.eventgraph.auth_rules import (
    CREATE,
    JOIN_RULES,
    POWER_LEVELS,
    auth_types_of,
    check_auth_rules,
)
from homeserver.eventgraph.errors import AuthRuleViolated
from homeserver.eventgraph.power_levels import PowerLevels
from homeserver.eventgraph.questions import auth_events_of, events_of, rest, unconflicted_state_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.eventgraph.questions import EventNumber, Resolution
    from homeserver.eventgraph.room_versions import RoomVersion

_EVENTS_AT_A_TIME = 100


def resolve(
    version: RoomVersion,
    conflicted: Sequence[Mapping[StateKey, EventNumber]],
    unconflicted: Collection[EventNumber],
) -> Resolution[dict[StateKey, EventNumber]]:
    """The entries of the resolved state beside those of the unconflicted state map."""
    conflicted_set = {number for state in conflicted for number in state.values()}
    full = conflicted_set | (
        yield from auth_difference([set(state.values()) for state in conflicted], unconflicted)
    )
    starts_empty = version.state_resolution == "v2.1"
    if starts_empty:
        full |= yield from conflicted_subgraph(conflicted_set)
    graph = _Graph(version)
    yield from graph.load(full)
    # What the checks may ask of the unconflicted state; only the create event where they start with nothing.
    keys = {CREATE, POWER_LEVELS}.union(*(auth_types_of(graph.events[number]) for number in full))
    base = yield from graph.load_unconflicted({CREATE} if starts_empty else keys)
    # 1. The power events, and of their auth chains what is in conflict as well.
    power_events = _power_events(graph, full)
    # 2. "Apply the iterative auth checks algorithm, starting from the unconflicted state map" (v2.1: an empty one).
    state = {} if starts_empty else dict(base)
    ordered = yield from _power_ordering(graph, power_events)
    yield from _apply(graph, ordered, state)
    # 3. "Take all remaining events [...] and order them by the mainline ordering."
    others = full - power_events
    ordered = yield from _mainline_ordering(graph, others, state.get(POWER_LEVELS))
    # 4.
    yield from _apply(graph, ordered, state)
    # 5. "replacing any event with the event with the same key from the unconflicted state map, if such an event exists"
    agreed = yield from unconflicted_state_of(state.keys() - base.keys())
    return {key: number for key, number in state.items() if key not in base and key not in agreed}


class _Graph:
    """The events that take part, and what they cite."""

    def __init__(self, version: RoomVersion) -> None:
        self.version = version
        self.events: dict[EventNumber, Event] = {}
        self.cited: dict[EventNumber, Sequence[EventNumber]] = {}
        self.create: Event | None = None
        self._levels: dict[tuple[EventNumber | None, EventNumber | None], PowerLevels] = {}

    def load(self, numbers: Collection[EventNumber]) -> Resolution[None]:
        """Have these events, and those that they cite, at hand."""
        missing = [number for number in numbers if number not in self.cited]
        self.cited.update((yield from auth_events_of(missing)))
        cited = [older for number in missing for older in self.cited[number]]
        yield from self._load_events([*missing, *cited])

    def _load_events(self, numbers: Iterable[EventNumber]) -> Resolution[None]:
        missing = {number for number in numbers if number not in self.events}
        self.events.update((yield from events_of(missing)))

    def load_unconflicted(self, keys: Collection[StateKey]) -> Resolution[Mapping[StateKey, EventNumber]]:
        """Have these entries of the unconflicted state at hand."""
        state = yield from unconflicted_state_of(keys)
        yield from self._load_events(state.values())
        if CREATE in state:
            self.create = self.events[state[CREATE]]
        return state

    def citation(self, number: EventNumber, key: StateKey) -> EventNumber | None:
        """The auth event of an event that sets an entry of the state."""
        return next((older for older in self.cited[number] if self.events[older].key == key), None)

    def sender_level(self, number: EventNumber) -> int:
        """The power level of an event's sender by its own auth events."""
        by = (self.citation(number, CREATE), self.citation(number, POWER_LEVELS))
        levels = self._levels.get(by)
        if levels is None:
            create, event = by
            levels = self._levels[by] = PowerLevels(
                self.version,
                # From version 12 on nobody cites the create event: the room id stands for it.
                self.create if self.version.room_id_is_create_hash or create is None else self.events[create],
                self.events[event] if event is not None else None,
            )
        return levels.user_level(self.events[number].sender)


def _power_events(graph: _Graph, full: set[EventNumber]) -> set[EventNumber]:
    """Step 1: the set *X*.

    The specification adds whatever of a power event's auth chain is in conflict. Every implementation follows the
    chain only from one event in conflict to the next, and states must come out alike everywhere: so do we.
    """
    found = {number for number in full if _is_power_event(graph.events[number])}
    ahead = list(found)
    while ahead:
        for older in graph.cited[ahead.pop()]:
            if older in full and older not in found:
                found.add(older)
                ahead.append(older)
    return found


def _is_power_event(event: Event) -> bool:
    """Whether an event "might remove someone's ability to do something in the room".

    Only with the state keys that the authorisation rules read, as in every implementation, and the create event.
    """
    if event.key in (CREATE, POWER_LEVELS, JOIN_RULES):
        return True
    return (
        event.type == "m.room.member"
        and event.membership in ("leave", "ban")
        and event.sender != event.state_key
    )


def _power_ordering(graph: _Graph, numbers: set[EventNumber]) -> Resolution[list[EventNumber]]:
    """The *reverse topological power ordering*, by Kahn's algorithm."""

    def order(number: EventNumber) -> tuple[int, int, str, EventNumber]:
        event = graph.events[number]
        return -graph.sender_level(number), event.origin_server_ts, event.event_id, number

    waits_for: dict[EventNumber, int] = {}
    cited_by: dict[EventNumber, list[EventNumber]] = {number: [] for number in numbers}
    for number in numbers:
        older = {older for older in graph.cited[number] if older in numbers}
        waits_for[number] = len(older)
        for cited in older:
            cited_by[cited].append(number)
    ready = [order(number) for number in numbers if waits_for[number] == 0]
    heapify(ready)
    ordered = []
    while ready:
        *_, number = heappop(ready)
        ordered.append(number)
        if len(ordered) % _EVENTS_AT_A_TIME == 0:
            yield from rest()
        for newer in cited_by[number]:
            waits_for[newer] -= 1
            if waits_for[newer] == 0:
                heappush(ready, order(newer))
    return ordered


def _apply(
    graph: _Graph, ordered: Iterable[EventNumber], state: dict[StateKey, EventNumber]
) -> Resolution[None]:
    """The *iterative auth checks*: each event that the state so far allows becomes part of it."""
    for count, number in enumerate(ordered, 1):
        event = graph.events[number]
        # "If a key that is required [...] is not present in the state, then the appropriate state event from the
        # event's `auth_events` is used if the auth event is not rejected."
        auth_state = {
            graph.events[older].key: graph.events[older]
            for older in graph.cited[number]
            if not graph.events[older].rejected
        }
        if graph.version.room_id_is_create_hash and graph.create is not None:
            auth_state[CREATE] = graph.create
        for key in auth_types_of(event):
            if key in state:
                auth_state[key] = graph.events[state[key]]
        try:
            check_auth_rules(event, auth_state)
        except AuthRuleViolated:
            pass
        else:
            state[event.key] = number
        if count % _EVENTS_AT_A_TIME == 0:
            yield from rest()


def _mainline_ordering(
    graph: _Graph, numbers: set[EventNumber], power_levels: EventNumber | None
) -> Resolution[list[EventNumber]]:
    """The *mainline ordering* based on a power levels event: those on older power levels first."""
    mainline = _Mainline(graph, power_levels)
    order: dict[EventNumber, tuple[float, int, str]] = {}
    for count, number in enumerate(numbers, 1):
        event = graph.events[number]
        position = yield from mainline.position(graph.citation(number, POWER_LEVELS))
        order[number] = (-position, event.origin_server_ts, event.event_id)
        if count % _EVENTS_AT_A_TIME == 0:
            yield from rest()
    return sorted(numbers, key=order.__getitem__)


class _Mainline:
    """The power levels events from the one in force back to the first, walked no further than is asked for."""

    def __init__(self, graph: _Graph, power_levels: EventNumber | None) -> None:
        self._graph = graph
        self._next = power_levels
        self._length = 0
        self._positions: dict[EventNumber, float] = {}

    def position(self, number: EventNumber | None) -> Resolution[float]:
        """The mainline position of whatever cites this power levels event: infinite where it is not based on it."""
        passed = []
        position = inf
        while number is not None:
            while self._next is not None and self._next >= number:
                self._positions[self._next] = self._length
                self._length += 1
                self._next = yield from self._before(self._next)
            if number in self._positions:
                position = self._positions[number]
                break
            passed.append(number)
            number = yield from self._before(number)
        self._positions.update(dict.fromkeys(passed, position))
        return position

    def _before(self, number: EventNumber) -> Resolution[EventNumber | None]:
        yield from self._graph.load([number])
        return self._graph.citation(number, POWER_LEVELS)
