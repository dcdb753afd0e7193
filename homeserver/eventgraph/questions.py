"""What the room core asks for while it resolves state, and the numbers that it knows events by.

A resolution is a generator: it yields one of these questions and is sent the answer. Whoever drives it may let
other work run at every question.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NewType, TypeVar

if TYPE_CHECKING:
    from homeserver.eventgraph.event import Event, StateKey

EventNumber = NewType("EventNumber", int)
"""An event by the order in which a server stored it: its number is higher than those of the events that it cites.

The walks over auth chains rest on that order: whoever stands above all that is still open has been seen whole.
"""


@dataclass(frozen=True, slots=True)
class NeedEvents:
    """Asks for events; the answer maps each number to its `Event`. An empty question is a place to rest."""

    numbers: Collection[EventNumber]


@dataclass(frozen=True, slots=True)
class NeedAuthEvents:
    """Asks what events cite; the answer maps each number to the numbers of its auth events."""

    numbers: Collection[EventNumber]


@dataclass(frozen=True, slots=True)
class NeedState:
    """Asks for entries of the unconflicted state; the answer maps keys to numbers, absent ones left out."""

    keys: Collection[StateKey]


Question = NeedEvents | NeedAuthEvents | NeedState
T = TypeVar("T")
Resolution = Generator[Question, Any, T]
"""A generator of questions that ends with a `T`."""


def events_of(numbers: Collection[EventNumber]) -> Resolution[Mapping[EventNumber, Event]]:
    """These events."""
    if not numbers:
        return {}
    events: Mapping[EventNumber, Event] = yield NeedEvents(numbers)
    return events


def auth_events_of(
    numbers: Collection[EventNumber],
) -> Resolution[Mapping[EventNumber, Sequence[EventNumber]]]:
    """The numbers of the events that these cite as their auth events."""
    if not numbers:
        return {}
    cited: Mapping[EventNumber, Sequence[EventNumber]] = yield NeedAuthEvents(numbers)
    return cited


def unconflicted_state_of(keys: Collection[StateKey]) -> Resolution[Mapping[StateKey, EventNumber]]:
    """These entries of the unconflicted state."""
    if not keys:
        return {}
    state: Mapping[StateKey, EventNumber] = yield NeedState(keys)
    return state


def rest() -> Resolution[None]:
    """Let other work run."""
    yield NeedEvents(())
