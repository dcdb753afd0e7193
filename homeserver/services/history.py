"""Reading a room's events: one, a page, what stands around one, at a time (CS "Getting events for a room")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from homeserver.errors import NotFound
from homeserver.storage.events import RoomPoint, Status
from homeserver.views.aggregations import without_ignored

if TYPE_CHECKING:
    from collections.abc import Sequence

    import orjson

    from homeserver.ids import EventId, RoomId
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.requester import Requester
    from homeserver.services.room_access import RoomAccess, RoomAccessRules
    from homeserver.storage.database import Database
    from homeserver.storage.events import StoredEvent
    from homeserver.views.client_events import ClientEvents
    from homeserver.views.filters import RoomEventFilter
    from homeserver.views.ignored import IgnoredUsers
    from homeserver.views.tokens import PageToken, Tokens
    from homeserver.views.visibility import HistoryVisibility

MAX_PAGE = 1_000
_MAX_LOOKED_AT = 5_000


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page of a room's history is asked for."""

    start: str | None
    stop: str | None
    backwards: bool
    limit: int
    filter: RoomEventFilter


class History:
    """Reads the past of rooms, as far as the reader may."""

    def __init__(
        self,
        database: Database,
        rooms: RoomReader,
        access: RoomAccessRules,
        visibility: HistoryVisibility,
        client_events: ClientEvents,
        ignored: IgnoredUsers,
        tokens: Tokens,
    ) -> None:
        self._database = database
        self._rooms = rooms
        self._access = access
        self._visibility = visibility
        self._client_events = client_events
        self._ignored = ignored
        self._tokens = tokens

    async def visible_event(self, requester: Requester, room_id: RoomId, event_id: str) -> StoredEvent:
        """An event that the requester may see; `NotFound` otherwise."""
        stored = await self._rooms.event(event_id)  # type: ignore[arg-type]
        if stored is None or stored.room_id != room_id or stored.status is not Status.TIMELINE:
            raise NotFound("Unknown event")
        if not await self._visibility.visible(requester.user_id, [stored]):
            raise NotFound("Unknown event")
        return stored

    async def event(self, requester: Requester, room_id: RoomId, event_id: str) -> orjson.Fragment:
        """One event in its client form; `Forbidden` for a room that the requester may not read."""
        await self._access.check(requester.user_id, room_id)
        stored = await self.visible_event(requester, room_id, event_id)
        (rendered,) = await self._client_events.render([stored], requester)
        return rendered

    # -- pages -----------------------------------------------------------------------------------------

    async def messages(self, requester: Requester, room_id: RoomId, page: PageRequest) -> dict[str, Any]:
        """A page in the form of `/messages`."""
        await self._access.check(requester.user_id, room_id)
        here = self._database.position
        start = self._tokens.read_page_token(page.start, upto=here) if page.start is not None else None
        stop = self._tokens.read_page_token(page.stop, upto=here) if page.stop is not None else None
        ceiling = start.ceiling if start is not None and page.backwards else here
        at = await self.gap(room_id, start) if start is not None else None
        until = await self.gap(room_id, stop) if stop is not None else None
        if start is None:
            origin = self._tokens.page_token(here, None if page.backwards else RoomPoint(0, -(2**62)))
        else:
            origin = page.start or ""
        events, last = await self._walk(requester, room_id, page, ceiling, at, until)
        answer: dict[str, Any] = {
            "start": origin,
            "chunk": await self._client_events.render(events, requester),
        }
        if last is not None:
            point = last.point if page.backwards else _after(last.point)
            answer["end"] = self._tokens.page_token(ceiling, point)
        if page.filter.lazy_load_members and events:
            members = await self._rooms.members_at(
                events[0].state_after, sorted({stored.event.sender for stored in events})
            )
            answer["state"] = await self._client_events.render(members, requester, aggregate=False)
        return answer

    async def _walk(
        self,
        requester: Requester,
        room_id: RoomId,
        page: PageRequest,
        ceiling: int,
        at: RoomPoint | None,
        until: RoomPoint | None,
    ) -> tuple[list[StoredEvent], StoredEvent | None]:
        """The events of a page, and the last one looked at; None for the latter at the end of the room."""
        ignored = await self._ignored.of(requester.user_id)
        kept: list[StoredEvent] = []
        looked_at = 0
        last: StoredEvent | None = None
        # Exclusive on both sides: just before a gap lies what is not to be read again.
        start = at if page.backwards or at is None else _before(at)
        stop = until if not page.backwards or until is None else _before(until)
        while looked_at < _MAX_LOOKED_AT:
            wanted = page.limit - len(kept)
            if wanted <= 0:
                break
            read = await self._rooms.timeline(
                room_id,
                ceiling=ceiling,
                start=last.point if last is not None else start,
                stop=stop,
                backwards=page.backwards,
                limit=wanted + 1,
            )
            looked_at += len(read)
            more = len(read) > wanted
            read = read[:wanted]
            passing = [stored for stored in read if page.filter.allows(stored.event)]
            kept += await self._visibility.visible(requester.user_id, without_ignored(passing, ignored))
            if read:
                last = read[-1]
            if not more:
                return kept, None
        return kept, last

    async def gap(self, room_id: RoomId, token: PageToken) -> RoomPoint:
        """The gap that a token stands for, in the order of the room."""
        if token.point is not None:
            return token.point
        last = await self._rooms.last_event(room_id, token.ceiling)
        return _after(last.point) if last is not None else RoomPoint(0, 0)

    # -- around an event -------------------------------------------------------------------------------

    async def context(
        self, requester: Requester, room_id: RoomId, event_id: str, limit: int, filter_: RoomEventFilter
    ) -> dict[str, Any]:
        """An event with what stands before and after it, in the form of `/context`."""
        await self._access.check(requester.user_id, room_id)
        stored = await self.visible_event(requester, room_id, event_id)
        here = self._database.position
        before_limit = min(limit, MAX_PAGE) // 2
        after_limit = min(limit, MAX_PAGE) - before_limit
        before, _ = await self._walk(
            requester,
            room_id,
            PageRequest(None, None, backwards=True, limit=before_limit, filter=filter_),
            here,
            stored.point,
            None,
        )
        after, _ = await self._walk(
            requester,
            room_id,
            PageRequest(None, None, backwards=False, limit=after_limit, filter=filter_),
            here,
            _after(stored.point),
            None,
        )
        first, last = (before or [stored])[-1], (after or [stored])[-1]
        state = await self._rooms.stored_state_at(last.state_after)
        if filter_.lazy_load_members:
            senders = {one.event.sender for one in (*before, stored, *after)}
            state = [
                one for one in state if one.event.type != "m.room.member" or one.event.state_key in senders
            ]
        (rendered,) = await self._client_events.render([stored], requester)
        return {
            "start": self._tokens.page_token(here, first.point),
            "end": self._tokens.page_token(here, _after(last.point)),
            "event": rendered,
            "events_before": await self._client_events.render(before, requester),
            "events_after": await self._client_events.render(after, requester),
            "state": await self._client_events.render(state, requester, aggregate=False),
        }

    async def at_time(
        self, requester: Requester, room_id: RoomId, ts: int, *, backwards: bool
    ) -> tuple[EventId, int]:
        """The event closest to a time, and its time; `NotFound` where there is none in that direction."""
        await self._access.check(requester.user_id, room_id)
        stored = await self._rooms.nearest(room_id, ts=ts, backwards=backwards)
        if stored is None or not await self._visibility.visible(requester.user_id, [stored]):
            raise NotFound("There is no event at or beyond that time")
        return stored.event.event_id, stored.event.origin_server_ts

    # -- state -----------------------------------------------------------------------------------------

    async def state(self, requester: Requester, room_id: RoomId) -> list[orjson.Fragment]:
        """The whole state, as far as the requester may read it."""
        stored = await self._state(await self._access.check(requester.user_id, room_id))
        return await self._client_events.render(stored, requester, aggregate=False)

    async def state_event(
        self, requester: Requester, room_id: RoomId, event_type: str, state_key: str
    ) -> StoredEvent:
        """One event of the state; `NotFound` where it is not set."""
        access = await self._access.check(requester.user_id, room_id)
        key = (event_type, state_key)
        if access.snapshot_nid is None:
            found = await self._rooms.stored_state(room_id, [key])
        else:
            found = [one for one in await self._state(access) if one.event.key == key]
        if not found:
            raise NotFound("There is no such state")
        return found[0]

    async def members(
        self,
        requester: Requester,
        room_id: RoomId,
        *,
        at: str | None,
        membership: str | None,
        not_membership: str | None,
    ) -> list[orjson.Fragment]:
        """The member events of a room, now or at a token."""
        access = await self._access.check(requester.user_id, room_id)
        if at is not None:
            position = self._tokens.read_page_token(at, upto=self._database.position).ceiling
            stored: Sequence[StoredEvent] = await self._rooms.stored_state_at(
                await self._rooms.snapshot_at(room_id, position)
            )
        else:
            stored = await self._state(access)
        wanted = [
            one
            for one in stored
            if one.event.type == "m.room.member"
            and (membership is None or one.event.membership == membership)
            and (not_membership is None or one.event.membership != not_membership)
        ]
        return await self._client_events.render(wanted, requester, aggregate=False)

    async def joined_members(self, requester: Requester, room_id: RoomId) -> dict[str, dict[str, Any]]:
        """The joined members with their names and avatars, for members."""
        access = await self._access.check(requester.user_id, room_id)
        joined = {}
        for one in await self._state(access):
            if one.event.type == "m.room.member" and one.event.membership == "join":
                joined[one.event.state_key or ""] = _profile(one.event.content)
        return joined

    async def _state(self, access: RoomAccess) -> Sequence[StoredEvent]:
        if access.snapshot_nid is None:
            return await self._rooms.stored_state(access.room_id)
        return await self._rooms.stored_state_at(access.snapshot_nid)


def _profile(content: dict[str, Any]) -> dict[str, Any]:
    profile = {}
    for field, name in (("display_name", "displayname"), ("avatar_url", "avatar_url")):
        if isinstance(content.get(name), str):
            profile[field] = content[name]
    return profile


def _after(point: RoomPoint) -> RoomPoint:
    """The gap just after an event."""
    return RoomPoint(point.depth, point.stream_id + 1)


def _before(point: RoomPoint) -> RoomPoint:
    """What stands just before a gap, at the latest."""
    return RoomPoint(point.depth, point.stream_id - 1)
