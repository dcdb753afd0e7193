"""What people and their devices do at random, and how it is judged; the tests of exactness say who follows it and how.

Several users with several devices each do random things in several rooms, sync at random with filters and limits of
their own, lose answers, ask again, page back; the server is restarted at random.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests import stateful
from tests.client import Client, Refused
from tests.sync.model_client import ModelClient, Wishes
from tests.sync.truth import TrueEvent, TrueRoom

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    import httpx

    from tests.server import Server

USERS = 3
NOISE = "org.example.noise"
STEPS = 30
MESSAGES = ("text", "text", "mention", "thread", "edit", "noise")
MEMBERSHIP_DEEDS = ("join", "join", "join", "join", "leave", "leave", "invite", "kick", "ban", "unban", "knock", "forget")  # fmt: skip
ORDERS = ("log", "important")
SUBSCRIPTIONS = ("by hand", "on a mention", "ended", "by hand")
RECEIPTS = ("m.read", "m.read.private", "m.fully_read")
STATE_CHANGES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("m.room.topic", {"topic": "a"}),
    ("m.room.topic", {"topic": "b"}),
    ("m.room.name", {"name": "a"}),
    ("m.room.name", {"name": ""}),
    ("m.room.join_rules", {"join_rule": "public"}),
    ("m.room.join_rules", {"join_rule": "public"}),
    ("m.room.join_rules", {"join_rule": "invite"}),
    ("m.room.join_rules", {"join_rule": "knock"}),
    ("m.room.history_visibility", {"history_visibility": "joined"}),
    ("m.room.history_visibility", {"history_visibility": "invited"}),
    ("m.room.history_visibility", {"history_visibility": "shared"}),
    ("m.room.history_visibility", {"history_visibility": "world_readable"}),
)
_names = itertools.count()

seeds = st.integers(min_value=0, max_value=2**32)
how_many = st.integers(min_value=0, max_value=80)
number = st.integers(min_value=0, max_value=10_000)
wishes = st.builds(
    Wishes,
    limit=st.sampled_from([1, 2, 3, 5, 20]),
    without=st.sampled_from([(), (NOISE,), (NOISE, "m.room.topic"), ("m.room.message",)]),
    lazy=st.booleans(),
    by_thread=st.booleans(),
    state_after=st.sampled_from([None, "use_state_after", "org.matrix.msc4222.use_state_after"]),
)


class Doors:
    """The way to the servers: each request takes any of them, as behind a load balancer."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers
        self._dice = random.Random(0)

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return await self._dice.choice(self._servers).http.request(method, path, **options)


class World:
    """One server, or several on one database, with an event loop of their own; they outlive the examples."""

    def __init__(self, *servers: Server) -> None:
        self.servers = servers
        self.doors: Any = Doors(servers)
        self.runner = asyncio.Runner()
        for server in servers:
            self.run(server.start())

    def run(self, deed: Awaitable[Any]) -> Any:
        async def to_end() -> Any:
            return await deed

        return self.runner.run(to_end())

    async def register(self, name: str) -> Client:
        """A new user with one device."""
        return replace(await self.servers[0].register(name), http=self.doors)

    async def login(self, client: Client) -> Client:
        """Another device of a user."""
        return replace(await self.servers[0].login(client), http=self.doors)

    async def settle(self) -> None:
        """Go on once each server has heard of all that the others have committed."""
        if len(self.servers) > 1:
            for server in self.servers:
                await server.application.database.reach(2**62)

    def close(self) -> None:
        for server in self.servers:
            self.run(server.stop())
        self.runner.close()


