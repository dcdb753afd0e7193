"""Bundled aggregations (CS "Server-side aggregations of `m.thread` and `m.replace` relationships")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homeserver.ids import EventId, UserId
    from homeserver.services.requester import Requester
    from homeserver.storage.events import EventStore, StoredEvent
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.relations import RelationRow, RelationStore
    from homeserver.views.client_events import ClientEvents
    from homeserver.views.ignored import IgnoredUsers

_BUNDLED = ("m.thread", "m.replace", "m.reference")


class Aggregations:
    """What is bundled with events: their latest replacement, their thread, who refers to them."""

    def __init__(
        self, relations: RelationStore, events: EventStore, numbers: NumberStore, ignored: IgnoredUsers
    ) -> None:
        self._relations = relations
        self._events = events
        self._numbers = numbers
        self._ignored = ignored

    async def of(
        self, events: Sequence[StoredEvent], reader: Requester, client_events: ClientEvents
    ) -> Mapping[EventId, dict[str, Any]]:
        """The content of `m.relations` by event id; events with nothing to bundle are left out."""
        wanted = [
            stored for stored in events if stored.event.state_key is None and stored.redacted_by is None
        ]
        if not wanted:
            return {}
        rows = await self._relations.load_to([stored.event.event_id for stored in wanted], _BUNDLED)
        if not rows:
            return {}
        ignored = set()
        for user_id in await self._ignored.of(reader.user_id):
            number = await self._numbers.user_number(user_id)
            if number is not None:
                ignored.add(number)
        by_event: dict[EventId, list[RelationRow]] = {}
        for row in rows:
            if row.sender_nid not in ignored:
                by_event.setdefault(row.relates_to, []).append(row)
        related = await self._events.load_numbered([row.event_nid for row in _needed(by_event)])
        bundles: dict[EventId, dict[str, Any]] = {}
        for stored in wanted:
            bundle = await self._bundle(
                stored, by_event.get(stored.event.event_id, []), related, reader, client_events
            )
            if bundle:
                bundles[stored.event.event_id] = bundle
        return bundles

    async def _bundle(
        self,
        stored: StoredEvent,
        rows: Sequence[RelationRow],
        related: Mapping[int, StoredEvent],
        reader: Requester,
        client_events: ClientEvents,
    ) -> dict[str, Any]:
        bundle: dict[str, Any] = {}
        # "m.replace": the most recent one by `origin_server_ts`, by the same sender and of the same type.
        replacements = [
            related[row.event_nid]
            for row in rows
            if row.relation_type == "m.replace"
            and row.event_nid in related
            and related[row.event_nid].event.sender == stored.event.sender
            and related[row.event_nid].event.type == stored.event.type
            and related[row.event_nid].redacted_by is None
        ]
        if replacements:
            latest = max(replacements, key=lambda one: (one.event.origin_server_ts, one.event.event_id))
            (bundle["m.replace"],) = await client_events.render([latest], reader, aggregate=False)
        references = [
            related[row.event_nid].event.event_id
            for row in rows
            if row.relation_type == "m.reference" and row.event_nid in related
        ]
        if references:
            bundle["m.reference"] = {"chunk": [{"event_id": event_id} for event_id in references]}
        replies = [row for row in rows if row.relation_type == "m.thread"]
        if replies and replies[-1].event_nid in related:
            own = await self._numbers.user_number(reader.user_id)
            latest_reply = related[replies[-1].event_nid]
            (latest_event,) = await client_events.render([latest_reply], reader)
            bundle["m.thread"] = {
                "latest_event": latest_event,
                "count": len(replies),
                "current_user_participated": stored.event.sender == reader.user_id
                or any(row.sender_nid == own for row in replies),
            }
        return bundle


def _needed(by_event: Mapping[EventId, Sequence[RelationRow]]) -> list[RelationRow]:
    needed = []
    for rows in by_event.values():
        needed += [row for row in rows if row.relation_type != "m.thread"]
        needed += [row for row in rows if row.relation_type == "m.thread"][-1:]
    return needed


def without_ignored(events: Sequence[StoredEvent], ignored: frozenset[UserId]) -> list[StoredEvent]:
    """Events without those of ignored users; state events still pass (CS "Ignoring users")."""
    if not ignored:
        return list(events)
    return [
        stored
        for stored in events
        if stored.event.state_key is not None or stored.event.sender not in ignored
    ]
