"""The two dialects of simplified sliding sync: what clients send, read into one form, and the answer as each knows it.

`v4` is MSC4186 as it was accepted; `unstable` is what was deployed before (the differences are in the MSC's change log).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import pydantic

from homeserver.errors import InvalidParam
from homeserver.http.request import Body, parse
from homeserver.ids import RoomId, is_opaque_identifier
from homeserver.storage.to_device import MAX_MESSAGES
from homeserver.sync.sliding.extensions import DELIVERY
from homeserver.sync.sliding.request import (
    ALL,
    MAX_LISTS,
    MAX_SUBSCRIPTIONS,
    MAX_TIMELINE_LIMIT,
    ExtensionRequests,
    ListRequest,
    RoomConfig,
    RoomListFilter,
    Scope,
    SlidingRequest,
    ToDeviceRequest,
    WantedTraits,
)
from homeserver.sync.sliding.required_state import RequiredState, StatePattern, rules_of
from homeserver.sync.sliding.thread_subscriptions import MAX_CHANGES, THREAD_SUBSCRIPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homeserver.sync.sliding.engine import SlidingAnswer

MAX_CONN_ID = 255
_MAX_LIST_NAME = 255
_MAX_PATTERNS = 2_000
_MAX_ENTRIES = 500
_MAX_RANGES = 100
_MEMBER = "m.room.member"
_ANY, _ME, _LAZY = "*", "$ME", "$LAZY"

Limit = Annotated[int, pydantic.Field(ge=0)]
# JSON has arrays only.
Range = Annotated[tuple[Limit, Limit], pydantic.Field(strict=False)]
Pair = Annotated[tuple[str, str], pydantic.Field(strict=False)]
Names = Annotated[list[str], pydantic.Field(max_length=_MAX_ENTRIES)]
Types = Annotated[list[str | None], pydantic.Field(max_length=_MAX_ENTRIES)]


class _Filters(Body):
    is_dm: bool | None = None
    spaces: Names | None = None
    is_encrypted: bool | None = None
    room_types: Types | None = None
    not_room_types: Types | None = None
    tags: Names | None = None
    not_tags: Names | None = None

    def read(self, *, is_invited: bool | None, room_name_like: str | None = None) -> RoomListFilter:
        return RoomListFilter(
            traits=WantedTraits(
                self.is_encrypted,
                None if self.room_types is None else frozenset(self.room_types),
                frozenset(self.not_room_types or ()),
                room_name_like or None,
            ),
            is_dm=self.is_dm,
            is_invited=is_invited,
            spaces=None if self.spaces is None else frozenset(self.spaces),
            tags=None if self.tags is None else frozenset(self.tags),
            not_tags=frozenset(self.not_tags or ()),
        )


# -- extensions: alike in both ---------------------------------------------------------------------------


class _Extension(Body):
    enabled: bool = False


class _ScopedExtension(_Extension):
    lists: Names | None = None
    rooms: Names | None = None

    def read(self) -> Scope | None:
        if not self.enabled:
            return None
        return Scope(
            frozenset(self.lists) if self.lists is not None else frozenset({ALL}),
            frozenset(self.rooms) if self.rooms is not None else frozenset({ALL}),
        )


class _ToDevice(_Extension):
    limit: Limit = MAX_MESSAGES
    since: str | None = None


class _ThreadSubscriptions(_Extension):
    limit: Annotated[int, pydantic.Field(ge=1)] = MAX_CHANGES


class _Extensions(Body):
    to_device: _ToDevice = _ToDevice()
    e2ee: _Extension = _Extension()
    account_data: _ScopedExtension = _ScopedExtension()
    receipts: _ScopedExtension = _ScopedExtension()
    typing: _ScopedExtension = _ScopedExtension()
    thread_subscriptions: Annotated[_ThreadSubscriptions, pydantic.Field(alias=THREAD_SUBSCRIPTIONS)] = (
        _ThreadSubscriptions()
    )
    delivery: Annotated[_Extension, pydantic.Field(alias=DELIVERY)] = _Extension()

    def read(self) -> ExtensionRequests:
        to_device, threads = self.to_device, self.thread_subscriptions
        return ExtensionRequests(
            to_device=ToDeviceRequest(to_device.since or None, min(to_device.limit, MAX_MESSAGES))
            if to_device.enabled
            else None,
            e2ee=self.e2ee.enabled,
            account_data=self.account_data.read(),
            receipts=self.receipts.read(),
            typing=self.typing.read(),
            thread_subscriptions=min(threads.limit, MAX_CHANGES) if threads.enabled else None,
            delivery=self.delivery.enabled,
        )


class _Request(Body):
    conn_id: str | None = None
    pos: str | None = None
    timeout: Annotated[int, pydantic.Field(ge=0)] | None = None
    set_presence: str | None = None
    extensions: _Extensions = _Extensions()


# -- as it was accepted ----------------------------------------------------------------------------------


class _Pattern(Body):
    type: str | None = None
    state_key: str | None = None


class _RequiredState(Body):
    include: list[_Pattern] = []
    exclude: list[_Pattern] = []
    lazy_members: bool = False

    def read(self) -> RequiredState:
        return rules_of(
            frozenset(StatePattern(one.type, one.state_key) for one in self.include),
            frozenset(StatePattern(one.type, one.state_key) for one in self.exclude),
            lazy_members=self.lazy_members,
        )


class _Config(Body):
    timeline_limit: Limit
    required_state: _RequiredState


class _AcceptedFilters(_Filters):
    is_invited: bool | None = None


class _AcceptedList(_Config):
    range: Range | None = None
    filters: _AcceptedFilters = _AcceptedFilters()


class _AcceptedRequest(_Request):
    lists: dict[str, _AcceptedList] = {}
    room_subscriptions: dict[str, _Config] = {}


# -- as it was deployed ----------------------------------------------------------------------------------


class _DeployedConfig(Body):
    timeline_limit: Limit = 0
    required_state: list[Pair] = []


class _DeployedFilters(_Filters):
    is_invite: bool | None = None
    room_name_like: Annotated[str, pydantic.Field(max_length=_MAX_ENTRIES)] | None = None


class _DeployedList(_DeployedConfig):
    ranges: Annotated[list[Range] | None, pydantic.Field(max_length=_MAX_RANGES)] = None
    filters: _DeployedFilters | None = None


class _DeployedRequest(_Request):
    lists: dict[str, _DeployedList] | None = None
    room_subscriptions: dict[str, _DeployedConfig] | None = None


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A request, and what of it is none of the engine's business."""

    request: SlidingRequest
    set_presence: str | None


