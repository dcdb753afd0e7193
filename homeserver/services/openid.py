"""OpenID tokens: a user proves to somebody else who they are, without a token that opens more (CS, SS "OpenID")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.errors import Forbidden, UnknownToken
from homeserver.ids import random_string

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.ids import ServerName, UserId
    from homeserver.services.requester import Requester
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.openid_tokens import OpenIdTokenStore

_SECONDS = 3_600
_MAX_OF_USER = 100
"""Of so many a user has the older ones run out at once."""


class OpenId:
    """Gives out tokens, and says whose they are."""

    def __init__(
        self, server_name: ServerName, database: Database, clock: Clock, store: OpenIdTokenStore
    ) -> None:
        self._server_name = server_name
        self._database = database
        self._clock = clock
        self._store = store

    async def request_token(self, requester: Requester, user_id: str) -> dict[str, Any]:
        """A new token of one's own, in the form of the answer."""
        if user_id != requester.user_id:
            raise Forbidden("This is another user")
        token = random_string(40)
        expires_ts = self._clock.now_ms() + _SECONDS * 1000

        async def work(transaction: Transaction) -> None:
            await self._store.insert(transaction, token, requester.user_id, expires_ts)
            await self._store.delete_oldest(transaction, requester.user_id, _MAX_OF_USER)

        await self._database.write(work)
        return {
            "access_token": token,
            "token_type": "Bearer",
            "matrix_server_name": self._server_name,
            "expires_in": _SECONDS,
        }

    async def user_of(self, token: str) -> UserId:
        """Whose token this is; `UnknownToken` where it is none, or no longer."""
        user_id = await self._store.get(token, self._clock.now_ms())
        if user_id is None:
            raise UnknownToken("This token is unknown or has expired")
        return user_id
