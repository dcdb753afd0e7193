"""Profiles: any fields; name and avatar travel on into the user's member events (CS "Profiles")."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import orjson

from homeserver.errors import BadJson, Forbidden, InvalidParam, MatrixError, NotFound
from homeserver.ids import UserId, is_user_id, server_name_of
from homeserver.services.event_writer import NewEvent
from homeserver.services.suspension import check_not_suspended

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from homeserver.ids import RoomId, ServerName
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.event_writer import EventWriter
    from homeserver.services.requester import Requester
    from homeserver.storage.accounts import AccountStore
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.profiles import ProfileStore

IN_MEMBER_EVENTS = ("displayname", "avatar_url")
# What says how or why somebody joined is not repeated.
_OF_ONE_EVENT = (*IN_MEMBER_EVENTS, "reason", "join_authorised_via_users_server")
_ROOMS_AT_ONCE = 64
MAX_PROFILE_BYTES = 65_536
_MAX_KEY_BYTES = 255
_MAX_NAME_BYTES = 256
_MAX_AVATAR_BYTES = 1_000
_MXC = re.compile(r"mxc://[^/\s]+/[^/\s]+")
_FIELD = re.compile(r"avatar_url|displayname|(?=.*\.)[a-z][a-z0-9._-]*")


class Profiles:
    """Reads and changes profiles."""

    def __init__(
        self,
        server_name: ServerName,
        database: Database,
        store: ProfileStore,
        accounts: AccountStore,
        rooms: RoomReader,
        writer: EventWriter,
    ) -> None:
        self._server_name = server_name
        self._database = database
        self._store = store
        self._accounts = accounts
        self._rooms = rooms
        self._writer = writer
        self._locks: WeakValueDictionary[UserId, asyncio.Lock] = WeakValueDictionary()

    async def load(self, user_id: str) -> dict[str, Any]:
        """A whole profile, ready to be sent; `NotFound` for a user whom this server does not know."""
        await self._check_known(user_id)
        fields = await self._store.load(UserId(user_id))
        return {field: orjson.Fragment(value) for field, value in fields.items()}

    async def get(self, user_id: str, field: str) -> Any:
        """One field, ready to be sent; `NotFound` where it is not set."""
        await self._check_known(user_id)
        value = (await self._store.load(UserId(user_id))).get(field)
        if value is None:
            raise NotFound("The profile has no such field")
        return orjson.Fragment(value)

    async def set(self, requester: Requester, user_id: str, field: str, value: Any) -> None:
        """Set a field of one's own profile, and send it into the rooms that one is in."""
        _check_field(field)
        _check_own(requester, user_id, field)
        if field in IN_MEMBER_EVENTS and value == "":
            # Clients that know no DELETE take a name or an avatar away like this.
            await self.delete(requester, user_id, field)
            return
        _check_value(field, value)
        encoded = orjson.dumps(value)

        async def work(transaction: Transaction) -> None:
            fields = await self._store.load(requester.user_id, transaction)
            fields[field] = encoded
            if _size(fields) > MAX_PROFILE_BYTES:
                raise MatrixError("The profile would be over 64 KiB", errcode="M_PROFILE_TOO_LARGE")
            await self._store.set(transaction, requester.user_id, field, encoded)

        await self._change(requester.user_id, field, work)

    async def delete(self, requester: Requester, user_id: str, field: str) -> None:
        """Take a field out of one's own profile."""
        _check_field(field)
        _check_own(requester, user_id, field)
        await self._change(
            requester.user_id, field, lambda t: self._store.delete(t, requester.user_id, field)
        )

    async def member_content(self, user_id: UserId) -> dict[str, Any]:
        """What a member event of a local user holds of their profile."""
        if server_name_of(user_id) != self._server_name:
            return {}
        fields = await self._store.load(user_id)
        return {field: orjson.loads(fields[field]) for field in IN_MEMBER_EVENTS if field in fields}

    async def _change(
        self, user_id: UserId, field: str, work: Callable[[Transaction], Awaitable[None]]
    ) -> None:
        # One change of a user after the other: the rooms end with what was set last.
        lock = self._locks.setdefault(user_id, asyncio.Lock())
        async with lock:
            await self._database.write(work)
            if field in IN_MEMBER_EVENTS:
                await self._propagate(user_id)

    async def _propagate(self, user_id: UserId) -> None:
        """Send the profile into the user's rooms; many at once, so that they share commits."""
        profile = await self.member_content(user_id)
        joined = [
            room_id
            for room_id, row in (await self._rooms.rooms_of(user_id)).items()
            if row.membership == "join"
        ]
        for start in range(0, len(joined), _ROOMS_AT_ONCE):
            await asyncio.gather(
                *(
                    self._send_into(room_id, user_id, profile)
                    for room_id in joined[start : start + _ROOMS_AT_ONCE]
                )
            )

    async def _send_into(self, room_id: RoomId, user_id: UserId, profile: dict[str, Any]) -> None:
        member = await self._rooms.state_event(room_id, "m.room.member", user_id)
        if member is None or member.membership != "join":
            return
        kept = {name: value for name, value in member.content.items() if name not in _OF_ONE_EVENT}
        new = NewEvent("m.room.member", {**kept, **profile}, user_id, state_key=user_id)
        try:
            await self._writer.write(room_id, new)
        except MatrixError:
            # A room that the user may not change their name in goes on with the old one.
            return

    async def _check_known(self, user_id: str) -> None:
        if not is_user_id(user_id):
            raise InvalidParam("This is not a user id")
        account = await self._accounts.get(UserId(user_id))
        if account is None or account.deactivated_ts is not None:
            raise NotFound("Unknown user")


def _check_own(requester: Requester, user_id: str, field: str) -> None:
    if user_id != requester.user_id:
        raise Forbidden("This is another user's profile")
    check_not_suspended(requester)
    if requester.is_guest and field != "displayname":
        # "Guest users may only modify their display name; other profile fields may not be changed."
        raise Forbidden("Guests may only change their name", errcode="M_GUEST_ACCESS_FORBIDDEN")


def _check_field(field: str) -> None:
    if len(field.encode("utf-8", "surrogatepass")) > _MAX_KEY_BYTES:
        raise MatrixError(
            f"The name of a field has at most {_MAX_KEY_BYTES} bytes", errcode="M_KEY_TOO_LARGE"
        )
    if not _FIELD.fullmatch(field):
        raise InvalidParam("This cannot be the name of a profile field")


def _check_value(field: str, value: Any) -> None:
    if field in IN_MEMBER_EVENTS:
        if not isinstance(value, str):
            raise BadJson(f"`{field}` is not text")
        most = _MAX_NAME_BYTES if field == "displayname" else _MAX_AVATAR_BYTES
        if len(value.encode("utf-8", "surrogatepass")) > most:
            raise InvalidParam(f"`{field}` has more than {most} bytes")
        if field == "avatar_url" and not _MXC.fullmatch(value):
            raise InvalidParam("`avatar_url` is not an mxc:// address")
    elif field == "m.tz" and not isinstance(value, str):
        raise BadJson("`m.tz` is not text")


def _size(fields: Mapping[str, bytes]) -> int:
    """The bytes of a profile as JSON: quotes, colon and comma around each field, braces around all."""
    return sum(len(name) + len(value) + 4 for name, value in fields.items()) + 1
