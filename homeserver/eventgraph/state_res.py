"""State resolution: one state out of several (specification, "State resolution" of each room version)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from homeserver.eventgraph import state_res_v1, state_res_v2

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from homeserver.eventgraph.event import StateKey
    from homeserver.eventgraph.questions import EventNumber, Resolution
    from homeserver.eventgraph.room_versions import RoomVersion

K = TypeVar("K")


def split(
    states: Sequence[Mapping[K, EventNumber]],
) -> tuple[dict[K, EventNumber], list[dict[K, EventNumber]]]:
    """What all states have alike, the *unconflicted state map*, and what is left of each state."""
    entries = states[0].items() & states[0].items()
    for state in states[1:]:
        entries &= state.items()
    unconflicted = dict(entries)
    conflicted = [
        {key: number for key, number in state.items() if key not in unconflicted} for state in states
    ]
    return unconflicted, conflicted


def resolve(
    version: RoomVersion,
    conflicted: Sequence[Mapping[StateKey, EventNumber]],
    unconflicted: Collection[EventNumber],
) -> Resolution[dict[StateKey, EventNumber]]:
    """The entries that the resolved state has beside the unconflicted ones.

    `conflicted` is what `split` leaves of each state, `unconflicted` the events that all states have. The answer
    does not depend on the order of the states.
    """
    if not any(conflicted):
        return {}
    if version.state_resolution == "v1":
        return (yield from state_res_v1.resolve(conflicted))
    return (yield from state_res_v2.resolve(version, conflicted, unconflicted))
