"""A request of sliding sync, whichever dialect it came in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.ids import RoomId
    from homeserver.sync.sliding.required_state import RequiredState

MAX_LISTS = 100
MAX_SUBSCRIPTIONS = 100
MAX_TIMELINE_LIMIT = 500
ALL = "*"
"""Stands for all lists, or all subscriptions, in the scope of an extension."""


@dataclass(frozen=True)
class RoomConfig:
    """What is wanted of a room."""

    timeline_limit: int
    required_state: RequiredState

    def combined_with(self, other: RoomConfig) -> RoomConfig:
        """The superset of both."""
        return RoomConfig(
            max(self.timeline_limit, other.timeline_limit),
            self.required_state.combined_with(other.required_state),
        )


class WantedTraits(NamedTuple):
    """What a list asks of the state of its rooms; None, or nothing, where it makes no difference."""

    is_encrypted: bool | None = None
    room_types: frozenset[str | None] | None = None
    not_room_types: frozenset[str | None] = frozenset()
    room_name_like: str | None = None
    """Of MSC3575, which clients of the deployed dialect still know."""


ANY_TRAITS = WantedTraits()


@dataclass(frozen=True)
class RoomListFilter:
    """Which rooms belong to a list (MSC4186 `SlidingRoomFilter`); None where it makes no difference."""

    traits: WantedTraits = ANY_TRAITS
    is_dm: bool | None = None
    is_invited: bool | None = None
    spaces: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    not_tags: frozenset[str] = frozenset()

    @property
    def asks_for_traits(self) -> bool:
        """Whether it takes more than the user's own data to tell."""
        return self.traits != ANY_TRAITS


EVERY_ROOM = RoomListFilter()


@dataclass(frozen=True)
class ListRequest:
    """A list: a part of the user's rooms, newest activity first. Without ranges all of them."""

    config: RoomConfig
    ranges: tuple[tuple[int, int], ...] | None
    """First and last index, both included."""
    filter: RoomListFilter = EVERY_ROOM


@dataclass(frozen=True)
class Scope:
    """The rooms that an extension is about: those in some lists, and some of those that are subscribed to."""

    lists: frozenset[str] = frozenset({ALL})
    rooms: frozenset[str] = frozenset({ALL})


@dataclass(frozen=True)
class ToDeviceRequest:
    """MSC3885."""

    since: str | None = None
    limit: int = 100


@dataclass(frozen=True)
class ExtensionRequests:
    """What else is wanted; None where it is not."""

    to_device: ToDeviceRequest | None = None
    e2ee: bool = False
    account_data: Scope | None = None
    receipts: Scope | None = None
    typing: Scope | None = None
    thread_subscriptions: int | None = None
    """How many changes at most."""
    delivery: bool = False


@dataclass(frozen=True)
class SlidingRequest:
    """One request."""

    conn_id: str = ""
    pos: str | None = None
    timeout_ms: int = 0
    lists: Mapping[str, ListRequest] = field(default_factory=dict)
    subscriptions: Mapping[RoomId, RoomConfig] = field(default_factory=dict)
    extensions: ExtensionRequests = ExtensionRequests()
    with_counts: bool = False
    """Whether unread counts are told with rooms, as the deployed dialect does."""
    with_lists: bool = False
    """Whether it is told which lists a room is in, as the accepted dialect does."""
