"""What an answer to `GET /sync` holds: what changed in an interval, put together from its parts.

The announcements of the interval, which are in memory, say which rooms and which kinds of data there is something to
read of; where there is nothing, no question is asked of the database, and no room is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from homeserver.storage.announcements import Topic
from homeserver.storage.owed_rooms import Owed
from homeserver.storage.room_stretch import RoomStretch
from homeserver.sync.interval import Concern, Interval, read_changes
from homeserver.sync.moves import Moves, Start

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from homeserver.ids import EventId, RoomId, UserId
    from homeserver.notifier.notifier import Notifier
    from homeserver.services.requester import Requester
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.rooms import RoomStore
    from homeserver.sync.budget import Budget, Importance
    from homeserver.sync.device_lists import DeviceLists
    from homeserver.sync.extras import Extras
    from homeserver.sync.interval import Changes
    from homeserver.sync.moves import MoveReader
    from homeserver.sync.rooms import RoomSection, RoomSections
    from homeserver.views.filters import SyncFilter
    from homeserver.views.invite_permission import HiddenInvites
    from homeserver.views.tokens import Tokens
    from homeserver.views.unread import UnreadCounts

_AT_ONCE, _EVENTS_AT_ONCE, _FEW = 250, 2_000, 8
"""So many rooms and events are read together; a few rooms where not all may find room in the answer."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the parts of an answer are read by."""

    requester: Requester
    rooms: Mapping[RoomId, MembershipRow]
    interval: Interval
    filter: SyncFilter
    changes: Changes
    moves: Moves
    ignored: frozenset[UserId]
    hidden_invites: HiddenInvites
    known_members: Mapping[int, frozenset[int]]
    """The member events that the client holds, by room, where it loads members lazily."""
    sent_members: dict[int, set[int]]
    """Those that the answer brings, as they are added to it."""
    sections: dict[RoomId, RoomSection]
    """What the answer holds of rooms with events that the user is or was in, as it is added to it."""
    unwanted_rooms: list[RoomStretch]
    """Rooms with events of which the answer holds nothing: the filter does not want them, or they are told as invites."""
    budget: Budget | None

    def wants(self, room_id: RoomId) -> bool:
        """Whether the filter wants to hear of a room."""
        return self.filter.room.allows_room(room_id)

    def restricted_to(self, notifier: Notifier, room_ids: Iterable[RoomId]) -> Reading:
        """The reading of some of the rooms, with what was announced of them in the interval."""
        rooms = (
            self.rooms if room_ids is self.rooms else {room_id: self.rooms[room_id] for room_id in room_ids}
        )
        concern = Concern(self.requester.user_id, self.requester.device_id, rooms)
        return replace(self, rooms=rooms, changes=read_changes(notifier, self.interval, concern, rooms))


