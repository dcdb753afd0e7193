"""State resolution of room version 1."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from homeserver.eventgraph.auth_rules import POWER_LEVELS, auth_types_of, check_auth_rules
from homeserver.eventgraph.errors import AuthRuleViolated
from homeserver.eventgraph.questions import events_of, rest, unconflicted_state_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.eventgraph.questions import EventNumber, Resolution


def resolve(conflicted: Sequence[Mapping[StateKey, EventNumber]]) -> Resolution[dict[StateKey, EventNumber]]:
    """The entries of the resolved state beside those that all states have."""
    candidates: dict[StateKey, set[EventNumber]] = {}
    for state in conflicted:
        for key, number in state.items():
            candidates.setdefault(key, set()).add(number)
    events = yield from events_of({number for numbers in candidates.values() for number in numbers})
    keys = {key for event in events.values() for key in auth_types_of(event)}
    # "Start by setting R to the union of the states to be resolved, excluding any conflicting events." An entry that
    # some states do not have is no conflict here.
    so_far = yield from _by_key((yield from unconflicted_state_of(keys)))
    resolved: dict[StateKey, EventNumber] = {}
    for key, numbers in candidates.items():
        if len(numbers) == 1:
            (resolved[key],) = numbers
    # "First we resolve conflicts between `m.room.power_levels` events. [...] Repeat the above process for conflicts
    # between `m.room.join_rules` events. Repeat [...] `m.room.member` events."
    decided = resolved
    for is_next, choose in _PASSES:
        # Conflicts of one kind do not see each other's outcome: it would depend on their order.
        so_far.update({key: events[number] for key, number in decided.items()})
        decided = {}
        for key in [key for key in candidates if key not in resolved and is_next(key)]:
            decided[key] = choose({number: events[number] for number in candidates[key]}, so_far)
            yield from rest()
        resolved.update(decided)
    return resolved


def _by_key(state: Mapping[StateKey, EventNumber]) -> Resolution[dict[StateKey, Event]]:
    events = yield from events_of(set(state.values()))
    return {key: events[number] for key, number in state.items()}


def _last_in_a_row(candidates: Mapping[EventNumber, Event], state: Mapping[StateKey, Event]) -> EventNumber:
    """The last of the events, in ascending order, up to the first one that those before it do not allow."""
    first, *others = reversed(_newest_first(candidates))
    accepted = first
    so_far = dict(state)
    for number in others:
        so_far[candidates[accepted].key] = candidates[accepted]
        if not _is_allowed(candidates[number], so_far):
            break
        accepted = number
    return accepted


def _first_allowed(candidates: Mapping[EventNumber, Event], state: Mapping[StateKey, Event]) -> EventNumber:
    """The event with "the highest depth and lowest `sha1(event_id)` that passes authentication".

    The specification does not say what happens where none does; all servers then keep the last one.
    """
    ordered = _newest_first(candidates)
    return next((number for number in ordered if _is_allowed(candidates[number], state)), ordered[-1])


def _newest_first(candidates: Mapping[EventNumber, Event]) -> list[EventNumber]:
    def order(number: EventNumber) -> tuple[int, bytes]:
        event = candidates[number]
        return -event.depth, hashlib.sha1(event.event_id.encode(), usedforsecurity=False).digest()

    return sorted(candidates, key=order)


def _is_allowed(event: Event, state: Mapping[StateKey, Event]) -> bool:
    try:
        check_auth_rules(event, state)
    except AuthRuleViolated:
        return False
    return True


_PASSES = (
    (lambda key: key == POWER_LEVELS, _last_in_a_row),
    (lambda key: key[0] == "m.room.join_rules", _last_in_a_row),
    (lambda key: key[0] == "m.room.member", _last_in_a_row),
    (lambda _: True, _first_allowed),
)
