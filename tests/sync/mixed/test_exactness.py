"""Whatever people do and however their devices follow: all of them hold the same, and it is the truth.

The deeds are those of the test of classic sync, and a few more. Each user has a device with classic sync over links good
and bad, one with two connections of sliding sync, and one that changes between both and catching up, as it likes: what one
way brought closes the gaps of another, and to-device messages come once by whichever. Answers and pages get lost, pages are
turned while things go on, catch-ups are given up, connections forgotten, devices restored from backups. On PostgreSQL
there are two processes, and each request takes either.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from homeserver.services import typing
from homeserver.storage.sliding_sync import SlidingSyncStore
from homeserver.sync import delivered
from tests.server import Server
from tests.sync.catch_up import MISSED
from tests.sync.inbox import TYPE, Inbox
from tests.sync.machine import ORDERS, SyncMachine, World, number, run_machine
from tests.sync.model_client import ModelClient
from tests.sync.pool import Pool
from tests.sync.sliding.client import ACCEPTED
from tests.sync.sliding.model_client import SlidingModelClient

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.client import Client
    from tests.sync.model_client import Wishes

EXAMPLES = {"sqlite": 20, "postgresql": 10}
SOAK_EXAMPLES = int(os.environ.get("RESTANTE_SOAK_EXAMPLES", "400"))
MARKS = ("direct", "favourite", "neither")
OTHER = "@somebody:example.org"
MAX_CONNECTIONS = 16
TYPING_MS = 24 * 3_600 * 1_000
MONTH_MS = 32 * 24 * 3_600 * 1_000


class Device:
    """One device, and the ways in which it may follow."""

    def __init__(self, *ways: ModelClient) -> None:
        self.ways = ways
        self._now = 0

    @property
    def may_catch_up(self) -> bool:
        """Whether one of the ways is classic sync."""
        return not isinstance(self.ways[0], SlidingModelClient)

    def way(self, n: int) -> ModelClient:
        """The way that it goes; it changes now and then."""
        if n % 4 == 0:
            self._now = n // 4 % len(self.ways)
        return self.ways[self._now]


class MixedMachine(SyncMachine):
    """The same deeds and more, followed in every way by each user."""

    most_ways = 24
    least_deeds = 60

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.followers: list[Device] = []
        self.numbers = itertools.count()
        self.marks: dict[str, str] = {}

    # -- who follows, and how --------------------------------------------------------------------------

    def begin_to_follow(self, person: Client, wished: Wishes) -> None:
        for kind in range(3):
            client = person if kind == 0 else self.world.run(self.world.login(person))
            self.devices += self.devices_of(client, wished)
        others = [one.user_id for one in self.people if one is not person]
        if wished.limit in (2, 3) and others:
            content = {"ignored_users": {others[-1]: {}}}
            path = f"/user/{person.user_id}/account_data/m.ignored_user_list"
            self.world.run(person.put(path, content))
            self.ignored[person.user_id] = frozenset({others[-1]})

    def devices_of(self, client: Client, wished: Wishes) -> list[ModelClient]:
        kind = len(self.followers)
        inbox, pool = Inbox(), Pool()
        self.sent[client.user_id, client.device_id] = []

        def sliding(conn_id: str, *, deployed: bool) -> SlidingModelClient:
            return SlidingModelClient(
                client, wished, deployed=deployed, seed=kind, conn_id=conn_id, inbox=inbox, pool=pool
            )

        classic = ModelClient(client, wished, inbox, pool)
        unfiltered = ModelClient(client, replace(wished, without=()), inbox, pool)
        device = (
            Device(classic),
            Device(sliding("here", deployed=kind % 2 == 0), sliding("there", deployed=kind % 4 < 2)),
            Device(unfiltered, sliding("here", deployed=True), sliding("there", deployed=False)),
        )[kind % 3]
        self.followers.append(device)
        return list(device.ways)

    def device(self, n: int) -> ModelClient:
        return self.followers[n % len(self.followers)].way(n // len(self.followers))

    def classic(self, n: int) -> ModelClient:
        """A device that goes by classic sync, now at least."""
        device = [one for one in self.followers if one.may_catch_up][n % (len(self.followers) * 2 // 3)]
        return device.way(0)

    # -- deeds -----------------------------------------------------------------------------------------

    def do_something(self, dice: random.Random) -> None:
        dice.choice(self.deeds_of_people(dice))()
        if dice.random() < 0.6:
            dice.choice(self.deeds_of_devices(dice))()

    def deeds_of_people(self, dice: random.Random) -> list[Callable[[], None]]:
        a, b, c = (dice.randrange(10_000) for _ in range(3))
        return [
            *super().deeds_of_people(dice),
            lambda: self.send(a, b, "mention", c),
            lambda: self.write_to_devices(a, b, c),
            lambda: self.mark_room(a, b, dice.choice(MARKS)),
            lambda: self.type(a, b, dice.random() < 0.7),
        ]

    def deeds_of_devices(self, dice: random.Random) -> list[Callable[[], None]]:
        which, n = dice.randrange(10_000), dice.randrange(10_000)
        return [
            *super().deeds_of_devices(dice),
            lambda: self.sync(which),
            lambda: self.sync(which),
            lambda: self.begin_catch_up(which, dice.choice(ORDERS), 1 + n % 9, n),
            lambda: self.begin_catch_up(which, dice.choice(ORDERS), 1 + n % 9, n),
            lambda: self.turn_pages(which, 1 + n % 3, dice.random() < 0.3),
            lambda: self.turn_pages(which, 1 + n % 3, dice.random() < 0.3),
            lambda: self.change_ones_mind(which),
            lambda: self.be_replaced_by_a_backup(which, dice.random() < 0.5),
            *([lambda: self.forget_connections(which, n)] if n % 8 == 0 else ()),
            *([lambda: self.judge_some(n)] if n % 8 == 0 else ()),
        ]

    @rule(who=number, whom=number, n=number)
    def write_to_devices(self, who: int, whom: int, n: int) -> None:
        target = self.person(whom).user_id
        devices = [device_id for user_id, device_id in self.sent if user_id == target]
        to = devices if n % 3 == 0 else [devices[n % len(devices)]]
        content = {"number": next(self.numbers)}
        messages = {target: {"*": content} if n % 3 == 0 else {to[0]: content}}
        path = f"/sendToDevice/{TYPE}/{next(self.numbers)}"
        self.world.run(self.person(who).put(path, {"messages": messages}))
        for device_id in to:
            self.sent[target, device_id].append(content["number"])

    @rule(who=number, where=number, mark=st.sampled_from(MARKS))
    def mark_room(self, who: int, where: int, mark: str) -> None:
        """A room becomes a direct chat, a favourite, or none of both."""
        person, room_id = self.person(who), self.room(where)
        if room_id is None:
            return
        user_id = person.user_id
        direct = set(self.global_data.get(user_id, {}).get("m.direct", {}).get(OTHER, ()))
        direct = direct | {room_id} if mark == "direct" else direct - {room_id}
        content = {OTHER: sorted(direct)}
        self.world.run(person.put(f"/user/{user_id}/account_data/m.direct", content))
        self.global_data.setdefault(user_id, {})["m.direct"] = content
        path, data = f"/user/{user_id}/rooms/{quote(room_id)}/tags/m.favourite", (user_id, room_id)
        if mark == "favourite":
            if self.attempt(person.put(path, {})) is not None:
                self.room_data.setdefault(data, {})["m.tag"] = {"tags": {"m.favourite": {}}}
        elif "m.tag" in self.room_data.get(data, {}):
            self.world.run(person.delete(path))
            self.room_data[data]["m.tag"] = {"tags": {}}

    @rule(who=number, where=number, on=st.booleans())
    def type(self, who: int, where: int, on: bool) -> None:
        person, room_id = self.person(who), self.room(where)
        if room_id is not None:
            body = {"typing": True, "timeout": TYPING_MS} if on else {"typing": False}
            self.attempt(person.put(f"/rooms/{quote(room_id)}/typing/{person.user_id}", body))

    # -- devices ---------------------------------------------------------------------------------------

    def sync(self, which: int) -> None:
        device = self.device(which)
        if device.catching_up is not None and which % 3:
            self.world.run(device.turn_page())
        else:
            self.world.run(device.sync())

    def catch_up(self, which: int, order: str, limit: int) -> None:
        self.world.run(self.classic(which).catch_up(order, limit))

    @rule(which=number, order=st.sampled_from(ORDERS), limit=st.integers(min_value=1, max_value=9), n=number)
    def begin_catch_up(self, which: int, order: str, limit: int, n: int) -> None:
        """Pages are turned later on, while things happen. It ends now, or where something was some time ago."""
        device = self.classic(which)
        places = [*self.marks.values(), None, None]
        device.begin_catch_up(order, limit, places[n % len(places)])
        if n % 3 == 0 and device.since is not None:
            summary = self.world.run(device.client.get(f"{MISSED}/summary", **{"from": device.since}))
            self.marks[device.client.device_id] = summary["to"]

    @rule(which=number, pages=st.integers(min_value=1, max_value=4), lost=st.booleans())
    def turn_pages(self, which: int, pages: int, lost: bool) -> None:
        device = self.classic(which)
        for _ in range(pages):
            if lost and device.catching_up is not None:
                self.world.run(self.world.settle())
                first = self.world.run(device.catching_up.ask())
                again = self.world.run(device.catching_up.ask())
                assert [one["event_id"] for one in first["chunk"]] == [
                    one["event_id"] for one in again["chunk"]
                ]
            self.world.run(device.turn_page())

    @rule(which=number)
    def change_ones_mind(self, which: int) -> None:
        """Ask, give up, and ask for something else."""
        device = self.device(which)
        if isinstance(device, SlidingModelClient):
            self.world.run(device.ask())
            device.draw()

    @rule(which=number, anew=st.booleans())
    def be_replaced_by_a_backup(self, which: int, anew: bool) -> None:
        device = self.device(which)
        if not anew:
            device.restore()
        device.back_up()

    @rule(which=number, n=number)
    def forget_connections(self, which: int, n: int) -> None:
        """Those of a device, since it opens so many others; or all of them, since they were not used for a month."""
        database = self.world.servers[0].application.database
        if n % 2 == 0:
            store, now = SlidingSyncStore(database), self.world.servers[0].clock.now_ms() + MONTH_MS
            self.world.run(database.write(lambda t: store.delete_expired(t, now)))
            forgotten = self.devices
        else:
            client = self.device(which).client
            for other in range(MAX_CONNECTIONS):
                self.world.run(client.post(ACCEPTED, {"conn_id": f"other {other}"}))
            forgotten = [one for one in self.devices if one.client is client]
        for device in forgotten:
            if isinstance(device, SlidingModelClient):
                device.may_be_unknown = device.pos is not None

    @rule(n=number)
    def judge_some(self, n: int) -> None:
        """In the middle of it all some devices become quiet."""
        self.judge(self.followers[n % len(self.followers)].ways)


@pytest.fixture
def mixed_world(
    tmp_path: Path, engine: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """One server on SQLite, two on one PostgreSQL."""
    monkeypatch.setattr(delivered, "_EVERY_SECONDS", 3_600)
    # Nobody stops typing by the clock.
    monkeypatch.setattr(typing, "MAX_TIMEOUT_MS", TYPING_MS)
    made = World(*(Server(tmp_path, database_url) for _ in range(2 if engine == "postgresql" else 1)))
    yield made
    made.close()


def test_all_ways_hold_the_truth_whatever_happens(mixed_world: World, engine: str) -> None:
    run_machine(MixedMachine, mixed_world, EXAMPLES[engine], derandomize=True)


@pytest.mark.soak
def test_all_ways_hold_the_truth_for_long(mixed_world: World) -> None:
    run_machine(MixedMachine, mixed_world, SOAK_EXAMPLES, derandomize=False)
