"""A server elsewhere that answers for the keys of its users, as it is told to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from federation.answers import ClaimedKeys, DeviceKeys, parse
from federation.errors import Refused, Unreachable
from homeserver.ids import ServerName
from tests.client import Client
from tests.keys import Device, User

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.server import Server


class Network:
    """Stands in for the calls to other servers."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.servers: dict[str, FarServer] = {}
        self.plug_in()

    def plug_in(self) -> None:
        """Take the calls of a server that has started anew."""
        client = self.server.application.remote.servers.client
        client.query_user_keys = self.query_user_keys  # type: ignore[method-assign]
        client.claim_user_keys = self.claim_user_keys  # type: ignore[method-assign]

    async def query_user_keys(self, destination: str, device_keys: Mapping[str, Sequence[str]]) -> DeviceKeys:
        return parse(DeviceKeys, destination, await self._answer(destination, "query", device_keys))

    async def claim_user_keys(
        self, destination: str, one_time_keys: Mapping[str, Mapping[str, str]]
    ) -> ClaimedKeys:
        return parse(ClaimedKeys, destination, await self._answer(destination, "claim", one_time_keys))

    async def _answer(self, destination: str, kind: str, question: Any) -> Any:
        far = self.servers.get(destination)
        if far is None:
            raise Unreachable(destination, "there is no such server")
        far.asked.append((kind, question))
        if far.is_silent:
            far.is_waiting.set()
            await far.may_answer.wait()
        if far.is_away:
            raise Unreachable(destination, "it is away")
        if far.refuses:
            raise Refused(destination, 403, "M_FORBIDDEN", "no")
        return far.query(question) if kind == "query" else far.claim(question)


class FarServer:
    """Users, their devices and keys at one server."""

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name
        self.is_away = self.refuses = self.is_silent = False
        self.is_waiting, self.may_answer = asyncio.Event(), asyncio.Event()
        self.asked: list[tuple[str, Any]] = []
        self.devices: dict[str, dict[str, Any]] = {}
        self.cross_signing: dict[str, dict[str, Any]] = {}
        self.one_time_keys: dict[str, dict[str, Any]] = {}
        self.stream_ids: dict[str, int] = {}
        self.number = 0
        self.also: dict[str, dict[str, Any]] = {}
        """What it puts into its answers although nobody asked."""
        network.servers[name] = self

    def user(self, localpart: str) -> str:
        user_id = f"@{localpart}:{self.name}"
        self.devices.setdefault(user_id, {})
        return user_id

    def device(self, user_id: str, device_id: str) -> Device:
        """A new device of a user, with keys."""
        device = Device(Client(self.network.server.http, user_id, device_id))
        self.devices.setdefault(user_id, {})[device_id] = device.device_keys()
        return device

    def sign_across(self, user_id: str) -> User:
        """New cross-signing keys of a user."""
        user = User(Client(self.network.server.http, user_id))
        keys = user.keys()
        self.cross_signing[user_id] = {
            "master": keys["master_key"],
            "self_signing": keys["self_signing_key"],
        }
        return user

    # -- what it tells of changes ------------------------------------------------------------------------

    def update(self, user_id: str, device_id: str, /, **changed: Any) -> dict[str, Any]:
        """The next `m.device_list_update`, of a device as it is now; it is not sent yet."""
        before = self.stream_ids.get(user_id)
        self.stream_ids[user_id] = self._next_number()
        content: dict[str, Any] = {
            "user_id": user_id,
            "device_id": device_id,
            "stream_id": self.stream_ids[user_id],
            "prev_id": [] if before is None else [before],
        }
        keys = self.devices.get(user_id, {}).get(device_id)
        if keys is None:
            content["deleted"] = True
        else:
            content["keys"] = keys
        return {"edu_type": "m.device_list_update", "content": {**content, **changed}}

    def signing_update(self, user_id: str) -> dict[str, Any]:
        """An `m.signing_key_update`; it has a place among the updates, without telling which."""
        self.stream_ids[user_id] = self._next_number()
        content: dict[str, Any] = {"user_id": user_id}
        for usage, key in self.cross_signing.get(user_id, {}).items():
            content[f"{usage}_key"] = key
        return {"edu_type": "m.signing_key_update", "content": content}

    def _next_number(self) -> int:
        self.number += 1
        return self.number

    async def tell(self, *edus: dict[str, Any]) -> None:
        """Send EDUs, in one transaction."""
        application = self.network.server.application
        await application.resident.transactions.receive(ServerName(self.name), [], edus)

    # -- what it answers -----------------------------------------------------------------------------------

    def query(self, question: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "device_keys": {one: self.devices[one] for one in question if one in self.devices},
        }
        for usage in ("master", "self_signing"):
            answer[f"{usage}_keys"] = {
                one: self.cross_signing[one][usage]
                for one in question
                if usage in self.cross_signing.get(one, {})
            }
        for name, values in self.also.items():
            answer.setdefault(name, {}).update(values)
        return answer

    def claim(self, question: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
        keys = {
            user_id: {one: self.one_time_keys[user_id][one] for one in devices}
            for user_id, devices in question.items()
            if user_id in self.one_time_keys
        }
        return {"one_time_keys": {**keys, **self.also.get("one_time_keys", {})}}
