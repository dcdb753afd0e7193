"""Presence (CS "Presence"): told by syncs and by clients, taken back when a user is no longer heard of."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from homeserver.errors import Forbidden, InvalidParam, NotFound
from homeserver.ids import server_name_of
from homeserver.storage.presence import PresenceRow

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.ids import ServerName, UserId
    from homeserver.rooms.reader import RoomReader
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.presence import PresenceStore

STATES = ("online", "offline", "unavailable")
OFFLINE_AFTER_MS = 90_000
"""A user who has not been heard of for so long is offline."""
IDLE_AFTER_MS = 5 * 60_000
"""A user who does nothing but sync for so long is unavailable."""
UNHEARD_AFTER_MS = 65 * 60_000
"""A user of another server, of whom that says nothing for so long, is offline: others say it anew within the hour."""
_NOTED_AGAIN_MS = 10 * 60_000
_MAX_HEARD = 200_000
_AT_ONCE = 500
_MAX_STATUS_BYTES = 1_000


@dataclass(slots=True)
class _Known:
    state: str
    status_message: str | None
    last_active_ts: int
    last_heard_ts: int
    syncing: int = 0
    is_stale: bool = False
    """Another process has written since."""


class Presence:
    """Knows who is about. What is told again and again stays in memory; changes are written."""

    def __init__(
        self,
        server_name: ServerName,
        database: Database,
        clock: Clock,
        store: PresenceStore,
        rooms: RoomReader,
        *,
        enabled: bool,
    ) -> None:
        self._server_name = server_name
        self._database = database
        self._clock = clock
        self._store = store
        self._rooms = rooms
        self._enabled = enabled
        self._known: dict[UserId, _Known] = {}
        # Users of other servers who may be about, by when their presence was written last.
        self._heard: OrderedDict[UserId, int] = OrderedDict()

    async def start(self) -> None:
        """Take up those who were about when the program stopped: they go offline unless they are heard of."""
        if not self._enabled:
            return
        now = self._clock.now_ms()
        for row in await self._store.load_not_offline():
            if server_name_of(row.user_id) != self._server_name:
                self._note_heard(row.user_id)
                continue
            self._known[row.user_id] = _Known(row.state, row.status_message, row.last_active_ts, now)

    async def set(self, user_id: UserId, state: str, status_message: str | None) -> None:
        """Set one's own presence and status message."""
        if state not in STATES:
            raise InvalidParam(f"`presence` is none of {', '.join(STATES)}")
        if status_message is not None and (
            len(status_message.encode("utf-8", "surrogatepass")) > _MAX_STATUS_BYTES
            or "\x00" in status_message
        ):
            raise InvalidParam(f"`status_msg` is text of at most {_MAX_STATUS_BYTES} bytes")
        if not self._enabled:
            return
        known = await self._load(user_id)
        now = self._clock.now_ms()
        known.last_heard_ts = now
        if state == "online":
            known.last_active_ts = now
        if (state, status_message) != (known.state, known.status_message):
            known.state, known.status_message = state, status_message
            await self._write(user_id, known)

    async def receive(
        self, user_id: UserId, state: str, status_message: str | None, *, last_active_ago_ms: int
    ) -> None:
        """Note the presence of a user of another server; written where it says something new.

        Nothing is kept of users who are in no room here: there are as many of them as a server likes.
        """
        if not self._enabled or state not in STATES:
            return
        rooms = await self._rooms.rooms_of(user_id)
        if not any(row.membership == "join" for row in rooms.values()):
            return
        row = await self._store.get(user_id)
        last_active_ts = self._clock.now_ms() - max(0, last_active_ago_ms)
        if row is None and state == "offline":
            return
        if (
            row is None
            or (row.state, row.status_message) != (state, status_message)
            or last_active_ts - row.last_active_ts > IDLE_AFTER_MS
            or (state != "offline" and self._is_to_be_noted(user_id))
        ):
            message = status_message[:_MAX_STATUS_BYTES] if status_message is not None else None
            written = PresenceRow(user_id, state, message, last_active_ts)
            await self._database.write(lambda t: self._store.set(t, written))

    def _is_to_be_noted(self, user_id: UserId) -> bool:
        """Whether it is long ago that something was noted of a user: with the row all processes hear of it."""
        return self._clock.now_ms() - self._heard.get(user_id, 0) > _NOTED_AGAIN_MS

    async def get(self, user_id: UserId, asked_by: UserId) -> PresenceRow:
        """The presence of a user who shares a room with the one who asks."""
        if user_id != asked_by and not await self._rooms.share_a_room(user_id, asked_by):
            raise Forbidden("You share no room with this user")
        known = self._known.get(user_id)
        if known is not None and not known.is_stale:
            return PresenceRow(user_id, known.state, known.status_message, known.last_active_ts)
        row = await self._store.get(user_id)
        if row is None:
            raise NotFound("There is no presence of this user")
        return row

    async def sync_begins(self, user_id: UserId, state: str) -> None:
        """A device of the user syncs, and says `online`, `unavailable` or `offline`: the last changes nothing."""
        if not self._enabled or state == "offline":
            return
        known = await self._load(user_id)
        known.syncing += 1
        known.last_heard_ts = self._clock.now_ms()
        if known.state == state:
            return
        if state == "online":
            if known.state == "unavailable" and known.last_heard_ts - known.last_active_ts > IDLE_AFTER_MS:
                # A client that does nothing but sync does not make its user active.
                return
            known.last_active_ts = known.last_heard_ts
        elif known.state == "online" and known.syncing > 1:
            # Another device of theirs is online.
            return
        known.state = state
        await self._write(user_id, known)

    def sync_ends(self, user_id: UserId, state: str) -> None:
        """The sync that `sync_begins` told of is over."""
        known = self._known.get(user_id)
        if known is not None and self._enabled and state != "offline":
            known.syncing = max(0, known.syncing - 1)
            known.last_heard_ts = self._clock.now_ms()

    async def active(self, user_id: UserId) -> None:
        """The user did something: sent a message, read one, typed. Who was idle is online again."""
        if user_id not in self._known:
            return
        known = await self._load(user_id)
        known.last_active_ts = self._clock.now_ms()
        if known.state == "unavailable":
            known.state = "online"
            await self._write(user_id, known)

    def written(self, user_id: UserId, *, here: bool) -> None:
        """The presence of a user was written: of one of another server, or by another process, where they are about."""
        if server_name_of(user_id) != self._server_name:
            self._note_heard(user_id)
            return
        if here:
            return
        known = self._known.get(user_id)
        if known is None:
            return
        if known.syncing == 0:
            del self._known[user_id]
        else:
            known.is_stale = True

    async def delete_of_user(self, transaction: Transaction, user_id: UserId) -> None:
        """Forget a user whose account is closed."""

        def forget() -> None:
            self._known.pop(user_id, None)

        await self._store.delete_of_user(transaction, user_id)
        transaction.after_commit(forget)

    def _note_heard(self, user_id: UserId) -> None:
        self._heard[user_id] = self._clock.now_ms()
        self._heard.move_to_end(user_id)
        if len(self._heard) > _MAX_HEARD:
            self._heard.popitem(last=False)

    async def _end_unheard(self) -> None:
        """Let users of other servers go offline of whom these have said nothing for long: the server may be gone."""
        before = self._clock.now_ms() - UNHEARD_AFTER_MS
        unheard = itertools.takewhile(lambda user_id: self._heard[user_id] < before, self._heard)
        gone = list(itertools.islice(unheard, _AT_ONCE))
        for user_id in gone:
            del self._heard[user_id]
        for row in await self._store.load(gone) if gone else ():
            # Whoever was heard of meanwhile is not gone.
            if row.state != "offline" and row.user_id not in self._heard:
                written = replace(row, state="offline")
                await self._database.write(lambda t, row=written: self._store.set(t, row))  # type: ignore[misc]

    async def sweep(self) -> None:
        """Let those go offline who have not been heard of; called every now and then."""
        await self._end_unheard()
        now = self._clock.now_ms()
        for user_id in list(self._known):
            known = await self._load(user_id)
            if known.syncing == 0 and now - known.last_heard_ts > OFFLINE_AFTER_MS:
                if known.state != "offline":
                    known.state = "offline"
                    await self._write(user_id, known)
                if known.syncing == 0:
                    self._known.pop(user_id, None)
            elif known.state == "online" and now - known.last_active_ts > IDLE_AFTER_MS:
                known.state = "unavailable"
                await self._write(user_id, known)

    async def _load(self, user_id: UserId) -> _Known:
        known = self._known.get(user_id)
        if known is not None and not known.is_stale:
            return known
        if known is not None:
            # Before the question: what is written from here on makes it stale again.
            known.is_stale = False
        row = await self._store.get(user_id)
        now = self._clock.now_ms()
        if known is None:
            loaded = (
                _Known("offline", None, now, now)
                if row is None
                else _Known(row.state, row.status_message, row.last_active_ts, now)
            )
            return self._known.setdefault(user_id, loaded)
        if row is not None:
            known.state, known.status_message = row.state, row.status_message
            known.last_active_ts = max(known.last_active_ts, row.last_active_ts)
        return known

    async def _write(self, user_id: UserId, known: _Known) -> None:
        row = PresenceRow(user_id, known.state, known.status_message, known.last_active_ts)
        await self._database.write(lambda t: self._store.set(t, row))
