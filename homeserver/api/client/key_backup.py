"""Backups of room keys (CS "Server-side key backups")."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson

from homeserver.errors import BadJson, InvalidParam, MissingParam, TooLarge
from homeserver.http.request import Body
from homeserver.http.response import StreamedJson, json_response
from homeserver.http.routing import MEBIBYTE, Route, client
from homeserver.ids import MAX_ID_BYTES, RoomId, is_room_id
from homeserver.storage.key_backups import BackedUpKey, Place, Worth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request
    from homeserver.storage.key_backups import Backup

_MAX_UPLOAD_BYTES = 4 * MEBIBYTE
"""Clients send one or two hundred keys at a time, of a kilobyte or two each."""
MAX_SESSION_DATA_BYTES = 8_192
_KEYS_AT_ONCE = 500
_UNKNOWN_VERSION = -1
_MAX_DIGITS = 18
_LARGEST = 2**53 - 1


class VersionBody(Body):
    """The body of `POST /room_keys/version` and `PUT /room_keys/version/{version}`."""

    algorithm: str
    auth_data: dict[str, Any]
    version: str | None = None


class KeyBackupEndpoints:
    """The backups of whoever asks."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        version, keys, size = "/room_keys/version", "/room_keys/keys", _MAX_UPLOAD_BYTES
        room = f"{keys}/{{roomId}}"
        session = f"{room}/{{sessionId}}"
        return [
            *client("POST", version, self.create),
            *client("GET", version, self.newest),
            *client("GET", f"{version}/{{version}}", self.version),
            *client("PUT", f"{version}/{{version}}", self.update),
            *client("DELETE", f"{version}/{{version}}", self.delete),
            *client("PUT", keys, self.put_keys, max_body_bytes=size),
            *client("GET", keys, self.keys),
            *client("DELETE", keys, self.delete_keys),
            *client("PUT", room, self.put_room, max_body_bytes=size),
            *client("GET", room, self.room),
            *client("DELETE", room, self.delete_room),
            *client("PUT", session, self.put_session),
            *client("GET", session, self.session),
            *client("DELETE", session, self.delete_session),
        ]

    # -- backups ---------------------------------------------------------------------------------------

    async def create(self, request: Request) -> Response:
        """`POST /room_keys/version`."""
        requester = await self._context.authenticator.requester(request)
        body = await request.parse(VersionBody)
        version = await self._context.key_backups.create(
            requester.user_id, body.algorithm, orjson.dumps(body.auth_data)
        )
        return json_response({"version": str(version)})

    async def newest(self, request: Request) -> Response:
        """`GET /room_keys/version`."""
        requester = await self._context.authenticator.requester(request)
        return json_response(_form(await self._context.key_backups.get(requester.user_id)))

    async def version(self, request: Request) -> Response:
        """`GET /room_keys/version/{version}`."""
        requester = await self._context.authenticator.requester(request)
        version = _number(request.path_parameters["version"])
        return json_response(_form(await self._context.key_backups.get(requester.user_id, version)))

    async def update(self, request: Request) -> Response:
        """`PUT /room_keys/version/{version}`."""
        requester = await self._context.authenticator.requester(request)
        body = await request.parse(VersionBody)
        await self._context.key_backups.update(
            requester.user_id,
            _number(request.path_parameters["version"]),
            body.algorithm,
            orjson.dumps(body.auth_data),
            None if body.version is None else _number(body.version),
        )
        return json_response({})

    async def delete(self, request: Request) -> Response:
        """`DELETE /room_keys/version/{version}`."""
        requester = await self._context.authenticator.requester(request)
        version = _number(request.path_parameters["version"])
        await self._context.key_backups.delete(requester.user_id, version)
        return json_response({})

    # -- all keys --------------------------------------------------------------------------------------

    async def put_keys(self, request: Request) -> Response:
        """`PUT /room_keys/keys`."""
        requester = await self._context.authenticator.requester(request)
        version = _number(request.query.require("version"))
        rooms = _object(await request.json(), "rooms")
        keys = await _read((RoomId(room_id), _object(room, "sessions")) for room_id, room in rooms.items())
        return _outcome(await self._context.key_backups.put(requester.user_id, version, keys))

    async def keys(self, request: Request) -> Response:
        """`GET /room_keys/keys`."""
        requester = await self._context.authenticator.requester(request)
        version = _number(request.query.require("version"))
        pages = await self._context.key_backups.pages(requester.user_id, version)
        return StreamedJson(_rooms(pages))

    async def delete_keys(self, request: Request) -> Response:
        """`DELETE /room_keys/keys`."""
        requester = await self._context.authenticator.requester(request)
        version = _number(request.query.require("version"))
        return _outcome(await self._context.key_backups.delete_all(requester.user_id, version))

    # -- of a room -------------------------------------------------------------------------------------

    async def put_room(self, request: Request) -> Response:
        """`PUT /room_keys/keys/{roomId}`."""
        requester = await self._context.authenticator.requester(request)
        version = _number(request.query.require("version"))
        room_id = RoomId(request.path_parameters["roomId"])
        keys = await _read([(room_id, _object(await request.json(), "sessions"))])
        return _outcome(await self._context.key_backups.put(requester.user_id, version, keys))

    async def room(self, request: Request) -> Response:
        """`GET /room_keys/keys/{roomId}`."""
        requester = await self._context.authenticator.requester(request)
        version = _number(request.query.require("version"))
        room_id = _checked(RoomId(request.path_parameters["roomId"]))
        pages = await self._context.key_backups.pages(requester.user_id, version, room_id)
        return StreamedJson(_sessions(pages))

    async def delete_room(self, request: Request) -> Response:
        """`DELETE /room_keys/keys/{roomId}`."""
        requester = await self._context.authenticator.requester(request)
        version = _number(request.query.require("version"))
        room_id = _checked(RoomId(request.path_parameters["roomId"]))
        return _outcome(await self._context.key_backups.delete_of_room(requester.user_id, version, room_id))

    # -- of a session ----------------------------------------------------------------------------------

    async def put_session(self, request: Request) -> Response:
        """`PUT /room_keys/keys/{roomId}/{sessionId}`."""
        requester = await self._context.authenticator.requester(request)
        version = _number(request.query.require("version"))
        key = _read_key(_place(request), await request.json())
        return _outcome(await self._context.key_backups.put(requester.user_id, version, [key]))

    async def session(self, request: Request) -> Response:
        """`GET /room_keys/keys/{roomId}/{sessionId}`."""
        requester = await self._context.authenticator.requester(request)
        version = _number(request.query.require("version"))
        key = await self._context.key_backups.get_key(requester.user_id, version, _place(request))
        return json_response(_key_form(key))

    async def delete_session(self, request: Request) -> Response:
        """`DELETE /room_keys/keys/{roomId}/{sessionId}`."""
        requester = await self._context.authenticator.requester(request)
        version = _number(request.query.require("version"))
        return _outcome(
            await self._context.key_backups.delete_key(requester.user_id, version, _place(request))
        )


