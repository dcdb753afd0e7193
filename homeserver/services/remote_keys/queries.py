"""Keys of other servers' users, asked of their servers (SS `POST /user/keys/query`)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from federation.errors import FederationError
from homeserver.services.remote_keys.answers import RemoteUserKeys, read_keys

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from federation.client import FederationClient
    from homeserver.ids import ServerName, UserId
    from homeserver.services.remote_keys.calls import ServerCalls


class RemoteKeys:
    """Knows the keys of other servers' users, or asks."""

    def __init__(self, client: FederationClient, calls: ServerCalls) -> None:
        self._client = client
        self._calls = calls

    async def load(
        self, wanted: Mapping[ServerName, Collection[UserId]], seconds: float
    ) -> tuple[dict[UserId, RemoteUserKeys], list[ServerName]]:
        """The keys of users, by server, and the servers that did not answer in time; all are asked at once."""
        found: dict[UserId, RemoteUserKeys] = {}
        failed = []
        answers = await asyncio.gather(
            *(self._load_of(server_name, user_ids, seconds) for server_name, user_ids in wanted.items())
        )
        for server_name, answer in zip(wanted, answers, strict=True):
            if answer is None:
                failed.append(server_name)
            else:
                found.update(answer)
        return found, failed

    async def _load_of(
        self, server_name: ServerName, user_ids: Collection[UserId], seconds: float
    ) -> dict[UserId, RemoteUserKeys] | None:
        question: dict[str, tuple[str, ...]] = dict.fromkeys(user_ids, ())
        try:
            async with asyncio.timeout(seconds):
                answer = await self._calls.ask(
                    server_name, lambda: self._client.query_user_keys(server_name, question)
                )
                return await read_keys(answer, user_ids)
        except (FederationError, TimeoutError):
            return None
