"""A Matrix client for tests: thin, and suspicious of every answer."""

from __future__ import annotations

import itertools
import json as json_module
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tests import openapi

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    import httpx

V3 = "/_matrix/client/v3"
V1 = "/_matrix/client/v1"
_numbers = itertools.count()


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body
        self.headers = headers

    @property
    def errcode(self) -> str | None:
        return self.body.get("errcode")


@contextmanager
def refused(status: int, errcode: str) -> Iterator[None]:
    """What is done inside must be refused, with this status and code."""
    try:
        yield
    except Refused as error:
        assert (error.status, error.errcode) == (status, errcode), error  # noqa: PT017
    else:
        message = f"nothing was refused with {status} {errcode}"
        raise AssertionError(message)


async def error_of(call: Awaitable[Any]) -> Refused:
    """The error by which a call is refused, to be looked at."""
    try:
        await call
    except Refused as error:
        return error
    message = "nothing was refused"
    raise AssertionError(message)


async def found(call: Awaitable[Any]) -> Any | None:
    """What a call answers, or None where it is refused with M_NOT_FOUND."""
    try:
        return await call
    except Refused as error:
        if error.errcode != "M_NOT_FOUND":
            raise
        return None


@dataclass
class Client:
    """A device of a user; or nobody, where there is no access token."""

    http: httpx.AsyncClient
    user_id: str = ""
    device_id: str = ""
    access_token: str | None = None

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        **query: Any,
    ) -> Any:
        """Send a request below `/_matrix/client/v3`, or to a whole path; raises `Refused`."""
        if not path.startswith(("/_", "/.")):
            path = V3 + path
        sent = dict(headers or {})
        if self.access_token is not None:
            sent.setdefault("Authorization", f"Bearer {self.access_token}")
        if body is not None:
            content = json_module.dumps(body).encode()
        parameters = {
            name: str(value).lower() if isinstance(value, bool) else value
            for name, value in query.items()
            if value is not None
        }
        response = await self.http.request(
            method, path, content=content, headers=sent, params=parameters or None
        )
        assert response.headers["access-control-allow-origin"] == "*"
        if response.headers["content-type"] != "application/json":
            return response.text
        answer = response.json()
        openapi.check(method, path, response.status_code, answer)
        if response.status_code != 200:
            raise Refused(response.status_code, answer, dict(response.headers))
        return answer

    async def get(self, path: str, **query: Any) -> Any:
        return await self.call("GET", path, **query)

    async def put(self, path: str, body: Any, **query: Any) -> Any:
        return await self.call("PUT", path, body, **query)

    async def post(self, path: str, body: Any = None, **query: Any) -> Any:
        return await self.call("POST", path, {} if body is None else body, **query)

    async def delete(self, path: str, body: Any = None, **query: Any) -> Any:
        return await self.call("DELETE", path, body, **query)

    # -- rooms -----------------------------------------------------------------------------------------

    async def create_room(self, **options: Any) -> str:
        return (await self.post("/createRoom", options))["room_id"]

    async def join(self, room: str, **body: Any) -> str:
        return (await self.post(f"/join/{quote(room, safe='')}", body))["room_id"]

    async def leave(self, room_id: str) -> None:
        await self.post(f"/rooms/{room_id}/leave")

    async def invite(self, room_id: str, user_id: str) -> None:
        await self.post(f"/rooms/{room_id}/invite", {"user_id": user_id})

    async def kick(self, room_id: str, user_id: str) -> None:
        await self.post(f"/rooms/{room_id}/kick", {"user_id": user_id})

    async def ban(self, room_id: str, user_id: str) -> None:
        await self.post(f"/rooms/{room_id}/ban", {"user_id": user_id})

    async def send(
        self,
        room_id: str,
        content: Any,
        event_type: str = "m.room.message",
        transaction_id: str | None = None,
    ) -> str:
        if isinstance(content, str):
            content = {"msgtype": "m.text", "body": content}
        transaction = transaction_id or f"t{next(_numbers)}"
        answer = await self.put(
            f"/rooms/{room_id}/send/{quote(event_type, safe='')}/{quote(transaction, safe='')}", content
        )
        return answer["event_id"]

    async def set_state(self, room_id: str, event_type: str, content: Any, state_key: str = "") -> str:
        path = f"/rooms/{room_id}/state/{quote(event_type, safe='')}/{quote(state_key, safe='')}"
        return (await self.put(path, content))["event_id"]

    async def get_state(self, room_id: str, event_type: str, state_key: str = "", **query: Any) -> Any:
        path = f"/rooms/{room_id}/state/{quote(event_type, safe='')}/{quote(state_key, safe='')}"
        return await self.get(path, **query)

    async def redact(self, room_id: str, event_id: str, **content: Any) -> str:
        path = f"/rooms/{room_id}/redact/{quote(event_id, safe='')}/t{next(_numbers)}"
        return (await self.put(path, content))["event_id"]

    async def event(self, room_id: str, event_id: str) -> dict[str, Any]:
        return await self.get(f"/rooms/{room_id}/event/{quote(event_id, safe='')}")

    async def messages(self, room_id: str, **query: Any) -> dict[str, Any]:
        return await self.get(f"/rooms/{room_id}/messages", **{"dir": "b", "limit": 100, **query})

    async def sync(self, since: str | None = None, **query: Any) -> dict[str, Any]:
        if isinstance(query.get("filter"), dict):
            query["filter"] = json_module.dumps(query["filter"])
        return await self.get("/sync", since=since, **query)


async def hear_all(reader: Client, other: Client) -> None:
    """Let a reader's server process hear of all that the other client's process knows of."""
    await reader.sync((await other.sync())["next_batch"])


def bodies(events: list[dict[str, Any]]) -> list[str]:
    """The texts of the messages among events."""
    return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]
