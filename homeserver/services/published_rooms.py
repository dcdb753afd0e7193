"""The list of published rooms, page by page, and the search in it (CS "Published room directory")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import EventId, RoomId
    from homeserver.services.room_summaries import RoomSummaries
    from homeserver.storage.directory import DirectoryStore, PublishedRoom
    from homeserver.views.tokens import Tokens

MAX_PAGE = 500
_MAX_REDACTED = 10_000
_PAGES = "published rooms"
_SEARCHED = ("name", "topic", "canonical_alias")


@dataclass(frozen=True, slots=True)
class _Searchable:
    """What is looked at when somebody searches, as of one state of the room."""

    state_snapshot: int
    room_type: str | None
    text: str
    event_ids: frozenset[EventId]


class PublishedRooms:
    """Reads the list. What is searched stays in memory for as long as the state of the room does not change."""

    def __init__(self, store: DirectoryStore, summaries: RoomSummaries, tokens: Tokens) -> None:
        self._store = store
        self._summaries = summaries
        self._tokens = tokens
        self._searchable: dict[RoomId, _Searchable] = {}
        self._redacted: set[str] = set()

    async def page(
        self, *, term: str | None, room_types: Sequence[str | None] | None, since: str | None, limit: int
    ) -> dict[str, Any]:
        """A page of the list, largest rooms first, in the form of `/publicRooms`."""
        offset = self._tokens.read_offset(_PAGES, since) if since is not None else 0
        if term is None and room_types is None:
            total = await self._store.count_published()
            rooms = await self._store.load_published(limit=limit, offset=offset)
        else:
            matching = await self._matching(term, room_types)
            total, rooms = len(matching), matching[offset : offset + limit]
        page: dict[str, Any] = {
            "chunk": [entry for entry, _ in await self._summaries.entries(rooms)],
            "total_room_count_estimate": total,
        }
        if offset + limit < total:
            page["next_batch"] = self._tokens.offset(_PAGES, offset + limit)
        if offset > 0:
            page["prev_batch"] = self._tokens.offset(_PAGES, max(0, offset - limit))
        return page

    async def _matching(
        self, term: str | None, room_types: Sequence[str | None] | None
    ) -> list[PublishedRoom]:
        rooms = await self._store.load_published()
        searchable = await self._load_searchable(rooms)
        wanted = term.casefold() if term is not None else ""
        return [
            room
            for room in rooms
            if (room_types is None or searchable[room.room_id].room_type in room_types)
            and wanted in searchable[room.room_id].text
        ]

    async def _load_searchable(self, rooms: Sequence[PublishedRoom]) -> dict[RoomId, _Searchable]:
        searchable: dict[RoomId, _Searchable] = {}
        changed = []
        redacted, self._redacted = self._redacted, set()
        for room in rooms:
            known = self._searchable.get(room.room_id)
            if (
                known is None
                or known.state_snapshot != room.state_snapshot
                or not known.event_ids.isdisjoint(redacted)
            ):
                changed.append(room)
            else:
                searchable[room.room_id] = known
        # Whoever searches meanwhile finds nothing that is not so any more.
        self._searchable = searchable
        for start in range(0, len(changed), MAX_PAGE):
            some = changed[start : start + MAX_PAGE]
            for room, (entry, event_ids) in zip(some, await self._summaries.entries(some), strict=True):
                # A line for each text, so that no match goes from one into the next.
                text = "\n".join(entry[name] for name in _SEARCHED if name in entry).casefold()
                searchable[room.room_id] = _Searchable(
                    room.state_snapshot, entry.get("room_type"), text, event_ids
                )
        return searchable

    def redacted(self, event_id: str) -> None:
        """An event was redacted: what is held of a room whose entry came from it is not to be used again."""
        self._redacted.add(event_id)
        if len(self._redacted) > _MAX_REDACTED:
            self._redacted.clear()
            self._searchable = {}
