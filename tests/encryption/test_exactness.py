"""Whatever people do with many devices: messages, keys and device lists are as the specification has them.

Several users with several devices upload keys and claim them, also at the same time, send to devices, once and again,
come into rooms and go, encrypt them, log in and out, sync with lost answers and old tokens, ask for the changes
between any two of them; the server is restarted at random. No message is lost, none comes twice once it was
acknowledged, no key is given out twice or out of turn, and each device knows the devices that it has to know.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from homeserver.sync.to_device import Inboxes
from tests.client import refused
from tests.encryption.model_device import ONE_ANSWER, ModelDevice, View
from tests.encryption.sharing import Sharing
from tests.keys import USUAL, Device, claim, curve25519
from tests.server import Server
from tests.stateful import run_machine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator
    from pathlib import Path

    from tests.client import Client

USERS = 3
MOST_DEVICES = 8
MOST_ROOMS = 4
EXAMPLES = 12
SOAK_EXAMPLES = int(os.environ.get("RESTANTE_SOAK_EXAMPLES", "1500"))
STEPS = 20
PATIENCE_SECONDS = 20
ENCRYPTION = ("m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
PASSWORD = {"type": "m.login.password", "password": "secret"}
DEEDS = {
    "sync": 8,
    "lose_an_answer": 3,
    "return_with_an_old_token": 2,
    "crash": 2,
    "start_over": 1,
    "ask_for_changes": 4,
    "wait_for_news": 2,
    "prepare_a_room": 4,
    "send": 5,
    "send_at_once": 2,
    "upload_identity": 4,
    "upload_one_time_keys": 4,
    "upload_the_same_again": 2,
    "upload_another_key_of_the_same_name": 1,
    "upload_a_fallback_key": 2,
    "claim": 4,
    "claim_at_once": 2,
    "create_a_room": 1,
    "come_or_go": 8,
    "remove_somebody": 2,
    "encrypt_a_room": 2,
    "log_in": 2,
    "rename": 2,
    "end_a_device": 1,
    "restart": 1,
}
"""How often each deed is done among others."""
_names = itertools.count()

seeds = st.integers(min_value=0, max_value=2**32)


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


class EncryptionMachine(RuleBasedStateMachine):
    """Deeds, each with the answers that it must have."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.server = world.server
        self.sharing = Sharing()
        self.devices: list[ModelDevice] = []
        self.creators: dict[str, str] = {}
        self.deeds = itertools.count()

    @initialize(seed=seeds)
    def begin(self, seed: int) -> None:
        self.sharing.step()
        for _ in range(USERS):
            client = self.world.run(self.server.register(f"user{next(_names)}"))
            self.sharing.step(client.user_id)
            self.devices.append(ModelDevice(client, self.sharing))
        self.go_on_for_a_while(seed, 40)

    @rule(deed=st.sampled_from(sorted(DEEDS)), seed=seeds)
    def do(self, deed: str, seed: int) -> None:
        self.world.run(getattr(self, deed)(random.Random(seed)))

    @rule(seed=seeds, deeds=st.integers(min_value=0, max_value=80))
    def go_on_for_a_while(self, seed: int, deeds: int) -> None:
        """Many deeds at a time: left to themselves, examples are short."""
        dice = random.Random(seed)
        for deed in dice.choices(list(DEEDS), list(DEEDS.values()), k=deeds):
            self.world.run(getattr(self, deed)(dice))

    def teardown(self) -> None:
        for device in self.devices:
            self.world.run(device.check_at_rest(self._views()))

    def _views(self) -> dict[str, View]:
        views: dict[str, View] = {}
        for device in self.devices:
            if device.has_identity:
                views.setdefault(device.client.user_id, {})[device.client.device_id] = device.identity()
        return views

    # -- syncs -----------------------------------------------------------------------------------------

    async def sync(self, dice: random.Random) -> None:
        await dice.choice(self.devices).sync()

    async def lose_an_answer(self, dice: random.Random) -> None:
        await dice.choice(self.devices).lose_an_answer()

    async def return_with_an_old_token(self, dice: random.Random) -> None:
        """What was acknowledged is gone, though an older token asks for it."""
        device = dice.choice(self.devices)
        old = [t for t, place in device.places.items() if place.received <= len(device.state.received)]
        if old:
            await device.ask(dice.choice(old))

    async def crash(self, dice: random.Random) -> None:
        dice.choice(self.devices).crash()

    async def start_over(self, dice: random.Random) -> None:
        dice.choice(self.devices).start_over()

    async def ask_for_changes(self, dice: random.Random) -> None:
        device = dice.choice(self.devices)
        if device.places:
            await device.changes(*dice.choices(list(device.places), k=2))

    async def wait_for_news(self, dice: random.Random) -> None:
        """A long poll is answered by what comes, and by nothing else."""
        device = dice.choice(self.devices)
        await device.sync_until_quiet()
        user_id = device.client.user_id
        near = self.sharing.neighbours(user_id, self.sharing.now, encrypted=False)
        strangers = [one for one in self.devices if one.client.user_id not in near | {user_id}]
        since = device.state.since
        waiting = asyncio.create_task(device.request(since, timeout=1_000 * PATIENCE_SECONDS))
        await self.server.until_waiting()
        if strangers:
            await self._rename(dice.choice(strangers), dice)
            await self._send(dice.choice(strangers), [dice.choice(strangers)])
        assert not waiting.done()
        neighbours = [one for one in self.devices if one.client.user_id in near]
        if neighbours and dice.random() < 0.5:
            await self._rename(dice.choice(neighbours), dice)
        elif device.one_time_keys and dice.random() < 0.5:
            await self._claim(dice.choice(self.devices), [device])
        else:
            await self._send(dice.choice(self.devices), [device])
        answer = await asyncio.wait_for(waiting, PATIENCE_SECONDS / 2)
        device.check(since, answer)
        device.apply(answer)

    async def restart(self, dice: random.Random) -> None:
        await self.server.restart()
        for device in self.devices:
            device.client = device.keys.client = self.server.reconnect(device.client)

    # -- devices of others -----------------------------------------------------------------------------

    async def prepare_a_room(self, dice: random.Random) -> None:
        device = dice.choice(self.devices)
        rooms = [
            room
            for room, members in self.sharing.members.items()
            if room in self.sharing.encrypted and device.client.user_id in members
        ]
        if rooms:
            await device.prepare(self.sharing.members[dice.choice(rooms)])

    async def rename(self, dice: random.Random) -> None:
        await self._rename(dice.choice(self.devices), dice)

    async def _rename(self, device: ModelDevice, dice: random.Random) -> None:
        device.name = f"name {dice.randrange(100)}"
        await device.client.put(f"/devices/{device.client.device_id}", {"display_name": device.name})
        self.sharing.step(device.client.user_id)

    async def upload_identity(self, dice: random.Random) -> None:
        """The identity keys of a device: the same again, which is no news, or new ones in their place."""
        device = dice.choice(self.devices)
        is_new = not device.has_identity
        if device.has_identity and dice.random() < 0.2:
            # What was made with the old keys is worth nothing.
            device.keys = Device(device.client)
            device.one_time_keys, device.claimed, device.fallback = [], [], None
            is_new = True
        device.has_identity = True
        await device.client.post("/keys/upload", {"device_keys": device.keys.device_keys()})
        if is_new:
            self.sharing.step(device.client.user_id)

    async def log_in(self, dice: random.Random) -> None:
        if len(self.devices) < MOST_DEVICES:
            client = await self.server.login(dice.choice(self.devices).client)
            self._add(ModelDevice(client, self.sharing))

    def _add(self, device: ModelDevice) -> None:
        self.devices.append(device)
        self.sharing.step(device.client.user_id)

    async def end_a_device(self, dice: random.Random) -> None:
        """Log out or delete a device, and perhaps log in anew under its name: all that was kept for it is gone."""
        device = dice.choice(self.devices)
        user_id, device_id = device.client.user_id, device.client.device_id
        others = [one for one in self.devices if one.client.user_id == user_id and one is not device]
        if not others:
            return
        if dice.random() < 0.5:
            await device.client.post("/logout")
        else:
            user = {"type": "m.id.user", "user": user_id}
            await others[0].client.delete(f"/devices/{device_id}", {"auth": {**PASSWORD, "identifier": user}})
        self.devices.remove(device)
        self.sharing.step(user_id)
        if dice.random() < 0.5:
            await self._send(others[0], [], nobody=f"{user_id}|{device_id}")
            client = await self.server.login(others[0].client, device_id)
            self._add(ModelDevice(client, self.sharing, device.number))

    # -- rooms -----------------------------------------------------------------------------------------

    async def create_a_room(self, dice: random.Random) -> None:
        if len(self.sharing.members) < MOST_ROOMS:
            client, is_encrypted = dice.choice(self.devices).client, dice.random() < 0.6
            event = {"type": ENCRYPTION[0], "content": ENCRYPTION[1]}
            room = await client.create_room(
                preset="public_chat",
                initial_state=[event] if is_encrypted else [],
                power_level_content_override={"state_default": 0, "events": {}},
            )
            self.sharing.members[room] = {client.user_id}
            self.creators[room] = client.user_id
            if is_encrypted:
                self.sharing.encrypted.add(room)
            self.sharing.step()

    def _a_room(self, dice: random.Random) -> str | None:
        return dice.choice(list(self.sharing.members)) if self.sharing.members else None

    def _a_member(self, dice: random.Random, room: str, *, but: str = "") -> Client:
        """Not from the set of members: chance must fall alike each time."""
        members = self.sharing.members[room] - {but}
        return dice.choice([one.client for one in self.devices if one.client.user_id in members])

    async def come_or_go(self, dice: random.Random) -> None:
        room, client = self._a_room(dice), dice.choice(self.devices).client
        if room is None:
            return
        if client.user_id not in self.sharing.members[room]:
            await client.join(room)
            self.sharing.members[room].add(client.user_id)
        elif len(self.sharing.members[room]) > 1:
            await client.leave(room)
            self.sharing.members[room].discard(client.user_id)
            if dice.random() < 0.2:
                await client.post(f"/rooms/{room}/forget")
        self.sharing.step()

    async def remove_somebody(self, dice: random.Random) -> None:
        """Who made the room kicks or bans somebody."""
        room = self._a_room(dice)
        user_id = self.creators[room] if room is not None else ""
        if room is None or user_id not in self.sharing.members[room] or len(self.sharing.members[room]) < 2:
            return
        client = next(one.client for one in self.devices if one.client.user_id == user_id)
        other = self._a_member(dice, room, but=user_id).user_id
        if dice.random() < 0.5:
            await client.kick(room, other)
        else:
            await client.ban(room, other)
            await client.post(f"/rooms/{room}/unban", {"user_id": other})
        self.sharing.members[room].discard(other)
        self.sharing.step()

    async def encrypt_a_room(self, dice: random.Random) -> None:
        room = self._a_room(dice)
        if room is None:
            return
        await self._a_member(dice, room).set_state(room, *ENCRYPTION)
        self.sharing.encrypted.add(room)
        self.sharing.step()

    # -- messages to devices ---------------------------------------------------------------------------

    async def send(self, dice: random.Random) -> None:
        """To some devices, or all of some users; and perhaps once more, as after a lost answer."""
        sender = dice.choice(self.devices)
        recipients = dice.sample(self.devices, dice.randint(1, min(3, len(self.devices))))
        if dice.random() < 0.4:
            users = {one.client.user_id for one in recipients}
            recipients = [one for one in self.devices if one.client.user_id in users]
            await self._send(sender, recipients, to_all=users, times=dice.choice([1, 1, 2]))
        else:
            await self._send(sender, recipients, times=dice.choice([1, 1, 2]))

    async def send_at_once(self, dice: random.Random) -> None:
        """Several devices send to one at the same time, each several messages one after the other."""
        recipient = dice.choice(self.devices)
        deed = next(self.deeds)

        async def send_some(sender: ModelDevice) -> None:
            for _ in range(3):
                await self._send(sender, [recipient], deed=deed)

        senders = dice.sample(self.devices, min(3, len(self.devices)))
        await asyncio.gather(*(send_some(sender) for sender in senders))

    async def _send(
        self,
        sender: ModelDevice,
        recipients: list[ModelDevice],
        *,
        to_all: set[str] | None = None,
        times: int = 1,
        deed: int | None = None,
        nobody: str | None = None,
    ) -> None:
        deed = next(self.deeds) if deed is None else deed
        content = {"deed": deed, "from": sender.id, "number": sender.number}
        sender.number += 1
        messages: dict[str, dict[str, Any]] = {}
        for address in [one.id for one in recipients] + ([nobody] if nobody else []):
            user_id, _, device_id = address.partition("|")
            messages.setdefault(user_id, {})[device_id if to_all is None else "*"] = content
        for recipient in recipients:
            recipient.sent.append((deed, sender.id, content["number"]))
        transaction = f"{sender.id}{deed}-{content['number']}"
        for _ in range(times):
            await sender.client.put(f"/sendToDevice/m.test/{transaction}", {"messages": messages})

    # -- one-time keys ---------------------------------------------------------------------------------

    async def upload_one_time_keys(self, dice: random.Random) -> None:
        device = dice.choice(self.devices)
        new = device.keys.one_time_keys(dice.randint(1, 4))
        device.one_time_keys += new.items()
        await self._upload(device, new)

    async def upload_the_same_again(self, dice: random.Random) -> None:
        """A client whose upload was not answered uploads the same keys, some of which were claimed meanwhile."""
        device = dice.choice(self.devices)
        await self._upload(device, dict(device.claimed[-3:] + device.one_time_keys[:3]))

    async def upload_another_key_of_the_same_name(self, dice: random.Random) -> None:
        device = dice.choice(self.devices)
        names = [name for name, _ in device.claimed + device.one_time_keys]
        if names:
            with refused(400, "M_INVALID_PARAM"):
                await self._upload(device, {dice.choice(names): device.keys.signed({"key": curve25519()})})

    async def upload_a_fallback_key(self, dice: random.Random) -> None:
        device = dice.choice(self.devices)
        if device.fallback is None or dice.random() < 0.7:
            ((name, key),) = device.keys.fallback_key().items()
            device.fallback, device.fallback_used = (name, key), False
        # One that comes again is as used as it was.
        await device.client.post("/keys/upload", {"fallback_keys": dict([device.fallback])})

    async def _upload(self, device: ModelDevice, keys: dict[str, Any]) -> None:
        answer = await device.client.post("/keys/upload", {"one_time_keys": keys})
        assert answer["one_time_key_counts"] == {USUAL: len(device.one_time_keys)}

    async def claim(self, dice: random.Random) -> None:
        wanted = dice.sample(self.devices, dice.randint(1, min(3, len(self.devices))))
        await self._claim(dice.choice(self.devices), wanted)

    async def _claim(self, claimant: ModelDevice, wanted: list[ModelDevice]) -> None:
        answer = await claim(claimant.client, *(one.client for one in wanted))
        assert keys_in(answer) == {one.id: key for one in wanted if (key := one.next_key()) is not None}

    async def claim_at_once(self, dice: random.Random) -> None:
        device = dice.choice(self.devices)
        claims = [claim(dice.choice(self.devices).client, device.client) for _ in range(4)]
        given = [keys_in(answer).get(device.id) for answer in await asyncio.gather(*claims)]
        expected = [device.next_key() for _ in claims]
        assert all(given.count(one) == expected.count(one) for one in [*given, *expected])


def keys_in(answer: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """The key of each device in the answer to a claim."""
    found = {}
    for user_id, by_device in answer.items():
        for device_id, keys in by_device.items():
            ((name, key),) = keys.items()
            found[f"{user_id}|{device_id}"] = (name, key)
    return found


@pytest.fixture
def world(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setitem(Inboxes.read.__kwdefaults__, "limit", ONE_ANSWER)
    # What happened long ago is soon out of memory.
    monkeypatch.setattr("homeserver.notifier.notifier._KEPT", 25)
    # Of two users the database is asked otherwise than of one.
    monkeypatch.setattr("homeserver.sync.device_lists._FEW_USERS", 1)
    made = World(Server(tmp_path, database_url))
    yield made
    made.close()


def test_devices_have_what_they_must_have_whatever_happens(world: World) -> None:
    run_machine(lambda: EncryptionMachine(world), examples=EXAMPLES, steps=STEPS, derandomize=True)


@pytest.mark.soak
def test_devices_have_what_they_must_have_for_long(world: World) -> None:
    run_machine(lambda: EncryptionMachine(world), examples=SOAK_EXAMPLES, steps=STEPS, derandomize=False)
