"""Whatever people do: a client that only applies what `/sync` and `/messages` give it holds the server's truth.

Several users with several devices each do random things in several rooms, sync at random with filters and limits of
their own, lose answers, ask again, page back; the server is restarted at random. Nothing is lost, nothing comes
twice, nothing is shown that must not be seen.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from homeserver.sync import delivered
from tests.client import Client, Refused
from tests.server import Server
from tests.sync.model_client import ModelClient, Wishes
from tests.sync.truth import TrueRoom

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator
    from pathlib import Path

USERS = 3
NOISE = "org.example.noise"
EXAMPLES = 120
SOAK_EXAMPLES = int(os.environ.get("RESTANTE_SOAK_EXAMPLES", "1500"))
STEPS = 30
MESSAGES = ("text", "text", "mention", "thread", "edit", "noise")
MEMBERSHIP_DEEDS = ("join", "join", "join", "join", "leave", "leave", "invite", "kick", "ban", "unban", "knock", "forget")  # fmt: skip
ORDERS = ("log", "important")
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


class World:
    """A server with an event loop of its own, which outlives the examples."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.runner = asyncio.Runner()
        self.run(server.start())

    def run(self, deed: Awaitable[Any]) -> Any:
        async def to_end() -> Any:
            return await deed

        return self.runner.run(to_end())

    def close(self) -> None:
        self.run(self.server.stop())
        self.runner.close()


