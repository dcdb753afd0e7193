"""Many devices at once, and a server that is killed at any moment: what was answered holds, and nothing comes twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.client import Refused
from tests.encryption.model_device import ENCRYPTION_ONLY, State, View, has_news
from tests.keys import USUAL, Device, claim_one
from tests.processes.devices import connected
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from tests.client import Client

NAMES = ("alice", "bob", "carol")
ENCRYPTION = {"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
DEEDS = {"sync": 6, "send": 4, "upload": 2, "claim": 4, "rename": 1, "move": 3, "prepare": 2}
_LONGEST_LIFE_SECONDS = 0.3


class Site:
    """What all devices know of: whether the server is up, the room, and who is in it."""

    def __init__(self) -> None:
        self.up = asyncio.Event()
        self.up.set()
        self.over = False
        self.progress = asyncio.Event()
        self.rooms: list[str] = []
        self.members: dict[str, set[str]] = {}
        self.tried_again = 0

    async def persist(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Ask again and again, until there is an answer."""
        while (answer := await self.attempt(call)) is None:
            self.tried_again += 1
            # Others go first: one of them may know that the server is down.
            await asyncio.sleep(0)
        return answer

    async def attempt(self, call: Callable[[], Awaitable[Any]]) -> Any | None:
        """Ask once; None where the server went away meanwhile."""
        await self.up.wait()
        try:
            answer = await call()
        except (httpx.TransportError, Refused) as error:
            if isinstance(error, Refused) and error.status != 503:
                raise
            return None
        self.progress.set()
        return answer


class Actor:
    """A device that does one thing after the other, each until it is answered, but for syncs and claims."""

    def __init__(self, client: Client, site: Site, seed: int, *, moves: bool) -> None:
        self.client = client
        self.site = site
        self.keys = Device(client)
        self.state = State(client.user_id)
        self.dice = random.Random(seed)
        self.moves = moves
        self.others: list[Actor] = []
        self.name: str | None = None
        self.number = 0
        self.sent_to: list[tuple[int, str, int]] = []
        """What was sent to this device."""
        self.uploaded: dict[str, Any] = {}
        self.claimed: dict[str, list[tuple[str, Any]]] = {}
        """Device -> the keys of it that this one was given, in order."""
        self.lost_claims = 0
        self.lost_answers = 0

    @property
    def id(self) -> str:
        return f"{self.client.user_id}|{self.client.device_id}"

    async def act(self) -> None:
        while not self.site.over:
            deed = self.dice.choices(list(DEEDS), list(DEEDS.values()))[0]
            await getattr(self, deed)()

    async def sync(self) -> bool:
        """Sync; what is told of devices must be what `/keys/changes` tells. False where nothing is new."""
        since = self.state.since
        answer = await self.site.attempt(
            lambda: self.client.sync(since, filter=ENCRYPTION_ONLY, timeout=self.dice.choice([0, 50]))
        )
        if answer is None:
            self.lost_answers += 1
            return True
        if since is not None:
            interval = {"from": since, "to": answer["next_batch"]}
            changes = await self.site.persist(lambda: self.client.get("/keys/changes", **interval))
            assert changes == answer["device_lists"]
        self.state.apply(answer)
        self.state.check_messages()
        return has_news(answer)

    async def send(self) -> None:
        recipients = self.dice.sample(self.others, 2)
        content = {"deed": 0, "from": self.id, "number": self.number}
        transaction, self.number = f"t{self.number}", self.number + 1
        messages: dict[str, dict[str, Any]] = {}
        for one in recipients:
            messages.setdefault(one.client.user_id, {})[one.client.device_id] = content
            one.sent_to.append((0, self.id, content["number"]))
        body = {"messages": messages}
        await self.site.persist(lambda: self.client.put(f"/sendToDevice/m.test/{transaction}", body))

    async def upload(self) -> None:
        new = self.keys.one_time_keys(3)
        self.uploaded |= new
        await self.site.persist(lambda: self.client.post("/keys/upload", {"one_time_keys": new}))

    async def claim(self) -> None:
        """A key whose answer is lost is lost: nobody else may have it."""
        other = self.dice.choice(self.others)
        answer = await self.site.attempt(lambda: _claimed(self.client, other.client))
        if answer is None:
            self.lost_claims += 1
        else:
            self.claimed.setdefault(other.id, []).extend(answer)

    async def rename(self) -> None:
        self.name = f"name {self.dice.randrange(1_000)}"
        path, body = f"/devices/{self.client.device_id}", {"display_name": self.name}
        await self.site.persist(lambda: self.client.put(path, body))

    async def move(self) -> None:
        """Into a room or out of it."""
        if not self.moves:
            return
        room = self.dice.choice(self.site.rooms)
        members = self.site.members[room]
        if self.client.user_id in members:
            members.discard(self.client.user_id)
            await self.site.persist(lambda: _leave(self.client, room))
        else:
            members.add(self.client.user_id)
            await self.site.persist(lambda: self.client.join(room))

    async def prepare(self) -> None:
        room = self.dice.choice(self.site.rooms)
        if self.client.user_id in self.site.members[room]:
            self.state.follow(await self.site.persist(lambda: _members(self.client, room)))
            await self.site.persist(self._refresh)

    async def _refresh(self) -> bool:
        await self.state.refresh(self.client)
        return True

    # -- the judgement ---------------------------------------------------------------------------------

    async def check_at_rest(self, truth: dict[str, View]) -> None:
        while await self.sync():
            pass
        assert Counter(self.state.received) == Counter(self.sent_to)
        await self._refresh()
        shares = {self.client.user_id}.union(
            *(members for members in self.site.members.values() if self.client.user_id in members)
        )
        assert self.state.views.keys() <= shares
        assert self.state.views == {user_id: truth[user_id] for user_id in self.state.views}

    async def check_keys(self) -> None:
        """Each key was given to one device at most; none is missing but those whose answer was lost."""
        answer = await self.client.sync(filter=ENCRYPTION_ONLY)
        count = answer["device_one_time_keys_count"][USUAL]
        claims = [await claim_one(self.others[0].client, self.client) for _ in range(count)]
        left = [key for key in claims if key is not None]
        assert len(left) == count
        assert await claim_one(self.others[0].client, self.client) is None
        order = list(self.uploaded)
        given = [one.claimed.get(self.id, []) for one in self.others]
        for keys in (*given, left):
            names = [name for name, _ in keys]
            assert names == sorted(names, key=order.index), "keys were given out in another order"
        everything = [key for keys in (*given, left) for key in keys]
        assert len(dict(everything)) == len(everything), "a key was given out twice"
        assert all(self.uploaded[name] == key for name, key in everything)
        missing = len(self.uploaded) - len(everything)
        assert missing <= sum(one.lost_claims for one in self.others)


