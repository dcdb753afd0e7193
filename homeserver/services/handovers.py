"""Whether other servers were handed an event, when, and why not (docs/offline.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.ids import server_name_of

if TYPE_CHECKING:
    from homeserver.ids import ServerName
    from homeserver.storage.destinations import Destination, DestinationStore
    from homeserver.storage.handovers import HandoverStore
    from homeserver.storage.room_servers import RoomServerStore
    from homeserver.storage.shared_rooms import SharedRoomStore
    from homeserver.storage.stored_event import StoredEvent

_CAME_LATER = "it came into the room later"
_MISSED = "it was away for so long that it got only the newest event of the room, and asks for the rest"


class Handovers:
    """Tells of the other servers in the room of an event of this one."""

    def __init__(
        self,
        server_name: ServerName,
        room_servers: RoomServerStore,
        shared_rooms: SharedRoomStore,
        destinations: DestinationStore,
        handovers: HandoverStore,
    ) -> None:
        self._server_name = server_name
        self._room_servers = room_servers
        self._shared_rooms = shared_rooms
        self._destinations = destinations
        self._handovers = handovers

    async def of(self, stored: StoredEvent) -> dict[ServerName, dict[str, Any]]:
        """How things stand with each other server that is in the room now."""
        if stored.stream_id < 0:
            # This server has it from one of them.
            return {}
        since = await self._room_servers.load_since(stored.room_nid)
        destinations = {one.server_name: one for one in await self._destinations.load(since)}
        times = await self._handovers.load_times(since, stored.stream_id)
        passed_over = await self._handovers.load_passed_over(since, stored.stream_id)
        late = {name for name, position in since.items() if position > stored.stream_id}
        if late:
            late -= await self._there_at(stored)
        status = {}
        for name in sorted(since):
            destination, skipped = destinations.get(name), passed_over.get(name)
            if name in late:
                status[name] = _not_handed_over(_CAME_LATER)
            elif destination is None or destination.position < stored.stream_id:
                status[name] = _waiting(stored, destination)
            elif skipped is not None and skipped.why is not None:
                status[name] = _not_handed_over(f"it refused it: {skipped.why}")
            elif skipped is not None and not await self._is_newest(stored, skipped.upto):
                status[name] = _not_handed_over(_MISSED)
            else:
                ts = times.get(name)
                status[name] = {"handed_over": True} | ({} if ts is None else {"ts": ts})
        return status

    async def _there_at(self, stored: StoredEvent) -> set[ServerName]:
        """The servers that had somebody in the room when the event came."""
        joined = await self._shared_rooms.load_joined([stored.room_nid], at=stored.stream_id)
        return {server_name_of(user_id) for user_id in joined[stored.room_nid]}

    async def _is_newest(self, stored: StoredEvent, upto: int) -> bool:
        return await self._handovers.is_newest(stored.room_nid, stored.stream_id, upto, self._server_name)


def _waiting(stored: StoredEvent, destination: Destination | None) -> dict[str, Any]:
    status: dict[str, Any] = {"handed_over": False, "waiting_since_ts": stored.event.origin_server_ts}
    if destination is not None and destination.failing_since_ts is not None:
        status["failing_since_ts"] = destination.failing_since_ts
        status["why"] = destination.why
        if destination.retry_ts is not None:
            status["retry_ts"] = destination.retry_ts
    return status


def _not_handed_over(why: str) -> dict[str, Any]:
    return {"handed_over": False, "why": why}
