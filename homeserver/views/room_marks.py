"""What users say of their rooms in account data: which are direct chats (`m.direct`), and their tags (`m.tag`)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from homeserver.storage.account_data import GLOBAL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.ids import UserId
    from homeserver.storage.account_data import AccountDataStore

DIRECT = "m.direct"
TAG = "m.tag"
FAVOURITES = frozenset({"m.favourite"})
"""The tags of rooms that matter to a user (CS "Room Tagging")."""
_CACHED_USERS = 2_000


@dataclass(frozen=True, slots=True)
class Marks:
    """The rooms of a user by what they are marked as."""

    direct: frozenset[str]
    tagged: Mapping[str, frozenset[str]]
    """Rooms by tag."""

    def with_any(self, tags: frozenset[str]) -> frozenset[str]:
        """The rooms that have one of some tags."""
        return frozenset[str]().union(*(self.tagged[tag] for tag in tags & self.tagged.keys()))


class RoomMarks:
    """Answers from memory; a change of the account data is noticed by its announcement."""

    def __init__(self, account_data: AccountDataStore) -> None:
        self._account_data = account_data
        self._marks: OrderedDict[UserId, Marks] = OrderedDict()
        self._changes = 0

    async def of(self, user_id: UserId) -> Marks:
        """How a user has marked their rooms."""
        known = self._marks.get(user_id)
        if known is not None:
            return known
        while True:
            changes = self._changes
            rows = await self._account_data.load_of_types(user_id, (DIRECT, TAG))
            if changes == self._changes:
                break
        direct: set[str] = set()
        tagged: dict[str, set[str]] = {}
        for row in rows:
            content = orjson.loads(row.content)
            if row.type == DIRECT and row.room_id == GLOBAL:
                direct.update(_rooms_in(content))
            elif row.type == TAG and row.room_id != GLOBAL:
                tags = content.get("tags")
                for tag in tags if isinstance(tags, dict) else ():
                    tagged.setdefault(tag, set()).add(row.room_id)
        marks = Marks(frozenset(direct), {tag: frozenset(rooms) for tag, rooms in tagged.items()})
        self._marks[user_id] = marks
        if len(self._marks) > _CACHED_USERS:
            self._marks.popitem(last=False)
        return marks

    def invalidate(self, user_id: UserId) -> None:
        """The account data of a user has changed."""
        self._changes += 1
        self._marks.pop(user_id, None)


def _rooms_in(content: Mapping[str, object]) -> set[str]:
    """The rooms in `m.direct`, where clients write what they like."""
    return {
        room_id
        for rooms in content.values()
        if isinstance(rooms, list)
        for room_id in rooms
        if isinstance(room_id, str)
    }
