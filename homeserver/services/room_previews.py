"""What somebody is told of a room before they come in, wherever it is (CS `GET /room_summary/{roomIdOrAlias}`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.errors import NotFound
from homeserver.ids import server_name_of
from homeserver.services.room_summaries import summary_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import RoomId, ServerName, UserId
    from homeserver.rooms.hosted_rooms import HostedRooms
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.remote_spaces import RemoteSpaces
    from homeserver.services.room_summaries import RoomSummaries
    from homeserver.storage.memberships import MembershipRow


class RoomPreviews:
    """Summaries of rooms here and elsewhere."""

    def __init__(
        self, rooms: RoomReader, hosted: HostedRooms, summaries: RoomSummaries, remote: RemoteSpaces
    ) -> None:
        self._rooms = rooms
        self._hosted = hosted
        self._summaries = summaries
        self._remote = remote

    async def summary(
        self, room_id: RoomId, user_id: UserId | None, via: Sequence[str] = ()
    ) -> dict[str, Any]:
        """A room for somebody who may come in, or is there; `NotFound` for all others.

        A room that nobody here is in is asked for at the servers `via`.
        """
        row = await self._rooms.membership(room_id, user_id) if user_id is not None else None
        described = None
        if await self._hosted.is_elsewhere(room_id):
            described = await self._remote.look_up(room_id, [*inviter_of(row), *via])
        if described is not None:
            summary, known = (
                {**described.summary},
                self._summaries.may_know_described(described.summary, user_id),
            )
        else:
            room = (await self._summaries.outlines([room_id])).get(room_id)
            if room is None:
                raise NotFound("Unknown room")
            summary, known = summary_of(room), self._summaries.may_know(room, user_id)
        if not await known:
            raise NotFound("Unknown room")
        if user_id is not None:
            summary["membership"] = row.membership if row is not None else "leave"
        return summary


def inviter_of(row: MembershipRow | None) -> list[ServerName]:
    """The server of whoever has invited somebody."""
    return [server_name_of(row.sender)] if row is not None and row.membership == "invite" else []