class SyncMachine(RuleBasedStateMachine):
    """Deeds; each is one request or a few, and may be refused."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.server = world.server
        self.people: list[Client] = []
        self.devices: list[ModelClient] = []
        self.rooms: list[str] = []
        self.forgotten: dict[str, set[str]] = {}
        self.global_data: dict[str, dict[str, Any]] = {}
        self.room_data: dict[tuple[str, str], dict[str, Any]] = {}

    # -- who and where ---------------------------------------------------------------------------------

    @initialize(wished=st.lists(wishes, min_size=USERS, max_size=USERS), seed=seeds, deeds=how_many)
    def begin(self, wished: list[Wishes], seed: int, deeds: int) -> None:
        for one in wished:
            person = self.world.run(self.server.register(f"user{next(_names)}"))
            self.people.append(person)
            self.devices += self.devices_of(person, one)
            self.forgotten[person.user_id] = set()
        for first in (0, 1):
            self.create_room(first, "public_chat", others=False)
            for other in range(USERS):
                self.change_membership(other, other, first, "join")
        self.go_on_for_a_while(seed, deeds)

    def devices_of(self, client: Client, wished: Wishes) -> list[ModelClient]:
        """What follows on a device of a user."""
        return [ModelClient(client, wished)]

    def _person(self, n: int) -> Client:
        return self.people[n % len(self.people)]

    def _room(self, n: int) -> str | None:
        return self.rooms[n % len(self.rooms)] if self.rooms else None

    def _attempt(self, deed: Awaitable[Any]) -> Any:
        """Do something that the server may refuse."""
        try:
            return self.world.run(deed)
        except Refused as refused:
            if refused.status not in (400, 403, 404):
                raise
            return None

    def _truth(self, room_id: str) -> TrueRoom:
        return self.world.run(TrueRoom.load(self.server.application.database, room_id))

    # -- deeds -----------------------------------------------------------------------------------------

    @rule(who=number, preset=st.sampled_from(["public_chat", "private_chat"]), others=st.booleans())
    def create_room(self, who: int, preset: str, others: bool) -> None:
        if len(self.rooms) < 4:
            person = self._person(who)
            invited = [one.user_id for one in self.people if one is not person] if others else []
            self.rooms.append(self.world.run(person.create_room(preset=preset, invite=invited)))

    @rule(
        who=number,
        where=number,
        what=st.sampled_from(MESSAGES),
        n=number,
    )
    def send(self, who: int, where: int, what: str, n: int) -> None:
        room_id = self._room(where)
        if room_id is None:
            return
        content: dict[str, Any] = {"msgtype": "m.text", "body": f"{n}"}
        messages = [
            e
            for e in self._truth(room_id).events
            if e.type == "m.room.message" and not e.content.get("m.relates_to")
        ]
        if what == "mention":
            content["m.mentions"] = {"user_ids": [self._person(n).user_id]}
        elif what in ("thread", "edit") and messages:
            relation = "m.thread" if what == "thread" else "m.replace"
            content["m.relates_to"] = {"rel_type": relation, "event_id": messages[n % len(messages)].event_id}
            if what == "edit":
                content["m.new_content"] = {"msgtype": "m.text", "body": "edited"}
        self._attempt(
            self._person(who).send(room_id, content, NOISE if what == "noise" else "m.room.message")
        )

    @rule(who=number, where=number, burst=st.integers(min_value=2, max_value=12))
    def send_at_once(self, who: int, where: int, burst: int) -> None:
        """Several people send at the same time, while a device syncs."""
        room_id = self._room(where)
        if room_id is None:
            return
        device = self.devices[who % len(self.devices)]

        async def all_together() -> None:
            sends = [self._person(n).send(room_id, f"at once {n}") for n in range(burst)]
            answer, *_ = await asyncio.gather(device.ask(), *sends, return_exceptions=True)
            assert isinstance(answer, dict), answer
            await device.apply(answer)

        self.world.run(all_together())

    @rule(who=number, where=number, n=number)
    def redact(self, who: int, where: int, n: int) -> None:
        room_id = self._room(where)
        if room_id is not None:
            events = [event for event in self._truth(room_id).events if event.key is None]
            if events:
                self._attempt(self._person(who).redact(room_id, events[n % len(events)].event_id))

    @rule(
        who=number,
        whom=number,
        where=number,
        deed=st.sampled_from(MEMBERSHIP_DEEDS),
    )
    def change_membership(self, who: int, whom: int, where: int, deed: str) -> None:
        room_id = self._room(where)
        if room_id is None:
            return
        person, target = self._person(who), self._person(whom).user_id
        if deed == "join":
            if self._attempt(person.join(room_id)) is not None:
                self.forgotten[person.user_id].discard(room_id)
        elif deed in ("leave", "forget"):
            done = self._attempt(person.post(f"/rooms/{room_id}/{deed}"))
            if deed == "forget" and done is not None:
                self.forgotten[person.user_id].add(room_id)
        elif deed == "knock":
            self._attempt(person.post(f"/knock/{quote(room_id)}"))
        else:
            self._attempt(person.post(f"/rooms/{room_id}/{deed}", {"user_id": target}))
        for one in self.people:
            if self._truth(room_id).membership(one.user_id) in ("join", "invite", "knock"):
                self.forgotten[one.user_id].discard(room_id)

    @rule(
        who=number,
        where=number,
        change=st.sampled_from(STATE_CHANGES),
    )
    def set_state(self, who: int, where: int, change: tuple[str, dict[str, Any]]) -> None:
        room_id = self._room(where)
        if room_id is not None:
            self._attempt(self._person(who).set_state(room_id, *change))

    @rule(who=number, n=number)
    def set_display_name(self, who: int, n: int) -> None:
        person = self._person(who)
        self._attempt(person.put(f"/profile/{person.user_id}/displayname", {"displayname": f"name {n % 5}"}))

    @rule(
        who=number,
        where=number,
        n=number,
        kind=st.sampled_from(RECEIPTS),
        threaded=st.booleans(),
    )
    def read(self, who: int, where: int, n: int, kind: str, threaded: bool) -> None:
        room_id = self._room(where)
        if room_id is None:
            return
        person, truth = self._person(who), self._truth(room_id)
        visible = truth.visible(person.user_id)
        if truth.membership(person.user_id) != "join" or not visible:
            return
        event = visible[-1 - n % min(len(visible), 6)]
        body = {"thread_id": truth.thread_of(event) or "main"} if threaded and kind != "m.fully_read" else {}
        self._attempt(person.post(f"/rooms/{room_id}/receipt/{kind}/{quote(event.event_id, safe='')}", body))

    @rule(who=number, where=number, n=number, in_room=st.booleans())
    def set_account_data(self, who: int, where: int, n: int, in_room: bool) -> None:
        person, room_id, content = self._person(who), self._room(where), {"n": n}
        kind = f"org.example.data{n % 2}"
        if not in_room:
            self.world.run(person.put(f"/user/{person.user_id}/account_data/{kind}", content))
            self.global_data.setdefault(person.user_id, {})[kind] = content
        elif room_id is not None:
            path = f"/user/{person.user_id}/rooms/{room_id}/account_data/{kind}"
            if self._attempt(person.put(path, content)) is not None:
                self.room_data.setdefault((person.user_id, room_id), {})[kind] = content

    @rule(seed=seeds, deeds=how_many)
    def go_on_for_a_while(self, seed: int, deeds: int) -> None:
        """Many deeds at a time: left to themselves, examples are short."""
        dice = random.Random(seed)
        for _ in range(deeds):
            self._do_something(dice)

    def _do_something(self, dice: random.Random) -> None:
        a, b, c, n = (dice.randrange(10_000) for _ in range(4))
        deed = dice.choice(
            [
                lambda: self.send(a, b, dice.choice(MESSAGES), n),
                lambda: self.send(a, b, dice.choice(MESSAGES), n),
                lambda: self.change_membership(a, c, b, dice.choice(MEMBERSHIP_DEEDS)),
                lambda: self.set_state(a, b, dice.choice(STATE_CHANGES)),
                lambda: self.read(a, b, n, dice.choice(RECEIPTS), dice.random() < 0.4),
                lambda: self.redact(a, b, n),
                lambda: self.set_account_data(a, b, n, dice.random() < 0.5),
                lambda: self.sync(c),
                lambda: self.sync(c),
                lambda: self.lose_an_answer(c),
                lambda: self.catch_up(c, dice.choice(ORDERS), 1 + n % 9),
                lambda: self.page_back(c, b, 1 + n % 7),
                self.note_deliveries,
            ]
        )
        deed()

    # -- devices ---------------------------------------------------------------------------------------

    @rule(who=number, wished=wishes)
    def log_in(self, who: int, wished: Wishes) -> None:
        if len(self.devices) < 3 * USERS:
            client = self.world.run(self.server.login(self._person(who)))
            self.devices += self.devices_of(client, wished)

    @rule(which=number)
    def sync(self, which: int) -> None:
        self.world.run(self.devices[which % len(self.devices)].sync())

    @rule(which=number)
    def lose_an_answer(self, which: int) -> None:
        device = self.devices[which % len(self.devices)]
        lost, repeated = self.world.run(device.ask()), self.world.run(device.ask())
        assert not list(_differences(_without_age(lost), _without_age(repeated)))

    @rule(which=number, order=st.sampled_from(ORDERS), limit=st.integers(min_value=1, max_value=9))
    def catch_up(self, which: int, order: str, limit: int) -> None:
        self.world.run(self.devices[which % len(self.devices)].catch_up(order, limit))

    @rule(which=number, where=number, limit=st.integers(min_value=1, max_value=7))
    def page_back(self, which: int, where: int, limit: int) -> None:
        device, room_id = self.devices[which % len(self.devices)], self._room(where)
        if room_id in device.rooms and device.rooms[room_id].membership == "join":
            self._attempt(device.page_back(room_id, limit))

    @rule()
    def note_deliveries(self) -> None:
        self.world.run(self.server.application.delivered.flush())

    @rule()
    def restart(self) -> None:
        self.world.run(self.server.restart())
        self.people = [self.server.reconnect(person) for person in self.people]
        for device in self.devices:
            device.client = self.server.reconnect(device.client)

    # -- the judgement ---------------------------------------------------------------------------------

    def teardown(self) -> None:
        truth = {room_id: self._truth(room_id) for room_id in self.rooms}
        receipts = {room_id: self.world.run(self._receipts(room_id)) for room_id in self.rooms}
        for device in self.devices:
            self.world.run(device.sync_until_quiet())
            user_id = device.client.user_id
            device.check_rooms(truth, self.forgotten[user_id])
            assert {
                kind: content
                for kind, content in device.account_data.items()
                if kind.startswith("org.example")
            } == self.global_data.get(user_id, {})
            for room_id, held in device.rooms.items():
                if held.membership == "join":
                    seen = {
                        key: event_id
                        for key, event_id in receipts[room_id].items()
                        if key[1] == "m.read" or key[0] == user_id
                    }
                    device.check_receipts(truth[room_id], seen)
                    device.check_unread(truth[room_id], _furthest(truth[room_id], seen, user_id))
                    own = {k: v for k, v in held.account_data.items() if k.startswith("org.example")}
                    assert own == self.room_data.get((user_id, room_id), {})

    async def _receipts(self, room_id: str) -> dict[tuple[str, str, str], str]:
        rows = await self.server.application.database.fetch_all(
            "SELECT user_id, receipt_type, thread_id, event_id FROM receipts WHERE room_id = $1", room_id
        )
        return {(row[0], row[1], row[2]): row[3] for row in rows}


def _furthest(room: TrueRoom, receipts: dict[tuple[str, str, str], str], user_id: str) -> dict[str, str]:
    furthest: dict[str, str] = {}
    for (reader, _, thread), event_id in receipts.items():
        if reader == user_id:
            known = furthest.get(thread)
            if known is None or room.by_id[known].position < room.by_id[event_id].position:
                furthest[thread] = event_id
    return furthest


def _differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two answers differ, for whoever reads of the failure."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from _differences(one.get(key), other.get(key), f"{path}/{key}")
    elif one != other:
        yield f"{path}: {one} != {other}"


def _without_age(value: Any) -> Any:
    """An answer without what differs from moment to moment."""
    if isinstance(value, dict):
        return {
            key: _without_age(part) for key, part in value.items() if key not in ("age", "next_batch", "pos")
        }
    return [_without_age(part) for part in value] if isinstance(value, list) else value


@pytest.fixture
def world(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # What is written down by the clock would come between two answers that are to be the same.
    monkeypatch.setattr(delivered, "_EVERY_SECONDS", 3_600)
    made = World(Server(tmp_path, database_url))
    yield made
    made.close()


def run_machine(machine: type[SyncMachine], world: World, examples: int, *, derandomize: bool) -> None:
    run_state_machine_as_test(
        lambda: machine(world),
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=derandomize,
            database=None,
            print_blob=True,
            phases=[Phase.generate]
            if os.environ.get("RESTANTE_NO_SHRINKING")
            else [Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_clients_hold_the_truth_whatever_happens(world: World) -> None:
    run_machine(SyncMachine, world, EXAMPLES, derandomize=True)


@pytest.mark.soak
def test_clients_hold_the_truth_for_long(world: World) -> None:
    run_machine(SyncMachine, world, SOAK_EXAMPLES, derandomize=False)