# -- what comes in -------------------------------------------------------------------------------------


def _number(version: str) -> int:
    """The number in a version as we write it; any other text is that of no backup."""
    if version.isascii() and version.isdigit() and version[0] != "0" and len(version) <= _MAX_DIGITS:
        return int(version)
    return _UNKNOWN_VERSION


def _checked(room_id: RoomId) -> RoomId:
    if not is_room_id(room_id) or " " in room_id:
        raise InvalidParam("This is not a room id")
    return room_id


def _place(request: Request) -> Place:
    parameters = request.path_parameters
    return _checked_place(_checked(RoomId(parameters["roomId"])), parameters["sessionId"])


def _checked_place(room_id: RoomId, session_id: str) -> Place:
    if not session_id or len(session_id.encode()) > MAX_ID_BYTES or "\x00" in session_id:
        raise InvalidParam(f"The id of a session is text of 1 to {MAX_ID_BYTES} bytes")
    return Place(room_id, session_id)


def _object(body: Any, name: str) -> dict[str, Any]:
    """A required object in an object."""
    value = _field(body, name)
    if not isinstance(value, dict):
        raise BadJson(f"`{name}` is not an object")
    return value


def _field(body: Any, name: str) -> Any:
    if not isinstance(body, dict):
        raise BadJson(f"What should have `{name}` is not an object")
    if name not in body:
        raise MissingParam(f"`{name}` is missing")
    return body[name]


