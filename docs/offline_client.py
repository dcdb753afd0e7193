"""A small client that is often away: what an author of clients may copy (see offline.md).

    python offline_client.py http://127.0.0.1:8008 alice password

It logs in, catches up on what it missed, the important first, follows the rooms by sliding sync, and shows how its own
messages are doing: one tick for stored, two for delivered, and whether they were read. Beside Python it needs httpx.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CLIENT = "/_matrix/client"
MISSED = f"{CLIENT}/unstable/dev.restante.missed"
DELIVERY = f"{CLIENT}/unstable/dev.restante.delivery"
SLIDING = f"{CLIENT}/unstable/org.matrix.simplified_msc3575/sync"
DELIVERY_NEWS = "dev.restante.delivery"
# All that `/sync` is asked for once: the place in the log from which the next catch-up begins.
ONLY_A_TOKEN = {"room": {"rooms": []}, "presence": {"types": []}, "account_data": {"types": []}}


class Place:
    """What must outlive the program: the access token, and the place up to which everything was seen."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def keep(self, **values: Any) -> None:
        """Write values down before they are relied on."""
        self.values |= values
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self.values))
        partial.replace(self._path)


class OfflineClient:
    """One device."""

    def __init__(self, http: httpx.AsyncClient, place: Place) -> None:
        self._http = http
        self._place = place
        self.timelines: dict[str, list[str]] = {}
        """The ids of the events of each room, in order."""
        self._early: dict[str, str] = {}

    async def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """A request, made again while the network is away or the server asks for patience."""
        token = self._place.values.get("access_token")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        pause = 1.0
        while True:
            try:
                answer = await self._http.request(method, path, json=body, params=query, headers=headers)
                if answer.status_code < 429 or answer.status_code == 501:
                    answer.raise_for_status()
                    return answer.json()
                pause = max(pause, float(answer.headers.get("Retry-After", 0)))
            except httpx.TransportError as error:
                print(f"... {error!r}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, 60)

    async def log_in(self, user: str, password: str) -> None:
        """A session that is kept; with it the place in the log from which there is something to catch up on."""
        if "access_token" not in self._place.values:
            identifier = {"type": "m.id.user", "user": user}
            body = {"type": "m.login.password", "identifier": identifier, "password": password}
            answer = await self.call("POST", f"{CLIENT}/v3/login", body)
            self._place.keep(access_token=answer["access_token"], user_id=answer["user_id"])
        if "since" not in self._place.values:
            answer = await self.call("GET", f"{CLIENT}/v3/sync", filter=json.dumps(ONLY_A_TOKEN))
            self._place.keep(since=answer["next_batch"])

    # -- catching up -----------------------------------------------------------------------------------------

    async def catch_up(self) -> AsyncIterator[dict[str, Any]]:
        """Every event that was missed, the important first, each once; then the place moves on."""
        start = self._place.values["since"]
        summary = await self.call("GET", f"{MISSED}/summary", **{"from": start})
        print("{rooms} rooms with news, {messages} messages, {mentions} mentions".format(**summary["totals"]))
        query = {"from": start, "order": "important", "limit": 500}
        while True:
            page = await self.call("GET", f"{MISSED}/messages", **query)
            self._place_events(page)
            for event in page["chunk"]:
                yield event
            if "next_batch" in page:
                # Only now: whoever is interrupted before begins this catch-up anew, and loses nothing.
                self._place.keep(since=page["next_batch"])
                return
            query = {"from": page["end"], "limit": 500}

    def _place_events(self, page: dict[str, Any]) -> None:
        """Put the events of a page where they stand; mentions come early, and are placed by a later page."""
        if page.get("part") == "mentions":
            self._early |= {event["event_id"]: event["room_id"] for event in page["chunk"]}
            return
        in_order: dict[str, list[str]] = {}
        for event in page["chunk"]:
            in_order.setdefault(event["room_id"], []).append(event["event_id"])
        in_order |= page.get("placed", {})
        for room_id, event_ids in in_order.items():
            self.timelines.setdefault(room_id, []).extend(event_ids)
            for event_id in event_ids:
                self._early.pop(event_id, None)

    # -- following -------------------------------------------------------------------------------------------

    async def follow(self, timeout_ms: int = 30_000) -> AsyncIterator[dict[str, Any]]:
        """What is new in the twenty most recent rooms, and which messages of ours were delivered, while somebody listens."""
        rooms = {"ranges": [[0, 19]], "timeline_limit": 20, "required_state": [["m.room.name", ""]]}
        body = {"lists": {"recent": rooms}, "extensions": {DELIVERY_NEWS: {"enabled": True}}}
        pos = None
        while True:
            query = {"timeout": timeout_ms} | ({"pos": pos} if pos else {})
            try:
                answer = await self.call("POST", SLIDING, body, **query)
            except httpx.HTTPStatusError as error:
                if pos is None or error.response.json().get("errcode") != "M_UNKNOWN_POS":
                    raise
                # The server has forgotten the connection: begin it anew.
                pos = None
                continue
            pos = answer["pos"]
            for room_id, room in answer.get("rooms", {}).items():
                timeline = self.timelines.setdefault(room_id, [])
                for event in room.get("timeline", []):
                    if event["event_id"] not in timeline:
                        timeline.append(event["event_id"])
                        yield {**event, "room_id": room_id}
            news = answer["extensions"].get(DELIVERY_NEWS, {}).get("rooms", {})
            for room_id, events in news.items():
                for event in events:
                    yield {**event, "room_id": room_id}

    # -- sending ---------------------------------------------------------------------------------------------

    async def send(self, room_id: str, text: str) -> str:
        """A message; its transaction id makes it one message, however often the request is made."""
        path = f"{CLIENT}/v3/rooms/{quote(room_id)}/send/m.room.message/{time.time_ns()}"
        return str((await self.call("PUT", path, {"msgtype": "m.text", "body": text}))["event_id"])

    async def ticks(self, room_id: str, event_id: str) -> str:
        """How a message of ours is doing: ✓ stored, ✓✓ delivered to a device of everybody, `read` by everybody."""
        path = f"{DELIVERY}/rooms/{quote(room_id)}/events/{quote(event_id)}"
        users = (await self.call("GET", path))["users"].values()
        if users and all("read" in one for one in users):
            return "✓✓ read"
        return "✓✓" if users and all(one.get("delivery", {}).get("delivered") for one in users) else "✓"


def show(event: dict[str, Any]) -> None:
    """A line for each message, and for each of ours that has arrived."""
    if event["type"] == "m.room.message":
        print(f"{event['room_id']} {event['sender']}: {event['content'].get('body')}")
    if event["type"] == "dev.restante.delivered":
        for event_id, users in event["content"].items():
            print(f"{event['room_id']} ✓✓ {event_id}: {', '.join(users)}")


async def main(url: str, user: str, password: str) -> None:
    """Catch up, then follow."""
    async with httpx.AsyncClient(base_url=url, timeout=90) as http:
        client = OfflineClient(http, Place(Path(f"{user}.json")))
        await client.log_in(user, password)
        async for event in client.catch_up():
            show(event)
        async for event in client.follow():
            show(event)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
