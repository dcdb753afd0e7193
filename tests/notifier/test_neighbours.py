"""Who is woken by what concerns all those who share a room with a user."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from homeserver.ids import RoomId, UserId
from homeserver.notifier.notifier import Notifier
from homeserver.storage.announcements import Announcement, Topic
from homeserver.storage.errors import DatabaseUnavailable
from homeserver.storage.memberships import MembershipRow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ALICE, BOB, CAROL = UserId("@alice:a"), UserId("@bob:a"), UserId("@carol:a")
TEA, COFFEE = RoomId("!tea:a"), RoomId("!coffee:a")


def memberships(user_id: UserId, *joined: RoomId, left: RoomId | None = None) -> dict[RoomId, MembershipRow]:
    rooms = dict.fromkeys(joined, "join") | ({left: "leave"} if left is not None else {})
    return {
        room_id: MembershipRow(user_id, 1, room_id, membership, 1, 1, user_id, forgotten=False)
        for room_id, membership in rooms.items()
    }


class People:
    """A notifier, what is known of who is where, and long polls that nothing wakes but the notifier itself."""

    def __init__(self) -> None:
        self.in_memory: dict[UserId, dict[RoomId, MembershipRow]] = {}
        self.in_database: dict[UserId, dict[RoomId, MembershipRow]] = {}
        self.notifier = Notifier(0, self.in_memory.get, self._load)
        self.tasks: dict[UserId, asyncio.Task[bool]] = {}

    async def _load(self, user_id: UserId) -> dict[RoomId, MembershipRow]:
        await asyncio.sleep(0)
        if user_id not in self.in_database:
            raise DatabaseUnavailable
        return self.in_database[user_id]

    async def begin(self, user_id: UserId, *rooms: RoomId, left: RoomId | None = None) -> None:
        self.in_memory[user_id] = memberships(user_id, *rooms, left=left)
        waiting = self.notifier.wait(
            user_id,
            None,
            self.in_memory[user_id],
            after=self.notifier.position,
            seconds=60,
            concerns=lambda _: False,
        )
        self.tasks[user_id] = asyncio.create_task(waiting)
        await asyncio.sleep(0)

    async def woken_by(self, topic: Topic, key: str) -> set[UserId]:
        position = self.notifier.position + 1
        self.notifier.on_commit(position, [Announcement(position, topic, key, local=True)])
        for _ in range(5):
            await asyncio.sleep(0)
        return {user_id for user_id, task in self.tasks.items() if task.done()}

    async def woken_by_presence_of(self, user_id: UserId) -> set[UserId]:
        return await self.woken_by(Topic.PRESENCE, user_id)


@pytest.fixture
async def people() -> AsyncIterator[People]:
    made = People()
    yield made
    made.notifier.stop()
    await asyncio.gather(*made.tasks.values())


async def test_a_user_who_syncs_wakes_those_who_share_a_room(people: People) -> None:
    await people.begin(ALICE, TEA)
    await people.begin(BOB, TEA, COFFEE)
    await people.begin(CAROL, COFFEE)
    assert await people.woken_by_presence_of(ALICE) == {ALICE, BOB}


async def test_it_counts_where_a_user_is_now_and_not_where_they_were_when_they_waited(people: People) -> None:
    await people.begin(ALICE, TEA)
    await people.woken_by(Topic.MEMBERSHIP, ALICE)
    people.in_memory[ALICE] = memberships(ALICE, COFFEE, left=TEA)
    await people.begin(BOB, TEA)
    await people.begin(CAROL, COFFEE)
    assert await people.woken_by_presence_of(ALICE) - {ALICE} == {CAROL}


async def test_a_room_that_was_left_wakes_nobody(people: People) -> None:
    await people.begin(ALICE, COFFEE, left=TEA)
    await people.begin(BOB, TEA)
    await people.begin(CAROL, COFFEE, left=TEA)
    assert await people.woken_by(Topic.ROOM_EVENTS, TEA) == {BOB}
    await people.begin(BOB, TEA)
    assert await people.woken_by_presence_of(BOB) == {BOB}


@pytest.mark.parametrize(
    ("rooms", "woken"),
    [([COFFEE], {CAROL}), ([], set()), (None, {BOB, CAROL})],
    ids=["in a room", "in no room", "where the database does not answer"],
)
@pytest.mark.parametrize("known", [True, False], ids=["in memory", "in the database"])
async def test_a_user_who_does_not_sync_wakes_those_in_their_rooms(
    people: People, rooms: list[RoomId] | None, woken: set[UserId], known: bool
) -> None:
    await people.begin(BOB, TEA)
    await people.begin(CAROL, TEA, COFFEE)
    if rooms is not None:
        where = people.in_memory if known else people.in_database
        where[ALICE] = memberships(ALICE, *rooms)
    assert await people.woken_by_presence_of(ALICE) == woken
