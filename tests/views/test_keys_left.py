"""What a device has left, from memory: never older than what was announced."""

from __future__ import annotations

import asyncio

from homeserver.ids import DeviceId, UserId
from homeserver.storage.one_time_keys import KeysLeft
from homeserver.views.keys_left import KeysLeftNow

ALICE, PHONE = UserId("@alice:example.org"), DeviceId("PHONE")
KEY = f"{ALICE}|{PHONE}"


class SlowStore:
    """Answers when it is told to, with what was so when it was asked."""

    def __init__(self) -> None:
        self.number = 5
        self.asked = 0
        self._go_on: list[asyncio.Event] = []

    async def load_left(self, user_id: UserId, device_id: DeviceId) -> KeysLeft:
        assert (user_id, device_id) == (ALICE, PHONE)
        self.asked += 1
        left = KeysLeft({"signed_curve25519": self.number}, (), 1)
        self._go_on.append(asyncio.Event())
        await self._go_on[-1].wait()
        return left

    async def answer(self, question: int) -> None:
        while len(self._go_on) <= question:  # noqa: ASYNC110 - the question tells nobody
            await asyncio.sleep(0)
        self._go_on[question].set()
        await asyncio.sleep(0)


def count(left: KeysLeft) -> int:
    return left.counts["signed_curve25519"]


async def test_the_database_is_asked_once_until_something_is_announced() -> None:
    store = SlowStore()
    now = KeysLeftNow(store)  # type: ignore[arg-type]
    asking = asyncio.create_task(now.of(ALICE, PHONE))
    await store.answer(0)
    assert count(await asking) == 5
    store.number = 4
    assert count(await now.of(ALICE, PHONE)) == 5
    now.invalidate(KEY)
    asking = asyncio.create_task(now.of(ALICE, PHONE))
    await store.answer(1)
    assert count(await asking) == 4
    assert store.asked == 2
    assert (await now.of(ALICE, None)).counts == {}


async def test_an_answer_from_before_an_announcement_is_not_remembered() -> None:
    store = SlowStore()
    now = KeysLeftNow(store)  # type: ignore[arg-type]
    old = asyncio.create_task(now.of(ALICE, PHONE))
    await asyncio.sleep(0)
    store.number = 4
    now.invalidate(KEY)
    new = asyncio.create_task(now.of(ALICE, PHONE))
    await store.answer(1)
    assert count(await new) == 4
    # The older question is answered last.
    await store.answer(0)
    assert count(await old) == 5
    assert count(await now.of(ALICE, PHONE)) == 4
    assert store.asked == 2
