"""An answer in the making: what it covers, and what the client will hold with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from homeserver.storage.sliding_sync import ConnectionKey
from homeserver.sync.sliding.holdings import LIVE, NEVER, NOTHING, HoldingChanges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.ids import RoomId
    from homeserver.services.requester import Requester
    from homeserver.sync.interval import Changes
    from homeserver.sync.sliding.holdings import HeldRoom, Holdings
    from homeserver.sync.sliding.request import Scope, SlidingRequest
    from homeserver.sync.sliding.room_lists import Selection
    from homeserver.sync.sliding.rooms import RoomResult


def connection_of(requester: Requester, request: SlidingRequest) -> ConnectionKey:
    """The connection that a request is made on."""
    return ConnectionKey(requester.user_id, requester.device_id or "", request.conn_id)


@dataclass(slots=True)
class Draft:
    """What one look at the log finds."""

    requester: Requester
    request: SlidingRequest
    held: Holdings
    since: int | None
    """The position that the client brings; None where it begins."""
    selection: Selection
    announced: Changes
    """What was announced since then."""
    rooms: dict[RoomId, RoomResult] = field(default_factory=dict)
    extensions: dict[str, Any] = field(default_factory=dict)
    changes: HoldingChanges = field(default_factory=HoldingChanges)
    has_news: bool = False
    shown: dict[Scope, Mapping[RoomId, int]] = field(default_factory=dict)
    """The rooms that extensions are about, by their scope, with their numbers."""

    @property
    def key(self) -> ConnectionKey:
        """The connection."""
        return connection_of(self.requester, self.request)

    @property
    def upto(self) -> int:
        """The position that the answer goes up to."""
        return self.selection.upto

    def told(self, part: int, until: int | None) -> int | None:
        """Up to which position something was told; `until` is where that ends that is live. None for never."""
        if part == NEVER:
            return None
        return until if part == LIVE else part

    def held_room(self, room_nid: int) -> HeldRoom:
        """What the client will hold of a room."""
        return self.changes.rooms.get(room_nid) or self.held.rooms.get(room_nid) or NOTHING

    def knows(self, room_nid: int) -> bool:
        """Whether the client will hold the room at all."""
        return room_nid in self.changes.rooms or room_nid in self.held.rooms

    def hold(self, room_nid: int, held: HeldRoom) -> None:
        """Note what the client will hold of a room."""
        if self.held.rooms.get(room_nid) == held:
            self.changes.rooms.pop(room_nid, None)
        else:
            self.changes.rooms[room_nid] = held

    def extension_told(self, name: str, *, wanted: bool) -> int | None:
        """Up to where an extension was told; it is told from now on where it is wanted."""
        part = self.held.extensions.get(name, NEVER)
        if wanted and part != LIVE:
            self.changes.extensions[name] = LIVE
        elif not wanted and part == LIVE and self.since is not None:
            self.changes.extensions[name] = self.since
        return self.told(part, self.since)
