"""Which keys were given out is remembered, for so many of a device and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import DeviceId, UserId
from homeserver.storage.one_time_keys import NewKey, OneTimeKeyStore, TakenKey

if TYPE_CHECKING:
    from homeserver.storage.database import Database, Transaction

ALICE, PHONE, TABLET = UserId("@alice:example.org"), DeviceId("PHONE"), DeviceId("TABLET")
KEY_IDS = [str(number) for number in range(12)]


async def test_the_last_claims_of_a_device_are_remembered(database: Database) -> None:
    store = OneTimeKeyStore(database)

    async def work(transaction: Transaction) -> None:
        for device_id in (PHONE, TABLET):
            keys = [NewKey("a", key_id, b'"x"') for key_id in KEY_IDS]
            await store.insert(transaction, ALICE, device_id, keys)
            for key_id in KEY_IDS:
                taken = TakenKey(ALICE, device_id, "a", key_id, b'"x"')
                await store.take(transaction, [(taken, b"hash")])
        await store.prune_claimed(transaction, ALICE, PHONE, 5)

    async def remembered(transaction: Transaction) -> list[set[tuple[str, str]]]:
        return [
            set(await store.load_claimed(transaction, ALICE, device_id, KEY_IDS))
            for device_id in (PHONE, TABLET)
        ]

    await database.write(work)
    phone, tablet = await database.write(remembered)
    assert phone == {("a", key_id) for key_id in KEY_IDS[-5:]}
    assert tablet == {("a", key_id) for key_id in KEY_IDS}
    assert (await store.load_left(ALICE, PHONE)).counts == {}
