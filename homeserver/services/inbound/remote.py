"""Other servers as sources of missing events: first the one that an event came from, then some others of its room."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, TypeVar

from federation.errors import FederationError, Refused, Unreachable
from homeserver.services.inbound.sources import SourceFailed, SourceRefused, SourceUnreachable, StateIds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from federation.client import FederationClient
    from homeserver.ids import EventId, RoomId, ServerName
    from homeserver.rooms.reader import RoomReader

T = TypeVar("T")

_OTHERS = 3
_FORBIDDEN = 403
_MISSING_EVENTS = 50
_MAX_AUTH_CHAIN = 100_000
_MAX_STATE = 500_000


class RemoteSources:
    """Makes a source for each event that came."""

    def __init__(self, server_name: ServerName, client: FederationClient, rooms: RoomReader) -> None:
        self._server_name = server_name
        self._client = client
        self._rooms = rooms

    def of(self, room_id: RoomId, origin: ServerName) -> RemoteSource:
        """A source that asks the server that an event came from first, then others of the room."""

        return RemoteSource(self._client, origin, lambda: self._some(room_id, but=origin))

    def of_any(self, room_id: RoomId) -> RemoteSource:
        """A source that asks some servers of the room."""
        return RemoteSource(self._client, None, lambda: self._some(room_id))

    async def _some(self, room_id: RoomId, *, but: ServerName | None = None) -> list[ServerName]:
        servers = await self._rooms.servers(room_id) - {but, self._server_name}
        return random.sample(sorted(servers), min(_OTHERS, len(servers)))


class RemoteSource:
    """Asks servers in turn until one answers; one that did not is not asked again. For one effort, not for ever."""

    def __init__(
        self,
        client: FederationClient,
        first: ServerName | None,
        others: Callable[[], Awaitable[Sequence[ServerName]]],
    ) -> None:
        self._client = client
        self._first = first
        self._others = others
        self._unreachable: set[ServerName] = set()

    async def missing_events(
        self, room_id: RoomId, *, earliest: Sequence[EventId], latest: Sequence[EventId], min_depth: int
    ) -> list[Any]:
        """Events between those that are known (`earliest`) and those that led here (`latest`)."""

        async def ask(server: ServerName) -> list[Any]:
            answer = await self._client.get_missing_events(
                server,
                room_id,
                earliest_events=earliest,
                latest_events=latest,
                limit=_MISSING_EVENTS,
                min_depth=min_depth,
            )
            return list(answer.events)

        # Nobody else has been told of an event that only its own server has.
        return await self._ask_first(ask)

    async def backfill(self, room_id: RoomId, event_ids: Sequence[EventId], limit: int) -> list[Any]:
        """These events and older ones."""

        async def ask(server: ServerName) -> list[Any]:
            answer = await self._client.backfill(server, room_id, event_ids, limit)
            return _anything(server, answer.pdus)

        return await self._ask(ask)

    async def event(self, room_id: RoomId, event_id: EventId) -> Any:  # noqa: ARG002 - others may need the room
        """One event."""

        async def ask(server: ServerName) -> Any:
            return _anything(server, (await self._client.event(server, event_id)).pdus)[0]

        return await self._ask(ask)

    async def state_ids(self, room_id: RoomId, event_id: EventId) -> StateIds:
        """The state before an event."""

        async def ask(server: ServerName) -> StateIds:
            answer = await self._client.state_ids(server, room_id, event_id)
            return StateIds(answer.pdu_ids, answer.auth_chain_ids)  # type: ignore[arg-type]

        return await self._ask(ask)

    async def state(self, room_id: RoomId, event_id: EventId) -> tuple[list[Any], list[Any]]:
        """The events of the state before an event, and those of their auth chain."""

        async def ask(server: ServerName) -> tuple[list[Any], list[Any]]:
            found: dict[str, list[Any]] = {"pdus": [], "auth_chain": []}
            async with self._client.state(server, room_id, event_id) as members:
                async for name, pdu in members:
                    if name in found and len(found[name]) < _MAX_STATE:
                        found[name].append(pdu)
            return found["pdus"], found["auth_chain"]

        return await self._ask(ask)

    async def event_auth(self, room_id: RoomId, event_id: EventId) -> list[Any]:
        """The auth chain of an event."""

        async def ask(server: ServerName) -> list[Any]:
            found: list[Any] = []
            async with self._client.event_auth(server, room_id, event_id) as members:
                async for name, pdu in members:
                    if name == "auth_chain" and len(found) < _MAX_AUTH_CHAIN:
                        found.append(pdu)
            return found

        return await self._ask(ask)

    async def _ask_first(self, ask: Callable[[ServerName], Awaitable[T]]) -> T:
        if self._first is None:
            message = "no server is known that could be asked"
            raise SourceFailed(message)
        return await self._ask_one(self._first, ask)

    async def _ask(self, ask: Callable[[ServerName], Awaitable[T]]) -> T:
        try:
            return await self._ask_first(ask)
        except SourceFailed as error:
            failure = error
        for server in await self._others():
            try:
                return await self._ask_one(server, ask)
            except SourceFailed as error:
                # Why it cannot be had is for the first to say.
                if self._first is None:
                    failure = error
        raise failure

    async def _ask_one(self, server: ServerName, ask: Callable[[ServerName], Awaitable[T]]) -> T:
        if server in self._unreachable:
            message = f"{server} did not answer just now"
            raise SourceUnreachable(message)
        try:
            return await ask(server)
        except Unreachable as error:
            self._unreachable.add(server)
            raise SourceUnreachable(str(error)) from error
        except Refused as error:
            raise (SourceRefused if error.status == _FORBIDDEN else SourceFailed)(str(error)) from error
        except FederationError as error:
            raise SourceFailed(str(error)) from error


def _anything(server: ServerName, pdus: Sequence[Any]) -> list[Any]:
    """What a server told of events, if it knows any of them: otherwise another one may."""
    if not pdus:
        message = f"{server} knows nothing of it"
        raise SourceFailed(message)
    return list(pdus)
