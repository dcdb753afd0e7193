"""A server with people, rooms and history, for requests that are up to no good; it judges every answer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import orjson

from crypto.errors import CanonicalJsonError
from federation.request_auth import NO_CONTENT, sign_request
from tests import openapi
from tests.bad_input.requests import Plan, dump, names_in
from tests.bad_input.vocabulary import CROSS_SIGNING_KEYS, WORDS, Pairs, Ref
from tests.client import Client, Refused
from tests.federation_api.remote import Network
from tests.keys import Device, User
from tests.media.conftest import Desk, animation, picture
from tests.server import RESOURCES, Server

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from homeserver.http.routing import Route

ROOM_VERSIONS = ("1", "5", "9", "11", "12")
ERRCODES = {
    *("M_FORBIDDEN", "M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "M_USER_LOCKED", "M_USER_SUSPENDED", "M_BAD_JSON"),
    *("M_NOT_JSON", "M_NOT_FOUND", "M_LIMIT_EXCEEDED", "M_UNRECOGNIZED", "M_UNKNOWN", "M_UNAUTHORIZED"),
    *("M_USER_DEACTIVATED", "M_USER_IN_USE", "M_INVALID_USERNAME", "M_ROOM_IN_USE", "M_INVALID_ROOM_STATE"),
    *("M_UNSUPPORTED_ROOM_VERSION", "M_INCOMPATIBLE_ROOM_VERSION", "M_BAD_STATE", "M_GUEST_ACCESS_FORBIDDEN"),
    *(
        "M_INVITE_BLOCKED",
        "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD",
        "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION",
        "M_MISSING_PARAM",
        "M_INVALID_PARAM",
        "M_TOO_LARGE",
        "M_EXCLUSIVE",
        "M_WEAK_PASSWORD",
        "M_BAD_ALIAS",
    ),
    *(
        "M_PROFILE_TOO_LARGE",
        "M_KEY_TOO_LARGE",
        "M_DUPLICATE_ANNOTATION",
        "M_INVALID_SIGNATURE",
        "M_THREEPID_DENIED",
        "M_UNKNOWN_POS",
    ),
    *("M_UNABLE_TO_AUTHORISE_JOIN", "M_UNABLE_TO_GRANT_JOIN", "M_THREEPID_NOT_FOUND", "M_THREEPID_IN_USE"),
    *("M_WRONG_ROOM_KEYS_VERSION", "M_NOT_YET_UPLOADED", "M_CANNOT_OVERWRITE_MEDIA"),
}
"""Those of CS "Standard error response" that a server without federation and media can have a reason for."""
_KNOWN = 60
_PAGES = "/auth/{stage}/fallback/web"
# A refusal may begin a session of user-interactive authentication; typing and being online end by the clock.
# Thumbnails are made by who looks at them; what devices have read is written by and by, unwanted files are deleted so.
_MAY_CHANGE = {
    *("user_interactive_sessions", "typing", "presence", "announcements"),
    *("media_thumbnails", "media_strays", "device_positions", "room_arrivals", "delivery_news"),
}
# Others' typing ends by the clock; that a device has what was sent before is told when it is seen.
_COME_BY_THEMSELVES = ("m.typing", "dev.restante.delivered")
_FILES = re.compile(r"/media/(download|thumbnail)/")


class World:
    """Mallory has a login like everybody, a room of her own, and is a member of others."""

    def __init__(self, directory: Path, database_url: str) -> None:
        self.runner = asyncio.Runner()
        self.server = Server(
            directory,
            database_url,
            registration={"mode": "open", "allow_guests": True},
            presence={"enabled": True},
        )
        self.known: dict[str, list[Any]] = {kind: list(words) for kind, words in WORDS.items()}
        self.statuses: dict[tuple[str, str], set[int]] = {}
        self.refused = 0
        self._sent = 0
        self._numbers = itertools.count()
        self._people: dict[str, Client] = {}
        self._since: dict[str, str] = {}
        self._events_of: dict[str, list[str]] = {}
        self._room = ""

    def run(self, coroutine: Any) -> Any:
        """Do something on the server's event loop."""
        return self.runner.run(coroutine)

    async def open(self) -> None:
        """Start the server, and let things happen there."""
        await self.server.start()
        self._elsewhere = Network(self.server).remote("mallory.test")
        people = self._people
        for name in ("alice", "bob", "carol", "dave"):
            people[name] = await self.server.register(name)
        await self._bring_mallory()
        people["nobody"] = self.server.nobody()
        people["forger"] = Client(self.server.http, access_token="rsa_" + "A" * 43)
        self._learn_constants()
        await self._upload()
        # Its key is fetched with its first request, which may have to be refused.
        await self._elsewhere.get("/query/profile", user_id="@alice:example.org")

    async def close(self) -> None:
        """Stop the server."""
        await self.server.stop()

    def routes(self) -> list[Route]:
        """What there is to be asked."""
        return self.server.application.api.routes(RESOURCES)

    # -- what there is ------------------------------------------------------------------------------------

    async def _bring_mallory(self) -> None:
        """Log Mallory in, or bring another one where she has closed her account."""
        self._since.clear()
        guest = await self.server.nobody().post("/register", {}, kind="guest")
        self._people["guest"] = Client(
            self.server.http, guest["user_id"], guest["device_id"], guest["access_token"]
        )
        mallory = self._people.get("mallory")
        if mallory is not None:
            try:
                self._people["mallory"] = await self.server.login(mallory, mallory.device_id)
                await self._bring_second_device(mallory)
            except Refused:
                pass
            else:
                return
        mallory = await self.server.register(f"mallory{next(self._numbers)}")
        self._people["mallory"] = mallory
        await self._bring_second_device(mallory)
        self._know("user", mallory.user_id)
        self._know("state_key", mallory.user_id)
        self._know("device", mallory.device_id, self._people["mallory2"].device_id)
        self._know_keys(mallory)
        self.known["room"] = []
        for version in ROOM_VERSIONS:
            await self._make_room(version)

    def _know_keys(self, mallory: Client) -> None:
        """Keys that are well formed and signed; not in the order in which they could be uploaded."""
        self.known["device_keys"] = [Device(mallory).device_keys() for _ in range(3)]
        of_user = [User(mallory).keys() for _ in range(3)]
        for name in CROSS_SIGNING_KEYS:
            self.known[name] = [keys[name] for keys in of_user]

    async def _bring_second_device(self, mallory: Client) -> None:
        answer = await self.server.nobody().post(
            "/login",
            {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": mallory.user_id},
                "password": "secret",
                "refresh_token": True,
            },
        )
        self._people["mallory2"] = Client(
            self.server.http, mallory.user_id, answer["device_id"], answer["access_token"]
        )
        self._know("token", answer["refresh_token"], answer["refresh_token"])
        dehydrated = Client(self.server.http, mallory.user_id, "DEHYDRATED")
        self.known["dehydrated"] = [dehydrated.device_id]
        self.known["dehydrated_keys"] = [Device(dehydrated).device_keys(dehydrated=True)]
        self._know("device", dehydrated.device_id)

    async def _make_room(self, version: str) -> None:
        alice, bob, mallory = (self._people[name] for name in ("alice", "bob", "mallory"))
        number = next(self._numbers)
        hers = await mallory.create_room(
            room_version=version, preset="public_chat", name="hers", room_alias_name=f"hers{number}"
        )
        room = await alice.create_room(
            room_version=version,
            preset="public_chat",
            room_alias_name=f"room{number}",
            initial_state=[
                {"type": "m.room.guest_access", "state_key": "", "content": {"guest_access": "can_join"}}
            ],
        )
        knock = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
        secret = await alice.create_room(
            room_version=version,
            preset="private_chat",
            name="secret",
            initial_state=[knock] if int(version) >= 7 else [],
        )
        await mallory.ban(hers, "@dave:example.org")
        for client in (bob, mallory):
            await client.join(room)
        await bob.join(hers)
        for where in (room, hers):
            await self._elsewhere.become("join", where, self._elsewhere.user("mallory"))
        # Rather those where she can do something.
        self._know("room", hers, room, secret, hers, room)
        self._know("alias", *[f"#hers{number}:example.org"] * 2, f"#room{number}:example.org")
        for where, client in ((hers, mallory), (room, alice), (room, mallory), (secret, alice)):
            root = await client.send(where, "root", transaction_id=f"t{number}")
            reply = {
                "m.relates_to": {"rel_type": "m.thread", "event_id": root},
                "msgtype": "m.text",
                "body": "a",
            }
            edit = {
                "m.relates_to": {"rel_type": "m.replace", "event_id": root},
                "m.new_content": {"body": "b"},
            }
            events = [root, await client.send(where, reply), await client.send(where, {**edit, "body": "b"})]
            self._know("event", *events)
            self._events_of.setdefault(where, []).extend(events)
            self._know("page", (await client.messages(where, limit=2)).get("end", ""))
        state = await mallory.get(f"/rooms/{room}/state")
        self._know("event", *(event["event_id"] for event in state))
        self._events_of[room] += [event["event_id"] for event in state]
        self._know("transaction", f"t{number}")

    async def _upload(self) -> None:
        """Let there be media: rather those of which a thumbnail can be made."""
        desk = Desk(self._people["alice"])
        for content, count in ((picture(), 4), (animation(), 4), (b"text", 1), (b"\x89PNG\r\n\x1a\n", 1)):
            media = await desk.upload(content, "image/png")
            for kind in ("media", "image"):
                self._know(kind, *[media.partition("/")[2]] * count)

    def _learn_constants(self) -> None:
        self._know("user", *(f"@{name}:example.org" for name in ("alice", "bob", "carol", "dave", "nobody")))
        self._know("user", *[self._elsewhere.user("mallory"), self._elsewhere.user("eve")] * 2)
        self._know("device", self._people["alice"].device_id)
        self._know("state_key", "", self._people["mallory"].user_id, self._people["alice"].user_id)
        self._know("transaction", "new")
        self._know("filter", "0", "1")
        self._know("session", "unknown")

    def _know(self, kind: str, *values: str) -> None:
        known = self.known.setdefault(kind, [])
        known.extend(value for value in values if value)
        del known[:-_KNOWN]

    def _learn(self, answer: Any) -> None:
        """Keep what a good answer gave to us."""
        if not isinstance(answer, dict):
            return
        for field, kind in (
            ("room_id", "room"),
            ("event_id", "event"),
            ("filter_id", "filter"),
            ("session", "session"),
            ("next_batch", "since"),
            ("end", "page"),
            ("start", "page"),
            ("device_id", "device"),
            ("refresh_token", "token"),
            ("login_token", "token"),
            ("version", "backup"),
        ):
            if isinstance(answer.get(field), str):
                self._know(kind, answer[field])
        if isinstance(answer.get("content_uri"), str):
            self._know("media", answer["content_uri"].rpartition("/")[2])
        if "event_id" in answer and self._room:
            self._events_of.setdefault(self._room, []).append(answer["event_id"])

    # -- requests -----------------------------------------------------------------------------------------

    def fill(self, value: Any) -> Any:
        """The value with every `Ref` looked up."""
        if isinstance(value, Ref):
            if value.kind == "me":
                return self._people["mallory"].user_id
            # Four times in five an event of the room that the request is about, if it is about one.
            in_room = self._events_of.get(self._room) if value.kind == "event" and value.index % 5 else None
            known = in_room or self.known.get(value.kind) or [""]
            return known[value.index % len(known)]
        if isinstance(value, Pairs):
            return {str(self.fill(key)): self.fill(item) for key, item in value}
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        return value

    async def send(self, plan: Plan) -> None:
        """Send a request, and judge the answer and what came of it."""
        self._sent += 1
        if self._sent % 150 == 0:
            # Mallory has left rooms and broken others by now.
            await self._bring_mallory()
            await self._make_room(ROOM_VERSIONS[self._sent // 150 % len(ROOM_VERSIONS)])
        await self._note_how_things_are()
        who = self._people[plan.who]
        path = plan.path
        self._room = ""
        for name in names_in(path):
            value = str(self.fill(plan.parameters.get(name, "")))
            if name == "roomId":
                self._room = value
            encoded = quote(value.encode("utf-8", "surrogatepass"), safe="")
            # Dots alone would be taken for steps in the path by the client of the tests.
            if set(encoded) == {"."}:
                encoded = encoded.replace(".", "%2E")
            path = path.replace("{" + name + "}", encoded, 1)
        query = urlencode([(name, str(self.fill(value))) for name, value in plan.query], errors="replace")
        if _FILES.search(plan.path):
            # Nobody uploads what is waited for.
            query = "&".join(
                [*(part for part in query.split("&") if "timeout_ms" not in part), "timeout_ms=0"]
            )
        content = dump(self.fill(plan.body))
        headers = dict(plan.headers)
        if plan.path.startswith("/_matrix/federation/") and who.user_id:
            headers["Authorization"] = self._signature(plan.method, path, query, content)
        elif who.access_token is not None:
            headers["Authorization"] = f"Bearer {who.access_token}"
        if plan.path.endswith("/sync"):
            query = "&".join(part for part in query.split("&") if not part.startswith("timeout="))
        response = await self.server.http.request(
            plan.method, path + (f"?{query}" if query else ""), content=content, headers=headers
        )
        self.statuses.setdefault((plan.method, plan.path), set()).add(response.status_code)
        about = f"{plan.method} {path}?{query} as {plan.who}: {content[:2000]!r}\n{response.status_code} {response.text[:1000]}"
        try:
            self._judge(plan, path, response)
            if response.status_code >= 400:
                await self._assert_nothing_happened()
            elif plan.method != "GET" or "next_batch" in response.text:
                await self._something_may_have_happened(plan, response)
        except (AssertionError, Refused) as error:
            error.add_note(about)
            raise

    def _signature(self, method: str, path: str, query: str, content: bytes) -> str:
        """What shows that Mallory's own server sent a request."""
        target = path + (f"?{query}" if query else "")
        signed: Any = NO_CONTENT
        if method != "GET":
            with contextlib.suppress(orjson.JSONDecodeError):
                signed = orjson.loads(content)
        remote = self._elsewhere
        try:
            return sign_request(remote.key, remote.name, "example.org", method, target, signed)
        except (CanonicalJsonError, TypeError):
            return sign_request(remote.key, remote.name, "example.org", method, target)

    def _judge(self, plan: Plan, path: str, response: httpx.Response) -> None:
        # Other servers that are named in a request cannot be reached from here.
        assert response.status_code < 500 or response.status_code == (
            504 if response.json()["errcode"] == "M_NOT_YET_UPLOADED" else 502
        )
        assert response.headers["access-control-allow-origin"] == "*"
        if plan.path == "/metrics" or (plan.path.endswith(_PAGES) and response.status_code == 200):
            return
        if _FILES.search(plan.path) and response.status_code == 200:
            assert plan.path.startswith("/_matrix/federation/") or response.headers["content-disposition"]
            return
        assert response.headers["content-type"] == "application/json"
        answer = json.loads(response.content)
        if response.status_code >= 400:
            self._judge_error(response.status_code, answer)
        try:
            openapi.check(plan.method, path, response.status_code, answer)
        except AssertionError as error:
            # What stands in a room as the URL of an avatar was for its members to decide, and so was for whoever
            # made a backup what its algorithm is called.
            if 'does not match "^mxc:' not in str(error) and "algorithm: " not in str(error):
                raise

    @staticmethod
    def _judge_error(status: int, answer: Any) -> None:
        if status == 401 and "flows" in answer:
            assert isinstance(answer["session"], str)
        else:
            assert answer["errcode"] in ERRCODES
        if "errcode" in answer:
            assert isinstance(answer["error"], str)
            assert answer["error"]
            assert len(answer["error"]) < 1000

    # -- what came of it ----------------------------------------------------------------------------------

    async def _note_how_things_are(self) -> None:
        if not self._since:
            await self._look()
            self._counted = await self._count_rows()

    async def _assert_nothing_happened(self) -> None:
        self.refused += 1
        counted = await self._count_rows()
        changed = {
            table: (before, counted[table])
            for table, before in self._counted.items()
            if counted[table] != before and table not in _MAY_CHANGE
        }
        assert changed == {}, f"a refused request wrote something: {changed}"
        for name in list(self._since):
            news = await self._sync(name)
            told = {
                section: news[section]
                for section in ("rooms", "account_data", "to_device")
                if news.get(section) and not _comes_by_itself(news[section])
            }
            assert told == {}, f"a refused request was told to {name}: {told}"

    async def _something_may_have_happened(self, plan: Plan, response: httpx.Response) -> None:
        if response.headers["content-type"] == "application/json":
            self._learn(json.loads(response.content))
        try:
            await self._look()
        except Refused as refused:
            # Mallory may log out and close her account.
            if refused.errcode != "M_UNKNOWN_TOKEN":
                raise
            await self._bring_mallory()
            await self._look()
        self._counted = await self._count_rows()

    async def _look(self) -> None:
        for name in ("alice", "mallory", "mallory2"):
            await self._sync(name)

    async def _sync(self, name: str) -> dict[str, Any]:
        first = answer = await self._people[name].sync(self._since.get(name), set_presence="offline")
        while answer.get("to_device"):
            # Acknowledged at once: their rows must not go later, when something else is looked at.
            answer = await self._people[name].sync(answer["next_batch"], set_presence="offline")
        self._since[name] = answer["next_batch"]
        self._know("since", answer["next_batch"])
        return first

    async def _count_rows(self) -> dict[str, int]:
        database = self.server.application.database
        tables = sorted(await database.table_names())
        question = " UNION ALL ".join(f"SELECT '{table}', COUNT(*) FROM {table}" for table in tables)
        return dict(await database.fetch_all(question))


def _comes_by_itself(rooms: dict[str, Any]) -> bool:
    joined = rooms.get("join", {})
    return all(section == "join" for section in rooms) and all(
        event["type"] in _COME_BY_THEMSELVES
        for room in joined.values()
        for event in room["ephemeral"]["events"] + room["timeline"]["events"] + room["account_data"]["events"]
    )
