"""`GET /sync` (CS "Syncing"): everything that concerns a device between two positions of the log, exactly once.

An answer covers the interval from the token that the client brings to the newest position that this process has
heard of. The announcements of that interval, which are in memory, say which rooms and which kinds of data there is
something to read of; where there is nothing, no question is asked of the database, and no room is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from homeserver.storage.announcements import Topic
from homeserver.storage.left_out import LeftOut
from homeserver.storage.owed_rooms import Owed
from homeserver.sync.budget import Budget, with_short_timelines
from homeserver.sync.interval import UNKNOWN, Concern, Interval, read_changes
from homeserver.sync.lazy_members import NOTHING
from homeserver.sync.moves import Moves, Start

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

    from homeserver.clock import Clock
    from homeserver.ids import RoomId, UserId
    from homeserver.notifier.notifier import Notifier
    from homeserver.rooms.memberships import Memberships
    from homeserver.services.requester import Requester
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.one_time_keys import KeysLeft
    from homeserver.storage.owed_rooms import OwedRoomStore
    from homeserver.storage.rooms import RoomStore
    from homeserver.sync.budget import Importance
    from homeserver.sync.delivered import Delivered
    from homeserver.sync.device_lists import DeviceLists
    from homeserver.sync.extras import Extras
    from homeserver.sync.interval import Changes
    from homeserver.sync.lazy_members import LazyMembers
    from homeserver.sync.moves import MoveReader
    from homeserver.sync.rooms import JoinedSection, RoomSections
    from homeserver.sync.to_device import Inboxes
    from homeserver.views.filters import SyncFilter
    from homeserver.views.ignored import IgnoredUsers
    from homeserver.views.keys_left import KeysLeftNow
    from homeserver.views.tokens import SyncToken, Tokens
    from homeserver.views.unread import UnreadCounts

MAX_TIMEOUT_MS = 600_000


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """The parameters of `GET /sync`."""

    since: str | None
    timeout_ms: int
    filter: SyncFilter
    full_state: bool
    budget_bytes: int | None = None
    """How much the sections of joined rooms may take, about; None for as much as there is."""
    state_name: str = "state"
    """Under which name the state comes: `state` is that before the timeline, any other that after it."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the parts of an answer are read by."""

    requester: Requester
    rooms: Mapping[RoomId, MembershipRow]
    interval: Interval
    filter: SyncFilter
    changes: Changes
    moves: Moves
    ignored: frozenset[UserId]
    known_members: Mapping[int, frozenset[int]]
    """The member events that the client holds, by room, where it loads members lazily."""
    sent_members: dict[int, set[int]]
    """Those that the answer brings, as they are added to it."""
    sections: dict[RoomId, JoinedSection]
    """What the answer holds of joined rooms with events, as it is added to it."""
    unwanted_rooms: list[LeftOut]
    """Rooms with events of which the answer holds nothing, since the filter does not want them."""
    budget: Budget | None

    def wants(self, room_id: RoomId) -> bool:
        return self.filter.room.allows_room(room_id)

    def restricted_to(self, notifier: Notifier, room_ids: Iterable[RoomId]) -> _Reading:
        """The reading of some of the rooms, with what was announced of them in the interval."""
        rooms = (
            self.rooms if room_ids is self.rooms else {room_id: self.rooms[room_id] for room_id in room_ids}
        )
        concern = Concern(self.requester.user_id, self.requester.device_id, rooms)
        return replace(self, rooms=rooms, changes=read_changes(notifier, self.interval, concern, rooms))


