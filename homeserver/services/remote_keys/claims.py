"""One-time keys of other servers' users (SS `POST /user/keys/claim`)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson

from federation.errors import FederationError
from homeserver.services.other_servers import unreachable
from homeserver.services.remote_keys.answers import read_claimed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from federation.client import FederationClient
    from homeserver.ids import DeviceId, ServerName, UserId
    from homeserver.services.server_calls import ServerCalls

    Wanted = Mapping[ServerName, Mapping[UserId, Mapping[DeviceId, str]]]
    Claimed = dict[str, dict[str, dict[str, Any]]]


class RemoteClaims:
    """Claims keys at other servers."""

    def __init__(self, client: FederationClient, calls: ServerCalls) -> None:
        self._client = client
        self._calls = calls

    async def claim(self, wanted: Wanted, seconds: float) -> tuple[Claimed, dict[ServerName, dict[str, str]]]:
        """`one_time_keys` and `failures`: algorithms by server, user and device, asked of all servers at once.

        A server that does not answer in time is among the failures; it may have given keys out all the same.
        """
        keys: Claimed = {}
        failed = []
        answers = await asyncio.gather(
            *(self._claim_of(server_name, users, seconds) for server_name, users in wanted.items())
        )
        for server_name, answer in zip(wanted, answers, strict=True):
            if answer is None:
                failed.append(server_name)
            else:
                keys.update(answer)
        return keys, unreachable(failed)

    async def _claim_of(
        self, server_name: ServerName, wanted: Mapping[UserId, Mapping[DeviceId, str]], seconds: float
    ) -> Claimed | None:
        question: dict[str, dict[str, str]] = {
            user_id: dict(devices.items()) for user_id, devices in wanted.items()
        }
        try:
            async with asyncio.timeout(seconds):
                answer = await self._calls.ask(
                    server_name, lambda: self._client.claim_user_keys(server_name, question)
                )
        except (FederationError, TimeoutError):
            return None
        return {
            user_id: {
                device_id: {f"{key.algorithm}:{key.key_id}": orjson.Fragment(key.key)}
                for device_id, key in devices.items()
            }
            for user_id, devices in read_claimed(answer, wanted).items()
        }
