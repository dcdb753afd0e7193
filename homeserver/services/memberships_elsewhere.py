"""Invites into rooms that nobody of this server is in, knocks at them, and the ends of both.

Their events are outliers: the room is stored without anything in it, and nothing is checked by its state. The user
is shown the stripped state that came with them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from homeserver.ids import UserId, is_user_id, server_name_of
from homeserver.storage.announcements import Topic
from homeserver.storage.memberships import MembershipRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.eventgraph.event import Event
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import RoomId, ServerName
    from homeserver.rooms.live_rooms import LiveRoom, LiveRooms
    from homeserver.rooms.memberships import Memberships
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.events import EventStore
    from homeserver.storage.memberships import MembershipStore
    from homeserver.storage.outliers import OutlierStore
    from homeserver.storage.rooms import RoomStore
    from homeserver.storage.stripped_state import StrippedStateStore


_SHOWN = ("type", "state_key", "content", "sender")
_MAX_SHOWN = 50


class MembershipsElsewhere:
    """Notes what users of this server are to rooms elsewhere."""

    def __init__(
        self,
        database: Database,
        rooms: RoomStore,
        live_rooms: LiveRooms,
        events: EventStore,
        outliers: OutlierStore,
        store: MembershipStore,
        memberships: Memberships,
        stripped_state: StrippedStateStore,
    ) -> None:
        self._database = database
        self._rooms = rooms
        self._live_rooms = live_rooms
        self._events = events
        self._outliers = outliers
        self._store = store
        self._memberships = memberships
        self._stripped_state = stripped_state

    async def note(
        self, version: RoomVersion, event: Event, stripped_state: Sequence[dict[str, Any]] = ()
    ) -> None:
        """Store a member event of a user of this server as their membership; durable when this returns.

        `stripped_state` is what the user is shown of the room, while they are invited or knock.
        """
        user_id = UserId(event.key[1])
        room = await self._live_rooms.find(event.room_id)
        if room is not None and room.version is not version:
            await self.forget(event.room_id)
        known = await self._memberships.get(event.room_id, user_id)

        async def work(transaction: Transaction) -> None:
            room_nid = await self._rooms.insert_empty(transaction, event.room_id, version)
            numbers = await self._outliers.insert(transaction, room_nid, [event], judged=False)
            event_nid = numbers[event.event_id]
            if known is not None and known.event_nid == event_nid:
                # It came again.
                return
            row = MembershipRow(
                user_id=user_id,
                room_nid=room_nid,
                room_id=event.room_id,
                membership=event.membership or "leave",
                event_nid=event_nid,
                stream_id=await transaction.next_position(),
                sender=event.sender,
                forgotten=False,
            )
            await self._store.set_latest(transaction, [row], [row])
            if stripped_state:
                await self._stripped_state.set(transaction, user_id, room_nid, orjson.dumps(stripped_state))
            else:
                await self._stripped_state.delete(transaction, user_id, room_nid)
            transaction.announce(Topic.MEMBERSHIP, user_id)
            transaction.after_commit(lambda: self._memberships.apply([row]))

        await self._database.write(work)

    async def membership(self, room_id: RoomId, user_id: UserId) -> MembershipRow | None:
        """What a user of this server is to a room elsewhere."""
        return await self._memberships.get(room_id, user_id)

    async def servers_in(self, row: MembershipRow) -> list[ServerName]:
        """Other servers that the description of a room shows to have been in it, and the one that made it."""
        names = []
        described = await self._stripped_state.get(row.user_id, row.room_nid)
        for entry in orjson.loads(described) if described is not None else []:
            sender = entry.get("sender")
            if isinstance(sender, str) and is_user_id(sender):
                names.append(server_name_of(sender))
        names.append(server_name_of(row.room_id))
        return [name for name in dict.fromkeys(names) if name not in ("", server_name_of(row.user_id))]

    async def arrived(self, room: LiveRoom) -> None:
        """This server has come into a room: from now on it knows for itself what the room is, and who is invited.

        An invite that the room does not know was taken back, or is on its way: then it comes again.
        """
        ended = await self._store.load_not_in_state(room.room_nid)

        async def work(transaction: Transaction) -> None:
            await self._stripped_state.delete_of_room(transaction, room.room_nid)
            rows = [
                replace(row, membership="leave", stream_id=await transaction.next_position()) for row in ended
            ]
            await self._store.set_latest(transaction, rows, rows)
            for row in rows:
                transaction.announce(Topic.MEMBERSHIP, row.user_id)
            transaction.after_commit(lambda: self._memberships.apply(rows))

        await self._database.write(work)

    async def forget(self, room_id: RoomId) -> None:
        """Drop what was said of a room in which nothing stands; nothing happens to any other."""

        async def work(transaction: Transaction) -> None:
            users, event_ids = await self._rooms.delete_empty(transaction, room_id)
            for user_id in users:
                transaction.announce(Topic.MEMBERSHIP, user_id)

            def follow() -> None:
                for user_id in users:
                    self._memberships.invalidate(user_id)
                for event_id in event_ids:
                    self._events.forget(event_id)
                if users or event_ids:
                    self._live_rooms.drop(room_id)

            transaction.after_commit(follow)

        await self._database.write(work)


def shown_of(sent: Sequence[Any]) -> list[dict[str, Any]]:
    """What a user is shown of the state that another server sent: whole events, or stripped ones."""
    return [{name: entry[name] for name in _SHOWN} for entry in sent[:_MAX_SHOWN] if _is_stripped(entry)]


def _is_stripped(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and all(isinstance(entry.get(name), str) for name in ("type", "state_key", "sender"))
        and is_user_id(entry["sender"])
        and isinstance(entry.get("content"), dict)
    )
