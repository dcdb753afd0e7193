"""Events that relate to another, and the threads of a room (CS "Relationships API", "Threading")."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from homeserver.eventgraph.event import Event
from homeserver.eventgraph.redaction import redact
from homeserver.storage.stored_event import Stretch
from homeserver.views.aggregations import without_ignored

if TYPE_CHECKING:
    from homeserver.ids import EventId, RoomId
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.history import History
    from homeserver.services.requester import Requester
    from homeserver.services.room_access import RoomAccessRules
    from homeserver.storage.database import Database
    from homeserver.storage.events import EventStore
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.relations import RelationRow, RelationStore
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.views.client_events import ClientEvents
    from homeserver.views.ignored import IgnoredUsers
    from homeserver.views.tokens import Tokens
    from homeserver.views.visibility import HistoryVisibility

MAX_PAGE = 500
RECURSION_DEPTH = 3
_MAX_RECURSED = 2_000
_THREADS = "threads"


@dataclass(frozen=True, slots=True)
class RelationsRequest:
    """Which page of an event's relations is asked for."""

    relation_type: str | None
    event_type: str | None
    start: str | None
    stop: str | None
    backwards: bool
    limit: int
    recurse: bool


class Relations:
    """Reads relations and threads."""

    def __init__(
        self,
        database: Database,
        rooms: RoomReader,
        access: RoomAccessRules,
        history: History,
        store: RelationStore,
        events: EventStore,
        numbers: NumberStore,
        visibility: HistoryVisibility,
        client_events: ClientEvents,
        ignored: IgnoredUsers,
        tokens: Tokens,
    ) -> None:
        self._database = database
        self._rooms = rooms
        self._access = access
        self._history = history
        self._store = store
        self._events = events
        self._numbers = numbers
        self._visibility = visibility
        self._client_events = client_events
        self._ignored = ignored
        self._tokens = tokens

    async def page(
        self, requester: Requester, room_id: RoomId, event_id: str, request: RelationsRequest
    ) -> dict[str, Any]:
        """A page of the events that relate to an event, in the form of `/relations`."""
        access, parent = await self._history.visible_event(requester, room_id, event_id)
        stretch = await self._history.stretch(
            access, request.start, request.stop, backwards=request.backwards
        )
        related_to: set[EventId] = {parent.event.event_id}
        if request.recurse:
            related_to = await self._recurse(access.room_nid, parent.event.event_id)
        rows = await self._store.load_page(
            access.room_nid,
            related_to,
            stretch,
            relation_type=request.relation_type,
            event_type=request.event_type,
            backwards=request.backwards,
            limit=request.limit + 1,
        )
        more = len(rows) > request.limit
        rows = rows[: request.limit]
        answer: dict[str, Any] = {
            "chunk": await self._client_events.render(await self._readable(requester, rows), requester)
        }
        if more and rows:
            point = rows[-1].point
            if not request.backwards:
                point = point.after
            answer["next_batch"] = self._tokens.page_token(stretch.ceiling, point)
        if request.start is not None:
            answer["prev_batch"] = request.start
        if request.recurse:
            answer["recursion_depth"] = RECURSION_DEPTH
        return answer

    async def threads(
        self, requester: Requester, room_id: RoomId, *, participated: bool, since: str | None, limit: int
    ) -> dict[str, Any]:
        """A page of the thread roots of a room, the thread with the latest reply first."""
        access = await self._access.check(requester.user_id, room_id)
        kind = f"{_THREADS} {room_id} {participated}"
        position = self._tokens.read_offset(kind, since) if since is not None else None
        sender_nid = None
        if participated:
            sender_nid = await self._numbers.user_number(requester.user_id)
            if sender_nid is None:
                return {"chunk": []}
        found = await self._store.load_threads(
            access.room_nid,
            upto=access.bound(self._database.position),
            before=position,
            sender_nid=sender_nid,
            limit=limit + 1,
        )
        more = len(found) > limit
        found = found[:limit]
        stored = await self._events.load([root for root, _ in found])
        ignored = await self._ignored.of(requester.user_id)
        roots = [stored[root] for root, _ in found if root in stored]
        roots = await self._visibility.visible(
            requester.user_id, [root for root in roots if root.room_nid == access.room_nid]
        )
        # The root of an ignored user "is returned redacted to the caller", so that the thread keeps its place.
        roots = [_pruned(root) if root.event.sender in ignored else root for root in roots]
        answer: dict[str, Any] = {"chunk": await self._client_events.render(roots, requester)}
        if more:
            answer["next_batch"] = self._tokens.offset(kind, found[-1][1])
        return answer

    async def _recurse(self, room_nid: int, event_id: EventId) -> set[EventId]:
        known = {event_id}
        layer = {event_id}
        for _ in range(RECURSION_DEPTH - 1):
            rows = await self._store.load_page(
                room_nid,
                layer,
                Stretch(self._database.position),
                relation_type=None,
                event_type=None,
                backwards=False,
                limit=_MAX_RECURSED,
            )
            related = await self._events.load_numbered([row.event_nid for row in rows])
            layer = {stored.event.event_id for stored in related.values()} - known
            known |= layer
            if not layer or len(known) > _MAX_RECURSED:
                break
        return known

    async def _readable(self, requester: Requester, rows: list[RelationRow]) -> list[StoredEvent]:
        related = await self._events.load_numbered([row.event_nid for row in rows])
        events = [related[row.event_nid] for row in rows if row.event_nid in related]
        ignored = await self._ignored.of(requester.user_id)
        return await self._visibility.visible(requester.user_id, without_ignored(events, ignored))


def _pruned(stored: StoredEvent) -> StoredEvent:
    version = stored.event.version
    pruned = Event.from_json(version, redact(version, stored.event.pdu), event_id=stored.event.event_id)
    return replace(stored, event=pruned)