class SyncMachine(RuleBasedStateMachine):
    """Deeds; each is one request or a few, and may be refused."""

    most_ways = 3 * USERS
    """In so many ways devices follow at most."""
    least_deeds = 0
    """So many deeds at least are done in a row."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.people: list[Client] = []
        self.devices: list[ModelClient] = []
        self.rooms: list[str] = []
        self.forgotten: dict[str, set[str]] = {}
        self.global_data: dict[str, dict[str, Any]] = {}
        self.room_data: dict[tuple[str, str], dict[str, Any]] = {}
        self.sent: dict[tuple[str, str], list[int]] = {}
        """The numbers of the messages to each device."""
        self.ignored: dict[str, frozenset[str]] = {}
        """Whom each user has ignored from the beginning."""

    # -- who and where ---------------------------------------------------------------------------------

    @initialize(wished=st.lists(wishes, min_size=USERS, max_size=USERS), seed=seeds, deeds=how_many)
    def begin(self, wished: list[Wishes], seed: int, deeds: int) -> None:
        for one in wished:
            person = self.world.run(self.world.register(f"user{next(_names)}"))
            self.people.append(person)
            self.forgotten[person.user_id] = set()
            self.begin_to_follow(person, one)
        for first in (0, 1):
            self.create_room(first, "public_chat", others=False)
            for other in range(USERS):
                self.change_membership(other, other, first, "join")
        self.go_on_for_a_while(seed, deeds)

    def begin_to_follow(self, person: Client, wished: Wishes) -> None:
        """What a new user does first."""
        self.devices += self.devices_of(person, wished)

    def devices_of(self, client: Client, wished: Wishes) -> list[ModelClient]:
        """What follows on a device of a user."""
        return [ModelClient(client, wished)]

    def device(self, n: int) -> ModelClient:
        return self.devices[n % len(self.devices)]

    def person(self, n: int) -> Client:
        return self.people[n % len(self.people)]

    def room(self, n: int) -> str | None:
        return self.rooms[n % len(self.rooms)] if self.rooms else None

    def attempt(self, deed: Awaitable[Any]) -> Any:
        """Do something that the server may refuse."""
        try:
            return self.world.run(deed)
        except Refused as refused:
            if refused.status not in (400, 403, 404, 409):
                raise
            return None

    def _truth(self, room_id: str) -> TrueRoom:
        return self.world.run(TrueRoom.load(self.world.servers[0].application.database, room_id))

    # -- deeds -----------------------------------------------------------------------------------------

    @rule(who=number, preset=st.sampled_from(["public_chat", "private_chat"]), others=st.booleans())
    def create_room(self, who: int, preset: str, others: bool) -> None:
        if len(self.rooms) < 4:
            person = self.person(who)
            invited = [one.user_id for one in self.people if one is not person] if others else []
            self.rooms.append(self.world.run(person.create_room(preset=preset, invite=invited)))

    @rule(
        who=number,
        where=number,
        what=st.sampled_from(MESSAGES),
        n=number,
    )
    def send(self, who: int, where: int, what: str, n: int) -> None:
        room_id = self.room(where)
        if room_id is None:
            return
        content: dict[str, Any] = {"msgtype": "m.text", "body": f"{n}"}
        messages = [
            e
            for e in self._truth(room_id).events
            if e.type == "m.room.message" and not e.content.get("m.relates_to")
        ]
        if what == "mention":
            content["m.mentions"] = {"user_ids": [self.person(n).user_id]}
        elif what in ("thread", "edit") and messages:
            relation = "m.thread" if what == "thread" else "m.replace"
            content["m.relates_to"] = {"rel_type": relation, "event_id": messages[n % len(messages)].event_id}
            if what == "edit":
                content["m.new_content"] = {"msgtype": "m.text", "body": "edited"}
        self.attempt(self.person(who).send(room_id, content, NOISE if what == "noise" else "m.room.message"))

    @rule(who=number, where=number, burst=st.integers(min_value=2, max_value=12))
    def send_at_once(self, who: int, where: int, burst: int) -> None:
        """Several people send at the same time, while a device syncs."""
        room_id = self.room(where)
        if room_id is None:
            return
        device = self.device(who)

        async def all_together() -> None:
            sends = [self.person(n).send(room_id, f"at once {n}") for n in range(burst)]
            answer, *_ = await asyncio.gather(device.ask(), *sends, return_exceptions=True)
            assert isinstance(answer, dict), answer
            await device.apply(answer)

        self.world.run(all_together())

    @rule(who=number, where=number, n=number)
    def redact(self, who: int, where: int, n: int) -> None:
        room_id = self.room(where)
        if room_id is not None:
            events = [event for event in self._truth(room_id).events if event.key is None]
            if events:
                self.attempt(self.person(who).redact(room_id, events[n % len(events)].event_id))

    @rule(
        who=number,
        whom=number,
        where=number,
        deed=st.sampled_from(MEMBERSHIP_DEEDS),
    )
    def change_membership(self, who: int, whom: int, where: int, deed: str) -> None:
        room_id = self.room(where)
        if room_id is None:
            return
        person, target = self.person(who), self.person(whom).user_id
        if deed == "join":
            if self.attempt(person.join(room_id)) is not None:
                self.forgotten[person.user_id].discard(room_id)
        elif deed in ("leave", "forget"):
            done = self.attempt(person.post(f"/rooms/{room_id}/{deed}"))
            if deed == "forget" and done is not None:
                self.forgotten[person.user_id].add(room_id)
        elif deed == "knock":
            self.attempt(person.post(f"/knock/{quote(room_id)}"))
        else:
            self.attempt(person.post(f"/rooms/{room_id}/{deed}", {"user_id": target}))
        for one in self.people:
            if self._truth(room_id).membership(one.user_id) in ("join", "invite", "knock"):
                self.forgotten[one.user_id].discard(room_id)

    @rule(
        who=number,
        where=number,
        change=st.sampled_from(STATE_CHANGES),
    )
    def set_state(self, who: int, where: int, change: tuple[str, dict[str, Any]]) -> None:
        room_id = self.room(where)
        if room_id is not None:
            self.attempt(self.person(who).set_state(room_id, *change))

    @rule(who=number, n=number)
    def set_display_name(self, who: int, n: int) -> None:
        person = self.person(who)
        self.attempt(person.put(f"/profile/{person.user_id}/displayname", {"displayname": f"name {n % 5}"}))

    @rule(
        who=number,
        where=number,
        n=number,
        kind=st.sampled_from(RECEIPTS),
        threaded=st.booleans(),
    )
    def read(self, who: int, where: int, n: int, kind: str, threaded: bool) -> None:
        room_id = self.room(where)
        if room_id is None:
            return
        person, truth = self.person(who), self._truth(room_id)
        visible = truth.visible(person.user_id)
        if truth.membership(person.user_id) != "join" or not visible:
            return
        event = visible[-1 - n % min(len(visible), 6)]
        body = {"thread_id": truth.thread_of(event) or "main"} if threaded and kind != "m.fully_read" else {}
        self.attempt(person.post(f"/rooms/{room_id}/receipt/{kind}/{quote(event.event_id, safe='')}", body))

    @rule(who=number, where=number, n=number, how=st.sampled_from(SUBSCRIPTIONS))
    def subscribe(self, who: int, where: int, n: int, how: str) -> None:
        """Subscribe to a thread, or end that; where there is none, somebody begins one."""
        room_id = self.room(where)
        if room_id is None:
            return
        person = self.person(who)
        threads = self._threads(room_id, person)
        if not threads:
            for what in ("text", "thread"):
                self.send(who + 1, where, what, n)
            threads = self._threads(room_id, person)
        if not threads:
            return
        cause = threads[n % len(threads)]
        root = quote(cause.content["m.relates_to"]["event_id"], safe="")
        prefix = "/_matrix/client/unstable/io.element.msc4306"
        path = f"{prefix}/rooms/{quote(room_id)}/thread/{root}/subscription"
        if how == "ended":
            self.attempt(person.delete(path))
        else:
            self.attempt(person.put(path, {} if how == "by hand" else {"automatic": cause.event_id}))

    def _threads(self, room_id: str, person: Client) -> list[TrueEvent]:
        """What stands in threads of a room and somebody may see."""
        truth = self._truth(room_id)
        return [event for event in truth.visible(person.user_id) if truth.thread_of(event)]

    @rule(who=number, where=number, n=number, in_room=st.booleans())
    def set_account_data(self, who: int, where: int, n: int, in_room: bool) -> None:
        person, room_id, content = self.person(who), self.room(where), {"n": n}
        kind = f"org.example.data{n % 2}"
        if not in_room:
            self.world.run(person.put(f"/user/{person.user_id}/account_data/{kind}", content))
            self.global_data.setdefault(person.user_id, {})[kind] = content
        elif room_id is not None:
            path = f"/user/{person.user_id}/rooms/{room_id}/account_data/{kind}"
            if self.attempt(person.put(path, content)) is not None:
                self.room_data.setdefault((person.user_id, room_id), {})[kind] = content

    @rule(seed=seeds, deeds=how_many)
    def go_on_for_a_while(self, seed: int, deeds: int) -> None:
        """Many deeds at a time: left to themselves, examples are short."""
        dice = random.Random(seed)
        for _ in range(self.least_deeds + deeds):
            self.do_something(dice)

    def do_something(self, dice: random.Random) -> None:
        """One of the usual deeds."""
        dice.choice([*self.deeds_of_people(dice), *self.deeds_of_devices(dice)])()

    def deeds_of_people(self, dice: random.Random) -> list[Callable[[], None]]:
        """What people do."""
        a, b, c, n = (dice.randrange(10_000) for _ in range(4))
        return [
            lambda: self.send(a, b, dice.choice(MESSAGES), n),
            lambda: self.send(a, b, dice.choice(MESSAGES), n),
            lambda: self.change_membership(a, c, b, dice.choice(MEMBERSHIP_DEEDS)),
            lambda: self.set_state(a, b, dice.choice(STATE_CHANGES)),
            lambda: self.read(a, b, n, dice.choice(RECEIPTS), dice.random() < 0.4),
            lambda: self.redact(a, b, n),
            lambda: self.subscribe(a, b, n, dice.choice(SUBSCRIPTIONS)),
            lambda: self.set_account_data(a, b, n, dice.random() < 0.5),
        ]

    def deeds_of_devices(self, dice: random.Random) -> list[Callable[[], None]]:
        """What devices do."""
        which, where, n = (dice.randrange(10_000) for _ in range(3))
        return [
            lambda: self.sync(which),
            lambda: self.sync(which),
            lambda: self.lose_an_answer(which),
            lambda: self.catch_up(which, dice.choice(ORDERS), 1 + n % 9),
            lambda: self.page_back(which, where, 1 + n % 7),
            self.note_deliveries,
        ]

    # -- devices ---------------------------------------------------------------------------------------

    @rule(who=number, wished=wishes)
    def log_in(self, who: int, wished: Wishes) -> None:
        if len(self.devices) < self.most_ways:
            client = self.world.run(self.world.login(self.person(who)))
            self.devices += self.devices_of(client, wished)

    @rule(which=number)
    def sync(self, which: int) -> None:
        self.world.run(self.device(which).sync())

    @rule(which=number)
    def lose_an_answer(self, which: int) -> None:
        device = self.device(which)
        self.world.run(self.world.settle())
        lost, repeated = self.world.run(device.ask()), self.world.run(device.ask())
        if device.wishes.lazy and len(self.world.servers) > 1:
            # Which members a device has is known by the process that sent them: another one sends them again.
            return
        found = list(differences(without_age(lost), without_age(repeated)))
        assert not found, found

    @rule(which=number, order=st.sampled_from(ORDERS), limit=st.integers(min_value=1, max_value=9))
    def catch_up(self, which: int, order: str, limit: int) -> None:
        self.world.run(self.device(which).catch_up(order, limit))

    @rule(which=number, where=number, limit=st.integers(min_value=1, max_value=7))
    def page_back(self, which: int, where: int, limit: int) -> None:
        device, room_id = self.device(which), self.room(where)
        if room_id in device.rooms and device.rooms[room_id].membership == "join":
            self.attempt(device.page_back(room_id, limit))

    @rule()
    def note_deliveries(self) -> None:
        for server in self.world.servers:
            self.world.run(server.application.delivered.flush())

    @rule(which=number)
    def restart(self, which: int) -> None:
        self.world.run(self.world.servers[which % len(self.world.servers)].restart())
        for device in self.devices:
            device.forget_typing()

    # -- the judgement ---------------------------------------------------------------------------------

    def teardown(self) -> None:
        # Once all that happened has been told, nothing else makes clients hear of other counts.
        for device in self.devices:
            self.world.run(device.sync_until_quiet())
        for n in range(USERS):
            self.subscribe(n, n, n, SUBSCRIPTIONS[n])
        self.judge(self.devices)

    def judge(self, devices: Sequence[ModelClient]) -> None:
        """Whether these devices, once they are quiet, hold the truth."""
        self.world.run(self.world.settle())
        truth = {room_id: self._truth(room_id) for room_id in self.rooms}
        receipts = {room_id: self.world.run(self._receipts(room_id)) for room_id in self.rooms}
        typing = {room_id: self.world.run(self._typing(room_id)) for room_id in self.rooms}
        for device in devices:
            self.world.run(device.sync_until_quiet())
            user_id = device.client.user_id
            device.ignored = self.ignored.get(user_id, frozenset())
            device.check_rooms(truth, self.forgotten[user_id])
            device.inbox.check(self.sent.get((user_id, device.client.device_id), []))
            assert _set_by_users(device.account_data) == self.global_data.get(user_id, {})
            for room_id, held in device.rooms.items():
                if held.membership == "join":
                    seen = {
                        key: event_id
                        for key, event_id in receipts[room_id].items()
                        if (key[1] == "m.read" or key[0] == user_id) and key[0] not in device.ignored
                    }
                    device.check_receipts(truth[room_id], seen)
                    device.check_unread(truth[room_id], _furthest(truth[room_id], seen, user_id))
                    device.check_typing(room_id, typing[room_id])
                    own = self.room_data.get((user_id, room_id), {})
                    assert _set_by_users(held.account_data) == own, (device, room_id)

    async def _receipts(self, room_id: str) -> dict[tuple[str, str, str], str]:
        rows = await self.world.servers[0].application.database.fetch_all(
            "SELECT user_id, receipt_type, thread_id, event_id FROM receipts WHERE room_id = $1", room_id
        )
        return {(row[0], row[1], row[2]): row[3] for row in rows}

    async def _typing(self, room_id: str) -> frozenset[str]:
        rows = await self.world.servers[0].application.database.fetch_all(
            "SELECT user_id FROM typing WHERE room_id = $1", room_id
        )
        return frozenset(row[0] for row in rows)


def _set_by_users(account_data: dict[str, Any]) -> dict[str, Any]:
    """The account data that the deeds are about."""
    return {
        kind: content
        for kind, content in account_data.items()
        if kind.startswith("org.example") or kind in ("m.direct", "m.tag")
    }


def _furthest(room: TrueRoom, receipts: dict[tuple[str, str, str], str], user_id: str) -> dict[str, str]:
    furthest: dict[str, str] = {}
    for (reader, _, thread), event_id in receipts.items():
        if reader == user_id:
            known = furthest.get(thread)
            if known is None or room.by_id[known].position < room.by_id[event_id].position:
                furthest[thread] = event_id
    return furthest


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two answers differ, for whoever reads of the failure."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from differences(one.get(key), other.get(key), f"{path}/{key}")
    elif one != other:
        yield f"{path}: {one} != {other}"


def without_age(value: Any) -> Any:
    """An answer without what differs from moment to moment."""
    if isinstance(value, dict):
        return {
            key: without_age(part) for key, part in value.items() if key not in ("age", "next_batch", "pos")
        }
    return [without_age(part) for part in value] if isinstance(value, list) else value


def run_machine(machine: type[SyncMachine], world: World, examples: int, *, derandomize: bool) -> None:
    stateful.run_machine(lambda: machine(world), examples=examples, steps=STEPS, derandomize=derandomize)
