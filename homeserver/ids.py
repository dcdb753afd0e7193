"""The identifiers of Matrix (Appendices, "Identifier Grammar") as types, and their checks."""

from __future__ import annotations

import re
import secrets
import string
from typing import NewType

from federation.server_names import is_server_name

ServerName = NewType("ServerName", str)
"""A server name: `example.org`, `example.org:8448`, `[2001:db8::1]`."""
UserId = NewType("UserId", str)
"""A user: `@localpart:example.org`."""
RoomId = NewType("RoomId", str)
"""A room: `!opaque:example.org`, or `!hash` from room version 12 on."""
RoomAlias = NewType("RoomAlias", str)
"""An alias: `#name:example.org`."""
EventId = NewType("EventId", str)
"""An event: `$opaque:example.org` (versions 1 and 2) or `$hash`."""
DeviceId = NewType("DeviceId", str)
"""A device of a user; any string that the client chose."""

MAX_ID_BYTES = 255

_LOCALPART = re.compile(r"[a-z0-9._=/+-]+")
_HISTORICAL_LOCALPART = re.compile(r"[^:\x00]*")
_MEDIA_ID = re.compile(r"[A-Za-z0-9_-]+")
_OPAQUE = re.compile(r"[A-Za-z0-9._~-]+")
_ROOM_HASH = re.compile(r"![A-Za-z0-9_-]{43}")


def _split(identifier: str, sigil: str) -> tuple[str, str] | None:
    if not identifier.startswith(sigil) or len(identifier.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
        return None
    localpart, colon, server_name = identifier[1:].partition(":")
    if not colon or not is_server_name(server_name):
        return None
    return localpart, server_name


def is_user_id(identifier: str) -> bool:
    """Whether this may stand as a user id in an event, historical localparts included."""
    parts = _split(identifier, "@")
    return parts is not None and _HISTORICAL_LOCALPART.fullmatch(parts[0]) is not None


def is_localpart(localpart: str) -> bool:
    """Whether a new local user may have this localpart (Appendices, "User Identifiers")."""
    return _LOCALPART.fullmatch(localpart) is not None


def is_room_id(identifier: str) -> bool:
    """Whether this is a room id of any room version."""
    if ":" not in identifier:
        return _ROOM_HASH.fullmatch(identifier) is not None
    parts = _split(identifier, "!")
    return parts is not None and parts[0] != "" and "\x00" not in parts[0]


def is_room_alias(identifier: str) -> bool:
    """Whether this is a room alias."""
    parts = _split(identifier, "#")
    return parts is not None and parts[0] != "" and "\x00" not in parts[0]


def is_event_id(identifier: str) -> bool:
    """Whether this may be an event id of any room version."""
    return (
        len(identifier) > 1
        and identifier[0] == "$"
        and "\x00" not in identifier
        and len(identifier.encode("utf-8", "surrogatepass")) <= MAX_ID_BYTES
    )


def is_media_id(text: str) -> bool:
    """Whether this may stand in `mxc://server.name/{mediaId}` (CS "Matrix Content (mxc://) URIs")."""
    return len(text) <= MAX_ID_BYTES and _MEDIA_ID.fullmatch(text) is not None


def is_opaque_identifier(text: str, maximum: int = MAX_ID_BYTES) -> bool:
    """Whether this follows the opaque identifier grammar (Appendices, "Opaque Identifiers")."""
    return len(text) <= maximum and _OPAQUE.fullmatch(text) is not None


def server_name_of(identifier: str) -> ServerName:
    """The server name in a user id, alias or room id of versions 1 to 11; empty where there is none."""
    return ServerName(identifier.partition(":")[2])


def localpart_of(identifier: str) -> str:
    """What stands between the sigil and the first colon."""
    return identifier[1:].partition(":")[0]


def random_string(length: int, alphabet: str = string.ascii_letters) -> str:
    """Unguessable text, for ids and tokens."""
    return "".join(secrets.choice(alphabet) for _ in range(length))