class Dialect(Protocol):
    """How clients of one kind speak."""

    def read(self, body: dict[str, Any], user_id: str) -> ReadRequest:
        """A request from its body; `BadJson`, `MissingParam` or `InvalidParam` name what is wrong."""
        ...

    def write(self, answer: SlidingAnswer) -> dict[str, Any]:
        """An answer as JSON."""
        ...


class Accepted:
    """MSC4186."""

    def read(self, body: dict[str, Any], user_id: str) -> ReadRequest:  # noqa: ARG002 - nothing says "me" here
        """A request."""
        asked = parse(_AcceptedRequest, body)
        _check_numbers(
            asked,
            asked.lists,
            asked.room_subscriptions,
            sum(
                len(one.required_state.include) + len(one.required_state.exclude)
                for one in (*asked.lists.values(), *asked.room_subscriptions.values())
            ),
        )
        for name in asked.lists:
            if not is_opaque_identifier(name):
                raise InvalidParam("The name of a list is no opaque identifier")
        lists = {
            name: ListRequest(
                _config(one.timeline_limit, one.required_state.read()),
                None if one.range is None else _ranges([one.range]),
                one.filters.read(is_invited=one.filters.is_invited),
            )
            for name, one in asked.lists.items()
        }
        subscriptions = {
            RoomId(room_id): _config(one.timeline_limit, one.required_state.read())
            for room_id, one in asked.room_subscriptions.items()
        }
        request = SlidingRequest(
            conn_id=asked.conn_id or "",
            pos=asked.pos,
            timeout_ms=asked.timeout or 0,
            lists=lists,
            subscriptions=subscriptions,
            extensions=asked.extensions.read(),
            with_lists=True,
        )
        return ReadRequest(request, asked.set_presence)

    def write(self, answer: SlidingAnswer) -> dict[str, Any]:
        """An answer."""
        return _answer(answer, answer.rooms)


