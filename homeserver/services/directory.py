"""The room directory: aliases, and the list of published rooms (CS "Room aliases", "Published room directory")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from federation.errors import FederationError, Refused
from federation.server_names import is_server_name
from homeserver.errors import Forbidden, InvalidParam, MatrixError, NotFound
from homeserver.ids import RoomAlias, RoomId, ServerName, is_room_alias, is_room_id, server_name_of
from homeserver.services.other_servers import as_matrix_error, of_no_use
from homeserver.services.suspension import check_not_suspended

if TYPE_CHECKING:
    from federation.client import FederationClient
    from homeserver.clock import Clock
    from homeserver.config import RoomDirectorySettings
    from homeserver.ids import UserId
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.requester import Requester
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.directory import DirectoryStore

_MAX_SERVERS = 100
_CANONICAL_ALIAS = "m.room.canonical_alias"


@dataclass(frozen=True, slots=True)
class ResolvedAlias:
    """What an alias stands for, and servers that are in the room."""

    room_id: RoomId
    servers: list[ServerName]


class Directory:
    """Aliases and published rooms of this server."""

    def __init__(
        self,
        server_name: ServerName,
        settings: RoomDirectorySettings,
        database: Database,
        clock: Clock,
        store: DirectoryStore,
        rooms: RoomReader,
        client: FederationClient,
    ) -> None:
        self._server_name = server_name
        self._settings = settings
        self._database = database
        self._clock = clock
        self._store = store
        self._rooms = rooms
        self._client = client

    # -- aliases ---------------------------------------------------------------------------------------

    async def resolve(self, alias: RoomAlias) -> ResolvedAlias:
        """The room of an alias, asked of its server; `NotFound` where there is none."""
        if not is_room_alias(alias):
            raise InvalidParam("This is not a room alias")
        if server_name_of(alias) != self._server_name:
            return await self._ask(alias)
        found = await self._store.get_alias(alias)
        if found is None:
            raise NotFound(f"There is no room {alias}")
        return ResolvedAlias(found[0], await self._servers(found[0]))

    async def find(self, room_id_or_alias: str) -> ResolvedAlias:
        """The room that an id or alias stands for, and servers that may be in it; `InvalidParam` or `NotFound`."""
        if is_room_alias(room_id_or_alias):
            return await self.resolve(RoomAlias(room_id_or_alias))
        if not is_room_id(room_id_or_alias):
            raise InvalidParam("This is neither a room id nor an alias")
        return ResolvedAlias(RoomId(room_id_or_alias), [])

    async def _servers(self, room_id: RoomId) -> list[ServerName]:
        """Servers that are in a room, this one first; a big room is found by a part of them as well."""
        servers = await self._rooms.servers(room_id) if await self._rooms.exists(room_id) else set()
        others = sorted(servers - {self._server_name})
        ours = [self._server_name] if self._server_name in servers or not others else []
        return [*ours, *others][:_MAX_SERVERS]

    async def _ask(self, alias: RoomAlias) -> ResolvedAlias:
        """What the server of an alias says it stands for."""
        server = server_name_of(alias)
        try:
            answer = await self._client.query_directory(server, alias)
        except Refused as error:
            if error.status == 404:
                raise NotFound(f"There is no room {alias}") from error
            raise as_matrix_error(error) from error
        except FederationError as error:
            raise of_no_use(server, error) from error
        if not is_room_id(answer.room_id):
            raise MatrixError(f"The server {server} answered with something that is no room", status=502)
        named = [ServerName(name) for name in answer.servers if is_server_name(name)]
        return ResolvedAlias(RoomId(answer.room_id), [server, *named])

    async def create(self, requester: Requester, alias: RoomAlias, room_id: RoomId) -> None:
        """Give a room an alias."""
        check_not_suspended(requester)
        self.check_own(alias)
        if not await self._rooms.exists(room_id):
            raise NotFound("Unknown room")
        if self._settings.aliases_need_membership:
            row = await self._rooms.membership(room_id, requester.user_id)
            if row is None or row.membership != "join":
                raise Forbidden("You are not in this room")
        if not await self._database.write(lambda t: self.create_in(t, requester.user_id, alias, room_id)):
            raise MatrixError(f"The alias {alias} is taken", errcode="M_UNKNOWN", status=409)

    async def create_in(
        self, transaction: Transaction, user_id: UserId, alias: RoomAlias, room_id: RoomId
    ) -> bool:
        """Give a room an alias inside a larger write; False where it is taken."""
        return await self._store.insert_alias(transaction, alias, room_id, user_id, self._clock.now_ms())

    async def delete(self, requester: Requester, alias: RoomAlias) -> None:
        """Drop an alias: one's own, or that of a room whose canonical alias one may change."""
        self.check_own(alias)
        found = await self._store.get_alias(alias)
        if found is None:
            raise NotFound(f"There is no room {alias}")
        room_id, creator = found
        if requester.user_id != creator and not requester.is_admin:
            await self._check_may_manage(requester, room_id)
        await self._database.write(lambda t: self._store.delete_alias(t, alias))

    async def aliases_of(self, requester: Requester, room_id: RoomId) -> list[RoomAlias]:
        """The aliases of a room, for its members, and for everybody where it is world readable."""
        if not await self._rooms.exists(room_id):
            raise Forbidden("You are not in this room")
        row = await self._rooms.membership(room_id, requester.user_id)
        if row is None or row.membership != "join":
            visibility = await self._rooms.state_event(room_id, "m.room.history_visibility")
            if visibility is None or visibility.content.get("history_visibility") != "world_readable":
                raise Forbidden("You are not in this room")
        return await self._store.load_aliases(room_id)

    def check_own(self, alias: str) -> None:
        """Refuse what is not an alias of this server; raises `InvalidParam`."""
        if not is_room_alias(alias):
            raise InvalidParam("This is not a room alias")
        if server_name_of(alias) != self._server_name:
            raise InvalidParam("This alias is another server's")

    async def check_free(self, localpart: str) -> RoomAlias:
        """The alias with this local part; `MatrixError` where it is taken."""
        alias = RoomAlias(f"#{localpart}:{self._server_name}")
        if ":" in localpart or not is_room_alias(alias):
            raise InvalidParam("This cannot be the local part of an alias")
        if await self._store.get_alias(alias) is not None:
            raise alias_in_use(alias)
        return alias

    async def check_canonical(self, room_id: RoomId, content: dict[str, Any], known: dict[str, Any]) -> None:
        """Refuse a canonical alias that does not lead to the room (CS "m.room.canonical_alias")."""
        new = _aliases_in(content)
        for alias in new - _aliases_in(known):
            if not isinstance(alias, str) or not is_room_alias(alias):
                raise InvalidParam(f"{alias} is not a room alias")
            found = await self._store.get_alias(RoomAlias(alias))
            if found is None or found[0] != room_id:
                raise MatrixError(f"{alias} does not lead to this room", errcode="M_BAD_ALIAS")

    async def move_in(self, transaction: Transaction, old: RoomId, new: RoomId) -> None:
        """Let the new version of a room take over the aliases of the old one, and its place in the list."""
        await self._store.move_aliases(transaction, old, new)

    # -- published rooms -------------------------------------------------------------------------------

    async def is_published(self, room_id: RoomId) -> bool:
        """Whether a room is in the list; `NotFound` for an unknown one."""
        if not await self._rooms.exists(room_id):
            raise NotFound("Unknown room")
        return await self._store.is_published(room_id)

    async def publish(self, requester: Requester, room_id: RoomId, *, published: bool) -> None:
        """Put a room on the list, or take it off."""
        check_not_suspended(requester)
        if not await self._rooms.exists(room_id):
            raise NotFound("Unknown room")
        if not requester.is_admin:
            await self._check_may_manage(requester, room_id)
        await self._database.write(lambda t: self.publish_in(t, room_id, published=published))

    async def publish_in(self, transaction: Transaction, room_id: RoomId, *, published: bool) -> None:
        """Put a room on the list, or take it off, inside a larger write."""
        await self._store.set_published(transaction, room_id, published=published)

    async def _check_may_manage(self, requester: Requester, room_id: RoomId) -> None:
        row = await self._rooms.membership(room_id, requester.user_id)
        levels = await self._rooms.power_levels(room_id)
        if (
            row is None
            or row.membership != "join"
            or not levels.can_send(requester.user_id, _CANONICAL_ALIAS, is_state=True)
        ):
            raise Forbidden("You may not change how this room is found")


def alias_in_use(alias: str) -> MatrixError:
    """The error for an alias that is taken."""
    return MatrixError(f"The alias {alias} is taken", errcode="M_ROOM_IN_USE")


def _aliases_in(content: dict[str, Any]) -> set[Any]:
    alias, others = content.get("alias"), content.get("alt_aliases")
    found = {alias} if isinstance(alias, str) and alias else set()
    for other in others if isinstance(others, list) else []:
        if not isinstance(other, str):
            raise InvalidParam("`alt_aliases` holds something that is not a room alias")
        found.add(other)
    return found
