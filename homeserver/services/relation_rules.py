"""What clients may not relate to what (CS "Threading", "Avoiding duplicate annotations")."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from homeserver.errors import MatrixError
from homeserver.ids import EventId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from homeserver.ids import RoomId, UserId
    from homeserver.storage.events import EventStore
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.relations import RelationStore

_ANNOTATION = "m.annotation"
_THREAD = "m.thread"


class RelationRules:
    """Looks at the relation of an event before it is sent."""

    def __init__(self, events: EventStore, relations: RelationStore, numbers: NumberStore) -> None:
        self._events = events
        self._relations = relations
        self._numbers = numbers
        self._annotating: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def checked(
        self, room_id: RoomId, sender: UserId, event_type: str, content: dict[str, Any]
    ) -> AsyncIterator[None]:
        """Send an event inside of this; `MatrixError` where its relation is none that a client may make.

        The same annotation is sent by one request at a time, so that the second one sees the first.
        """
        relates_to = content.get("m.relates_to")
        parent = relates_to.get("event_id") if isinstance(relates_to, dict) else None
        if not isinstance(relates_to, dict) or not isinstance(parent, str):
            yield
        elif relates_to.get("rel_type") == _ANNOTATION and isinstance(relates_to.get("key"), str):
            annotation = (sender, event_type, parent, relates_to["key"])
            async with self._annotating.setdefault(annotation, asyncio.Lock()):
                await self._check_annotation(*annotation)
                yield
        else:
            if relates_to.get("rel_type") == _THREAD:
                await self._check_thread(room_id, EventId(parent))
            yield

    async def _check_thread(self, room_id: RoomId, root: EventId) -> None:
        # "Servers SHOULD reject client requests which attempt to start a thread off an event with an
        # m.relates_to property." A rich reply has no `rel_type`, and is no child.
        stored = await self._events.get(root)
        if stored is None or stored.room_id != room_id:
            return
        relates_to = stored.event.content.get("m.relates_to")
        if isinstance(relates_to, dict) and "rel_type" in relates_to:
            raise MatrixError("A thread cannot start from an event that relates to another one itself")

    async def _check_annotation(self, sender: str, event_type: str, parent: str, key: str) -> None:
        sender_nid = await self._numbers.user_number(sender)
        if sender_nid is None:
            return
        sent = await self._relations.load_sent(EventId(parent), _ANNOTATION, event_type, sender_nid)
        for stored in (await self._events.load_numbered(sent)).values():
            relates_to = stored.event.content.get("m.relates_to")
            if isinstance(relates_to, dict) and relates_to.get("key") == key:
                raise MatrixError(
                    "You have annotated this event so already", errcode="M_DUPLICATE_ANNOTATION"
                )