class ClassicSync:
    """Answers syncs."""

    def __init__(
        self,
        notifier: Notifier,
        clock: Clock,
        tokens: Tokens,
        memberships: Memberships,
        moves: MoveReader,
        rooms: RoomStore,
        sections: RoomSections,
        extras: Extras,
        device_lists: DeviceLists,
        unread: UnreadCounts,
        ignored: IgnoredUsers,
        lazy_members: LazyMembers,
        inboxes: Inboxes,
        keys_left: KeysLeftNow,
        delivered: Delivered,
        owed_rooms: OwedRoomStore,
        importance: Importance,
    ) -> None:
        self._notifier = notifier
        self._clock = clock
        self._tokens = tokens
        self._memberships = memberships
        self._moves = moves
        self._rooms = rooms
        self._sections = sections
        self._extras = extras
        self._device_lists = device_lists
        self._unread = unread
        self._ignored = ignored
        self._lazy_members = lazy_members
        self._inboxes = inboxes
        self._keys_left = keys_left
        self._delivered = delivered
        self._owed_rooms = owed_rooms
        self._importance = importance

    async def answer(
        self, requester: Requester, request: SyncRequest, check_access: Callable[[], Awaitable[None]]
    ) -> dict[str, Any]:
        """The answer to a sync; waits for something to tell, for as long as the client allows.

        Raises `InvalidParam` for a token that this server did not make, and what `check_access` raises once the
        device may read no more: it is asked whenever the wait ends.
        """
        token = None
        if request.since is not None:
            token = await self._tokens.read_sync_token(request.since, requester.user_id, requester.device_id)
        since, told = (None, 0) if token is None else (token.position, token.told)
        owed: Mapping[int, Owed] = {}
        mark = None if token is None else (token.position, token.owed)
        if token is not None and token.owed:
            known = await self._owed_rooms.get(requester.user_id, requester.device_id, token.owed)
            if known is None:
                # An old token, of which it is no longer known what it says: everything is told from there on.
                since = token.base or None
                told = 0 if since is None else told
            owed = known or {}
        if token is not None and token.own:
            self._delivered.acknowledge(requester, max(token.position, token.told), token.owed)
        acknowledged = await self._inboxes.acknowledge(requester, token)
        reader = (requester.user_id, requester.device_id, request.filter.fingerprint)
        redundant = request.filter.room.state.include_redundant_members
        known_members = NOTHING if redundant else self._lazy_members.known(reader, mark)
        deadline = self._clock.monotonic() + min(request.timeout_ms, MAX_TIMEOUT_MS) / 1000
        while True:
            rooms = await self._memberships.of_user(requester.user_id)
            # Not awaited in between: whoever is in `rooms` at this position, or later, is there.
            upto = self._notifier.position
            interval = Interval(since, upto, request.full_state, request.state_name, told)
            sent_members: dict[int, set[int]] = {}
            joined: dict[RoomId, JoinedSection] = {}
            left_out: list[LeftOut] = []
            budget = None if request.budget_bytes is None else Budget(request.budget_bytes)
            ignored = await self._ignored.of(requester.user_id)
            reading = _Reading(
                requester,
                rooms,
                interval,
                request.filter if budget is None else with_short_timelines(request.filter),
                UNKNOWN,
                Moves(),
                ignored,
                known_members,
                sent_members,
                joined,
                left_out,
                budget,
            )
            answer = await self._build(reading, owed)
            messages, last_message = await self._inboxes.read(requester, after=acknowledged, upto=upto)
            if messages:
                answer["to_device"] = {"events": messages}
            keys = await self._keys_left.of(requester.user_id, requester.device_id)
            answer.update(_key_fields(keys))
            remaining = deadline - self._clock.monotonic()
            if since is None or request.full_state or remaining <= 0:
                break
            # What is newer than `upto` is still to be announced here, and then wakes.
            if since < keys.changed_at <= upto or _has_news(answer):
                break
            woken = await self._notifier.wait(
                requester.user_id,
                requester.device_id,
                rooms,
                after=upto,
                seconds=remaining,
                concerns=Concern(requester.user_id, requester.device_id, rooms),
            )
            await check_access()
            if not woken:
                break
        number = await self._note_owed(requester, budget, token)
        if request.filter.room.state.lazy_load_members:
            self._lazy_members.note(reader, known_members, sent_members, (upto, number))
        await self._note_delivery(requester, joined, left_out)
        answer["next_batch"] = self._tokens.sync_token(
            requester.user_id,
            requester.device_id,
            upto,
            last_message,
            owed=number,
            base=min(one.since for one in budget.put_off.values()) if budget is not None and number else 0,
        )
        return answer

    async def _note_owed(self, requester: Requester, budget: Budget | None, token: SyncToken | None) -> int:
        """Keep which rooms were put off, and under which number; 0 where none were."""
        if budget is None or not budget.put_off:
            return 0
        return await self._owed_rooms.insert(
            requester.user_id,
            requester.device_id,
            budget.put_off,
            in_use=token.owed if token is not None else 0,
            now_ms=self._clock.now_ms(),
        )

    async def _note_delivery(
        self, requester: Requester, joined: Mapping[RoomId, JoinedSection], unwanted: Sequence[LeftOut]
    ) -> None:
        """Keep what the answer leaves out of the timelines, and that it brings the rest."""
        await self._delivered.brought(requester, *(room.brought for room in joined.values()), is_news=True)
        await self._delivered.note_left_out(
            requester, [*unwanted, *(stretch for room in joined.values() for stretch in room.left_out)]
        )

    # -- what there is to tell -------------------------------------------------------------------------

    async def _build(self, whole: _Reading, owed: Mapping[int, Owed]) -> dict[str, Any]:
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

    async def _with_moves(self, reading: _Reading) -> _Reading:
        if reading.interval.since is None or not reading.changes.has(Topic.MEMBERSHIP):
            return reading
        moves = await self._moves.read(reading.requester.user_id, reading.rooms, reading.interval)
        return replace(reading, moves=moves)

    async def _room_sections(
        self, reading: _Reading, account_data: Mapping[RoomId, list[Any]]
    ) -> dict[str, dict[RoomId, Any]]:
        sections = {
            "join": await self._joined(reading, account_data),
            "leave": await self._left(reading),
            "invite": {
                room_id: await self._sections.invited(row)
                for room_id, row in (await self._pending(reading, "invite")).items()
                if row.sender not in reading.ignored
            },
            "knock": {
                room_id: await self._sections.knocked(row)
                for room_id, row in (await self._pending(reading, "knock")).items()
            },
        }
        return {name: section for name, section in sections.items() if section}

    async def _joined(
        self, reading: _Reading, account_data: Mapping[RoomId, list[Any]]
    ) -> dict[RoomId, dict[str, Any]]:
        interval, changes = reading.interval, reading.changes
        with_events = await self._rooms_with_events(reading)
        came_in = reading.moves.came_in
        delivery_news = await self._delivery_news(reading)
        looked_at = (
            with_events
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
            LeftOut(reading.rooms[room_id].room_nid, interval.since or 0, interval.upto)
            for room_id in with_events
            if room_id in reading.rooms
            and reading.rooms[room_id].membership == "join"
            and not reading.wants(room_id)
        )
        sections: dict[RoomId, dict[str, Any]] = {}
        counted: set[RoomId] = set()
        told = joined.keys() & (with_events | came_in.keys())
        first = True
        for room_id in await self._in_order(reading, joined, told):
            if reading.budget is not None and reading.budget.is_spent and not first:
                self._put_off(reading, joined, room_id)
                continue
            part = await self._sections.joined(
                reading.requester,
                joined[room_id],
                interval,
                reading.filter,
                came_in=came_in.get(room_id),
                ignored=reading.ignored,
                known_members=reading.known_members.get(joined[room_id].room_nid, frozenset()),
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
        self, reading: _Reading, joined: Mapping[RoomId, MembershipRow], told: Collection[RoomId]
    ) -> Iterable[RoomId]:
        """Rooms that there is something to tell of, the important first where not all may find room."""
        if reading.budget is None:
            return told
        interval = reading.interval
        return await self._importance.order(
            reading.requester.user_id, joined, told, interval.since or 0, interval.upto
        )

    def _put_off(self, reading: _Reading, joined: dict[RoomId, MembershipRow], room_id: RoomId) -> None:
        """Leave a room to the next answer, which tells it from where the client has it."""
        assert reading.budget is not None
        row = joined.pop(room_id)
        reading.budget.put_off[row.room_nid] = Owed(reading.interval.since or 0, reading.interval.told)

    async def _delivery_news(self, reading: _Reading) -> Mapping[RoomId, list[Any]]:
        """What there is to hear of the user's own events; what happened before a first sync is asked for."""
        if reading.interval.since is None or not reading.changes.has(Topic.DELIVERY):
            return {}
        return await self._extras.delivery_news(reading.requester.user_id, reading.interval, reading.filter)

    async def _rooms_with_events(self, reading: _Reading) -> frozenset[RoomId]:
        if reading.interval.since is None or reading.interval.full_state:
            return frozenset(reading.rooms)
        if reading.changes.known:
            return reading.changes.rooms_with_events
        return frozenset(await self._rooms.changed_since(reading.rooms, reading.interval.since))

    async def _joined_among(
        self, reading: _Reading, room_ids: Iterable[RoomId]
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
        reading: _Reading,
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

    async def _left(self, reading: _Reading) -> dict[RoomId, dict[str, Any]]:
        out = {
            room_id: went_out
            for room_id, went_out in reading.moves.went_out.items()
            if reading.wants(room_id)
        }
        whole = reading.interval.since is None or reading.interval.full_state
        if whole and reading.filter.room.include_leave:
            for room_id, row in reading.rooms.items():
                if row.membership in ("leave", "ban") and not row.forgotten and reading.wants(room_id):
                    out[room_id] = (row, Start(0, may_have_gap=False))
        return {
            room_id: await self._sections.left(
                reading.requester,
                row,
                reading.interval,
                reading.filter,
                start=start,
                ignored=reading.ignored,
            )
            for room_id, (row, start) in out.items()
        }

    async def _pending(self, reading: _Reading, membership: str) -> dict[RoomId, MembershipRow]:
        """The rooms that the user is invited to, or knocks at."""
        if reading.interval.since is None:
            rows = {i: row for i, row in reading.rooms.items() if row.membership == membership}
        else:
            rows = reading.moves.invited if membership == "invite" else reading.moves.knocked
        return {room_id: row for room_id, row in rows.items() if reading.wants(room_id)}


def _has_news(answer: Mapping[str, Any]) -> bool:
    has_sections = answer.keys() & {"rooms", "account_data", "presence", "to_device"}
    return bool(has_sections) or any(answer.get("device_lists", {}).values())


def _key_fields(keys: KeysLeft) -> dict[str, Any]:
    """What every answer says, even where it says nothing else (CS "Extensions to /sync")."""
    return {
        # Absent, the usual algorithm is zero to clients in one place and unchanged in another.
        "device_one_time_keys_count": {"signed_curve25519": 0, **keys.counts},
        "device_unused_fallback_key_types": keys.unused_fallback,
        "org.matrix.msc2732.device_unused_fallback_key_types": keys.unused_fallback,
    }
