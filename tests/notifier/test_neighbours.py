"""Who is woken by what concerns all those who share a room with a user."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from homeserver.ids import RoomId, UserId
from homeserver.notifier.notifier import Notifier
from homeserver.storage.announcements import Announcement, Topic

if TYPE_CHECKING:
    from collections.abc import Mapping

ALICE, BOB, CAROL = UserId("@alice:a"), UserId("@bob:a"), UserId("@carol:a")
TEA, COFFEE = RoomId("!tea:a"), RoomId("!coffee:a")


class Waiting:
    """Long polls that nothing wakes but the notifier itself."""

    def __init__(self, notifier: Notifier) -> None:
        self.notifier = notifier
        self.tasks: dict[UserId, asyncio.Task[bool]] = {}

    async def begin(self, user_id: UserId, *rooms: RoomId) -> None:
        waiting = self.notifier.wait(
            user_id,
            None,
            dict.fromkeys(rooms),
            after=self.notifier.position,
            seconds=60,
            concerns=lambda _: False,
        )
        self.tasks[user_id] = asyncio.create_task(waiting)
        await asyncio.sleep(0)

    async def woken_by_presence_of(self, user_id: UserId) -> set[UserId]:
        position = self.notifier.position + 1
        self.notifier.on_commit(position, [Announcement(position, Topic.PRESENCE, user_id, local=True)])
        await asyncio.sleep(0)
        woken = {user_id for user_id, task in self.tasks.items() if task.done()}
        self.notifier.stop()
        await asyncio.gather(*self.tasks.values())
        return woken


async def test_a_user_who_syncs_wakes_those_who_share_a_room() -> None:
    waiting = Waiting(Notifier(0))
    await waiting.begin(ALICE, TEA)
    await waiting.begin(BOB, TEA, COFFEE)
    await waiting.begin(CAROL, COFFEE)
    assert await waiting.woken_by_presence_of(ALICE) == {ALICE, BOB}


@pytest.mark.parametrize(
    ("known", "woken"),
    [({ALICE: [COFFEE]}, {CAROL}), ({ALICE: []}, set()), ({}, {BOB, CAROL})],
    ids=["in a room", "in no room", "not in memory"],
)
async def test_a_user_who_does_not_sync_wakes_those_in_their_rooms_or_where_these_are_not_known_all(
    known: Mapping[UserId, list[RoomId]], woken: set[UserId]
) -> None:
    waiting = Waiting(Notifier(0, known.get))
    await waiting.begin(BOB, TEA)
    await waiting.begin(CAROL, TEA, COFFEE)
    assert await waiting.woken_by_presence_of(ALICE) == woken
