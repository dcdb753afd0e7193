"""Filters (CS "Filtering"): what of rooms, events and data a client wants to be told."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
import pydantic

from homeserver.errors import BadJson, InvalidParam

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from homeserver.eventgraph.event import Event

DEFAULT_TIMELINE_LIMIT = 10
MAX_TIMELINE_LIMIT = 500
MAX_FILTER_BYTES = 65_536
_MAX_ENTRIES = 2_000

M = TypeVar("M", bound=pydantic.BaseModel)
_Names = list[str]


class _Globs:
    """Names in which `*` stands for any text. A client may write what it likes: no pattern takes long to match."""

    __slots__ = ("_globs", "_names")

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name for name in names if "*" not in name)
        self._globs = [name.split("*") for name in names if "*" in name]

    def match(self, text: str) -> bool:
        return text in self._names or any(_matches(parts, text) for parts in self._globs)


def _matches(parts: Sequence[str], text: str) -> bool:
    """Whether a text is made of these parts in their order, with any text between them."""
    first, *middle, last = parts
    start, end = len(first), len(text) - len(last)
    if start > end or not text.startswith(first) or not text.endswith(last):
        return False
    for part in middle:
        found = text.find(part, start, end)
        if found < 0:
            return False
        start = found + len(part)
    return True


class EventFilter(pydantic.BaseModel):
    """Which events pass by sender and type; `*` in a type stands for any text, and `not_...` wins."""

    model_config = pydantic.ConfigDict(strict=True, extra="ignore", frozen=True)

    limit: int = pydantic.Field(default=DEFAULT_TIMELINE_LIMIT, ge=0)
    senders: _Names | None = pydantic.Field(default=None, max_length=_MAX_ENTRIES)
    not_senders: _Names = pydantic.Field(default=[], max_length=_MAX_ENTRIES)
    types: _Names | None = pydantic.Field(default=None, max_length=_MAX_ENTRIES)
    not_types: _Names = pydantic.Field(default=[], max_length=_MAX_ENTRIES)

    _types: _Globs | None = pydantic.PrivateAttr(default=None)
    _not_types: _Globs | None = pydantic.PrivateAttr(default=None)
    _everything: bool = pydantic.PrivateAttr(default=False)

    def model_post_init(self, _: Any) -> None:
        """Compile the patterns once."""
        self._types = None if self.types is None else _Globs(self.types)
        self._not_types = _Globs(self.not_types) if self.not_types else None
        self._everything = (
            self.senders is None and self.types is None and not (self.not_senders or self.not_types)
        )

    def allows_type(self, event_type: str) -> bool:
        """Whether a type passes."""
        if self._not_types is not None and self._not_types.match(event_type):
            return False
        return self._types is None or self._types.match(event_type)

    def allows_sender(self, sender: str) -> bool:
        """Whether a sender passes."""
        return sender not in self.not_senders and (self.senders is None or sender in self.senders)


class RoomEventFilter(EventFilter):
    """Which events of rooms pass."""

    rooms: _Names | None = pydantic.Field(default=None, max_length=_MAX_ENTRIES)
    not_rooms: _Names = pydantic.Field(default=[], max_length=_MAX_ENTRIES)
    contains_url: bool | None = None
    lazy_load_members: bool = False
    include_redundant_members: bool = False
    unread_thread_notifications: bool = False

    def model_post_init(self, context: Any) -> None:
        """Compile the patterns once."""
        super().model_post_init(context)
        self._everything = (
            self._everything and self.rooms is None and not self.not_rooms and self.contains_url is None
        )
        if self.limit > MAX_TIMELINE_LIMIT:
            object.__setattr__(self, "limit", MAX_TIMELINE_LIMIT)

    @property
    def allows_everything(self) -> bool:
        """Whether no event is left out."""
        return self._everything

    def allows(self, event: Event) -> bool:
        """Whether an event passes."""
        if self._everything:
            return True
        if not self.allows_sender(event.sender) or not self.allows_type(event.type):
            return False
        if self.contains_url is not None and isinstance(event.content.get("url"), str) != self.contains_url:
            return False
        return self.allows_room(event.room_id)

    def allows_room(self, room_id: str) -> bool:
        """Whether a room passes."""
        return room_id not in self.not_rooms and (self.rooms is None or room_id in self.rooms)


class RoomFilter(pydantic.BaseModel):
    """What of rooms passes."""

    model_config = pydantic.ConfigDict(strict=True, extra="ignore", frozen=True)

    rooms: _Names | None = pydantic.Field(default=None, max_length=_MAX_ENTRIES)
    not_rooms: _Names = pydantic.Field(default=[], max_length=_MAX_ENTRIES)
    include_leave: bool = False
    timeline: RoomEventFilter = RoomEventFilter()
    state: RoomEventFilter = RoomEventFilter()
    ephemeral: RoomEventFilter = RoomEventFilter()
    account_data: RoomEventFilter = RoomEventFilter()

    def allows_room(self, room_id: str) -> bool:
        """Whether a room passes."""
        return room_id not in self.not_rooms and (self.rooms is None or room_id in self.rooms)


class SyncFilter(pydantic.BaseModel):
    """A whole filter."""

    model_config = pydantic.ConfigDict(strict=True, extra="ignore", frozen=True)

    event_fields: _Names | None = pydantic.Field(default=None, max_length=_MAX_ENTRIES)
    event_format: str = "client"
    presence: EventFilter = EventFilter()
    account_data: EventFilter = EventFilter()
    room: RoomFilter = RoomFilter()

    @cached_property
    def fingerprint(self) -> int:
        """Alike for filters that say the same."""
        return hash(self.model_dump_json())

    @pydantic.field_validator("event_format")
    @classmethod
    def _known_format(cls, value: str) -> str:
        if value not in ("client", "federation"):
            message = "neither `client` nor `federation`"
            raise ValueError(message)
        return value


EVERYTHING = SyncFilter()
"""The filter of a client that names none."""


def parse_filter(value: dict[str, Any]) -> SyncFilter:
    """A filter from JSON; `BadJson` names the field that is wrong."""
    return _validate(SyncFilter, value)


@lru_cache(maxsize=1024)
def parse_filter_text(text: str) -> SyncFilter:
    """A filter from the text in a query or in the database."""
    return _validate(SyncFilter, _object(text))


@lru_cache(maxsize=1024)
def parse_event_filter_text(text: str) -> RoomEventFilter:
    """A `RoomEventFilter` from the text in a query."""
    return _validate(RoomEventFilter, _object(text))


def _object(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text) if len(text) <= MAX_FILTER_BYTES else None
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        message = "The filter is not a JSON object"
        raise InvalidParam(message)
    return value


def _validate(model: type[M], value: dict[str, Any]) -> M:
    try:
        return model.model_validate(value)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        message = f"The filter's `{'.'.join(str(part) for part in first['loc'])}`: {first['msg']}"
        raise BadJson(message) from error
