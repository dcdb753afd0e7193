"""The device lists of other servers' users are kept, follow what is told of them, and are asked for anew in doubt."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.ids import ServerName
from tests.delivery.far_servers import set_membership, shared_room
from tests.keys import query

if TYPE_CHECKING:
    from tests.client import Client
    from tests.remote_keys.far_server import FarServer, Network
    from tests.server import Server


class Watch:
    """Alice, who shares a room with Zoe of another server, and looks at what is told of Zoe's devices."""

    def __init__(self, server: Server, alice: Client, far: FarServer) -> None:
        self.server, self.alice, self.far = server, alice, far
        self.zoe = far.user("zoe")
        self.room_id = ""
        self.since = ""

    async def told(self) -> bool:
        """Whether Alice is told that Zoe's devices changed, since she last looked."""
        answer = await self.alice.sync(since=self.since)
        self.since = answer["next_batch"]
        return self.zoe in answer["device_lists"]["changed"]

    async def devices(self) -> dict[str, Any]:
        """Zoe's devices, as Alice is answered; as keys they have when their server is there."""
        answer = await query(self.alice, self.zoe)
        assert answer["failures"] == {}
        return {
            name: {part: value for part, value in device.items() if part != "unsigned"}
            for name, device in answer["device_keys"][self.zoe].items()
        }

    async def is_true(self) -> bool:
        return await self.devices() == self.far.devices[self.zoe]

    def asked(self) -> int:
        """How often Zoe's server was asked since this was last looked at."""
        number = len(self.far.asked)
        self.far.asked.clear()
        return number

    async def settle(self) -> None:
        """One update, the list whole again, everything told."""
        await self.far.tell(self.far.update(self.zoe, "PHONE"))
        assert await self.is_true()
        await self.told()
        self.asked()


@pytest.fixture
async def watch(server: Server, alice: Client, far: FarServer) -> Watch:
    watch = Watch(server, alice, far)
    far.device(watch.zoe, "PHONE")
    watch.room_id = await shared_room(server, alice, watch.zoe)
    watch.since = (await alice.sync())["next_batch"]
    await watch.settle()
    return watch


async def test_a_list_is_asked_for_once_however_many_ask(watch: Watch) -> None:
    assert await watch.is_true()
    assert await watch.is_true()
    assert watch.asked() == 0
    # It is not forgotten either.
    await watch.server.restart()
    watch.far.network.plug_in()
    watch.alice = watch.server.reconnect(watch.alice)
    assert await watch.is_true()
    assert watch.asked() == 0


async def test_what_is_kept_is_given_to_who_does_not_want_to_wait(watch: Watch) -> None:
    answer = await watch.alice.post("/keys/query", {"device_keys": {watch.zoe: []}, "timeout": 0})
    assert answer["failures"] == {}
    assert answer["device_keys"][watch.zoe].keys() == {"PHONE"}


async def test_many_who_ask_at_the_same_time_share_one_question(watch: Watch, server: Server) -> None:
    far = watch.far
    others = [await server.register(name) for name in ("bob", "carol")]
    for other in others:
        await other.join(watch.room_id)
    far.device(watch.zoe, "DESK")
    await far.tell(far.update(watch.zoe, "DESK", prev_id=[999]))
    far.is_silent = True
    waiting = [asyncio.create_task(query(one, watch.zoe)) for one in (watch.alice, *others, watch.alice)]
    await far.is_waiting.wait()
    far.is_silent = False
    far.may_answer.set()
    for answer in await asyncio.gather(*waiting):
        assert answer["device_keys"][watch.zoe].keys() == {"PHONE", "DESK"}
    assert watch.asked() == 1


async def test_updates_in_order_change_the_list_without_a_question(watch: Watch) -> None:
    far, zoe = watch.far, watch.zoe
    far.device(zoe, "DESK")
    await far.tell(far.update(zoe, "DESK", device_display_name="On the desk"))
    assert await watch.told()
    assert await watch.is_true()
    answer = await query(watch.alice, zoe)
    assert answer["device_keys"][zoe]["DESK"]["unsigned"] == {"device_display_name": "On the desk"}
    del far.devices[zoe]["PHONE"]
    far.device(zoe, "DESK")
    await far.tell(far.update(zoe, "PHONE"), far.update(zoe, "DESK"))
    assert await watch.told()
    assert await watch.is_true()
    assert watch.asked() == 0


