"""Our keys and version as other servers are told them, and where they are sent to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from crypto.keys import key_from_seed
from crypto.signatures import verify_json
from federation.errors import Unreachable
from federation.keyring import WantedKey
from federation.server_keys import own_document, parse_document
from homeserver.storage import key_file
from tests.client import bodies, refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.client import Client
    from tests.server import Server

DAY = 86_400_000
KEY = key_from_seed("one", b"1" * 32)
OTHER = "other.example"


class Elsewhere:
    """Stands in for the network: what other servers answer."""

    def __init__(self, server: Server) -> None:
        self.asked: list[str] = []
        self.documents: dict[str, Any] = {}
        client = server.application.remote.servers.client
        client.server_keys = self.server_keys  # type: ignore[method-assign]

    async def server_keys(self, server_name: str) -> Any:
        self.asked.append(server_name)
        if server_name not in self.documents:
            raise Unreachable(server_name, "nobody is there")
        return self.documents[server_name]


@pytest.fixture
def elsewhere(server: Server) -> Elsewhere:
    return Elsewhere(server)


async def test_our_keys_are_believed(server: Server) -> None:
    document = await server.nobody().get("/_matrix/key/v2/server")
    believed = parse_document(document, "example.org", server.clock.now_ms(), direct=True)
    assert believed.valid_until_ts > server.clock.now_ms() + DAY
    assert not believed.keys[0].retired


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_a_key_that_was_replaced_is_told_as_an_old_one(server: Server, alice: Client) -> None:
    path, now = server.settings.signing_key_path, server.clock.now_ms()
    room_id = await alice.create_room()
    since = (await alice.sync())["next_batch"]
    (old,) = key_file.load_or_make(path)
    new = key_file.replace(path, now)
    await server.restart()
    alice = server.reconnect(alice)
    document = await server.nobody().get("/_matrix/key/v2/server")
    believed = {key.key_id: key for key in parse_document(document, "example.org", now, direct=True).keys}
    assert set(document["signatures"]["example.org"]) == {new.key_id}
    assert (believed[new.key_id].retired, believed[old.key_id].retired) == (False, True)
    assert believed[old.key_id].valid_until_ts == now
    # What it signed before holds, and nothing that came after.
    wanted = [WantedKey("example.org", old.key_id, signed_ts) for signed_ts in (None, now, now + 1)]
    assert list(await server.application.remote.servers.keyring.find(wanted)) == wanted[:2]
    # Clients go on as before.
    await alice.send(room_id, "hello")
    answer = await alice.sync(since)
    assert bodies(answer["rooms"]["join"][room_id]["timeline"]["events"]) == ["hello"]


async def test_a_notary_signs_what_it_was_told(server: Server, elsewhere: Elsewhere) -> None:
    now = server.clock.now_ms()
    elsewhere.documents[OTHER] = own_document(OTHER, [KEY], now)
    own = parse_document(await server.nobody().get("/_matrix/key/v2/server"), "example.org", now, direct=True)
    for answer in (
        await server.nobody().get(f"/_matrix/key/v2/query/{OTHER}"),
        await server.nobody().post(
            "/_matrix/key/v2/query", {"server_keys": {OTHER: {}, "absent.example": {}}}
        ),
        await server.nobody().post("/_matrix/key/v2/query", {"server_keys": {OTHER: {KEY.key_id: {}}}}),
    ):
        (document,) = answer["server_keys"]
        verify_json(document, "example.org", own.keys[0].key_id, own.keys[0].verify_key())
        assert parse_document(document, OTHER, now, direct=False).keys[0].public_base64 == KEY.public_base64
    assert elsewhere.asked.count(OTHER) == 1


async def test_a_notary_answers_with_the_last_document_where_the_server_is_gone(
    server: Server, elsewhere: Elsewhere
) -> None:
    elsewhere.documents[OTHER] = own_document(OTHER, [KEY], server.clock.now_ms())
    before = await server.nobody().get(f"/_matrix/key/v2/query/{OTHER}")
    del elsewhere.documents[OTHER]
    server.clock.offset_ms = 30 * DAY
    after = await server.nobody().get(f"/_matrix/key/v2/query/{OTHER}")
    assert before == after
    assert elsewhere.asked == [OTHER, OTHER]


async def test_a_notary_asks_again_for_what_is_half_over_or_too_short(
    server: Server, elsewhere: Elsewhere
) -> None:
    def answer() -> Awaitable[Any]:
        return server.nobody().get(f"/_matrix/key/v2/query/{OTHER}", minimum_valid_until_ts=least)

    least: int | None = None
    elsewhere.documents[OTHER] = own_document(OTHER, [KEY], server.clock.now_ms())
    await answer()
    server.clock.offset_ms = 11 * 3_600_000
    await answer()
    assert len(elsewhere.asked) == 1
    server.clock.offset_ms = 13 * 3_600_000
    await answer()
    assert len(elsewhere.asked) == 2
    server.clock.offset_ms += 120_000
    least = server.clock.now_ms() + 3 * DAY
    await answer()
    assert len(elsewhere.asked) == 3
    # But not again at once, whatever is wanted.
    await answer()
    assert len(elsewhere.asked) == 3


async def test_a_notary_answers_for_itself_and_for_nobody(server: Server) -> None:
    (document,) = (await server.nobody().get("/_matrix/key/v2/query/example.org"))["server_keys"]
    assert document["server_name"] == "example.org"
    assert (await server.nobody().post("/_matrix/key/v2/query", {"server_keys": {}})) == {"server_keys": []}
    answer = await server.nobody().post("/_matrix/key/v2/query", {"server_keys": {"not a name": {}}})
    assert answer == {"server_keys": []}


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"server_keys": []}, "M_BAD_JSON"),
        ({"server_keys": {OTHER: []}}, "M_BAD_JSON"),
        ({"server_keys": {OTHER: {"ed25519:a": {"minimum_valid_until_ts": "soon"}}}}, "M_BAD_JSON"),
        ({"server_keys": {f"{number}.example": {} for number in range(101)}}, "M_BAD_JSON"),
    ],
)
async def test_questions_that_nobody_can_answer_are_refused(server: Server, body: Any, errcode: str) -> None:
    with refused(400, errcode):
        await server.nobody().post("/_matrix/key/v2/query", body)
    with refused(400, "M_INVALID_PARAM"):
        await server.nobody().get("/_matrix/key/v2/query/not%20a%20name")


async def test_the_version_is_told(server: Server) -> None:
    answer = await server.nobody().get("/_matrix/federation/v1/version")
    assert answer["server"]["name"] == "Restante"


@pytest.mark.parametrize(
    ("settings", "delegated"),
    [
        ({"public_base_url": "https://matrix.example.org"}, "matrix.example.org:443"),
        ({"public_base_url": "https://matrix.example.org:8443/"}, "matrix.example.org:8443"),
        ({"public_base_url": "https://[2a01::1]"}, "[2a01::1]:443"),
        ({"public_base_url": "https://example.org/matrix"}, None),
        ({"public_base_url": "http://matrix.example.org"}, None),
        ({}, None),
        (
            {
                "public_base_url": "https://matrix.example.org",
                "listeners": [{"resources": ["client"]}, {"port": 8448, "resources": ["federation"]}],
            },
            None,
        ),
    ],
)
async def test_other_servers_are_sent_to_the_public_address_where_they_are_answered_there(
    start_server: Callable[..., Awaitable[Server]], settings: dict[str, Any], delegated: str | None
) -> None:
    server = await start_server(**settings)
    if delegated is None:
        with refused(404, "M_NOT_FOUND"):
            await server.nobody().get("/.well-known/matrix/server")
    else:
        assert await server.nobody().get("/.well-known/matrix/server") == {"m.server": delegated}


async def test_keys_that_nobody_fetched_for_a_year_are_dropped(server: Server, elsewhere: Elsewhere) -> None:
    elsewhere.documents[OTHER] = own_document(OTHER, [KEY], server.clock.now_ms())
    await server.nobody().get(f"/_matrix/key/v2/query/{OTHER}")
    database = server.application.database
    for days, rows in ((364, 1), (366, 0)):
        server.clock.offset_ms = days * DAY
        await server.application.upkeep.look_after()
        for table in ("server_keys", "server_key_documents"):
            assert await database.fetch_value(f"SELECT count(*) FROM {table}") == rows
