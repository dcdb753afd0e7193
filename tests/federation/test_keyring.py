"""How keys are got: from memory, the store, the server itself, notaries; and not more often than need be."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from crypto.keys import SigningKey, key_from_seed
from crypto.signatures import sign_json
from federation.errors import Unreachable
from federation.keyring import Keyring, WantedKey
from federation.server_keys import KeyDocument, ServerKey, countersign
from homeserver.storage.server_keys import ServerKeyStore
from tests.federation.internet import SettableClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from homeserver.storage.database import Database

HOUR = 3600
DAY_MS = 24 * HOUR * 1000
HERE, THERE, NOTARY, SECOND_NOTARY = "here.example", "there.example", "notary.example", "notary2.example"
OWN, KEY, NEW, STOLEN = (key_from_seed(name, name.encode() * 8) for name in ("own_", "key_", "new_", "evil"))
NOTARY_KEY, LIAR_KEY = key_from_seed("n", b"n" * 32), key_from_seed("n", b"l" * 32)


class World:
    """What others answer, and how often they were asked."""

    def __init__(self, clock: SettableClock) -> None:
        self.clock = clock
        self.documents: dict[str, Any] = {}
        self.notaries: dict[str, list[Any]] = {}
        self.asked: defaultdict[str, int] = defaultdict(int)
        self.criteria: list[Mapping[str, Any]] = []
        self.hold: asyncio.Event | None = None

    def document(
        self, name: str, *keys: SigningKey, days: int = 1, old: dict[SigningKey, int] | None = None
    ) -> Any:
        made: dict[str, Any] = {
            "server_name": name,
            "valid_until_ts": self.clock.now_ms() + days * DAY_MS,
            "verify_keys": {key.key_id: {"key": key.public_base64} for key in keys},
            "old_verify_keys": {
                key.key_id: {"key": key.public_base64, "expired_ts": ts} for key, ts in (old or {}).items()
            },
        }
        return countersign(made, name, keys)

    async def server_keys(self, server_name: str) -> Any:
        self.asked[server_name] += 1
        if self.hold is not None:
            await self.hold.wait()
        if server_name not in self.documents:
            raise Unreachable(server_name, "nobody is there")
        return self.documents[server_name]

    async def query_server_keys(self, notary: str, criteria: Mapping[str, Any]) -> Any:
        self.asked[f"notary {notary}"] += 1
        self.criteria.append(criteria)
        if notary not in self.notaries:
            raise Unreachable(notary, "nobody is there")
        return [document for document in self.notaries[notary] if document["server_name"] in criteria]


@pytest.fixture
def world() -> World:
    return World(SettableClock())


@pytest.fixture
async def keyring(world: World, database: Database) -> AsyncIterator[Keyring]:
    """Without notaries."""
    made = make(world, database)
    yield made
    await made.close()


def make(world: World, database: Database, *notaries: str) -> Keyring:
    return Keyring(HERE, [OWN], world, ServerKeyStore(database), world.clock, notaries)


def request(key: SigningKey = KEY, name: str = THERE) -> WantedKey:
    return WantedKey(name, key.key_id, for_request=True)


def event(ts: int | None, key: SigningKey = KEY, name: str = THERE) -> WantedKey:
    return WantedKey(name, key.key_id, ts)


async def has(keyring: Keyring, wanted: WantedKey, key: SigningKey = KEY) -> bool:
    found = await keyring.find([wanted])
    assert found in ({}, {wanted: key.private.verify_key})
    return bool(found)


async def test_a_key_is_fetched_once_and_outlives_a_restart(
    world: World, keyring: Keyring, database: Database
) -> None:
    world.documents[THERE] = world.document(THERE, KEY)
    for _ in range(3):
        assert await has(keyring, request())
    again = make(world, database)
    assert not again.has(request())
    assert await has(again, request())
    assert world.asked[THERE] == 1


async def test_our_own_key_needs_nobody(world: World, keyring: Keyring) -> None:
    assert await has(keyring, event(5, OWN, HERE), OWN)
    assert not await has(keyring, event(5, KEY, HERE))
    assert not world.asked


async def test_requests_need_a_key_that_holds_now(world: World, keyring: Keyring) -> None:
    world.documents[THERE] = world.document(THERE, KEY, old={NEW: world.clock.now_ms() + DAY_MS})
    assert await has(keyring, request())
    assert not await has(keyring, request(NEW))
    del world.documents[THERE]
    world.clock.offset = 25 * HOUR
    assert not await has(keyring, request())


async def test_events_need_a_key_that_held_when_they_were_made(world: World, keyring: Keyring) -> None:
    now = world.clock.now_ms()
    world.documents[THERE] = world.document(THERE, KEY, old={NEW: now - DAY_MS})
    assert await has(keyring, event(now))
    assert await has(keyring, event(now - 2 * DAY_MS, NEW), NEW)
    assert not await has(keyring, event(now, NEW))
    # Room versions 1 to 4 enforce nothing.
    assert await has(keyring, event(None, NEW), NEW)


async def test_an_event_from_after_the_document_has_it_fetched_again(world: World, keyring: Keyring) -> None:
    world.documents[THERE] = world.document(THERE, KEY)
    assert await has(keyring, event(world.clock.now_ms()))
    world.clock.offset = 25 * HOUR
    world.documents[THERE] = world.document(THERE, KEY)
    assert await has(keyring, event(world.clock.now_ms()))
    assert world.asked[THERE] == 2


@pytest.mark.parametrize(
    "wanted",
    [
        WantedKey(THERE, "ed25519:a b"),
        WantedKey(THERE, "rsa:a"),
        WantedKey("not a name", "ed25519:key_"),
        WantedKey(THERE, "ed25519:key_", 2**52),
    ],
)
async def test_what_nobody_can_have_is_not_asked_for(
    world: World, keyring: Keyring, wanted: WantedKey
) -> None:
    assert await keyring.find([wanted]) == {}
    assert not world.asked


async def test_a_new_key_is_found_but_made_up_ones_cost_a_question_a_minute(
    world: World, keyring: Keyring
) -> None:
    world.documents[THERE] = world.document(THERE, KEY)
    for number in range(20):
        assert await keyring.find([WantedKey(THERE, f"ed25519:made_up{number}", for_request=True)]) == {}
    assert world.asked[THERE] == 1
    world.documents[THERE] = world.document(THERE, NEW, old={KEY: world.clock.now_ms()})
    assert not await has(keyring, request(NEW), NEW)
    world.clock.offset = 61
    assert await has(keyring, request(NEW), NEW)
    assert not await has(keyring, request(KEY))


async def test_a_server_that_does_not_answer_is_asked_more_and_more_seldom(
    world: World, keyring: Keyring
) -> None:
    for hours in range(8):
        world.clock.offset = hours * 2 * HOUR
        assert not await has(keyring, event(None))
    asked = world.asked[THERE]
    world.clock.offset += 30 * 60
    assert not await has(keyring, event(None))
    assert world.asked[THERE] == asked
    # But if it calls us itself it is there.
    world.documents[THERE] = world.document(THERE, KEY)
    assert await has(keyring, request())


async def test_many_who_want_a_key_ask_once_and_one_who_gives_up_stops_nobody(
    world: World, keyring: Keyring
) -> None:
    world.documents[THERE] = world.document(THERE, KEY)
    world.hold = asyncio.Event()
    waiting = [asyncio.create_task(has(keyring, request())) for _ in range(5)]
    while not world.asked[THERE]:  # noqa: ASYNC110 - the world tells nobody
        await asyncio.sleep(0.001)
    waiting[0].cancel()
    world.hold.set()
    assert all(await asyncio.gather(*waiting[1:]))
    assert world.asked[THERE] == 1


async def test_who_has_no_time_gets_what_is_there_and_the_rest_the_next_time(
    world: World, keyring: Keyring
) -> None:
    world.documents[THERE] = world.document(THERE, KEY)
    world.hold = asyncio.Event()
    wanted = [event(5, OWN, HERE), request()]
    assert (await keyring.find(wanted, seconds=0.01)).keys() == {wanted[0]}
    world.hold.set()
    assert (await keyring.find(wanted)).keys() == set(wanted)
    assert world.asked[THERE] == 1


async def test_a_document_of_another_server_or_a_forged_one_gives_nothing(
    world: World, keyring: Keyring
) -> None:
    for made in (
        world.document("else.example", KEY),
        {**world.document(THERE, KEY), "valid_until_ts": 5},
        [],
        None,
    ):
        world.documents[THERE] = made
        assert not await has(keyring, request())
        world.clock.offset += 2 * HOUR


# -- notaries --------------------------------------------------------------------------------------------


def notarise(document: Any, key: SigningKey = NOTARY_KEY, notary: str = NOTARY) -> Any:
    return sign_json(document, notary, key)


async def test_a_notary_is_asked_where_the_server_is_away(world: World, database: Database) -> None:
    keyring = make(world, database, NOTARY)
    now = world.clock.now_ms()
    world.documents[NOTARY] = world.document(NOTARY, NOTARY_KEY)
    world.notaries[NOTARY] = [notarise(world.document(THERE, KEY))]
    assert await has(keyring, event(now))
    assert world.asked == {THERE: 1, NOTARY: 1, f"notary {NOTARY}": 1}
    assert world.criteria == [{THERE: {KEY.key_id: {"minimum_valid_until_ts": now}}}]
    assert await has(make(world, database), event(now)), "what a notary said is kept"


async def test_a_notary_is_not_asked_where_the_server_answers(world: World, database: Database) -> None:
    world.documents |= {THERE: world.document(THERE, KEY), NOTARY: world.document(NOTARY, NOTARY_KEY)}
    assert await has(make(world, database, NOTARY), request())
    assert not world.criteria


@pytest.mark.parametrize(
    "lie", ["unsigned", "other key", "old key", "own key from another notary", "no keys"]
)
async def test_who_is_not_the_notary_is_not_believed(world: World, database: Database, lie: str) -> None:
    keyring = make(world, database, NOTARY, SECOND_NOTARY)
    signer = LIAR_KEY
    world.documents[NOTARY] = world.document(NOTARY, NOTARY_KEY)
    if lie == "old key":
        world.documents[NOTARY] = world.document(NOTARY, NEW, old={LIAR_KEY: world.clock.now_ms() + DAY_MS})
    elif lie == "own key from another notary":
        # The second vouches for a key of the first, which cannot be reached itself.
        del world.documents[NOTARY]
        world.documents[SECOND_NOTARY] = world.document(SECOND_NOTARY, KEY)
        vouched = world.document(NOTARY, LIAR_KEY)
        world.notaries[SECOND_NOTARY] = [sign_json(vouched, SECOND_NOTARY, KEY)]
        assert await has(keyring, event(None, LIAR_KEY, NOTARY), LIAR_KEY)
        world.clock.offset = HOUR
    elif lie == "no keys":
        del world.documents[NOTARY]
        signer = NOTARY_KEY
    forged = world.document(THERE, STOLEN)
    world.notaries[NOTARY] = [forged if lie == "unsigned" else notarise(forged, signer)]
    assert not await has(keyring, request(STOLEN), STOLEN)


async def test_a_notary_cannot_exchange_or_revive_the_keys_that_a_server_gave(
    world: World, database: Database
) -> None:
    keyring = make(world, database, NOTARY)
    world.documents[THERE] = world.document(THERE, NEW, old={KEY: world.clock.now_ms() - DAY_MS})
    assert await has(keyring, request(NEW), NEW)
    del world.documents[THERE]
    forged = key_from_seed(NEW.version, b"f" * 32)
    world.notaries[NOTARY] = [notarise(world.document(THERE, KEY, forged, days=6))]
    world.clock.offset = 25 * HOUR
    world.documents[NOTARY] = world.document(NOTARY, NOTARY_KEY)
    for keyring_now in (keyring, make(world, database, NOTARY)):
        assert not await has(keyring_now, request(KEY))
        assert not await has(keyring_now, event(world.clock.now_ms(), KEY))
        assert not await has(keyring_now, request(NEW), NEW)
    assert world.asked[f"notary {NOTARY}"] >= 1


async def test_many_keys_come_from_the_notary_in_one_question_and_the_rest_from_their_servers(
    world: World, database: Database
) -> None:
    keyring = make(world, database, NOTARY)
    world.documents[NOTARY] = world.document(NOTARY, NOTARY_KEY)
    names = [f"s{number}.example" for number in range(60)]
    world.notaries[NOTARY] = [notarise(world.document(name, KEY)) for name in names[:50]]
    world.documents |= {name: world.document(name, KEY) for name in names[:55]}
    found = await keyring.find([event(None, KEY, name) for name in names])
    assert {one.server_name for one in found} == set(names[:55])
    assert world.asked[f"notary {NOTARY}"] == 1
    assert all(world.asked[name] == (name not in names[:50]) for name in names)


async def test_a_notary_that_fails_is_left_alone_and_the_next_is_asked(
    world: World, database: Database
) -> None:
    keyring = make(world, database, NOTARY, SECOND_NOTARY)
    world.documents |= {
        NOTARY: world.document(NOTARY, NOTARY_KEY),
        SECOND_NOTARY: world.document(SECOND_NOTARY, KEY),
    }
    world.notaries[SECOND_NOTARY] = [sign_json(world.document(THERE, NEW), SECOND_NOTARY, KEY)]
    assert await has(keyring, event(None, NEW), NEW)
    assert not await has(keyring, event(None, NEW, "other.example"), NEW)
    assert world.asked[f"notary {NOTARY}"] == 1
    assert world.asked[f"notary {SECOND_NOTARY}"] == 2


async def test_what_cannot_be_kept_holds_all_the_same(world: World, database: Database) -> None:
    keyring = make(world, database)

    async def fail(keys: list[ServerKey], document: KeyDocument | None, fetched_ts: int) -> None:
        raise RuntimeError

    keyring._store.save = fail  # type: ignore[method-assign]
    world.documents[THERE] = world.document(THERE, KEY)
    assert await has(keyring, request())


async def test_a_store_that_fails_for_a_moment_keeps_nobody_out_for_longer(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = make(world, database)
    store = keyring._store
    load = store.load_keys
    asked = 0

    async def fail_once(names: Any) -> list[ServerKey]:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise RuntimeError
        return await load(names)

    monkeypatch.setattr(store, "load_keys", fail_once)
    world.documents[THERE] = world.document(THERE, KEY)
    assert not await has(keyring, request())
    assert await has(keyring, request())


async def test_so_many_keys_at_most_are_in_memory(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("federation.keyring._MAX_KEYS", 5)
    keyring = make(world, database)
    names = [f"s{number}.example" for number in range(6)]
    for name in names:
        world.documents[name] = world.document(name, KEY, NEW)
        assert await has(keyring, request(KEY, name))
    assert [keyring.has(request(KEY, name)) for name in names] == [False] * 4 + [True] * 2
    assert await has(keyring, request(KEY, names[0])), "the rest is in the store"
    assert set(world.asked.values()) == {1}


async def test_so_many_keys_at_most_are_kept_those_fetched_last(world: World, database: Database) -> None:
    keyring, store = make(world, database), ServerKeyStore(database)
    names = [f"s{number}.example" for number in range(6)]
    for name in names:
        world.clock.offset += 10
        world.documents[name] = world.document(name, KEY, NEW)
        assert await has(keyring, request(KEY, name))
    await database.write(lambda transaction: store.prune_beyond(transaction, 12, 6))
    assert len(await store.load_documents(names)) == 6
    await database.write(lambda transaction: store.prune_beyond(transaction, 6, 2))
    assert {key.server_name for key in await store.load_keys(names)} == set(names[3:])
    assert {document.server_name for document in await store.load_documents(names)} == set(names[4:])


async def test_who_calls_does_not_wait_behind_the_servers_that_events_name(
    world: World, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where an event has named the caller as well."""
    for slots in keyring._slots.values():
        slots._value = 2
    world.hold = asyncio.Event()
    named = [event(None, name=f"slow{number}.example") for number in range(5)]
    waiting = asyncio.create_task(keyring.find([*named, event(None)], seconds=3600))
    while sum(world.asked.values()) < 2:  # noqa: ASYNC110 - the keyring tells nobody
        await asyncio.sleep(0)
    world.documents[THERE] = world.document(THERE, KEY)
    calling = asyncio.create_task(keyring.find([request()], seconds=3600))
    while not world.asked[THERE]:  # noqa: ASYNC110 - the keyring tells nobody
        await asyncio.sleep(0)
    world.hold.set()
    assert await calling == {request(): KEY.private.verify_key}
    assert await waiting == {event(None): KEY.private.verify_key}
    assert world.asked[THERE] == 1
