"""Bundled aggregations (CS "Aggregations of child events"): the latest replacement, the thread, who refers to an event.

They are put together for a page of events at once, from a fixed number of questions to the database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.storage.relations import ThreadSummary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import orjson

    from homeserver.ids import EventId, UserId
    from homeserver.services.requester import Requester
    from homeserver.storage.events import EventStore
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.relations import RelationRow, RelationStore
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.views.client_events import ClientEvents
    from homeserver.views.ignored import IgnoredUsers
    from homeserver.views.visibility import HistoryVisibility

_THREAD, _REPLACE, _REFERENCE = "m.thread", "m.replace", "m.reference"
_REPLACEMENTS_LOOKED_AT = 20
_MAX_REFERENCES = 1_000


class Aggregations:
    """What is bundled with events, as their reader may see it."""

    def __init__(
        self,
        relations: RelationStore,
        events: EventStore,
        numbers: NumberStore,
        visibility: HistoryVisibility,
        ignored: IgnoredUsers,
    ) -> None:
        self._relations = relations
        self._events = events
        self._numbers = numbers
        self._visibility = visibility
        self._ignored = ignored

    async def of(
        self,
        events: Sequence[StoredEvent],
        reader: Requester,
        client_events: ClientEvents,
        *,
        threads: bool = True,
    ) -> Mapping[EventId, dict[str, Any]]:
        """The content of `m.relations` by event id, for events of one room; those with nothing to bundle are left out.

        Without `threads` for the latest reply of a thread, so that no answer is nested without end.
        """
        # "State events do not currently receive bundled aggregations."
        parents = {stored.event.event_id: stored for stored in events if stored.event.state_key is None}
        if not parents:
            return {}
        room_nid = events[0].room_nid
        kinds = await self._relations.load_kinds(room_nid, parents)
        if not kinds:
            return {}
        ignored = [
            number
            for user_id in await self._ignored.of(reader.user_id)
            if (number := await self._numbers.user_number(user_id)) is not None
        ]
        bundles: dict[EventId, dict[str, Any]] = {}
        edited = [parents[event_id] for event_id in kinds.get(_REPLACE, ())]
        for event_id, latest in (await self._replacements(edited, reader, client_events)).items():
            bundles.setdefault(event_id, {})[_REPLACE] = latest
        referred = kinds.get(_REFERENCE)
        if referred:
            for event_id, ids in (await self._references(room_nid, referred, reader, ignored)).items():
                bundles.setdefault(event_id, {})[_REFERENCE] = {"chunk": [{"event_id": one} for one in ids]}
        if threads and _THREAD in kinds:
            roots = [parents[event_id] for event_id in kinds[_THREAD]]
            for event_id, thread in (await self._threads(roots, reader, ignored, client_events)).items():
                bundles.setdefault(event_id, {})[_THREAD] = thread
        return bundles

    async def among(self, events: Iterable[StoredEvent]) -> set[EventId]:
        """The ids of those of these events, of whatever rooms, with which something may be bundled."""
        parents = [stored.event.event_id for stored in events if stored.event.state_key is None]
        return await self._relations.load_related(parents) if parents else set()

    async def _replacements(
        self, edited: Sequence[StoredEvent], reader: Requester, client_events: ClientEvents
    ) -> dict[EventId, orjson.Fragment]:
        """The most recent valid replacement of each event, "determined by comparing `origin_server_ts`"."""
        # "If the original event is redacted, any m.replace relationship should not be bundled with it." Nobody
        # but the sender edits, and the messages of ignored users are not shown in the first place.
        parents = {
            stored.event.event_id: stored
            for stored in edited
            if stored.redacted_by is None and _relation_type(stored) != _REPLACE
        }
        if not parents:
            return {}
        candidates = await self._relations.load_replacements(
            edited[0].room_nid, parents, _REPLACEMENTS_LOOKED_AT
        )
        found = await self._events.load_numbered([row.event_nid for row in candidates])
        visible = await self._visibility.visible(reader.user_id, list(found.values()))
        shown = {stored.event_nid: stored for stored in visible}
        latest: dict[EventId, StoredEvent] = {}
        for row in candidates:
            stored, parent = shown.get(row.event_nid), parents[row.relates_to]
            if stored is not None and row.relates_to not in latest and _is_valid(stored, parent):
                latest[row.relates_to] = stored
        rendered = await client_events.render(list(latest.values()), reader, aggregate=False)
        return dict(zip(latest, rendered, strict=True))

    async def _references(
        self, room_nid: int, referred: Sequence[EventId], reader: Requester, ignored: Sequence[int]
    ) -> dict[EventId, list[EventId]]:
        rows = await self._relations.load_children(room_nid, referred, _REFERENCE, ignored, _MAX_REFERENCES)
        readable = await self._visible(rows, reader)
        references: dict[EventId, list[EventId]] = {}
        for row in rows:
            if row.event_nid in readable:
                references.setdefault(row.relates_to, []).append(readable[row.event_nid].event.event_id)
        return references

    async def _threads(
        self,
        roots: Sequence[StoredEvent],
        reader: Requester,
        ignored: Sequence[int],
        client_events: ClientEvents,
    ) -> dict[EventId, dict[str, Any]]:
        room_nid = roots[0].room_nid
        own = await self._numbers.user_number(reader.user_id)
        threads = await self._relations.load_threads_of(
            room_nid, [root.event.event_id for root in roots], own or 0, ignored
        )
        latest = await self._events.load_numbered([thread.latest_nid for thread in threads.values()])
        visible = await self._visibility.visible(reader.user_id, list(latest.values()))
        if len(visible) < len(threads):
            seen = {stored.event_nid for stored in visible}
            hidden = [root for root, thread in threads.items() if thread.latest_nid not in seen]
            latest |= await self._reread(threads, hidden, room_nid, reader, ignored)
        replies = {root: latest[thread.latest_nid] for root, thread in threads.items()}
        rendered = await client_events.render(list(replies.values()), reader, threads=False)
        by_root = {root.event.event_id: root for root in roots}
        return {
            root: {
                "latest_event": fragment,
                "count": threads[root].count,
                "current_user_participated": threads[root].participated
                or by_root[root].event.sender == reader.user_id,
            }
            for root, fragment in zip(replies, rendered, strict=True)
        }

    async def _reread(
        self,
        threads: dict[EventId, ThreadSummary],
        hidden: Sequence[EventId],
        room_nid: int,
        reader: Requester,
        ignored: Sequence[int],
    ) -> dict[int, StoredEvent]:
        """Count threads whose latest reply the reader may not see reply by reply; those without any are dropped."""
        rows = await self._relations.load_children(room_nid, hidden, _THREAD, ignored, None)
        readable = await self._visible(rows, reader)
        for root in hidden:
            shown = [row.event_nid for row in rows if row.relates_to == root and row.event_nid in readable]
            if not shown:
                del threads[root]
                continue
            participated = any(readable[nid].event.sender == reader.user_id for nid in shown)
            threads[root] = ThreadSummary(shown[-1], len(shown), participated)
        return readable

    async def _visible(self, rows: Sequence[RelationRow], reader: Requester) -> dict[int, StoredEvent]:
        found = await self._events.load_numbered([row.event_nid for row in rows])
        visible = await self._visibility.visible(reader.user_id, list(found.values()))
        return {stored.event_nid: stored for stored in visible}


def _relation_type(stored: StoredEvent) -> Any:
    relates_to = stored.event.content.get("m.relates_to")
    return relates_to.get("rel_type") if isinstance(relates_to, dict) else None


def _is_valid(replacement: StoredEvent, original: StoredEvent) -> bool:
    """CS "Validity of replacement events"; what is encrypted is for the client to judge."""
    event = replacement.event
    return (
        event.sender == original.event.sender
        and event.type == original.event.type
        and event.state_key is None
        and (event.type == "m.room.encrypted" or isinstance(event.content.get("m.new_content"), dict))
    )


def without_ignored(events: Sequence[StoredEvent], ignored: frozenset[UserId]) -> list[StoredEvent]:
    """Events without those of ignored users; state events still pass (CS "Ignoring users")."""
    if not ignored:
        return list(events)
    return [
        stored
        for stored in events
        if stored.event.state_key is not None or stored.event.sender not in ignored
    ]
