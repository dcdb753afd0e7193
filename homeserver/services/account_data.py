"""Account data and tags (CS "Account data", "Room Tagging")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from homeserver.errors import BadJson, InvalidParam, MatrixError, NotFound
from homeserver.ids import is_room_id
from homeserver.storage.account_data import GLOBAL
from homeserver.views.push_rules import default_rules

if TYPE_CHECKING:
    from homeserver.ids import RoomId, UserId
    from homeserver.rooms.reader import RoomReader
    from homeserver.storage.account_data import AccountDataStore
    from homeserver.storage.database import Database, Transaction

TAGS = "m.tag"
FULLY_READ = "m.fully_read"
PUSH_RULES = "m.push_rules"
DIRECT = "m.direct"
MAX_BYTES = 65_536
_MAX_TYPE_BYTES = 255
_SET_ELSEWHERE = (FULLY_READ, PUSH_RULES)


class AccountData:
    """What clients keep for a user."""

    def __init__(self, database: Database, store: AccountDataStore, rooms: RoomReader) -> None:
        self._database = database
        self._store = store
        self._rooms = rooms

    async def get(self, user_id: UserId, room_id: RoomId, type_: str) -> Any:
        """A piece of account data, ready to be sent; `NotFound` where it was never set."""
        _check_room_id(room_id)
        if room_id == GLOBAL and type_ == PUSH_RULES:
            return {"global": default_rules(user_id)}
        content = await self._store.get(user_id, room_id, type_)
        if content is None:
            raise NotFound("No such account data")
        return orjson.Fragment(content)

    async def set(self, user_id: UserId, room_id: RoomId, type_: str, content: dict[str, Any]) -> None:
        """Set a piece of account data."""
        if type_ in _SET_ELSEWHERE:
            raise MatrixError(f"{type_} is not set by this endpoint", errcode="M_BAD_JSON", status=405)
        _check_type(type_)
        _check_room_id(room_id)
        if room_id != GLOBAL and not await self._rooms.exists(room_id):
            raise NotFound("Unknown room")
        encoded = orjson.dumps(content)
        if len(encoded) > MAX_BYTES:
            raise MatrixError("The account data is too large", errcode="M_TOO_LARGE", status=413)
        await self._database.write(lambda t: self._store.set(t, user_id, room_id, type_, encoded))

    async def tags(self, user_id: UserId, room_id: RoomId) -> dict[str, Any]:
        """The tags of a room."""
        _check_room_id(room_id)
        return _tags(await self._store.get(user_id, room_id, TAGS))

    async def set_tag(self, user_id: UserId, room_id: RoomId, tag: str, content: dict[str, Any]) -> None:
        """Put a tag on a room."""
        order = content.get("order", 0)
        if isinstance(order, bool) or not isinstance(order, int | float):
            raise BadJson("`order` is not a number")
        _check_type(tag)
        await self._change_tags(user_id, room_id, tag, content)

    async def delete_tag(self, user_id: UserId, room_id: RoomId, tag: str) -> None:
        """Take a tag off a room."""
        await self._change_tags(user_id, room_id, tag, None)

    async def carry_over(self, user_id: UserId, old: RoomId, new: RoomId) -> None:
        """Give the successor of a room what the user set for the room: its tags, and its place in `m.direct`.

        What the user has set for the successor already is kept.
        """

        async def work(transaction: Transaction) -> None:
            tags = await self._store.get_in(transaction, user_id, old, TAGS)
            if tags is not None and await self._store.get_in(transaction, user_id, new, TAGS) is None:
                await self._store.set(transaction, user_id, new, TAGS, tags)
            direct = await self._store.get_in(transaction, user_id, GLOBAL, DIRECT)
            rooms = orjson.loads(direct) if direct is not None else {}
            changed = False
            for listed in rooms.values() if isinstance(rooms, dict) else ():
                if isinstance(listed, list) and old in listed and new not in listed:
                    listed.append(new)
                    changed = True
            if changed:
                await self._store.set(transaction, user_id, GLOBAL, DIRECT, orjson.dumps(rooms))

        await self._database.write(work)

    async def _change_tags(
        self, user_id: UserId, room_id: RoomId, tag: str, content: dict[str, Any] | None
    ) -> None:
        _check_room_id(room_id)
        if not await self._rooms.exists(room_id):
            raise NotFound("Unknown room")

        async def work(transaction: Transaction) -> None:
            tags = _tags(await self._store.get_in(transaction, user_id, room_id, TAGS))
            if tags.get(tag) == content:
                return
            if content is None:
                del tags[tag]
            else:
                tags[tag] = content
            encoded = orjson.dumps({"tags": tags})
            if len(encoded) > MAX_BYTES:
                raise InvalidParam("This room has too many tags")
            await self._store.set(transaction, user_id, room_id, TAGS, encoded)

        await self._database.write(work)


def _tags(content: bytes | None) -> dict[str, Any]:
    """What are tags of that which clients have written: as account data they may write anything."""
    tags = orjson.loads(content).get("tags") if content is not None else None
    return {name: tag for name, tag in tags.items() if _is_tag(tag)} if isinstance(tags, dict) else {}


def _is_tag(tag: Any) -> bool:
    return isinstance(tag, dict) and type(tag.get("order", 0)) in (int, float)


def _check_room_id(room_id: RoomId) -> None:
    if room_id != GLOBAL and not is_room_id(room_id):
        raise InvalidParam("This is not a room id")


def _check_type(type_: str) -> None:
    if not type_ or len(type_.encode("utf-8", "surrogatepass")) > _MAX_TYPE_BYTES:
        raise InvalidParam(f"A type has 1 to {_MAX_TYPE_BYTES} bytes")