class AnswerBuilder:
    """Builds answers."""

    def __init__(
        self,
        notifier: Notifier,
        tokens: Tokens,
        moves: MoveReader,
        rooms: RoomStore,
        sections: RoomSections,
        extras: Extras,
        device_lists: DeviceLists,
        unread: UnreadCounts,
        importance: Importance,
    ) -> None:
        self._notifier = notifier
        self._tokens = tokens
        self._moves = moves
        self._rooms = rooms
        self._sections = sections
        self._extras = extras
        self._device_lists = device_lists
        self._unread = unread
        self._importance = importance

    async def build(self, whole: Reading, owed: Mapping[int, Owed]) -> dict[str, Any]:
        """An answer; `owed` are the rooms that were put off, with the place from which they are told."""
        requester, interval = whole.requester, whole.interval
        main = whole.restricted_to(
            self._notifier,
            [room_id for room_id, row in whole.rooms.items() if row.room_nid not in owed]
            if owed
            else whole.rooms,
        )
        answer: dict[str, Any] = {}
        if interval.since is not None:
            changes = main.changes if not owed else whole.restricted_to(self._notifier, whole.rooms).changes
            answer["device_lists"] = await self._device_lists.read(
                requester.user_id, whole.rooms, interval, changes
            )
        if main.changes.none and not interval.full_state and not owed:
            return answer
        account_data: dict[RoomId, list[Any]] = {}
        if main.changes.has(Topic.ACCOUNT_DATA):
            events, account_data = await self._extras.account_data(requester.user_id, interval, whole.filter)
            if events:
                answer["account_data"] = {"events": events}
        sections = await self._room_sections(await self._with_moves(main), account_data)
        for start in sorted(set(owed.values())):
            since, told = start
            late = replace(whole, interval=replace(interval, since=since or None, told=told)).restricted_to(
                self._notifier,
                [room_id for room_id, row in whole.rooms.items() if owed.get(row.room_nid) == start],
            )
            account_data = {}
            if since:
                _, account_data = await self._extras.account_data(
                    requester.user_id, late.interval, whole.filter
                )
            for name, part in (await self._room_sections(await self._with_moves(late), account_data)).items():
                sections.setdefault(name, {}).update(part)
        if sections:
            answer["rooms"] = sections
        if main.changes.has(Topic.PRESENCE) and whole.budget is None:
            events = await self._extras.presence(requester.user_id, interval, whole.filter)
            if events:
                answer["presence"] = {"events": events}
        return answer

    async def _with_moves(self, reading: Reading) -> Reading:
        if reading.interval.since is None or not reading.changes.has(Topic.MEMBERSHIP):
            return reading
        moves = await self._moves.read(
            reading.requester.user_id, reading.rooms, reading.interval, reading.hidden_invites
        )
        reading.unwanted_rooms.extend(moves.untold)
        return replace(reading, moves=moves)

    async def _room_sections(
        self, reading: Reading, account_data: Mapping[RoomId, list[Any]]
    ) -> dict[str, dict[RoomId, Any]]:
        sections = {
            "join": await self._joined(reading, account_data),
            "leave": await self._left(reading),
            "invite": {
                room_id: await self._sections.invited(row)
                for room_id, row in (await self._pending(reading, "invite")).items()
                if not reading.hidden_invites.has(row)
            },
            "knock": {
                room_id: await self._sections.knocked(row)
                for room_id, row in (await self._pending(reading, "knock")).items()
            },
        }
        return {name: section for name, section in sections.items() if section}

    async def _joined(
        self, reading: Reading, account_data: Mapping[RoomId, list[Any]]
    ) -> dict[RoomId, dict[str, Any]]:
        interval, changes = reading.interval, reading.changes
        with_events = await self._rooms_with_events(reading)
        came_in = reading.moves.came_in
        delivery_news = await self._delivery_news(reading)
        recounted = await self._recounted(reading)
        looked_at = (
            with_events
            | recounted
            | came_in.keys()
            | delivery_news.keys()
            | account_data.keys()
            | changes.rooms_with_receipts
            | changes.rooms_with_typing
        )
        if not changes.known:
            looked_at |= reading.rooms.keys()
        joined = await self._joined_among(reading, looked_at)
        reading.unwanted_rooms.extend(
            RoomStretch(reading.rooms[room_id].room_nid, interval.since or 0, interval.upto)
            for room_id in with_events
            if room_id in reading.rooms
            and reading.rooms[room_id].membership == "join"
            and not reading.wants(room_id)
        )
        sections: dict[RoomId, dict[str, Any]] = {}
        counted: set[RoomId] = set()
        told = joined.keys() & (with_events | came_in.keys())
        first = True
        at_once = _FEW
        if reading.budget is None:
            at_once = max(_FEW, min(_AT_ONCE, _EVENTS_AT_ONCE // (reading.filter.room.timeline.limit + 1)))
        bundling: Mapping[EventId, bool] = {}
        in_order = list(await self._in_order(reading, joined, told))
        for index, room_id in enumerate(in_order):
            if reading.budget is not None and reading.budget.is_spent and not first:
                self._put_off(reading, joined, room_id)
                continue
            if index % at_once == 0:
                some = [joined[one] for one in in_order[index : index + at_once]]
                bundling = await self._sections.prepare(reading.requester, some, interval, reading.filter)
            part = await self._sections.joined(
                reading.requester,
                joined[room_id],
                interval,
                reading.filter,
                came_in=came_in.get(room_id),
                ignored=reading.ignored,
                known_members=reading.known_members.get(joined[room_id].room_nid, frozenset()),
                bundling=bundling,
            )
            first = False
            if reading.budget is not None and part.is_news:
                reading.budget.spend(part.section)
            reading.sections[room_id] = part
            if part.is_news:
                sections[room_id] = part.section
                reading.sent_members[joined[room_id].room_nid] = part.members
            if part.is_news or part.may_change_counts:
                counted.add(room_id)
        fresh = joined.keys() & (joined if interval.since is None else came_in).keys()
        counted |= await self._add_ephemeral(reading, joined, fresh, sections)
        counted |= joined.keys() & recounted
        for room_id, events in delivery_news.items():
            if room_id in joined:
                section = sections.setdefault(room_id, {}).setdefault("ephemeral", {"events": []})
                section["events"] += events
        for room_id, events in account_data.items():
            if room_id in joined and room_id not in fresh:
                sections.setdefault(room_id, {})["account_data"] = {"events": events}
        if fresh:
            for room_id, events in (
                await self._extras.all_room_account_data(
                    reading.requester.user_id, fresh, interval, reading.filter
                )
            ).items():
                sections.setdefault(room_id, {})["account_data"] = {"events": events}
        for room_id in counted:
            counts = await self._unread.of(
                reading.requester.user_id,
                joined[room_id],
                upto=interval.upto,
                by_thread=reading.filter.room.timeline.unread_thread_notifications,
            )
            sections.setdefault(room_id, {}).update(counts)
        for section in sections.values():
            self._complete(section, interval)
        return sections

    async def _in_order(
        self, reading: Reading, joined: Mapping[RoomId, MembershipRow], told: Collection[RoomId]
    ) -> Iterable[RoomId]:
        """Rooms that there is something to tell of, the important first where not all may find room."""
        if reading.budget is None:
            return told
        interval = reading.interval
        return await self._importance.order(
            reading.requester.user_id, joined, told, interval.since or 0, interval.upto
        )

    def _put_off(self, reading: Reading, joined: dict[RoomId, MembershipRow], room_id: RoomId) -> None:
        """Leave a room to the next answer, which tells it from where the client has it."""
        assert reading.budget is not None
        row = joined.pop(room_id)
        reading.budget.put_off[row.room_nid] = Owed(reading.interval.since or 0, reading.interval.told)

    async def _delivery_news(self, reading: Reading) -> Mapping[RoomId, list[Any]]:
        """What there is to hear of the user's own events; what happened before a first sync is asked for."""
        if reading.interval.since is None or not reading.changes.has(Topic.DELIVERY):
            return {}
        return await self._extras.delivery_news(reading.requester.user_id, reading.interval, reading.filter)

    async def _recounted(self, reading: Reading) -> set[RoomId]:
        """The rooms in which other threads count as unread than before."""
        interval, changes = reading.interval, reading.changes
        if interval.since is None or not changes.has(Topic.THREAD_SUBSCRIPTIONS):
            return set()
        return await self._unread.recounted(
            reading.requester.user_id, reading.rooms, after=interval.since, upto=interval.upto
        )

    async def _rooms_with_events(self, reading: Reading) -> frozenset[RoomId]:
        if reading.interval.since is None or reading.interval.full_state:
            return frozenset(reading.rooms)
        if reading.changes.known:
            return reading.changes.rooms_with_events
        return frozenset(await self._rooms.changed_since(reading.rooms, reading.interval.since))

    async def _joined_among(
        self, reading: Reading, room_ids: Iterable[RoomId]
    ) -> dict[RoomId, MembershipRow]:
        """Those of these rooms that the user is in at the end of the interval, and wants to hear of."""
        joined = {}
        for room_id in room_ids:
            row: MembershipRow | None = reading.rooms.get(room_id)
            if row is None or not reading.wants(room_id):
                continue
            row = await self._moves.at(row, reading.interval.upto)
            if row is not None and row.membership == "join":
                joined[room_id] = row
        return joined

    async def _add_ephemeral(
        self,
        reading: Reading,
        joined: Mapping[RoomId, MembershipRow],
        fresh: set[RoomId],
        sections: dict[RoomId, dict[str, Any]],
    ) -> set[RoomId]:
        """Receipts and typing; the answer is in which rooms the user's own receipts are new."""
        changes = reading.changes
        receipts, read_by_user = await self._extras.receipts(
            reading.requester.user_id,
            reading.interval,
            reading.filter,
            joined.keys() & changes.rooms_with_receipts if changes.known else set(joined),
            fresh,
        )
        typing = await self._extras.typing(
            reading.requester.user_id,
            reading.filter,
            joined.keys() & changes.rooms_with_typing if reading.budget is None else set(),
            (fresh if changes.known else set(joined)) if reading.budget is None else set(),
        )
        for room_id in receipts.keys() | typing.keys():
            events = list(receipts.get(room_id, ()))
            if room_id in typing:
                events.append(typing[room_id])
            sections.setdefault(room_id, {})["ephemeral"] = {"events": events}
        return read_by_user

    def _complete(self, section: dict[str, Any], interval: Interval) -> None:
        """What a section of a joined room has even where there is nothing to tell."""
        if "timeline" not in section:
            prev_batch = self._tokens.page_token(interval.upto, None)
            section["timeline"] = {"events": [], "limited": False, "prev_batch": prev_batch}
        for name in (interval.state_name, "ephemeral", "account_data"):
            section.setdefault(name, {"events": []})

    async def _left(self, reading: Reading) -> dict[RoomId, dict[str, Any]]:
        out = {}
        for room_id, (row, start) in reading.moves.went_out.items():
            if reading.wants(room_id):
                out[room_id] = (row, start)
            elif start is not None:
                reading.unwanted_rooms.append(RoomStretch(row.room_nid, start.timeline_after, row.stream_id))
        whole = reading.interval.since is None or reading.interval.full_state
        if whole and reading.filter.room.include_leave:
            for room_id, row in reading.rooms.items():
                if row.membership in ("leave", "ban") and not row.forgotten and reading.wants(room_id):
                    out[room_id] = (row, Start(0, may_have_gap=False))
        for room_id, (row, start) in out.items():
            reading.sections[room_id] = await self._sections.left(
                reading.requester,
                row,
                reading.interval,
                reading.filter,
                start=start,
                told_apart=room_id in reading.moves.told_apart,
                ignored=reading.ignored,
            )
        return {room_id: reading.sections[room_id].section for room_id in out}

    async def _pending(self, reading: Reading, membership: str) -> dict[RoomId, MembershipRow]:
        """The rooms that the user is invited to, or knocks at."""
        if reading.interval.since is None:
            rows = {i: row for i, row in reading.rooms.items() if row.membership == membership}
        else:
            rows = reading.moves.invited if membership == "invite" else reading.moves.knocked
        return {room_id: row for room_id, row in rows.items() if reading.wants(room_id)}