async def test_what_changes_nothing_is_told_to_nobody(watch: Watch) -> None:
    far, zoe = watch.far, watch.zoe
    update = far.update(zoe, "PHONE")
    await far.tell(update)
    await far.tell(update, update)
    await far.tell(far.signing_update(zoe))
    await far.tell(far.update(zoe, "WITHOUT_KEYS", deleted=False, prev_id=[far.stream_ids[zoe] - 1]))
    assert not await watch.told()
    assert await watch.is_true()
    assert watch.asked() == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"prev_id": [999]},
        {"prev_id": []},
        {"prev_id": None},
        {"prev_id": "text"},
        {"prev_id": [True]},
        {"prev_id": list(range(1, 100))},
        {"stream_id": 1},
        {"keys": {"algorithms": []}},
        {"keys": None},
        {"keys": "text"},
        {"device_id": 5},
        {"device_id": "x" * 500},
    ],
)
async def test_what_is_not_surely_the_next_update_is_a_doubt(watch: Watch, changed: dict[str, Any]) -> None:
    far, zoe = watch.far, watch.zoe
    far.device(zoe, "PHONE")
    await far.tell(far.update(zoe, "PHONE", **changed))
    assert await watch.told()
    assert await watch.is_true()
    assert watch.asked() == 1
    # Told already, answered already.
    assert not await watch.told()
    assert await watch.is_true()
    assert watch.asked() == 0


@pytest.mark.parametrize(
    "changed", [{"stream_id": None}, {"stream_id": 2**80}, {"user_id": "@alice:example.org"}]
)
async def test_what_is_no_update_of_a_user_of_the_server_is_passed_over(
    watch: Watch, changed: dict[str, Any]
) -> None:
    await watch.far.tell(watch.far.update(watch.zoe, "PHONE", **changed))
    assert not await watch.told()
    assert await watch.is_true()
    assert watch.asked() == 0


async def test_a_lost_update_is_missed_by_the_next_and_in_order_again_after_one_question(
    watch: Watch,
) -> None:
    far, zoe = watch.far, watch.zoe
    far.device(zoe, "LOST")
    far.update(zoe, "LOST")
    far.device(zoe, "DESK")
    await far.tell(far.update(zoe, "DESK"))
    assert await watch.told()
    # Nobody has been answered since: there is nothing new to tell.
    far.device(zoe, "DESK")
    await far.tell(far.update(zoe, "DESK"))
    assert not await watch.told()
    assert await watch.is_true()
    assert watch.asked() == 1
    far.device(zoe, "DESK")
    await far.tell(far.update(zoe, "DESK"))
    assert await watch.told()
    assert await watch.is_true()
    assert watch.asked() == 0


async def test_a_server_that_was_put_back_to_before_is_asked(watch: Watch) -> None:
    far, zoe = watch.far, watch.zoe
    before = dict(far.stream_ids), far.number, dict(far.devices[zoe])
    far.device(zoe, "DESK")
    await far.tell(far.update(zoe, "DESK"))
    assert await watch.is_true()
    far.stream_ids, far.number, far.devices[zoe] = before
    far.device(zoe, "PHONE")
    await far.tell(far.update(zoe, "PHONE"))
    assert await watch.told()
    assert await watch.is_true()


async def test_new_cross_signing_keys_are_asked_for(watch: Watch) -> None:
    far, zoe = watch.far, watch.zoe
    user = far.sign_across(zoe)
    await far.tell(far.signing_update(zoe))
    assert await watch.told()
    answer = await query(watch.alice, zoe)
    assert answer["master_keys"][zoe]["keys"] == user.keys()["master_key"]["keys"]
    assert watch.asked() == 1
    await far.tell(far.signing_update(zoe))
    assert not await watch.told()


async def test_while_their_server_is_away_what_is_known_is_given_beside_the_failure(
    watch: Watch, network: Network
) -> None:
    far, zoe = watch.far, watch.zoe
    before = dict(far.devices[zoe])
    far.device(zoe, "DESK")
    await far.tell(far.update(zoe, "DESK", prev_id=[999]))
    assert await watch.told()
    far.is_away = True
    for _ in range(2):
        answer = await query(watch.alice, zoe)
        assert answer["failures"].keys() == {"far.example"}
        assert answer["device_keys"][zoe].keys() == before.keys()
    assert watch.asked() == 1
    far.is_away = False
    network.server.application.heard_from(ServerName("far.example"))
    # Alice was answered otherwise, and is told.
    assert await watch.is_true()
    assert await watch.told()