async def _claimed(client: Client, other: Client) -> list[tuple[str, Any]]:
    key = await claim_one(client, other)
    return [] if key is None else [key]


async def _leave(client: Client, room: str) -> bool:
    try:
        await client.leave(room)
    except Refused as error:
        # The answer to the first attempt was lost.
        if error.errcode != "M_FORBIDDEN":
            raise
    return True


async def _members(client: Client, room: str) -> list[str]:
    try:
        return list((await client.get(f"/rooms/{room}/joined_members"))["joined"])
    except Refused as error:
        # Another device of the user has left meanwhile.
        if error.errcode != "M_FORBIDDEN":
            raise
        return []


async def _act_and_kill(server: ServerProcess, site: Site, actors: Sequence[Actor], kills: int) -> None:
    chance = random.Random(kills)
    async with asyncio.TaskGroup() as tasks:
        for actor in actors:
            tasks.create_task(actor.act())
        for _ in range(kills):
            site.progress.clear()
            await site.progress.wait()
            # Any moment is as good as any other.
            await asyncio.sleep(chance.uniform(0, _LONGEST_LIFE_SECONDS))
            site.up.clear()
            server.kill()
            await asyncio.to_thread(server.start)
            site.up.set()
        site.over = True


@pytest.mark.parametrize(
    ("engine", "kills"),
    [
        ("sqlite", 10),
        ("postgresql", 5),
        pytest.param("sqlite", 300, marks=pytest.mark.soak),
        pytest.param("postgresql", 300, marks=pytest.mark.soak),
    ],
    indirect=["engine"],
)
async def test_devices_have_what_they_must_have_whatever_is_killed(
    kills: int, database_url: str, tmp_path: Path
) -> None:
    with ServerProcess(tmp_path, server_name="example.org", database={"url": database_url}) as server:
        accounts = [account for name in NAMES for account in (server.register(name), server.login(name))]
        async with connected(server, *accounts) as clients:
            site = Site()
            actors = [Actor(client, site, seed, moves=seed % 2 == 0) for seed, client in enumerate(clients)]
            for actor in actors:
                actor.others = [one for one in actors if one is not actor]
                await actor.keys.upload()
            for client in clients[:4:2]:
                room = await client.create_room(preset="public_chat", initial_state=[ENCRYPTION])
                site.rooms.append(room)
                site.members[room] = {client.user_id}
            await _act_and_kill(server, site, actors, kills)
            truth: dict[str, View] = {}
            for actor in actors:
                identity = (actor.keys.device_keys()["keys"], actor.name)
                truth.setdefault(actor.client.user_id, {})[actor.client.device_id] = identity
            for actor in actors:
                await actor.check_at_rest(truth)
            for actor in actors:
                await actor.check_keys()

    # The kills fell into what was under way.
    assert site.tried_again > kills // 2
    assert sum(actor.lost_answers + actor.lost_claims for actor in actors) > kills // 2
