"""Reading a room's events: one, a page, what stands around one, at a time (CS "Getting events for a room")."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from homeserver.errors import Forbidden, NotFound
from homeserver.storage.room_stretch import RoomStretch
from homeserver.storage.stored_event import RoomPoint, Status, Stretch
from homeserver.views.aggregations import without_ignored

if TYPE_CHECKING:
    import orjson

    from homeserver.ids import EventId, RoomId
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.inbound.backfill import Backfill
    from homeserver.services.inbound.event_times import EventTimes
    from homeserver.services.requester import Requester
    from homeserver.services.room_access import RoomAccess, RoomAccessRules
    from homeserver.storage.database import Database
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.views.client_events import ClientEvents
    from homeserver.views.filters import RoomEventFilter
    from homeserver.views.ignored import IgnoredUsers
    from homeserver.views.tokens import PageToken, Tokens
    from homeserver.views.visibility import HistoryVisibility

MAX_PAGE = 1_000
_MAX_LOOKED_AT = 5_000
_DEEPEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page of a room's history is asked for."""

    start: str | None
    stop: str | None
    backwards: bool
    limit: int
    filter: RoomEventFilter


class Paged(Protocol):
    """Takes note of what devices have got."""

    async def paged(self, requester: Requester, stretch: RoomStretch) -> None:
        """A stretch of a room is being given to a device."""
        ...


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
        backfill: Backfill,
        delivered: Paged,
        times: EventTimes,
    ) -> None:
        self._database = database
        self._rooms = rooms
        self._access = access
        self._visibility = visibility
        self._client_events = client_events
        self._ignored = ignored
        self._tokens = tokens
        self._backfill = backfill
        self._delivered = delivered
        self._times = times

    async def visible_event(
        self, requester: Requester, room_id: RoomId, event_id: str
    ) -> tuple[RoomAccess, StoredEvent]:
        """An event that the requester may see, and how they may read its room.

        `NotFound` where "the event was not found or you do not have permission to read this event".
        """
        try:
            access = await self._access.check(requester.user_id, room_id)
        except Forbidden as error:
            raise NotFound("Unknown event") from error
        stored = await self._rooms.event(event_id)  # type: ignore[arg-type]
        if stored is None or stored.room_id != room_id or stored.status is not Status.TIMELINE:
            raise NotFound("Unknown event")
        if not await self._visibility.visible(requester.user_id, [stored]):
            raise NotFound("Unknown event")
        return access, stored

    async def event(self, requester: Requester, room_id: RoomId, event_id: str) -> orjson.Fragment:
        """One event in its client form; `NotFound` for one that the requester may not see."""
        _, stored = await self.visible_event(requester, room_id, event_id)
        (rendered,) = await self._client_events.render([stored], requester)
        return rendered

    # -- pages -----------------------------------------------------------------------------------------

    async def messages(self, requester: Requester, room_id: RoomId, page: PageRequest) -> dict[str, Any]:
        """A page in the form of `/messages`."""
        access = await self._access.check(requester.user_id, room_id)
        stretch = await self.stretch(access, page.start, page.stop, backwards=page.backwards)
        origin = page.start
        if origin is None:
            first = None if page.backwards else RoomPoint(0, -(2**62))
            origin = self._tokens.page_token(stretch.ceiling, first)
        answer: dict[str, Any] = {"start": origin, "chunk": []}
        if page.limit == 0:
            return {**answer, "end": origin}
        events, last = await self._walk(requester, room_id, page, stretch)
        if page.backwards and await self._fill(room_id, stretch, events, last):
            # There may be yet more behind what came.
            events, last = await self._walk(requester, room_id, page, stretch, is_open=True)
        answer["chunk"] = await self._client_events.render(events, requester)
        await self._note_brought(requester, page, stretch, events)
        if last is not None:
            point = last.point if page.backwards else last.point.after
            answer["end"] = self._tokens.page_token(stretch.ceiling, point)
        if page.filter.lazy_load_members and events:
            members = await self._rooms.members_at(
                events[0].state_after, sorted({stored.event.sender for stored in events})
            )
            answer["state"] = await self._client_events.render(members, requester, aggregate=False)
        return answer

    async def _note_brought(
        self, requester: Requester, page: PageRequest, stretch: Stretch, events: list[StoredEvent]
    ) -> None:
        """What a page holds has come, where it holds all that stands in between."""
        if not page.filter.allows_everything or not events:
            return
        positions = [stored.stream_id for stored in events]
        if positions != sorted(positions, reverse=page.backwards):
            return
        first, last = min(positions), max(positions)
        if page.backwards and stretch.start is None:
            last = max(last, stretch.ceiling)
        await self._delivered.paged(requester, RoomStretch(events[0].room_nid, first - 1, last))

    async def _fill(
        self, room_id: RoomId, stretch: Stretch, events: list[StoredEvent], last: StoredEvent | None
    ) -> bool:
        """Fetch what is missing within a page, or behind its end where the history that is here ends there."""
        if stretch.floor is not None and stretch.floor_depth is None:
            return False
        lowest = stretch.stop.depth if stretch.stop is not None else 0
        upto = stretch.start.depth if stretch.start is not None else _DEEPEST
        depth_from = events[-1].event.depth if events and last is not None else lowest
        return await self._backfill.fill(room_id, depth_from=depth_from, depth_upto=upto, within=stretch)

    async def stretch(
        self, access: RoomAccess, start: str | None, stop: str | None, *, backwards: bool
    ) -> Stretch:
        """What lies between two tokens, or a token and the end of the room; `InvalidParam` for what is no token."""
        first = await self._tokens.read_page_token(start) if start is not None else None
        last = await self._tokens.read_page_token(stop) if stop is not None else None
        here = access.bound(self._database.position)
        if not backwards:
            at = await self._gap(access.room_id, first) if first is not None else None
            until = await self._gap(access.room_id, last) if last is not None else None
            return Stretch(here, start=at.before if at is not None else None, stop=until)
        # A token without a point is a time: what arrived up to it lies before it, wherever it stands.
        until = last.point if last is not None else None
        floor = last.ceiling if last is not None and until is None else None
        return Stretch(
            here if first is None else min(first.ceiling, here),
            floor=floor,
            floor_depth=await self._depth_at(access.room_id, floor) if floor is not None else None,
            start=first.point if first is not None else None,
            stop=until.before if until is not None else None,
        )

    async def _walk(
        self,
        requester: Requester,
        room_id: RoomId,
        page: PageRequest,
        stretch: Stretch,
        *,
        is_open: bool = False,
    ) -> tuple[list[StoredEvent], StoredEvent | None]:
        """The events of a page, and the last one looked at; None for the latter where there is nothing beyond it.

        Where the end of what is here `is_open`, there may be more behind it that is not here yet. At the end of the walk there may be more, but not in this walk: the last one is told, and the next walk finds
        nothing.
        """
        ignored = await self._ignored.of(requester.user_id)
        kept: list[StoredEvent] = []
        looked_at, at_once = 0, 1
        last: StoredEvent | None = None
        while looked_at < _MAX_LOOKED_AT and len(kept) < page.limit:
            # Where most events are left out, more of them are read at a time.
            at_once = min(max(page.limit - len(kept), 2 * at_once), MAX_PAGE)
            read = await self._rooms.timeline(
                room_id,
                stretch if last is None else replace(stretch, start=last.point),
                backwards=page.backwards,
                limit=at_once + 1,
            )
            looked_at += len(read)
            more = len(read) > at_once
            read = read[:at_once]
            passing = read
            if not page.filter.allows_everything:
                passing = [stored for stored in read if page.filter.allows(stored.event)]
            passing = await self._visibility.visible(requester.user_id, without_ignored(passing, ignored))
            room = page.limit - len(kept)
            kept += passing[:room]
            if len(passing) > room:
                return kept, kept[-1]
            if read:
                last = read[-1]
            if not more:
                is_open = is_open or stretch.stop is not None or stretch.floor is not None
                return kept, last if is_open else None
        return kept, last

    async def _gap(self, room_id: RoomId, token: PageToken) -> RoomPoint:
        """The gap that a token stands for, in the order of the room."""
        if token.point is not None:
            return token.point
        last = await self._rooms.last_event(room_id, token.ceiling)
        return last.point.after if last is not None else RoomPoint(0, 0)

    async def _depth_at(self, room_id: RoomId, position: int) -> int | None:
        """How deep a room was at a position of the log; None where nothing of it had come."""
        came = Stretch(position, floor=0)
        deepest = await self._rooms.timeline(room_id, came, backwards=True, limit=1)
        return deepest[0].event.depth if deepest else None

    # -- around an event -------------------------------------------------------------------------------

    async def context(
        self, requester: Requester, room_id: RoomId, event_id: str, limit: int, filter_: RoomEventFilter
    ) -> dict[str, Any]:
        """An event with what stands before and after it, in the form of `/context`."""
        access, stored = await self.visible_event(requester, room_id, event_id)
        here = access.bound(self._database.position)
        before_limit = min(limit, MAX_PAGE) // 2
        after_limit = min(limit, MAX_PAGE) - before_limit
        before, _ = await self._walk(
            requester,
            room_id,
            PageRequest(None, None, backwards=True, limit=before_limit, filter=filter_),
            Stretch(here, start=stored.point),
        )
        after, _ = await self._walk(
            requester,
            room_id,
            PageRequest(None, None, backwards=False, limit=after_limit, filter=filter_),
            Stretch(here, start=stored.point),
        )
        first, last = (before or [stored])[-1], (after or [stored])[-1]
        if filter_.lazy_load_members:
            state = await self._rooms.stored_state_of_type_at(last.state_after, "m.room.member", others=True)
            senders = {one.event.sender for one in (*before, stored, *after)}
            state += await self._rooms.members_at(last.state_after, sorted(senders))
        else:
            state = await self._rooms.stored_state_at(last.state_after)
        state = [one for one in state if filter_.allows(one.event)]
        (rendered,) = await self._client_events.render([stored], requester)
        return {
            "start": self._tokens.page_token(here, first.point),
            "end": self._tokens.page_token(here, last.point.after),
            "event": rendered,
            "events_before": await self._client_events.render(before, requester),
            "events_after": await self._client_events.render(after, requester),
            "state": await self._client_events.render(state, requester, aggregate=False),
        }

    async def at_time(
        self, requester: Requester, room_id: RoomId, ts: int, *, backwards: bool
    ) -> tuple[EventId, int]:
        """The event closest to a time, and its time; `NotFound` where there is none in that direction.

        Where history is missing that may hold a closer one, other servers are asked.
        """
        access = await self._access.check(requester.user_id, room_id)
        known = await self._nearest(requester, access, ts, backwards=backwards)
        nearer = await self._times.nearer(room_id, ts, backwards=backwards, known=known)
        if nearer is not None and nearer.status is Status.TIMELINE:
            # What somebody may not see is no answer, and they are not told that it is there.
            known = next(iter(await self._visibility.visible(requester.user_id, [nearer])), known)
        if known is None:
            raise NotFound("There is no event at or beyond that time")
        return known.event.event_id, known.event.origin_server_ts

    async def _nearest(
        self, requester: Requester, access: RoomAccess, ts: int, *, backwards: bool
    ) -> StoredEvent | None:
        """The closest event of those that are here that somebody may see."""
        upto = access.bound(self._database.position)
        looked_at, at_once = 0, 1
        while looked_at < _MAX_LOOKED_AT:
            read = await self._rooms.nearest(
                access.room_id, ts=ts, backwards=backwards, upto=upto, skip=looked_at, limit=at_once
            )
            visible = await self._visibility.visible(requester.user_id, read)
            if visible:
                return visible[0]
            if len(read) < at_once:
                break
            looked_at += len(read)
            at_once = min(10 * at_once, MAX_PAGE)
        return None

    # -- tokens ----------------------------------------------------------------------------------------

    async def snapshot_at_token(self, access: RoomAccess, token: str) -> int:
        """The state snapshot at the gap that a token stands for, as far as the reader may see; 0 for none."""
        at = await self._tokens.read_page_token(token)
        upto = access.bound(at.ceiling)
        if at.point is None:
            return await self._rooms.snapshot_at(access.room_id, upto)
        before = await self._rooms.timeline(
            access.room_id, Stretch(upto, start=at.point), backwards=True, limit=1
        )
        return before[0].state_after if before else 0
