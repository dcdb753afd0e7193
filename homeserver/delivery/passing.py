"""Typing, receipts and presence for other servers: the latest only, told once, kept nowhere but in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from homeserver.ids import RoomId, ServerName, UserId, server_name_of
from homeserver.storage.delivery_news import DECRYPTED
from homeserver.storage.receipts import PUBLIC

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from federation.answers import Json
    from homeserver.clock import Clock
    from homeserver.ids import EventId
    from homeserver.rooms.live_rooms import LiveRooms
    from homeserver.rooms.memberships import Memberships
    from homeserver.storage.database import Database
    from homeserver.storage.delivery_news import DeliveryNewsStore
    from homeserver.storage.presence import PresenceRow, PresenceStore
    from homeserver.storage.receipts import ReceiptStore
    from homeserver.storage.room_servers import RoomServerStore
    from homeserver.storage.typing import TypingStore

_MAX_FOR_ONE = 500
_NOBODY = UserId("")
_ACTIVE_MS = 60_000
_PRESENCES_IN_EDU = 50

Key = tuple[str, ...]


class PassingNotices:
    """What there is to tell destinations that are there."""

    def __init__(
        self,
        server_name: ServerName,
        database: Database,
        clock: Clock,
        typing: TypingStore,
        receipts: ReceiptStore,
        delivery_news: DeliveryNewsStore,
        presence: PresenceStore,
        live_rooms: LiveRooms,
        memberships: Memberships,
        room_servers: RoomServerStore,
    ) -> None:
        self._server_name = server_name
        self._clock = clock
        self._typing_store = typing
        self._receipt_store = receipts
        self._delivery_news = delivery_news
        self._presence_store = presence
        self._live_rooms = live_rooms
        self._memberships = memberships
        self._room_servers = room_servers
        self._waiting: dict[ServerName, dict[Key, Any]] = {}
        self._typing: dict[RoomId, set[UserId]] = {}
        self._receipts_upto = self._news_upto = database.position
        self.is_away: Callable[[ServerName], bool] = lambda _: False
        """Whether a destination is told nothing now: what passes has passed when it is back."""

    async def take(self, destination: ServerName) -> Sequence[Json]:
        """The EDUs for a destination."""
        waiting = self._waiting.pop(destination, {})
        receipts = [value for key, value in waiting.items() if key[0] == "receipt"]
        present = [UserId(key[1]) for key in waiting if key[0] == "presence"]
        edus = [value for key, value in waiting.items() if key[0] == "typing"]
        edus += _receipt_edus(receipts)
        if present:
            edus += self._presence_edus(await self._presence_store.load(present))
        return edus

    def drop(self, destination: ServerName) -> None:
        """Forget what there is to tell a destination."""
        self._waiting.pop(destination, None)

    # -- what happened: each answers with the destinations that are to be told ---------------------------

    async def typing(self, room_id: RoomId) -> Collection[ServerName]:
        """Somebody began to type in a room, or ended."""
        if room_id not in self._typing and not await self._servers(room_id):
            return ()
        by_room = await self._typing_store.load_in_rooms([room_id], self._clock.now_ms())
        now = {user_id for user_id in by_room.get(room_id, ()) if self._is_ours(user_id)}
        before = self._typing.pop(room_id, set())
        if now:
            self._typing[room_id] = now
        changed = {user_id: user_id in now for user_id in now ^ before}
        return await self._tell_of_typing(room_id, changed) if changed else ()

    async def renew_typing(self) -> Collection[ServerName]:
        """Tell again of those who go on typing: others take it for ended after a while."""
        told: set[ServerName] = set()
        for room_id, users in list(self._typing.items()):
            told.update(await self._tell_of_typing(room_id, dict.fromkeys(users, True)))
        return told

    async def receipts(self, room_ids: Collection[RoomId], upto: int) -> Collection[ServerName]:
        """There are receipts in rooms; those after `upto` are told with what is heard next."""
        after, self._receipts_upto = self._receipts_upto, upto
        servers = {room_id: await self._servers(room_id) for room_id in room_ids}
        shared = [room_id for room_id, of_room in servers.items() if of_room]
        if not shared:
            return ()
        told: set[ServerName] = set()
        for receipt in await self._receipt_store.load_changes(shared, _NOBODY, after=after, upto=upto):
            if receipt.receipt_type == PUBLIC and self._is_ours(receipt.user_id):
                key = ("receipt", receipt.room_id, receipt.user_id, receipt.thread_id)
                passed_on = _Receipt(
                    receipt.room_id,
                    receipt.user_id,
                    PUBLIC,
                    receipt.thread_id,
                    receipt.event_id,
                    receipt.ts,
                )
                told.update(self._add(servers[receipt.room_id], key, passed_on))
        return told

    async def delivery_receipts(self, senders: Collection[UserId], upto: int) -> Collection[ServerName]:
        """There is news for the senders of events: to those of other servers goes what our users' clients say."""
        after, self._news_upto = self._news_upto, upto
        told: set[ServerName] = set()
        for sender in senders:
            if self._is_ours(sender):
                continue
            for news in await self._delivery_news.load_changes(sender, after=after, upto=upto):
                if news.kind == DECRYPTED and self._is_ours(news.user_id):
                    key = ("receipt", news.room_id, news.user_id, news.event_id)
                    receipt = _Receipt(news.room_id, news.user_id, DECRYPTED, "", news.event_id, news.ts)
                    told.update(self._add([server_name_of(sender)], key, receipt))
        return told

    async def presence(self, user_id: UserId) -> Collection[ServerName]:
        """The presence of a user changed."""
        if not self._is_ours(user_id):
            return ()
        servers: set[ServerName] = set()
        for row in list((await self._memberships.of_user(user_id)).values()):
            if row.membership == "join":
                servers.update(await self._room_servers.load(row.room_nid))
        return self._add(servers, ("presence", user_id), None)

    async def renew_presence(self) -> Collection[ServerName]:
        """Tell again who of ours is about: others take for gone of whom they are not told for long."""
        told: set[ServerName] = set()
        for row in await self._presence_store.load_not_offline():
            told.update(await self.presence(row.user_id))
        return told

    # -- how it is told --------------------------------------------------------------------------------

    def _is_ours(self, user_id: UserId) -> bool:
        return server_name_of(user_id) == self._server_name

    async def _servers(self, room_id: RoomId) -> frozenset[ServerName]:
        room = await self._live_rooms.find(room_id)
        return frozenset() if room is None else await self._room_servers.load(room.room_nid)

    async def _tell_of_typing(self, room_id: RoomId, changed: dict[UserId, bool]) -> set[ServerName]:
        servers = await self._servers(room_id)
        told: set[ServerName] = set()
        for user_id, typing in changed.items():
            content = {"room_id": room_id, "user_id": user_id, "typing": typing}
            edu = {"edu_type": "m.typing", "content": content}
            told.update(self._add(servers, ("typing", room_id, user_id), edu))
        return told

    def _add(self, servers: Iterable[ServerName], key: Key, value: Any) -> set[ServerName]:
        told = {server_name for server_name in servers if not self.is_away(server_name)}
        for server_name in told:
            waiting = self._waiting.setdefault(server_name, {})
            waiting.pop(key, None)
            waiting[key] = value
            if len(waiting) > _MAX_FOR_ONE:
                del waiting[next(iter(waiting))]
        return told

    def _presence_edus(self, rows: Sequence[PresenceRow]) -> list[Json]:
        now = self._clock.now_ms()
        updates = []
        for row in rows:
            ago = max(0, now - row.last_active_ts)
            update: Json = {"user_id": row.user_id, "presence": row.state, "last_active_ago": ago}
            if row.status_message is not None:
                update["status_msg"] = row.status_message
            if row.state == "online":
                update["currently_active"] = ago < _ACTIVE_MS
            updates.append(update)
        return [
            {"edu_type": "m.presence", "content": {"push": updates[start : start + _PRESENCES_IN_EDU]}}
            for start in range(0, len(updates), _PRESENCES_IN_EDU)
        ]


@dataclass(frozen=True, slots=True)
class _Receipt:
    room_id: RoomId
    user_id: UserId
    receipt_type: str
    thread_id: str
    event_id: EventId
    ts: int


def _receipt_edus(receipts: Iterable[_Receipt]) -> list[Json]:
    """Receipts as EDUs: one holds one receipt of a user in a room, so those of several threads go into several."""
    contents: list[Json] = []
    for receipt in receipts:
        data: Json = {"ts": receipt.ts}
        if receipt.thread_id:
            data["thread_id"] = receipt.thread_id
        for content in contents:
            if receipt.user_id not in content.get(receipt.room_id, {}).get(receipt.receipt_type, {}):
                break
        else:
            content = {}
            contents.append(content)
        by_user = content.setdefault(receipt.room_id, {}).setdefault(receipt.receipt_type, {})
        by_user[receipt.user_id] = {"event_ids": [receipt.event_id], "data": data}
    return [{"edu_type": "m.receipt", "content": content} for content in contents]