class Deployed:
    """`org.matrix.simplified_msc3575`."""

    def read(self, body: dict[str, Any], user_id: str) -> ReadRequest:
        """A request."""
        asked = parse(_DeployedRequest, body)
        asked_lists, asked_subscriptions = asked.lists or {}, asked.room_subscriptions or {}
        _check_numbers(
            asked,
            asked_lists,
            asked_subscriptions,
            sum(len(one.required_state) for one in (*asked_lists.values(), *asked_subscriptions.values())),
        )
        lists = {}
        for name, one in asked_lists.items():
            filters = one.filters or _DeployedFilters()
            lists[name] = ListRequest(
                _config(one.timeline_limit, _deployed_state(one.required_state, user_id)),
                None if one.ranges is None else _ranges(one.ranges),
                filters.read(is_invited=filters.is_invite, room_name_like=filters.room_name_like),
            )
        subscriptions = {
            RoomId(room_id): _config(config.timeline_limit, _deployed_state(config.required_state, user_id))
            for room_id, config in asked_subscriptions.items()
        }
        request = SlidingRequest(
            conn_id=asked.conn_id or "",
            pos=asked.pos,
            timeout_ms=asked.timeout or 0,
            lists=lists,
            subscriptions=subscriptions,
            extensions=asked.extensions.read(),
            with_counts=True,
        )
        return ReadRequest(request, asked.set_presence)

    def write(self, answer: SlidingAnswer) -> dict[str, Any]:
        """An answer.

        It does not say `txn_id`: clients that hear of theirs leave out of later requests what they asked for by it.
        """
        return _answer(answer, {room_id: _deployed_room(room) for room_id, room in answer.rooms.items()})


def _answer(answer: SlidingAnswer, rooms: Mapping[RoomId, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "pos": answer.pos,
        "lists": {name: {"count": count} for name, count in answer.counts.items()},
        "rooms": rooms,
        "extensions": answer.extensions,
    }


def _deployed_room(room: Mapping[str, Any]) -> dict[str, Any]:
    written = {name: value for name, value in room.items() if name not in ("membership", "stripped_state")}
    if room.get("membership") in ("invite", "knock"):
        written["invite_state"] = room["stripped_state"]
    if written.pop("expanded_timeline", False):
        written["unstable_expanded_timeline"] = True
        # By this clients know that the timeline may hold what they have.
        written["limited"] = True
    if written.get("name", "") is None:
        del written["name"]
    if "required_state" in written:
        # That an entry is gone cannot be said.
        written["required_state"] = [one for one in written["required_state"] if not isinstance(one, dict)]
    return written


def _check_numbers(
    asked: _Request, lists: Mapping[str, Any], subscriptions: Mapping[str, Any], patterns: int
) -> None:
    if len(lists) > MAX_LISTS:
        raise InvalidParam(f"There are more than {MAX_LISTS} lists")
    if len(subscriptions) > MAX_SUBSCRIPTIONS:
        raise InvalidParam(f"There are more than {MAX_SUBSCRIPTIONS} room subscriptions")
    if patterns > _MAX_PATTERNS:
        raise InvalidParam(f"`required_state` has more than {_MAX_PATTERNS} entries altogether")
    if any(len(name) > _MAX_LIST_NAME for name in lists):
        raise InvalidParam(f"The name of a list has more than {_MAX_LIST_NAME} characters")
    conn_id = asked.conn_id or ""
    if len(conn_id) > MAX_CONN_ID or "\x00" in conn_id:
        raise InvalidParam(f"`conn_id` is text of at most {MAX_CONN_ID} characters")


def _config(timeline_limit: int, required_state: RequiredState) -> RoomConfig:
    return RoomConfig(min(timeline_limit, MAX_TIMELINE_LIMIT), required_state)


def _ranges(ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    if any(begin > end for begin, end in ranges):
        raise InvalidParam("A range ends before it begins")
    return tuple(ranges)


def _deployed_state(pairs: Sequence[tuple[str, str]], user_id: str) -> RequiredState:
    """`[type, state key]` with `*`, `$ME` and, for members, `$LAZY`.

    Beside `["*", "*"]` "additional entries FILTER OUT the returned set": of a type that is named besides only what is
    named comes (MSC3575).
    """
    lazy = (_MEMBER, _LAZY) in pairs
    patterns = {
        StatePattern(
            None if event_type == _ANY else event_type,
            None if state_key == _ANY else user_id if state_key == _ME else state_key,
        )
        for event_type, state_key in pairs
        if state_key != _LAZY
    }
    everything = StatePattern(None, None)
    named = {one for one in patterns if one.type is not None and one.state_key is not None}
    state = rules_of(frozenset(patterns), frozenset(), lazy_members=lazy)
    if everything in patterns and named:
        exclude = frozenset(StatePattern(one.type, None) for one in named)
        rest = rules_of(frozenset({everything}), exclude, lazy_members=lazy)
        state = rules_of(frozenset(patterns - {everything}), frozenset(), lazy_members=lazy)
        state = RequiredState(state.rules | rest.rules, lazy)
    return state
