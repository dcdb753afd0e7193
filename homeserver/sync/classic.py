"""`GET /sync` (CS "Syncing"): everything that concerns a device between two positions of the log, exactly once.

An answer covers the interval from the token that the client brings to the newest position that this process has
heard of. The announcements of that interval, which are in memory, say which rooms and which kinds of data there is
something to read of; where there is nothing, no question is asked of the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from homeserver.storage.announcements import Topic
from homeserver.sync.rooms import Interval

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from homeserver.clock import Clock
    from homeserver.ids import RoomId, UserId
    from homeserver.notifier.notifier import Notifier
    from homeserver.rooms.memberships import Memberships
    from homeserver.services.requester import Requester
    from homeserver.storage.database import Database
    from homeserver.storage.memberships import MembershipRow, MembershipStore
    from homeserver.storage.rooms import RoomStore
    from homeserver.sync.extras import Extras
    from homeserver.sync.rooms import RoomSections
    from homeserver.views.filters import SyncFilter
    from homeserver.views.ignored import IgnoredUsers
    from homeserver.views.tokens import Tokens
    from homeserver.views.unread import UnreadCounts

MAX_TIMEOUT_MS = 600_000


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """The parameters of `GET /sync`."""

    since: str | None
    timeout_ms: int
    filter: SyncFilter
    full_state: bool
    state_name: str = "state"
    """Under which name the state comes: `state` is that before the timeline, any other that after it."""


@dataclass(frozen=True, slots=True)
class _Changes:
    """What was announced in the interval, as far as it concerns a user; `None` for rooms: look at all of them."""

    rooms_with_events: set[RoomId] | None
    rooms_with_receipts: set[RoomId] | None
    rooms_with_typing: set[RoomId] | None
    topics: set[Topic]

    def has(self, topic: Topic) -> bool:
        return self.rooms_with_events is None or topic in self.topics


class ClassicSync:
    """Answers syncs."""

    def __init__(
        self,
        database: Database,
        notifier: Notifier,
        clock: Clock,
        tokens: Tokens,
        memberships: Memberships,
        membership_store: MembershipStore,
        rooms: RoomStore,
        sections: RoomSections,
        extras: Extras,
        unread: UnreadCounts,
        ignored: IgnoredUsers,
    ) -> None:
        self._database = database
        self._notifier = notifier
        self._clock = clock
        self._tokens = tokens
        self._memberships = memberships
        self._membership_store = membership_store
        self._rooms = rooms
        self._sections = sections
        self._extras = extras
        self._unread = unread
        self._ignored = ignored

    async def answer(
        self, requester: Requester, request: SyncRequest, check_access: Callable[[], Awaitable[None]]
    ) -> dict[str, Any]:
        """The answer to a sync; waits for something to tell, for as long as the client allows.

        Raises `InvalidParam` for a token that this server did not make, and what `check_access` raises once the
        device may read no more: it is asked whenever the wait ends.
        """
        since = None
        if request.since is not None:
            since = self._tokens.read_sync_token(
                request.since, requester.user_id, requester.device_id, upto=self._database.position
            ).position
        deadline = self._clock.monotonic() + min(request.timeout_ms, MAX_TIMEOUT_MS) / 1000
        while True:
            rooms = await self._memberships.of_user(requester.user_id)
            upto = self._notifier.position
            interval = Interval(since, upto, request.full_state, request.state_name)
            answer = await self._build(requester, rooms, interval, request.filter)
            remaining = deadline - self._clock.monotonic()
            if since is None or request.full_state or remaining <= 0 or _has_news(answer):
                break
            concerned = _Concern(requester, rooms)
            if not await self._notifier.wait(
                requester.user_id,
                requester.device_id,
                rooms,
                after=upto,
                seconds=remaining,
                concerns=concerned,
            ):
                break
            await check_access()
        answer["next_batch"] = self._tokens.sync_token(requester.user_id, requester.device_id, upto)
        return answer

    # -- what there is to tell -------------------------------------------------------------------------

    def _changes(self, requester: Requester, rooms: Mapping[RoomId, Any], interval: Interval) -> _Changes:
        announced = None if interval.since is None else self._notifier.changes_since(interval.since)
        if announced is None:
            return _Changes(None, None, None, set())
        changed: dict[Topic, set[Any]] = {
            Topic.ROOM_EVENTS: set(),
            Topic.RECEIPTS: set(),
            Topic.TYPING: set(),
        }
        topics = set()
        for topic, key in announced:
            if topic in changed:
                if key in rooms:
                    changed[topic].add(key)
            elif key == requester.user_id or topic in (Topic.PRESENCE, Topic.DEVICE_LISTS, Topic.PROFILE):
                topics.add(topic)
        return _Changes(changed[Topic.ROOM_EVENTS], changed[Topic.RECEIPTS], changed[Topic.TYPING], topics)

    async def _build(
        self,
        requester: Requester,
        rooms: Mapping[RoomId, MembershipRow],
        interval: Interval,
        sync_filter: SyncFilter,
    ) -> dict[str, Any]:
        changes = self._changes(requester, rooms, interval)
        answer: dict[str, Any] = {
            "device_one_time_keys_count": {"signed_curve25519": 0},
            "device_unused_fallback_key_types": [],
            "org.matrix.msc2732.device_unused_fallback_key_types": [],
        }
        ignored = await self._ignored.of(requester.user_id)
        sections = await self._room_sections(requester, rooms, interval, sync_filter, changes, ignored)
        if sections:
            answer["rooms"] = sections
        if interval.since is None or changes.has(Topic.ACCOUNT_DATA) or changes.has(Topic.PUSH_RULES):
            events = await self._extras.account_data(requester.user_id, interval, sync_filter)
            if events:
                answer["account_data"] = {"events": events}
        if interval.since is None or changes.has(Topic.PRESENCE):
            events = await self._extras.presence(requester.user_id, interval, sync_filter)
            if events:
                answer["presence"] = {"events": events}
        return answer

    async def _room_sections(
        self,
        requester: Requester,
        rooms: Mapping[RoomId, MembershipRow],
        interval: Interval,
        sync_filter: SyncFilter,
        changes: _Changes,
        ignored: frozenset[UserId],
    ) -> dict[str, dict[RoomId, Any]]:
        sections: dict[str, dict[RoomId, Any]] = {}
        wanted = {room_id: row for room_id, row in rooms.items() if sync_filter.room.allows_room(room_id)}
        moved = await self._moved(requester, wanted, interval, changes)
        joined = {
            room_id: row
            for room_id, row in wanted.items()
            if row.membership == "join" and row.stream_id <= interval.upto
        }
        with_events = await self._rooms_with_events(joined, interval, changes)
        for room_id in with_events | moved.newly_joined:
            row = joined.get(room_id)
            if row is not None:
                section, timeline = await self._sections.joined(
                    requester,
                    row,
                    interval,
                    sync_filter,
                    newly_joined=room_id in moved.newly_joined,
                    ignored=ignored,
                )
                if (
                    timeline.events
                    or timeline.limited
                    or interval.since is None
                    or section.keys() & {"summary"}
                ):
                    sections.setdefault("join", {})[room_id] = section
        await self._add_extras(
            requester, joined, interval, sync_filter, changes, moved, sections, with_events
        )
        for room_id, was_joined in moved.left.items():
            row = wanted[room_id]
            if row.forgotten:
                continue
            sections.setdefault("leave", {})[room_id] = await self._sections.left(
                requester, row, interval, sync_filter, was_joined=was_joined, ignored=ignored
            )
        for room_id in moved.invited:
            if rooms[room_id].sender not in ignored:
                sections.setdefault("invite", {})[room_id] = await self._sections.invited(
                    requester, rooms[room_id]
                )
        for room_id in moved.knocked:
            sections.setdefault("knock", {})[room_id] = await self._sections.knocked(
                requester, rooms[room_id]
            )
        if interval.since is None and sync_filter.room.include_leave:
            for room_id, row in wanted.items():
                if row.membership in ("leave", "ban") and not row.forgotten:
                    sections.setdefault("leave", {})[room_id] = await self._sections.left(
                        requester, row, interval, sync_filter, was_joined=True, ignored=ignored
                    )
        return sections

    async def _rooms_with_events(
        self, joined: Mapping[RoomId, MembershipRow], interval: Interval, changes: _Changes
    ) -> set[RoomId]:
        if interval.since is None or interval.full_state:
            return set(joined)
        if changes.rooms_with_events is not None:
            return changes.rooms_with_events & joined.keys()
        return set(await self._rooms.changed_since(joined.keys(), interval.since))

    async def _add_extras(
        self,
        requester: Requester,
        joined: Mapping[RoomId, MembershipRow],
        interval: Interval,
        sync_filter: SyncFilter,
        changes: _Changes,
        moved: _Moved,
        sections: dict[str, dict[RoomId, Any]],
        with_events: set[RoomId],
    ) -> None:
        """Receipts, typing, account data and unread counts of joined rooms."""
        join: dict[RoomId, Any] = sections.get("join", {})
        fresh = set(joined) if interval.since is None else moved.newly_joined & joined.keys()
        receipts, read_by_user = await self._extras.receipts(
            requester.user_id, joined, interval, sync_filter, changes.rooms_with_receipts, fresh
        )
        typing = await self._extras.typing(
            requester.user_id, joined, sync_filter, changes.rooms_with_typing, fresh
        )
        for room_id in receipts.keys() | typing.keys():
            events = [event for event in (receipts.get(room_id), typing.get(room_id)) if event is not None]
            join.setdefault(room_id, {})["ephemeral"] = {"events": events}
        if interval.since is None or fresh or changes.has(Topic.ACCOUNT_DATA):
            for room_id, events in (
                await self._extras.room_account_data(requester.user_id, joined, interval, sync_filter, fresh)
            ).items():
                join.setdefault(room_id, {})["account_data"] = {"events": events}
        counted = set(joined) if interval.since is None else read_by_user
        for room_id in (with_events | moved.newly_joined | counted) & joined.keys():
            if room_id in join or room_id in counted:
                counts = await self._unread.of(
                    requester.user_id,
                    joined[room_id],
                    upto=interval.upto,
                    by_thread=sync_filter.room.timeline.unread_thread_notifications,
                )
                join.setdefault(room_id, {}).update(counts)
        for section in join.values():
            section.setdefault(
                "timeline",
                {"events": [], "limited": False, "prev_batch": self._tokens.page_token(interval.upto, None)},
            )
            section.setdefault(interval.state_name, {"events": []})
            section.setdefault("ephemeral", {"events": []})
            section.setdefault("account_data", {"events": []})
        if join:
            sections["join"] = join

    async def _moved(
        self,
        requester: Requester,
        rooms: Mapping[RoomId, MembershipRow],
        interval: Interval,
        changes: _Changes,
    ) -> _Moved:
        """The rooms whose membership is new to the client."""
        moved = _Moved()
        if interval.since is None:
            for room_id, row in rooms.items():
                if row.membership == "invite":
                    moved.invited.append(room_id)
                elif row.membership == "knock":
                    moved.knocked.append(room_id)
            return moved
        if not changes.has(Topic.MEMBERSHIP):
            return moved
        recent = await self._membership_store.load_changes(
            requester.user_id, after=interval.since, upto=interval.upto
        )
        by_room: dict[RoomId, list[str]] = {}
        for change in recent:
            by_room.setdefault(change.room_id, []).append(change.membership)
        for room_id, memberships in by_room.items():
            current = rooms.get(room_id)
            if current is None or current.stream_id > interval.upto:
                continue
            before_change = await self._membership_store.get_at(
                requester.user_id, current.room_nid, interval.since
            )
            before = before_change.membership if before_change is not None else "leave"
            latest = memberships[-1]
            if latest == "join":
                if before != "join" or any(membership != "join" for membership in memberships):
                    moved.newly_joined.add(room_id)
            elif latest == "invite":
                moved.invited.append(room_id)
            elif latest == "knock":
                moved.knocked.append(room_id)
            else:
                moved.left[room_id] = before == "join" or "join" in memberships
        return moved


class _Moved:
    """Rooms by what the user became in them."""

    def __init__(self) -> None:
        self.newly_joined: set[RoomId] = set()
        self.left: dict[RoomId, bool] = {}
        self.invited: list[RoomId] = []
        self.knocked: list[RoomId] = []


class _Concern:
    """Whether announcements may concern a device."""

    __slots__ = ("_own_keys", "_rooms")

    def __init__(self, requester: Requester, rooms: Mapping[RoomId, Any]) -> None:
        self._rooms = rooms
        self._own_keys = {requester.user_id, f"{requester.user_id}|{requester.device_id}"}

    def __call__(self, announcements: Iterable[tuple[Topic, str]]) -> bool:
        return any(
            key in self._own_keys or key in self._rooms or topic in (Topic.PRESENCE, Topic.DEVICE_LISTS)
            for topic, key in announcements
        )


def _has_news(answer: Mapping[str, Any]) -> bool:
    return bool(answer.keys() & {"rooms", "account_data", "presence", "to_device", "device_lists"})
