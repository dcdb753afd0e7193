"""Whose devices a client has to look at anew, and whose no more (CS "Tracking the device list for a user")."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.client import refused

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server

ENCRYPTION = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}


@dataclass
class Told:
    """What a client was told: user ids, without the server's name, in order."""

    changed: list[str]
    left: list[str]


NOTHING = Told([], [])


def told(device_lists: dict[str, list[str]]) -> Told:
    return Told(*([one[1:].partition(":")[0] for one in device_lists[key]] for key in ("changed", "left")))


class Watcher:
    """A device that syncs, and asks `/keys/changes` the same each time."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.tokens: list[str] = []
        self.before: list[Told] = []

    async def start(self) -> Watcher:
        answer = await self.client.sync()
        # "only present on an incremental sync"
        assert "device_lists" not in answer
        self.tokens.append(answer["next_batch"])
        return self

    async def hears(self, **query: Any) -> Told:
        """What the next sync tells."""
        answer = await self.client.sync(self.tokens[-1], **query)
        self.tokens.append(answer["next_batch"])
        heard = told(answer["device_lists"])
        assert not set(heard.changed) & set(heard.left)
        assert await self.changes(-2, -1) == heard
        return heard

    async def changes(self, start: int, end: int) -> Told:
        """What `/keys/changes` tells of the interval between two of the tokens."""
        query = {"from": self.tokens[start], "to": self.tokens[end]}
        return told(await self.client.get("/keys/changes", **query))


async def watch(client: Client) -> Watcher:
    return await Watcher(client).start()


async def encrypted_room(owner: Client, *members: Client, **options: Any) -> str:
    options = {"preset": "public_chat", "initial_state": [ENCRYPTION], **options}
    room = await owner.create_room(**options)
    for member in members:
        await member.join(room)
    return room


async def plain_room(owner: Client, *members: Client) -> str:
    return await encrypted_room(owner, *members, initial_state=[])


async def change_devices(server: Server, client: Client) -> None:
    """Another device logs in."""
    await server.login(client)


async def encrypt(client: Client, room: str) -> None:
    await client.set_state(room, ENCRYPTION["type"], ENCRYPTION["content"])


# -- changed devices -----------------------------------------------------------------------------------


async def test_a_new_device_is_told_to_those_who_share_a_room_and_to_the_user(
    server: Server, alice: Client, bob: Client
) -> None:
    carol = await server.register("carol")
    await plain_room(alice, bob)
    watchers = [await watch(client) for client in (alice, bob, carol)]
    await change_devices(server, alice)
    assert [await one.hears() for one in watchers] == [Told(["alice"], []), Told(["alice"], []), NOTHING]
    assert [await one.hears() for one in watchers] == [NOTHING] * 3


async def test_a_new_name_and_the_end_of_a_device_are_told(
    server: Server, alice: Client, bob: Client
) -> None:
    await plain_room(alice, bob)
    second = await server.login(alice)
    watcher = await watch(bob)
    await alice.put(f"/devices/{second.device_id}", {"display_name": "telephone"})
    assert await watcher.hears() == Told(["alice"], [])
    await second.post("/logout")
    assert await watcher.hears() == Told(["alice"], [])


async def test_only_those_who_are_in_the_room_at_the_end_of_the_interval_are_told(
    server: Server, alice: Client, bob: Client
) -> None:
    room = await plain_room(alice, bob)
    watcher = await watch(bob)
    await change_devices(server, alice)
    await alice.leave(room)
    assert await watcher.hears() == NOTHING
    await alice.join(room)
    # The room is not encrypted: to share it is no reason to look at anybody's devices.
    assert await watcher.hears() == NOTHING
    assert await watcher.changes(0, 2) == Told(["alice"], [])


async def test_somebody_who_is_only_invited_shares_no_room(
    server: Server, alice: Client, bob: Client
) -> None:
    room = await encrypted_room(alice, preset="private_chat")
    watcher, other = await watch(alice), await watch(bob)
    await alice.invite(room, bob.user_id)
    await change_devices(server, bob)
    await change_devices(server, alice)
    assert await watcher.hears() == Told(["alice"], [])
    assert await other.hears() == Told(["bob"], [])


async def test_a_waiting_sync_wakes_for_a_changed_device_and_for_nobody_elses(
    server: Server, alice: Client, bob: Client
) -> None:
    carol = await server.register("carol")
    await plain_room(alice, bob)
    watcher = await watch(bob)
    waiting = asyncio.create_task(watcher.hears(timeout=30_000))
    await server.until_waiting()
    await change_devices(server, carol)
    assert not waiting.done()
    await change_devices(server, alice)
    assert await waiting == Told(["alice"], [])


# -- to come to share an encrypted room ----------------------------------------------------------------


async def test_both_sides_are_told_of_a_join(server: Server, alice: Client, bob: Client) -> None:
    carol = await server.register("carol")
    room = await encrypted_room(alice, carol)
    watchers = [await watch(client) for client in (alice, bob, carol)]
    await bob.join(room)
    heard = [await one.hears() for one in watchers]
    assert heard == [Told(["bob"], []), Told(["alice", "carol"], []), Told(["bob"], [])]


async def test_an_invitation_is_told_when_it_is_accepted(alice: Client, bob: Client) -> None:
    room = await encrypted_room(alice, preset="private_chat")
    watcher, invited = await watch(alice), await watch(bob)
    await alice.invite(room, bob.user_id)
    assert [await watcher.hears(), await invited.hears()] == [NOTHING, NOTHING]
    await bob.join(room)
    assert [await watcher.hears(), await invited.hears()] == [Told(["bob"], []), Told(["alice"], [])]


async def test_everybody_in_a_room_is_told_once_it_is_encrypted(alice: Client, bob: Client) -> None:
    room = await plain_room(alice, bob)
    watcher, other = await watch(alice), await watch(bob)
    await encrypt(alice, room)
    assert [await watcher.hears(), await other.hears()] == [Told(["bob"], []), Told(["alice"], [])]
    # Once more is no news, nor is a redaction: a room that was encrypted stays so.
    event = await alice.set_state(
        room, ENCRYPTION["type"], {**ENCRYPTION["content"], "rotation_period_msgs": 7}
    )
    await alice.redact(room, event)
    assert [await watcher.hears(), await other.hears()] == [NOTHING, NOTHING]


async def test_a_second_common_room_is_no_news(server: Server, alice: Client, bob: Client) -> None:
    await encrypted_room(alice, bob)
    room = await encrypted_room(alice)
    watcher, other = await watch(alice), await watch(bob)
    await bob.join(room)
    assert [await watcher.hears(), await other.hears()] == [NOTHING, NOTHING]


async def test_a_new_name_in_a_room_is_no_news(alice: Client, bob: Client) -> None:
    await encrypted_room(alice, bob)
    watcher = await watch(alice)
    await bob.put(f"/profile/{bob.user_id}/displayname", {"displayname": "Robert"})
    await alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "Alicia"})
    assert await watcher.hears() == NOTHING


# -- no longer to share one ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["leave", "kick", "ban"])
async def test_both_sides_are_told_of_an_end(server: Server, alice: Client, bob: Client, way: str) -> None:
    carol = await server.register("carol")
    room = await encrypted_room(alice, bob, carol)
    watchers = [await watch(client) for client in (alice, bob, carol)]
    await (bob.leave(room) if way == "leave" else getattr(alice, way)(room, bob.user_id))
    heard = [await one.hears() for one in watchers]
    assert heard == [Told([], ["bob"]), Told([], ["alice", "carol"]), Told([], ["bob"])]
    await change_devices(server, bob)
    heard = [await one.hears() for one in watchers]
    assert heard == [NOTHING, Told(["bob"], []), NOTHING]


async def test_a_room_that_is_left_and_forgotten_is_told(alice: Client, bob: Client) -> None:
    room = await encrypted_room(alice, bob)
    watcher, other = await watch(alice), await watch(bob)
    await bob.leave(room)
    await bob.post(f"/rooms/{room}/forget")
    assert [await watcher.hears(), await other.hears()] == [Told([], ["bob"]), Told([], ["alice"])]
    await bob.join(room)
    assert [await watcher.hears(), await other.hears()] == [Told(["bob"], []), Told(["alice"], [])]


async def test_of_two_common_rooms_one_is_enough(alice: Client, bob: Client) -> None:
    first, second = await encrypted_room(alice, bob), await encrypted_room(alice, bob)
    watcher = await watch(alice)
    await bob.leave(first)
    assert await watcher.hears() == NOTHING
    await bob.leave(second)
    assert await watcher.hears() == Told([], ["bob"])


async def test_a_common_room_that_is_not_encrypted_is_not_enough(
    server: Server, alice: Client, bob: Client
) -> None:
    room = await encrypted_room(alice, bob)
    await plain_room(alice, bob)
    watcher = await watch(alice)
    await bob.leave(room)
    await change_devices(server, bob)
    # Never in both lists; and devices of somebody with whom nothing encrypted is shared are of no use.
    assert await watcher.hears() == Told([], ["bob"])


async def test_who_leaves_and_comes_back_is_looked_at_anew(
    server: Server, alice: Client, bob: Client
) -> None:
    room = await encrypted_room(alice, bob)
    watcher = await watch(alice)
    await bob.leave(room)
    assert await watcher.hears() == Told([], ["bob"])
    # Nobody is told of what bob does meanwhile.
    await change_devices(server, bob)
    assert await watcher.hears() == NOTHING
    await bob.join(room)
    assert await watcher.hears() == Told(["bob"], [])
    # Where both fall into one interval the devices may have changed unheard, too.
    await bob.leave(room)
    await bob.join(room)
    assert await watcher.hears() == Told(["bob"], [])


async def test_who_comes_and_goes_between_two_syncs_is_among_those_who_left(
    alice: Client, bob: Client
) -> None:
    room = await encrypted_room(alice)
    watcher = await watch(alice)
    await bob.join(room)
    await bob.leave(room)
    assert await watcher.hears() == Told([], ["bob"])


async def test_those_who_were_never_in_the_room_together_hear_nothing(
    server: Server, alice: Client, bob: Client
) -> None:
    carol = await server.register("carol")
    room = await encrypted_room(alice, bob)
    watcher, other = await watch(bob), await watch(carol)
    await bob.leave(room)
    await carol.join(room)
    assert await watcher.hears() == Told([], ["alice"])
    assert await other.hears() == Told(["alice"], [])


async def test_the_end_of_an_account_is_an_end(server: Server, alice: Client, bob: Client) -> None:
    await encrypted_room(alice, bob)
    watcher = await watch(alice)
    await server.control("user-deactivate", name="bob")
    assert await watcher.hears() == Told([], ["bob"])


async def test_to_change_from_one_common_room_to_another_is_no_news(alice: Client, bob: Client) -> None:
    old = await encrypted_room(alice, bob)
    watcher = await watch(alice)
    new = (await alice.post(f"/rooms/{old}/upgrade", {"new_version": "11"}))["replacement_room"]
    await bob.join(new)
    await bob.leave(old)
    await alice.leave(old)
    assert await watcher.hears() == NOTHING
    await bob.leave(new)
    assert await watcher.hears() == Told([], ["bob"])


# -- any interval --------------------------------------------------------------------------------------


async def test_any_two_tokens_name_an_interval(server: Server, alice: Client, bob: Client) -> None:
    carol = await server.register("carol")
    room = await encrypted_room(alice)
    watcher = await watch(alice)
    for deed in (
        bob.join(room),
        carol.join(room),
        change_devices(server, bob),
        bob.leave(room),
        bob.join(room),
        alice.leave(room),
    ):
        await deed
        await watcher.hears()
    assert await watcher.changes(0, 2) == Told(["bob", "carol"], [])
    assert await watcher.changes(2, 3) == Told(["bob"], [])
    assert await watcher.changes(1, 4) == Told(["carol"], ["bob"])
    assert await watcher.changes(3, 5) == Told(["bob"], [])
    assert await watcher.changes(2, 6) == Told([], ["bob", "carol"])
    assert await watcher.changes(0, 6) == Told([], ["bob", "carol"])
    assert await watcher.changes(3, 3) == NOTHING
    assert await watcher.changes(4, 1) == NOTHING


async def test_tokens_of_other_devices_are_places_too(server: Server, alice: Client, bob: Client) -> None:
    room = await encrypted_room(alice)
    watcher, other = await watch(alice), await watch(bob)
    await bob.join(room)
    await watcher.hears()
    watcher.tokens[0] = other.tokens[0]
    assert await watcher.changes(0, 1) == Told(["bob"], [])


async def test_a_token_that_is_none_is_refused(alice: Client) -> None:
    (token,) = (await watch(alice)).tokens
    with refused(400, "M_MISSING_PARAM"):
        await alice.get("/keys/changes", **{"from": token})
    for query in ({"from": token, "to": "s1"}, {"from": "", "to": token}):
        with refused(400, "M_INVALID_PARAM"):
            await alice.get("/keys/changes", **query)


async def test_a_restart_changes_nothing(server: Server, alice: Client, bob: Client) -> None:
    carol = await server.register("carol")
    room = await encrypted_room(alice, carol)
    watcher = await watch(alice)
    await bob.join(room)
    await carol.leave(room)
    await change_devices(server, bob)
    await server.restart()
    watcher.client = alice = server.reconnect(alice)
    assert await watcher.hears() == Told(["bob"], ["carol"])
    await change_devices(server, alice)
    await server.restart()
    watcher.client = server.reconnect(alice)
    assert await watcher.hears() == Told(["alice"], [])


async def test_a_long_absence_loses_nothing(
    server: Server, alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homeserver.notifier.notifier._KEPT", 5)
    carol, dora = await server.register("carol"), await server.register("dora")
    room = await encrypted_room(alice, carol, dora)
    watcher = await watch(alice)
    await bob.join(room)
    await carol.leave(room)
    await change_devices(server, dora)
    for number in range(10):
        await alice.send(room, f"{number}")
    assert server.application.rooms.notifier.changes_since(0) is None
    assert await watcher.hears() == Told(["bob", "dora"], ["carol"])
    assert await watcher.changes(0, 1) == Told(["bob", "dora"], ["carol"])


# -- two processes -------------------------------------------------------------------------------------


async def test_what_changes_at_one_process_is_told_at_the_other(servers: tuple[Server, Server]) -> None:
    first, second = servers
    alice = await first.register("alice")
    bob = await first.register("bob")
    room = await encrypted_room(alice)
    watcher = Watcher(second.reconnect(alice))
    await watcher.start()
    for deed, expected in (
        (bob.join(room), Told(["bob"], [])),
        (change_devices(first, bob), Told(["bob"], [])),
        (bob.leave(room), Told([], ["bob"])),
    ):
        waiting = asyncio.create_task(heard_at_last(watcher))
        await second.until_waiting()
        await deed
        assert await asyncio.wait_for(waiting, 20) == expected


async def heard_at_last(watcher: Watcher) -> Told:
    """What the first sync tells that has something to tell of devices."""
    while (heard := await watcher.hears(timeout=30_000, set_presence="offline")) == NOTHING:
        pass
    return heard


async def test_what_another_process_did_after_the_interval_is_not_in_it(
    servers: tuple[Server, Server],
) -> None:
    first, second = servers
    alice, bob, carol = [await first.register(name) for name in ("alice", "bob", "carol")]
    room, other = await encrypted_room(alice, bob), await encrypted_room(alice, carol)
    watcher = await watch(second.reconnect(alice))
    await change_devices(first, bob)
    await carol.leave(other)
    await second.application.database.reach(first.application.database.position)
    # From here on the second process hears of nothing, and finds it in the database all the same.
    hear = second.application.database.on_commit
    second.application.database.on_commit = lambda *_: None
    await bob.leave(room)
    await carol.join(other)
    await alice.leave(room)
    assert await watcher.hears() == Told(["bob"], ["carol"])
    second.application.database.on_commit = hear