async def _read(rooms: Iterable[tuple[RoomId, dict[str, Any]]]) -> list[BackedUpKey]:
    """The keys of an upload, by room. Others come in between: there may be very many."""
    keys: list[BackedUpKey] = []
    for number, (room_id, sessions) in enumerate(rooms):
        _checked(room_id)
        if number % _KEYS_AT_ONCE == 0:
            await asyncio.sleep(0)
        for session_id, key in sessions.items():
            keys.append(_read_key(_checked_place(room_id, session_id), key))
            if len(keys) % _KEYS_AT_ONCE == 0:
                await asyncio.sleep(0)
    return keys


def _read_key(place: Place, body: Any) -> BackedUpKey:
    verified = _field(body, "is_verified")
    if not isinstance(verified, bool):
        raise BadJson("`is_verified` is neither true nor false")
    index, forwarded = _count(body, "first_message_index"), _count(body, "forwarded_count")
    session_data = orjson.dumps(_object(body, "session_data"))
    if len(session_data) > MAX_SESSION_DATA_BYTES:
        raise TooLarge(f"`session_data` has more than {MAX_SESSION_DATA_BYTES} bytes")
    return BackedUpKey(place, Worth(not verified, index, forwarded), session_data)


def _count(body: Any, name: str) -> int:
    value = _field(body, name)
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise BadJson(f"`{name}` is not a whole number of at least 0")
    return value


# -- what goes out -------------------------------------------------------------------------------------


def _form(backup: Backup) -> dict[str, Any]:
    return {
        "algorithm": backup.algorithm,
        "auth_data": orjson.Fragment(backup.auth_data),
        "count": backup.key_count,
        "etag": str(backup.etag),
        "version": str(backup.version),
    }


def _outcome(backup: Backup) -> Response:
    return json_response({"etag": str(backup.etag), "count": backup.key_count})


def _key_form(key: BackedUpKey) -> dict[str, Any]:
    return {
        "first_message_index": key.worth.first_message_index,
        "forwarded_count": key.worth.forwarded_count,
        "is_verified": not key.worth.is_unverified,
        "session_data": orjson.Fragment(key.session_data),
    }


def _member(key: BackedUpKey) -> bytes:
    """A key as a member of an object."""
    return orjson.dumps(key.place.session_id) + b":" + orjson.dumps(_key_form(key))


async def _sessions(pages: AsyncIterator[list[BackedUpKey]]) -> AsyncIterator[bytes]:
    """`{"sessions": {session id: key}}` of one room."""
    before = b'{"sessions":{'
    async for page in pages:
        yield before + b",".join(map(_member, page))
        before = b","
    yield b"}}" if before == b"," else before + b"}}"


async def _rooms(pages: AsyncIterator[list[BackedUpKey]]) -> AsyncIterator[bytes]:
    """`{"rooms": {room id: {"sessions": {session id: key}}}}`, of keys that come room by room."""
    room_id = None
    part = [b'{"rooms":{']
    async for page in pages:
        for key in page:
            if key.place.room_id == room_id:
                part.append(b",")
            else:
                part.append(b"" if room_id is None else b"}},")
                room_id = key.place.room_id
                part.append(orjson.dumps(room_id) + b':{"sessions":{')
            part.append(_member(key))
        yield b"".join(part)
        part = []
    part.append(b"}}" if room_id is None else b"}}}}")
    yield b"".join(part)
