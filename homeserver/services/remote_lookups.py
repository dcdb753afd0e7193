"""What users of this server ask of other servers: profiles, lists of public rooms."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from federation.errors import FederationError, Refused, TimedOut
from homeserver.errors import InvalidParam, MatrixError, NotFound
from homeserver.ids import server_name_of
from homeserver.services.described_rooms import read_summary
from homeserver.services.other_servers import as_matrix_error, of_no_use

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import TypeVar

    from federation.answers import PublicRooms
    from federation.client import FederationClient
    from homeserver.ids import ServerName
    from homeserver.services.server_calls import ServerCalls

    T = TypeVar("T")

_MAX_PROFILE_FIELDS = 500
_SECONDS = 10.0
_TEXTS = ("displayname", "avatar_url", "m.tz")


class RemoteLookups:
    """Asks other servers. Every question raises what they say where they refuse, and 502 where they do not answer."""

    def __init__(self, server_name: ServerName, client: FederationClient, calls: ServerCalls) -> None:
        self._server_name = server_name
        self._client = client
        self._calls = calls

    def is_elsewhere(self, identifier: str) -> bool:
        """Whether a user or an alias is one of another server."""
        server = server_name_of(identifier)
        return server not in ("", self._server_name)

    async def profile(self, user_id: str, field: str | None = None) -> dict[str, Any]:
        """The profile of a user of another server, or one field of it; `NotFound` where there is none.

        What must be text and is not is left out: clients rely on it. They ask for many, so a server that did not answer
        just now is not asked.
        """
        server = server_name_of(user_id)
        question = self._calls.ask(server, lambda: self._in_time(server, user_id, field))
        found = await _ask(server, question)
        if len(found) > _MAX_PROFILE_FIELDS:
            raise MatrixError(f"The server {server} gave an absurd answer", status=502)
        found = {name: value for name, value in found.items() if name not in _TEXTS or isinstance(value, str)}
        if field is None:
            return found
        if field not in found:
            raise NotFound("The profile has no such field")
        return {field: found[field]}

    async def _in_time(self, server: ServerName, user_id: str, field: str | None) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_SECONDS):
                return await self._client.query_profile(server, user_id, field)
        except TimeoutError as error:
            raise TimedOut(server, "no answer within the time") from error

    async def public_rooms(
        self, server: ServerName, *, limit: int, since: str | None, search: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """A page of the list of public rooms of another server; `search` is the `filter` of a search."""
        if search:
            content: dict[str, Any] = {"limit": limit, "filter": search}
            if since is not None:
                content["since"] = since
            page: PublicRooms = await _ask(server, self._client.search_public_rooms(server, content))
        else:
            page = await _ask(server, self._client.public_rooms(server, limit=limit, since=since))
        answer = page.model_dump(exclude_none=True)
        chunk = [read_summary(entry) for entry in answer["chunk"]]
        return {**answer, "chunk": [entry for entry in chunk if entry is not None]}


async def _ask(server: ServerName, question: Awaitable[T]) -> T:
    try:
        return await question
    except Refused as error:
        if error.status == 404:
            raise NotFound(f"The server {server} does not know it") from error
        raise as_matrix_error(error) from error
    except FederationError as error:
        raise of_no_use(server, error) from error
    except ValueError as error:
        raise InvalidParam("This cannot be asked of a server") from error
