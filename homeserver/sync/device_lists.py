"""Whose devices a client has to look at anew, and whose no more (CS "Tracking the device list for a user").

Both follow from when two users shared an encrypted room, that is from spans of the log in which both were joined to
it and it was encrypted. Of an interval

- `changed` are those who share one at its end, but did not all the time, and those who share any room at its end
  and whose devices or keys changed in it, and those whose master key the user has signed in it;
- `left` are those who shared one at some time of it, and share none at its end.

Whoever went out and came back is among the changed: what they did to their devices while no room was shared may have
been told to nobody. Changing from one common room to another, as when a room is upgraded, is no news.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from homeserver.ids import UserId
from homeserver.storage.announcements import Topic
from homeserver.sync.interval import Concern, Interval, read_changes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from homeserver.ids import RoomId
    from homeserver.notifier.notifier import Notifier
    from homeserver.rooms.memberships import Memberships
    from homeserver.services.requester import Requester
    from homeserver.storage.device_lists import DeviceListStore
    from homeserver.storage.key_signatures import KeySignatureStore
    from homeserver.storage.memberships import MembershipRow, MembershipStore
    from homeserver.storage.shared_rooms import MemberChange, SharedRoomStore
    from homeserver.sync.interval import Changes
    from homeserver.views.tokens import Tokens

Span = tuple[int, int]
"""From a position on, up to the one where it ended."""
Spans = tuple[Span, ...]

_END = 2**63
"""The end of a span that lasts beyond the interval."""
_FEW_USERS = 100


class DeviceLists:
    """Reads what `device_lists` tells."""

    def __init__(
        self,
        notifier: Notifier,
        tokens: Tokens,
        memberships: Memberships,
        membership_store: MembershipStore,
        shared_rooms: SharedRoomStore,
        device_lists: DeviceListStore,
        signatures: KeySignatureStore,
    ) -> None:
        self._notifier = notifier
        self._tokens = tokens
        self._memberships = memberships
        self._membership_store = membership_store
        self._shared_rooms = shared_rooms
        self._device_lists = device_lists
        self._signatures = signatures

    async def answer(self, requester: Requester, start: str, end: str) -> dict[str, list[UserId]]:
        """`GET /keys/changes`: what `/sync` tells of the interval between two of its tokens.

        Raises `InvalidParam` for a token that this server did not make.
        """
        user_id, device_id = requester.user_id, requester.device_id
        after = (await self._tokens.read_sync_token(start, user_id, device_id)).position
        upto = (await self._tokens.read_sync_token(end, user_id, device_id)).position
        interval = Interval(after, upto, full_state=False, state_name="state")
        rooms = await self._memberships.of_user(user_id)
        changes = read_changes(self._notifier, interval, Concern(user_id, device_id, rooms), rooms)
        return await self.read(user_id, rooms, interval, changes)

    async def read(
        self, user_id: UserId, rooms: Mapping[RoomId, MembershipRow], interval: Interval, changes: Changes
    ) -> dict[str, list[UserId]]:
        """`changed` and `left` of an interval that has a beginning.

        `rooms` are the memberships of the user at the end of the interval, or later; `changes` is what was announced.
        """
        assert interval.since is not None
        changed: set[UserId] = set()
        left: set[UserId] = set()
        if interval.upto <= interval.since:
            return {"changed": [], "left": []}
        came_or_went = (rooms[room_id] for room_id in changes.shared_rooms)
        if not changes.known or any(
            # Of rooms that the user was in at no time of the interval there is nothing to tell.
            row.membership == "join" or row.stream_id > interval.since
            for row in came_or_went
        ):
            changed, left = await self._sharing(user_id, rooms, interval.since, interval.upto)
        if changes.known and len(changes.changed_devices) <= _FEW_USERS:
            for other in changes.changed_devices - changed - left:
                if other == user_id or await self._share_a_room(rooms, other, interval.upto):
                    changed.add(other)
        else:
            changed |= await self._changed_devices(user_id, rooms, interval.since, interval.upto)
        if changes.has(Topic.USER_SIGNATURES):
            changed |= await self._signatures.load_signed(user_id, after=interval.since, upto=interval.upto)
        return {"changed": sorted(changed - left), "left": sorted(left)}

    # -- changed devices -------------------------------------------------------------------------------

    async def _changed_devices(
        self, user_id: UserId, rooms: Mapping[RoomId, MembershipRow], after: int, upto: int
    ) -> set[UserId]:
        """The same as the announcements tell, from the database."""
        joined = [row.room_nid for row in rooms.values() if await self._is_joined(row, upto)]
        changed = await self._device_lists.load_changed_members(joined, after=after, upto=upto)
        return changed | await self._device_lists.load_changed([user_id], after=after, upto=upto)

    async def _share_a_room(
        self, rooms: Mapping[RoomId, MembershipRow], other: UserId, position: int
    ) -> bool:
        theirs = await self._memberships.of_user(other)
        for room_id in rooms.keys() & theirs.keys():
            if await self._is_joined(rooms[room_id], position) and await self._is_joined(
                theirs[room_id], position
            ):
                return True
        return False

    async def _is_joined(self, row: MembershipRow, position: int) -> bool:
        """Whether a user was in a room at a position; what is in memory may be newer than that."""
        if row.stream_id <= position:
            return row.membership == "join"
        change = await self._membership_store.get_at(row.user_id, row.room_nid, position)
        return change is not None and change.membership == "join"

    # -- who shares an encrypted room with whom --------------------------------------------------------

    async def _sharing(
        self, user_id: UserId, rooms: Mapping[RoomId, MembershipRow], after: int, upto: int
    ) -> tuple[set[UserId], set[UserId]]:
        """Those who came to share an encrypted room with the user in an interval, and those who no longer do."""
        own = await self._own_spans(user_id, rooms, after, upto)
        log = await self._shared_rooms.load_changes_of_rooms(own, after=after, upto=upto)
        moved = _joined_spans(log, after)
        whole = _whole(after)
        # Of those who stayed in rooms where the user was all the time nothing need be asked.
        partly = [room_nid for room_nid, spans in own.items() if spans != whole]
        stayed = await self._shared_rooms.load_joined(partly, at=after)
        concerned = set[UserId]().union(*stayed.values())
        concerned |= {
            other
            for (room_nid, other), spans in moved.items()
            if _common(own[room_nid], spans) not in ((), whole)
        }
        concerned.discard(user_id)
        if not concerned:
            return set(), set()
        stayed |= await self._shared_rooms.load_joined(
            own.keys() - partly, at=after, user_ids=concerned if len(concerned) <= _FEW_USERS else None
        )
        groups = await _by_shared_spans(own, stayed, moved, concerned)
        at_end = {spans: users for spans, users in groups.items() if spans and spans[-1][1] == _END}
        changed = (users for spans, users in at_end.items() if spans != whole)
        left = (users for spans, users in groups.items() if spans and spans not in at_end)
        return set[UserId]().union(*changed), set[UserId]().union(*left)

    async def _own_spans(
        self, user_id: UserId, rooms: Mapping[RoomId, MembershipRow], after: int, upto: int
    ) -> dict[int, Spans]:
        """When, in an interval, the user was in which rooms while these were encrypted."""
        spans = {
            row.room_nid: _whole(after)
            for row in rooms.values()
            if row.stream_id <= after and row.membership == "join"
        }
        if any(row.stream_id > after for row in rooms.values()):
            log = await self._shared_rooms.load_changes_of_user(user_id, after=after)
            spans.update(
                (room_nid, joined) for (room_nid, _), joined in _joined_spans(log, after, upto).items()
            )
        encrypted = await self._shared_rooms.load_encrypted(spans, upto)
        clipped = {
            room_nid: _common(spans[room_nid], ((position, _END),))
            for room_nid, position in encrypted.items()
        }
        return {room_nid: joined for room_nid, joined in clipped.items() if joined}


def _whole(after: int) -> Spans:
    return ((after, _END),)


def _joined_spans(
    log: Iterable[MemberChange], after: int, upto: int = _END
) -> dict[tuple[int, UserId], Spans]:
    """When users were in rooms, from the changes of their memberships in an interval, in order."""
    by_member: dict[tuple[int, UserId], list[MemberChange]] = {}
    for change in log:
        by_member.setdefault((change.room_nid, change.user_id), []).append(change)
    joined: dict[tuple[int, UserId], Spans] = {}
    for member, member_log in by_member.items():
        spans = []
        begin = after if member_log[0].at_start == "join" else None
        for change in member_log:
            if change.stream_id > upto:
                break
            if change.membership != "join" and begin is not None:
                spans.append((begin, change.stream_id))
                begin = None
            elif change.membership == "join" and begin is None:
                begin = change.stream_id
        if begin is not None:
            spans.append((begin, _END))
        joined[member] = tuple(spans)
    return joined


def _common(some: Spans, others: Spans) -> Spans:
    """The spans that are in both."""
    pairs = ((max(a[0], b[0]), min(a[1], b[1])) for a in some for b in others)
    return tuple((begin, end) for begin, end in pairs if begin < end)


def _merged(spans: Iterable[Span]) -> Spans:
    """The same spans in order, those that touch as one."""
    merged: list[Span] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return tuple(merged)


async def _by_shared_spans(
    own: Mapping[int, Spans],
    stayed: Mapping[int, set[UserId]],
    moved: Mapping[tuple[int, UserId], Spans],
    concerned: set[UserId],
) -> dict[Spans, set[UserId]]:
    """Users by when they shared any of some rooms with a user.

    `own` is when the user was in which room, `stayed` who was there all the time, and `moved` when those were there who
    came or went. Most of the members of a room are alike, and a room may have very many: they are told apart as sets.
    """
    of_movers: dict[UserId, list[Span]] = {}
    for (room_nid, other), spans in moved.items():
        if other in concerned:
            of_movers.setdefault(other, []).extend(_common(own[room_nid], spans))
    groups: dict[Spans, set[UserId]] = {(): concerned - of_movers.keys()}
    for room_nid, members in stayed.items():
        await asyncio.sleep(0)
        for spans, users in list(groups.items()):
            inside = users & members
            if inside:
                users -= inside
                groups.setdefault(_merged(spans + own[room_nid]), set()).update(inside)
        for other in of_movers.keys() & members:
            if (room_nid, other) not in moved:
                of_movers[other] += own[room_nid]
    for other, shared in of_movers.items():
        groups.setdefault(_merged(shared), set()).add(other)
    return groups
