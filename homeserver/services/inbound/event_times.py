"""Events by their time in history that this server never fetched: other servers of the room are asked (SS
`GET /timestamp_to_event/{roomId}`), and what they name is fetched.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Literal

import structlog

from federation.errors import FederationError
from homeserver.eventgraph.errors import EventRefused
from homeserver.ids import EventId, is_event_id
from homeserver.services.inbound.events import Unplaceable
from homeserver.services.inbound.sources import SourceFailed

if TYPE_CHECKING:
    from federation.client import FederationClient
    from homeserver.ids import RoomId, ServerName
    from homeserver.rooms.hosted_rooms import HostedRooms
    from homeserver.rooms.live_rooms import LiveRoom, LiveRooms
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.inbound.gaps import GapFiller
    from homeserver.services.inbound.queues import Sources
    from homeserver.services.server_calls import ServerCalls
    from homeserver.storage.events import EventStore
    from homeserver.storage.gaps import GapStore
    from homeserver.storage.stored_event import StoredEvent

_ASKED = 3
_SECONDS = 20.0
_PAGE = 10
_DEEPEST = 2**63 - 1

_log = structlog.get_logger(__name__)

Told = tuple[int, EventId, "ServerName"]


class EventTimes:
    """Asks for events of a time, where something is missing here that may be closer to it."""

    def __init__(
        self,
        server_name: ServerName,
        live_rooms: LiveRooms,
        hosted: HostedRooms,
        rooms: RoomReader,
        events: EventStore,
        gaps: GapStore,
        filler: GapFiller,
        sources: Sources,
        client: FederationClient,
        calls: ServerCalls,
    ) -> None:
        self._server_name = server_name
        self._live_rooms = live_rooms
        self._hosted = hosted
        self._rooms = rooms
        self._events = events
        self._gaps = gaps
        self._filler = filler
        self._sources = sources
        self._client = client
        self._calls = calls

    async def nearer(
        self, room_id: RoomId, ts: int, *, backwards: bool, known: StoredEvent | None
    ) -> StoredEvent | None:
        """An event closer to a time than the closest `known` one, in that direction; None where nobody has one.

        Nobody is asked where nothing is missing between the two. Waits for so many seconds at most.
        """
        room = await self._live_rooms.find(room_id)
        if room is None or not await self._hosted.hosts(room):
            return None
        depth = known.event.depth if known is not None else None
        missing = await self._gaps.load_missing(
            room.room_nid,
            # Backwards what is missing lies behind events that are deeper than the known one.
            depth_from=depth + 1 if backwards and depth is not None else 0,
            depth_upto=depth if not backwards and depth is not None else _DEEPEST,
            limit=1,
        )
        if not missing:
            return None
        try:
            async with asyncio.timeout(_SECONDS):
                return await self._fetched(room, ts, backwards, known)
        except TimeoutError:
            return None

    async def _fetched(
        self, room: LiveRoom, ts: int, backwards: bool, known: StoredEvent | None
    ) -> StoredEvent | None:
        servers = await self._rooms.servers(room.room_id) - {self._server_name}
        asked = random.sample(sorted(servers), min(_ASKED, len(servers)))
        told = await asyncio.gather(*(self._ask(server, room.room_id, ts, backwards) for server in asked))
        at = known.event.origin_server_ts if known is not None else None
        closer = [
            one
            for one in told
            if one is not None
            and (one[0] <= ts if backwards else one[0] >= ts)
            and (at is None or abs(one[0] - ts) < abs(at - ts))
        ]
        for _, event_id, server in sorted(closer, key=lambda one: abs(one[0] - ts)):
            if (stored := await self._fetch(room, event_id, server)) is not None:
                return stored
        return None

    async def _ask(self, server: ServerName, room_id: RoomId, ts: int, backwards: bool) -> Told | None:
        direction: Literal["b", "f"] = "b" if backwards else "f"
        try:
            answer = await self._calls.ask(
                server, lambda: self._client.timestamp_to_event(server, room_id, ts, direction)
            )
        except FederationError as error:
            _log.info("time_not_found", room_id=room_id, server=server, why=str(error))
            return None
        if not is_event_id(answer.event_id):
            return None
        return answer.origin_server_ts, EventId(answer.event_id), server

    async def _fetch(self, room: LiveRoom, event_id: EventId, server: ServerName) -> StoredEvent | None:
        stored = await self._events.get(event_id)
        if stored is None or not stored.has_state:
            source = self._sources.of(room.room_id, server)
            try:
                await self._filler.place_older(room, [event_id], source, _PAGE)
            except (EventRefused, SourceFailed, Unplaceable) as error:
                _log.info("event_not_fetched", event_id=event_id, why=str(error))
            stored = await self._events.get(event_id)
        if stored is None or not stored.has_state or stored.room_nid != room.room_nid:
            return None
        return stored
