"""Filters that clients upload (CS "Filtering")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from homeserver.errors import InvalidParam, NotFound
from homeserver.views.filters import EVERYTHING, MAX_FILTER_BYTES, parse_filter, parse_filter_text

if TYPE_CHECKING:
    from homeserver.ids import UserId
    from homeserver.storage.database import Database
    from homeserver.storage.filters import FilterStore
    from homeserver.views.filters import SyncFilter


class Filters:
    """Keeps filters, and finds them again."""

    def __init__(self, database: Database, store: FilterStore) -> None:
        self._database = database
        self._store = store
        # A filter never changes.
        self._known: dict[tuple[UserId, str], SyncFilter] = {}

    async def add(self, user_id: UserId, definition: dict[str, Any]) -> str:
        """Keep a filter; the answer is its id, the same for the same filter."""
        parse_filter(definition)
        text = orjson.dumps(definition, option=orjson.OPT_SORT_KEYS).decode()
        if len(text) > MAX_FILTER_BYTES:
            raise InvalidParam("The filter is too large")
        filter_id = await self._database.write(lambda t: self._store.add(t, user_id, text))
        if filter_id is None:
            raise InvalidParam("You have too many filters")
        return str(filter_id)

    async def get(self, user_id: UserId, filter_id: str) -> dict[str, Any]:
        """The definition of a filter; `NotFound` where there is none."""
        definition: dict[str, Any] = orjson.loads(await self._text(user_id, filter_id))
        return definition

    async def for_sync(self, user_id: UserId, parameter: str | None) -> SyncFilter:
        """The filter that the parameter of a sync names or holds."""
        if parameter is None or parameter == "":
            return EVERYTHING
        if parameter.startswith("{"):
            return parse_filter_text(parameter)
        known = self._known.get((user_id, parameter))
        if known is None:
            try:
                known = parse_filter_text(await self._text(user_id, parameter))
            except NotFound as error:
                raise InvalidParam("Unknown filter") from error
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[user_id, parameter] = known
        return known

    async def _text(self, user_id: UserId, filter_id: str) -> str:
        # No leading zeros, no sign, nothing that is another spelling of the same number.
        if not filter_id.isascii() or not filter_id.isdecimal() or len(filter_id) > 9:
            raise NotFound("Unknown filter")
        text = await self._store.get(user_id, int(filter_id))
        if text is None:
            raise NotFound("Unknown filter")
        return text