async def test_who_was_answered_with_a_failure_is_told_when_there_is_an_answer(
    server: Server, alice: Client, bob: Client, network: Network, far: FarServer
) -> None:
    zoe = far.user("zoe")
    far.device(zoe, "PHONE")
    await bob.join(await shared_room(server, alice, zoe))
    await far.tell(far.update(zoe, "PHONE"))
    since = (await alice.sync())["next_batch"]
    far.is_away = True
    assert zoe not in (await query(alice, zoe))["device_keys"]
    far.is_away = False
    network.server.application.heard_from(ServerName("far.example"))
    assert (await query(bob, zoe))["device_keys"][zoe].keys() == {"PHONE"}
    assert (await alice.sync(since=since))["device_lists"]["changed"] == [zoe]


async def test_what_is_told_while_the_list_is_asked_for_is_not_lost(watch: Watch) -> None:
    far, zoe = watch.far, watch.zoe
    await far.tell(far.update(zoe, "PHONE", prev_id=[999]))
    await watch.told()
    old = far.query({zoe: []})
    old["device_keys"] = {zoe: dict(far.devices[zoe])}
    far.is_silent = True
    answer = far.query
    far.query = lambda _: old  # type: ignore[method-assign]
    waiting = asyncio.create_task(query(watch.alice, zoe))
    await far.is_waiting.wait()
    far.device(zoe, "DESK")
    await far.tell(far.update(zoe, "DESK"))
    far.is_silent = False
    far.may_answer.set()
    assert (await waiting)["device_keys"][zoe].keys() == {"PHONE"}
    far.query = answer  # type: ignore[method-assign]
    assert await watch.told()
    assert await watch.is_true()


@pytest.mark.parametrize("who", ["the other", "the last here"])
async def test_a_list_does_not_outlive_the_last_room_in_common(watch: Watch, who: str) -> None:
    far, zoe, alice = watch.far, watch.zoe, watch.alice
    other_room = await shared_room(watch.server, alice, zoe)

    async def leave(room_id: str) -> None:
        if who == "the other":
            await set_membership(watch.server, room_id, zoe, "leave")
        else:
            await alice.post(f"/rooms/{room_id}/leave")

    await leave(watch.room_id)
    assert await watch.is_true()
    await watch.server.application.upkeep.look_after()
    assert await watch.is_true()
    assert watch.asked() == 1
    await leave(other_room)
    far.device(zoe, "DESK")
    await far.tell(far.update(zoe, "DESK"))
    assert await watch.is_true()
    assert await watch.is_true()
    assert watch.asked() == 2
    far.is_away = True
    assert zoe not in (await query(alice, zoe))["device_keys"]
    await watch.server.application.upkeep.look_after()
    rows = await watch.server.application.database.fetch_all("SELECT user_id FROM remote_device_lists")
    assert (
        rows == await watch.server.application.database.fetch_all("SELECT user_id FROM remote_devices") == []
    )


async def test_who_went_and_came_back_is_asked_for_anew(watch: Watch) -> None:
    far, zoe = watch.far, watch.zoe
    await set_membership(watch.server, watch.room_id, zoe, "leave")
    far.device(zoe, "DESK")
    far.update(zoe, "DESK")
    await set_membership(watch.server, watch.room_id, zoe)
    await watch.server.application.upkeep.look_after()
    assert await watch.is_true()
    assert watch.asked() == 1


async def test_of_strangers_nothing_is_kept(watch: Watch, server: Server) -> None:
    far = watch.far
    stranger = far.user("stranger")
    far.device(stranger, "PHONE")
    await far.tell(far.update(stranger, "PHONE"), far.signing_update(stranger))
    await query(watch.alice, stranger)
    assert await server.application.database.fetch_all("SELECT user_id FROM remote_device_lists") == [
        (watch.zoe,)
    ]


async def test_a_copy_of_the_database_that_was_put_back_relies_on_nothing(watch: Watch) -> None:
    await watch.server.application.database.write(lambda t: t.execute("UPDATE server SET epoch = epoch + 1"))
    await watch.server.restart()
    watch.far.network.plug_in()
    watch.alice = watch.server.reconnect(watch.alice)
    watch.far.device(watch.zoe, "DESK")
    assert await watch.is_true()
    assert watch.asked() == 1
