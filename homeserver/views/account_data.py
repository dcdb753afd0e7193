"""The few kinds of account data that the server reads to tell what matters to a user."""

from __future__ import annotations

from typing import Any

import orjson

_FAVOURITE = "m.favourite"


def direct_rooms(content: bytes | None) -> set[str]:
    """The rooms of an `m.direct` (CS "Direct Messaging"), whatever clients have made of it."""
    value: Any = orjson.loads(content) if content is not None else None
    lists = value.values() if isinstance(value, dict) else ()
    return {
        room_id for rooms in lists if isinstance(rooms, list) for room_id in rooms if isinstance(room_id, str)
    }


def is_favourite(content: bytes) -> bool:
    """Whether an `m.tag` marks its room as a favourite (CS "Room Tagging")."""
    value: Any = orjson.loads(content)
    tags = value.get("tags") if isinstance(value, dict) else None
    return isinstance(tags, dict) and _FAVOURITE in tags
