"""What the client of a connection holds, as far as the connection told it.

Most of the rooms of a client that is about are `LIVE`: it holds of them all that there is up to the position that its
`pos` names. So an answer that goes on with such rooms changes nothing here, and nothing has to be stored for it. A
room has a position of its own only where something happened in it that was not told.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from homeserver.sync.sliding.required_state import unpack

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from homeserver.sync.sliding.required_state import RequiredState

NEVER = 0
"""Nothing of it was told."""
LIVE = -1
"""All of it was told up to the position in `pos`."""


class HeldRoom(NamedTuple):
    """What the client holds of a room: each of its parts `NEVER`, `LIVE` or up to a position."""

    events: int
    limit: int
    """It holds so many of the newest events before that place."""
    required_state: int
    """The number of the `RequiredState` of which it holds what was true at that place."""
    is_dm: bool = False
    account_data: int = NEVER
    receipts: int = NEVER
    typing: int = NEVER
    begins: int | None = None
    """After which position it holds the timeline up to that place; None where it holds nothing of it."""

    def with_part(self, part: str, upto: int) -> HeldRoom:
        """The same, but for what is held of `account_data`, `receipts` or `typing`."""
        changed: dict[str, Any] = {part: upto}
        return self._replace(**changed)


NOTHING = HeldRoom(NEVER, 0, 0)


@dataclass(frozen=True, slots=True)
class Holdings:
    """All that a client holds that came back with an answer. Not to be changed."""

    answer_nid: int = 0
    rooms: Mapping[int, HeldRoom] = field(default_factory=dict)
    required_states: Mapping[int, RequiredState] = field(default_factory=dict)
    extensions: Mapping[str, int] = field(default_factory=dict)
    """Up to where those extensions were told that are about no room."""
    stored_changes: int = 0
    """Of how many entries the stored answers are made, beside the first."""

    def after(self, answer_nid: int, changes: HoldingChanges) -> Holdings:
        """What the client holds once it has another answer."""
        return Holdings(
            answer_nid,
            {**self.rooms, **changes.rooms},
            {**self.required_states, **changes.required_states},
            {**self.extensions, **changes.extensions},
            self.stored_changes + len(changes.rooms) + 1 if self.answer_nid else 0,
        )

    def tidied(self, room_nids: Collection[int]) -> Holdings:
        """The same, without rooms that there are no more, and what nobody needs."""
        rooms = {room_nid: held for room_nid, held in self.rooms.items() if room_nid in room_nids}
        used = {held.required_state for held in rooms.values()}
        states = {number: wanted for number, wanted in self.required_states.items() if number in used}
        return Holdings(self.answer_nid, rooms, states, self.extensions)


@dataclass(slots=True)
class HoldingChanges:
    """What an answer makes otherwise."""

    rooms: dict[int, HeldRoom] = field(default_factory=dict)
    required_states: dict[int, RequiredState] = field(default_factory=dict)
    extensions: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.rooms or self.required_states or self.extensions)


def pack(holdings: Holdings | HoldingChanges) -> bytes:
    """As it is stored."""
    return msgspec.msgpack.encode(
        (
            [(room_nid, *held) for room_nid, held in holdings.rooms.items()],
            [wanted.packed for wanted in holdings.required_states.values()],
            dict(holdings.extensions),
        )
    )


_Packed = tuple[list[tuple[Any, ...]], list[bytes], dict[str, int]]


def unpack_changes(packed: bytes) -> HoldingChanges:
    """What `pack` was given."""
    rooms, states, extensions = msgspec.msgpack.decode(packed, type=_Packed)
    return HoldingChanges(
        {room_nid: HeldRoom(*held) for room_nid, *held in rooms},
        {wanted.number: wanted for wanted in map(unpack, states)},
        extensions,
    )


def put_together(answers: Iterable[tuple[int, bytes]]) -> Holdings:
    """What the client holds that has these answers, each following the one before."""
    holdings = Holdings()
    for answer_nid, packed in answers:
        holdings = holdings.after(answer_nid, unpack_changes(packed))
    return holdings
