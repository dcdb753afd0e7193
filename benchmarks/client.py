"""Users and their devices, by the standard client-server API alone; every answer is checked."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

import orjson

from benchmarks.connection import Connection, encode_request

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from benchmarks.connection import Address, Answer

V3 = "/_matrix/client/v3"
T = TypeVar("T")

PASSWORD = "correct horse battery staple"
_transaction_ids = itertools.count(1)


class Refused(Exception):
    """An answer that is not what was asked for."""


@dataclass
class Device:
    """A device of a user, or nobody. Requests that overlap go over connections of their own."""

    address: Address
    user_id: str = ""
    access_token: str | None = None
    _free: list[Connection] = field(default_factory=list)

    def encode(self, method: str, path: str, body: Any = None) -> bytes:
        """A request of this device, ready to be sent."""
        return encode_request(self.address, method, path, self.access_token, body)

    async def exchange(self, request: bytes) -> Any:
        """Send a request, and answer with the JSON; raises `Refused` unless the status is 200."""
        connection = self._free.pop() if self._free else Connection(self.address)
        try:
            answer = await connection.exchange(request)
        except BaseException:
            # An answer may still come, which nobody waits for.
            connection.close()
            raise
        self._free.append(connection)
        return checked(answer)

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Encode and send a request."""
        return await self.exchange(self.encode(method, path, body))

    def close(self) -> None:
        """Let all connections go."""
        for connection in self._free:
            connection.close()

    # -- what devices do -------------------------------------------------------------------------------------

    async def login(self) -> Device:
        """Another device of the user."""
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.user_id},
            "password": PASSWORD,
        }
        answer = await self.call("POST", f"{V3}/login", body)
        if answer["user_id"] != self.user_id:
            raise Refused(f"logged in as {answer['user_id']}")
        return Device(self.address, self.user_id, answer["access_token"])

    async def create_room(self, **options: Any) -> str:
        """A room that everybody may join."""
        answer = await self.call("POST", f"{V3}/createRoom", {"preset": "public_chat", **options})
        return str(answer["room_id"])

    @property
    def server_name(self) -> str:
        """The name of the user's server."""
        return self.user_id.partition(":")[2]

    async def join(self, room_id: str, via: str | None = None) -> None:
        """Join a room, by way of a server that is in it."""
        query = "" if via is None else "?" + urlencode({"via": via, "server_name": via})
        await self.call("POST", f"{V3}/join/{quote(room_id, safe='')}{query}", {})

    def encode_message(self, room_id: str, text: str) -> bytes:
        """The request that sends a message."""
        path = f"{V3}/rooms/{quote(room_id, safe='')}/send/m.room.message/t{next(_transaction_ids)}"
        return self.encode("PUT", path, {"msgtype": "m.text", "body": text, "m.mentions": {}})

    async def send(self, request: bytes) -> str:
        """Send a message that is encoded already; the answer is the id of its event."""
        event_id = (await self.exchange(request))["event_id"]
        if not isinstance(event_id, str) or not event_id.startswith("$"):
            raise Refused(f"{event_id!r} is not the id of an event")
        return event_id

    def encode_sync(
        self, since: str | None = None, *, timeout_ms: int = 0, filter: dict[str, Any] | None = None
    ) -> bytes:
        """The request of a sync that tells nobody that the user is about."""
        query = f"timeout={timeout_ms}&set_presence=offline"
        if since is not None:
            query += f"&since={quote(since)}"
        if filter is not None:
            query += f"&filter={quote(orjson.dumps(filter))}"
        return self.encode("GET", f"{V3}/sync?{query}")

    async def sync(self, since: str | None = None, **options: Any) -> Any:
        """One sync."""
        answer = await self.exchange(self.encode_sync(since, **options))
        if not isinstance(answer.get("next_batch"), str):
            raise Refused("a sync without `next_batch`")
        return answer

    async def page(self, room_id: str, start: str | None, *, end: str | None = None, limit: int = 100) -> Any:
        """A page of a room, backwards."""
        query = {"dir": "b", "limit": str(limit)}
        query |= {name: token for name, token in (("from", start), ("to", end)) if token is not None}
        path = f"{V3}/rooms/{quote(room_id, safe='')}/messages?{urlencode(query)}"
        answer = await self.call("GET", path)
        if len(answer["chunk"]) > limit:
            raise Refused(f"a page of {len(answer['chunk'])} events")
        return answer

    async def read_back(self, room_id: str, start: str | None = None, end: str | None = None) -> list[Any]:
        """All events of a room from a token back to another, or to the beginning; the newest first."""
        events: list[Any] = []
        while True:
            page = await self.page(room_id, start, end=end)
            events += page["chunk"]
            start = page.get("end")
            if start is None or (not page["chunk"] and end is not None):
                return events


@dataclass(frozen=True)
class Accounts:
    """Makes users: with the shared secret of the server, or by open registration."""

    address: Address
    shared_secret: str | None
    prefix: str
    """So that a server can be measured again."""
    _devices: list[Device] = field(default_factory=list)

    async def register(self, name: str) -> Device:
        """A new user with a device."""
        nobody = Device(self.address)
        username = f"{self.prefix}-{name}"
        if self.shared_secret is None:
            body = {"username": username, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
            answer = await nobody.call("POST", f"{V3}/register", body)
        else:
            path = "/_synapse/admin/v1/register"
            nonce = (await nobody.call("GET", path))["nonce"]
            signed = f"{nonce}\0{username}\0{PASSWORD}\0notadmin".encode()
            mac = hmac.new(self.shared_secret.encode(), signed, hashlib.sha1).hexdigest()
            body = {
                "nonce": nonce,
                "username": username,
                "password": PASSWORD,
                "admin": False,
                "mac": mac,
            }
            answer = await nobody.call("POST", path, body)
        nobody.close()
        device = Device(self.address, answer["user_id"], answer["access_token"])
        self._devices.append(device)
        return device

    def close(self) -> None:
        """Let the connections of all of them go."""
        for device in self._devices:
            device.close()


def checked(answer: Answer) -> Any:
    """The JSON of an answer with status 200; raises `Refused` for any other."""
    if answer.status != 200:
        raise Refused(f"{answer.status} {answer.body[:500]!r}")
    return orjson.loads(answer.body)


async def in_parallel(count: int, works: Iterable[Callable[[], Coroutine[Any, Any, T]]]) -> list[T]:
    """Do works, so many at a time."""
    results: list[T] = []
    waiting = iter(works)

    async def worker() -> None:
        for work in waiting:
            results.append(await work())

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(worker())
    return results
