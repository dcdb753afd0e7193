"""All that a user missed over all rooms, each event once, in pages.

A page ends with a token for the next. The last one brings a `next_batch` instead, from which `/sync` goes on: it tells
everything but the events that came by this way (receipts, account data, devices, invites, ...), and neither loses nor
repeats an event.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from homeserver.errors import MissingParam
from homeserver.storage.owed_rooms import Owed
from homeserver.storage.room_stretch import RoomStretch
from homeserver.sync.missed.plan import Leg, Part, legs_by_importance, legs_of_log
from homeserver.views.aggregations import without_ignored
from homeserver.views.tokens import CatchUpToken

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    import orjson

    from homeserver.clock import Clock
    from homeserver.ids import EventId, RoomId
    from homeserver.notifier.notifier import Notifier
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.requester import Requester
    from homeserver.storage.events import EventStore
    from homeserver.storage.missed import MissedStore
    from homeserver.storage.owed_rooms import OwedRoomStore
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.sync.delivered import Delivered
    from homeserver.sync.left_out import LeftOut
    from homeserver.sync.missed.plan import PlanMaker
    from homeserver.sync.missed.rooms import MissedRoomReader, MissedRooms
    from homeserver.views.client_events import ClientEvents
    from homeserver.views.ignored import IgnoredUsers
    from homeserver.views.tokens import Tokens
    from homeserver.views.visibility import HistoryVisibility

MAX_PAGE = 1_000
MAX_TS = 2**53 - 1
_MAX_LOOKED_AT = 5 * MAX_PAGE
_FIRST_STRETCH = 2_000
"""How many positions of the log are looked at first for a page; more and more where little is found in them."""
_WIDENING = 8
_FIRST_SPAN_MS = 3_600_000


class Kind(IntEnum):
    """What the pages go through, and how."""

    LOG = 0
    LOG_BY_IMPORTANCE = 1
    TIME = 2
    TIME_BY_IMPORTANCE = 3

    @property
    def by_importance(self) -> bool:
        """Whether the important comes first."""
        return self in (Kind.LOG_BY_IMPORTANCE, Kind.TIME_BY_IMPORTANCE)

    @property
    def by_time(self) -> bool:
        """Whether a span of time is gone through, in the order of the times that the senders gave."""
        return self in (Kind.TIME, Kind.TIME_BY_IMPORTANCE)


@dataclass(frozen=True, slots=True)
class MissedRequest:
    """What is asked for at the beginning of a catch-up: an interval by tokens, or a span of time in milliseconds."""

    start: str | None
    stop: str | None = None
    important_first: bool = False
    span: tuple[int, int] | None = None


@dataclass(slots=True)
class _Page:
    """What was found for a page."""

    place: CatchUpToken
    events: list[StoredEvent] = field(default_factory=list)
    told: set[int] = field(default_factory=set)
    """The numbers of those events that a page before this one has told."""
    part: Part | None = None
    is_last: bool = False
    looked_at: int = 0

    def room_for(self, limit: int) -> int:
        """How many more events may be looked at."""
        return min(limit - len(self.events), max(0, _MAX_LOOKED_AT - self.looked_at))


class MissedPages:
    """Reads pages."""

    def __init__(
        self,
        notifier: Notifier,
        rooms: MissedRoomReader,
        plans: PlanMaker,
        missed: MissedStore,
        events: EventStore,
        reader: RoomReader,
        visibility: HistoryVisibility,
        ignored: IgnoredUsers,
        client_events: ClientEvents,
        tokens: Tokens,
        delivered: Delivered,
        left_out: LeftOut,
        owed_rooms: OwedRoomStore,
        clock: Clock,
    ) -> None:
        self._notifier = notifier
        self._rooms = rooms
        self._plans = plans
        self._missed = missed
        self._events = events
        self._reader = reader
        self._visibility = visibility
        self._ignored = ignored
        self._client_events = client_events
        self._tokens = tokens
        self._delivered = delivered
        self._left_out = left_out
        self._owed_rooms = owed_rooms
        self._clock = clock

    async def read(
        self, requester: Requester, request: MissedRequest, *, limit: int, lazy_load_members: bool
    ) -> dict[str, Any]:
        """A page of at most `limit` events: the first one, or the one that `request.start` is the `end` of another for.

        Raises `InvalidParam` for a token that is not this device's, `UnknownPosition` for one that is too old.
        """
        user_id, device_id = requester.user_id, requester.device_id
        place = None
        if request.start is not None:
            place = await self._tokens.read_catch_up_token(request.start, user_id, device_id)
        is_first = place is None
        if place is None:
            place = await self._begin(requester, request)
        page = _Page(place)
        await self._walk(requester, page, limit)
        new = [stored for stored in page.events if stored.event_nid not in page.told]
        answer: dict[str, Any] = {"chunk": await self._render(requester, new)}
        if page.part is not None:
            answer["part"] = page.part
        if page.told:
            answer["placed"] = _placed(page)
        if lazy_load_members:
            answer["state"] = await self._members(requester, new)
        if is_first:
            answer["prev_batches"] = await self._prev_batches(requester, place)
        if not page.is_last:
            answer["end"] = self._tokens.catch_up_token(user_id, device_id, page.place)
        elif not Kind(place.kind).by_time:
            missed = await self._missed_rooms(requester, place)
            await self._left_out.close(
                requester,
                [RoomStretch(nid, missed.begins.get(nid, place.after), place.upto) for nid in missed.all],
            )
            answer["next_batch"] = await self._next_batch(requester, place)
        return answer

    async def _next_batch(self, requester: Requester, place: CatchUpToken) -> str:
        """From where `/sync` goes on: of the rooms that were put off it still owes what is no event."""
        user_id, device_id = requester.user_id, requester.device_id
        number = 0
        if place.owed:
            owed = {
                room_nid: Owed(debt.since, place.upto if debt.since else 0)
                for room_nid, debt in (await self._owed_rooms.load(user_id, device_id, place.owed)).items()
            }
            number = await self._owed_rooms.insert(
                user_id, device_id, owed, in_use=place.owed, now_ms=self._clock.now_ms()
            )
        return self._tokens.sync_token(
            user_id,
            device_id,
            place.since,
            place.to_device_position,
            told=place.upto,
            owed=number,
            base=place.base,
        )

    # -- where to begin --------------------------------------------------------------------------------

    async def _begin(self, requester: Requester, request: MissedRequest) -> CatchUpToken:
        user_id = requester.user_id
        position = acknowledged = owed = base = 0
        if request.span is not None:
            kind = Kind.TIME_BY_IMPORTANCE if request.important_first else Kind.TIME
            after, upto = request.span
        else:
            if request.start is None:
                raise MissingParam("`from` is missing")
            kind = Kind.LOG_BY_IMPORTANCE if request.important_first else Kind.LOG
            since = await self._tokens.read_sync_token(request.start, user_id, requester.device_id)
            if since.own:
                self._delivered.acknowledge(requester, max(since.position, since.told), since.owed)
            position = since.position
            after, upto = max(position, since.told), self._notifier.position
            if request.stop is not None:
                upto = (await self._tokens.read_page_token(request.stop)).ceiling
            upto = max(after, upto)
            acknowledged = since.to_device_position if since.own else 0
            owed, base = since.owed, since.base
        place = CatchUpToken(kind, position, after, upto, 0, 0, 0, 0, acknowledged, owed, base)
        if kind.by_importance:
            number, _ = await self._plans.begin(requester, await self._missed_rooms(requester, place))
            place = replace(place, number=number)
        return place

    async def _missed_rooms(self, requester: Requester, place: CatchUpToken) -> MissedRooms:
        if Kind(place.kind).by_time:
            return await self._rooms.read_ever(requester.user_id, self._notifier.position)
        return await self._rooms.read(
            requester.user_id,
            since=place.since,
            after=place.after,
            upto=place.upto,
            owed=await self._owed_rooms.load(requester.user_id, requester.device_id, place.owed),
        )

    async def _legs(self, requester: Requester, place: CatchUpToken) -> list[Leg]:
        missed = await self._missed_rooms(requester, place)
        if not Kind(place.kind).by_importance:
            return legs_of_log(missed)
        return legs_by_importance(missed, await self._plans.resume(requester, place.number))

    # -- the way ---------------------------------------------------------------------------------------

    async def _walk(self, requester: Requester, page: _Page, limit: int) -> None:
        place = page.place
        legs = await self._legs(requester, place)
        number, at = place.leg, (place.key, place.tie)
        while number < len(legs):
            leg = legs[number]
            if leg.only is not None:
                at, is_over = await self._walk_numbers(requester, leg, leg.only, at, page, limit)
            elif Kind(place.kind).by_time:
                at, is_over = await self._walk_time(requester, leg, at, page, limit)
            else:
                at, is_over = await self._walk_log(requester, leg, at, page, limit)
            if page.events:
                page.part = leg.part
            if not is_over:
                break
            number, at = number + 1, (0, 0)
            if page.events and number < len(legs) and legs[number].part is not leg.part:
                break
        page.place = replace(place, leg=number, key=at[0], tie=at[1])
        page.is_last = number == len(legs)

    async def _walk_log(
        self, requester: Requester, leg: Leg, at: tuple[int, int], page: _Page, limit: int
    ) -> tuple[tuple[int, int], bool]:
        """Gather events of a leg after a position; the answer is how far that went, and whether to the end."""
        position = max(at[0], leg.after)
        rooms = await self._missed.load_with_news(leg.room_nids, position) if leg.room_nids else []
        width = _FIRST_STRETCH
        while rooms and position < leg.upto:
            wanted = page.room_for(limit)
            if wanted == 0:
                return (position, 0), False
            upto = min(position + width, leg.upto)
            found = await self._missed.load_arrivals(rooms, after=position, upto=upto, limit=wanted)
            kept = [nid for where, room_nid, nid in found if leg.holds(room_nid, where)]
            await self._take(requester, page, kept, leg.told)
            page.looked_at += len(found)
            position = found[-1][0] if len(found) == wanted else upto
            width *= _WIDENING
        return (0, 0), True

    async def _walk_time(
        self, requester: Requester, leg: Leg, at: tuple[int, int], page: _Page, limit: int
    ) -> tuple[tuple[int, int], bool]:
        """The same, after a time and a number."""
        first, last = page.place.after, page.place.upto
        at = max(at, (first, 0))
        width = _FIRST_SPAN_MS
        while leg.room_nids and at[0] <= last:
            wanted = page.room_for(limit)
            if wanted == 0:
                return at, False
            until = min(at[0] + width, last)
            found = await self._missed.load_sent(
                requester.user_id, leg.room_nids, leg.ends.keys(), after=at, upto_ts=until, limit=wanted
            )
            kept = [nid for _, nid, room_nid, position in found if leg.holds(room_nid, position)]
            await self._take(requester, page, kept, leg.told)
            page.looked_at += len(found)
            at = (found[-1][0], found[-1][1]) if len(found) == wanted else (until + 1, 0)
            width *= _WIDENING
        return (0, 0), True

    async def _walk_numbers(
        self,
        requester: Requester,
        leg: Leg,
        event_nids: Sequence[int],
        at: tuple[int, int],
        page: _Page,
        limit: int,
    ) -> tuple[tuple[int, int], bool]:
        """The same, of events that are known by their numbers, from the one in a place on."""
        done = at[0]
        while done < len(event_nids):
            wanted = page.room_for(limit)
            if wanted == 0:
                return (done, 0), False
            part = event_nids[done : done + wanted]
            found = await self._events.load_numbered(part)
            kept = [n for n in part if n in found and leg.holds(found[n].room_nid, found[n].stream_id)]
            await self._take(requester, page, kept, ())
            page.looked_at += len(part)
            done += len(part)
        return (0, 0), True

    # -- what is shown ---------------------------------------------------------------------------------

    async def _take(
        self, requester: Requester, page: _Page, event_nids: Sequence[int], told: Collection[int]
    ) -> None:
        """Add those of these events that the reader may see, and that are of the span of time."""
        stored = await self._events.load_numbered(event_nids)
        visible: set[int] = set()
        for events in _by_room(stored.values()):
            shown = await self._visibility.visible(requester.user_id, events)
            visible |= {one.event_nid for one in shown}
        place, ignored = page.place, await self._ignored.of(requester.user_id)
        kept = [stored[nid] for nid in event_nids if nid in visible]
        if Kind(place.kind).by_time:
            kept = [one for one in kept if place.after <= one.event.origin_server_ts <= place.upto]
        page.events += without_ignored(kept, ignored)
        page.told.update(one.event_nid for one in kept if one.event_nid in told)

    async def _prev_batches(self, requester: Requester, place: CatchUpToken) -> dict[RoomId, str]:
        """From where `/messages` pages back in the rooms that the user came into or left, which the client may not know."""
        if Kind(place.kind).by_time:
            return {}
        missed = await self._missed_rooms(requester, place)
        return {
            missed.room_ids[nid]: self._tokens.page_token(missed.begins.get(nid, place.after), None)
            for nid in (*missed.came, *missed.ends)
        }

    async def _render(self, requester: Requester, events: Sequence[StoredEvent]) -> list[orjson.Fragment]:
        rendered: dict[int, orjson.Fragment] = {}
        for of_room in _by_room(events):
            forms = await self._client_events.render(of_room, requester)
            rendered.update(zip((stored.event_nid for stored in of_room), forms, strict=True))
        return [rendered[stored.event_nid] for stored in events]

    async def _members(self, requester: Requester, events: Sequence[StoredEvent]) -> list[orjson.Fragment]:
        """The member events of those who sent something, as they were when they sent it last."""
        members: list[orjson.Fragment] = []
        for of_room in _by_room(events):
            told = {one.event.state_key for one in of_room if one.event.type == "m.room.member"}
            senders = sorted({one.event.sender for one in of_room} - told)
            found = await self._reader.members_at(of_room[-1].state_after, senders)
            members += await self._client_events.render(found, requester, aggregate=False)
        return members


def _placed(page: _Page) -> dict[RoomId, list[EventId]]:
    """The order of a page's events in the rooms where some were told before."""
    return {
        events[0].room_id: [stored.event.event_id for stored in events]
        for events in _by_room(page.events)
        if any(stored.event_nid in page.told for stored in events)
    }


def _by_room(events: Iterable[StoredEvent]) -> list[list[StoredEvent]]:
    rooms: dict[int, list[StoredEvent]] = {}
    for stored in events:
        rooms.setdefault(stored.room_nid, []).append(stored)
    return list(rooms.values())
