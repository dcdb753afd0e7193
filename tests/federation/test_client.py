"""A call for every endpoint of the server-server API, as the specification describes it; garbage is an error of ours."""

from __future__ import annotations

import csv
import inspect
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from crypto.keys import key_from_seed
from federation.client import FederationClient
from federation.errors import BadAnswer
from tests import openapi
from tests.federation.internet import FEDERATION, Internet

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = key_from_seed("one", b"1" * 32)
HERE, THERE = "here.example", "there.example"
ROOM, EVENT, USER = "!room:there.example", "$event/+:there.example", "@user:there.example"
PDU = {
    "type": "m.room.member",
    "sender": USER,
    "state_key": USER,
    "origin": HERE,
    "origin_server_ts": 1,
    "depth": 1,
    "content": {"membership": "join"},
}
SIGNED = {"mxid": USER, "token": "t", "signatures": {"magic.forest": {"ed25519:3": "x"}}}
THIRD_PARTY_INVITE = {
    "type": "m.room.member",
    "room_id": ROOM,
    "sender": USER,
    "state_key": USER,
    "content": {"membership": "invite", "third_party_invite": {"display_name": "x", "signed": SIGNED}},
}
DEVICE_KEYS = {"user_id": USER, "device_id": "D", "algorithms": [], "keys": {}, "signatures": {}}
MEDIA = (
    b"--b\r\nContent-Type: application/json\r\n\r\n{}\r\n"
    b"--b\r\nContent-Type: text/plain\r\nContent-Disposition: inline; filename=a\r\n\r\nthe file\r\n--b--\r\n"
)


async def read(members: Any) -> list[Any]:
    async with members as found:
        return [member async for member in found]


async def read_media(media: Any) -> tuple[Any, ...]:
    async with media as found:
        content = b"".join([chunk async for chunk in found.chunks])
        return found.content_type, found.content_disposition, found.location, content


ROOMS = {"chunk": [], "next_batch": "n"}
TEMPLATE = {"room_version": "11", "event": PDU}
CALLS: dict[str, tuple[Callable[[FederationClient], Any], Any, Callable[[Any], bool]]] = {
    "getVersion": (
        lambda client: client.version(THERE),
        {"server": {"name": "X", "version": "1"}},
        lambda answer: answer.server.name == "X",
    ),
    "getServerKey": (
        lambda client: client.server_keys(THERE),
        {"server_name": THERE},
        lambda answer: answer == {"server_name": THERE},
    ),
    "perspectivesKeyQuery": (
        lambda client: client.query_server_keys_of(THERE, "x.example", 5),
        {"server_keys": [1]},
        lambda answer: answer == [1],
    ),
    "bulkPerspectivesKeyQuery": (
        lambda client: client.query_server_keys(
            THERE, {"x.example": {"ed25519:a": {"minimum_valid_until_ts": 5}}}
        ),
        {"server_keys": [{}]},
        lambda answer: answer == [{}],
    ),
    "sendTransaction": (
        lambda client: client.send_transaction(
            THERE, "t/1", origin=HERE, origin_server_ts=1, pdus=[PDU], edus=[{"edu_type": "x", "content": {}}]
        ),
        {"pdus": {EVENT: {"error": "no"}, "$other": {}}},
        lambda answer: answer.pdus[EVENT].error == "no",
    ),
    "getEvent": (
        lambda client: client.event(THERE, EVENT),
        {"origin": THERE, "origin_server_ts": 1, "pdus": [PDU]},
        lambda answer: answer.pdus == [PDU],
    ),
    "getRoomState": (
        lambda client: read(client.state(THERE, ROOM, EVENT)),
        {"pdus": [PDU, PDU], "auth_chain": [PDU]},
        lambda answer: answer == [("pdus", PDU), ("pdus", PDU), ("auth_chain", PDU)],
    ),
    "getRoomStateIds": (
        lambda client: client.state_ids(THERE, ROOM, EVENT),
        {"pdu_ids": ["$a"], "auth_chain_ids": ["$b"]},
        lambda answer: (answer.pdu_ids, answer.auth_chain_ids) == (["$a"], ["$b"]),
    ),
    "getEventAuth": (
        lambda client: read(client.event_auth(THERE, ROOM, EVENT)),
        {"auth_chain": [PDU]},
        lambda answer: answer == [("auth_chain", PDU)],
    ),
    "backfillRoom": (
        lambda client: client.backfill(THERE, ROOM, [EVENT, "$b"], 10),
        {"origin": THERE, "origin_server_ts": 1, "pdus": [PDU]},
        lambda answer: answer.pdus == [PDU],
    ),
    "getMissingPreviousEvents": (
        lambda client: client.get_missing_events(THERE, ROOM, earliest_events=["$a"], latest_events=["$b"]),
        {"events": [PDU]},
        lambda answer: answer.events == [PDU],
    ),
    "getEventByTimestamp": (
        lambda client: client.timestamp_to_event(THERE, ROOM, 5, "f"),
        {"event_id": EVENT, "origin_server_ts": 6},
        lambda answer: (answer.event_id, answer.origin_server_ts) == (EVENT, 6),
    ),
    "makeJoin": (
        lambda client: client.make_join(THERE, ROOM, USER, ["10", "11"]),
        TEMPLATE,
        lambda answer: (answer.room_version, answer.event) == ("11", PDU),
    ),
    "sendJoinV2": (
        lambda client: read(client.send_join(THERE, ROOM, EVENT, PDU, omit_members=True)),
        {"state": [PDU], "auth_chain": [], "event": PDU, "members_omitted": True, "servers_in_room": [THERE]},
        lambda answer: (
            answer
            == [("state", PDU), ("event", PDU), ("members_omitted", True), ("servers_in_room", [THERE])]
        ),
    ),
    "makeKnock": (
        lambda client: client.make_knock(THERE, ROOM, USER, ["10"]),
        TEMPLATE,
        lambda answer: answer.event == PDU,
    ),
    "sendKnock": (
        lambda client: client.send_knock(THERE, ROOM, EVENT, PDU),
        {"knock_room_state": [{"type": "x"}]},
        lambda answer: answer.knock_room_state == [{"type": "x"}],
    ),
    "makeLeave": (
        lambda client: client.make_leave(THERE, ROOM, USER),
        {"event": PDU},
        lambda answer: (answer.room_version, answer.event) == ("1", PDU),
    ),
    "sendLeaveV2": (
        lambda client: client.send_leave(THERE, ROOM, EVENT, PDU),
        {},
        lambda answer: answer is None,
    ),
    "sendInviteV1": (
        lambda client: client.invite_v1(THERE, ROOM, EVENT, PDU),
        [200, {"event": PDU}],
        lambda answer: answer.event == PDU,
    ),
    "sendInviteV2": (
        lambda client: client.invite(
            THERE, ROOM, EVENT, room_version="11", event=PDU, invite_room_state=[{**PDU, "content": {}}]
        ),
        {"event": PDU},
        lambda answer: answer.event == PDU,
    ),
    "exchangeThirdPartyInvite": (
        lambda client: client.exchange_third_party_invite(THERE, ROOM, THIRD_PARTY_INVITE),
        {},
        lambda answer: answer is None,
    ),
    "onBindThirdPartyIdentifier": (
        lambda client: client.on_bind(
            THERE,
            {
                "medium": "email",
                "address": "a@b",
                "mxid": USER,
                "invites": [
                    {
                        "medium": "email",
                        "address": "a@b",
                        "mxid": USER,
                        "room_id": ROOM,
                        "sender": USER,
                        "signed": SIGNED,
                    }
                ],
            },
        ),
        {},
        lambda answer: answer is None,
    ),
    "getPublicRooms": (
        lambda client: client.public_rooms(THERE, limit=5, since="s", include_all_networks=True),
        ROOMS,
        lambda answer: answer.next_batch == "n",
    ),
    "queryPublicRooms": (
        lambda client: client.search_public_rooms(THERE, {"filter": {"generic_search_term": "x"}}),
        ROOMS,
        lambda answer: answer.chunk == [],
    ),
    "getSpaceHierarchy": (
        lambda client: client.hierarchy(THERE, ROOM, suggested_only=True),
        {"room": {"room_id": ROOM}, "children": [{}], "inaccessible_children": [ROOM]},
        lambda answer: answer.room == {"room_id": ROOM} and answer.inaccessible_children == [ROOM],
    ),
    "queryInfo": (
        lambda client: client.query(THERE, "a/b", (("x", "y"),)),
        {"a": 1},
        lambda answer: answer == {"a": 1},
    ),
    "queryRoomDirectory": (
        lambda client: client.query_directory(THERE, "#a:there.example"),
        {"room_id": ROOM, "servers": [THERE]},
        lambda answer: (answer.room_id, answer.servers) == (ROOM, [THERE]),
    ),
    "queryProfile": (
        lambda client: client.query_profile(THERE, USER, "displayname"),
        {"displayname": None},
        lambda answer: answer == {"displayname": None},
    ),
    "getUserDevices": (
        lambda client: client.user_devices(THERE, USER),
        {"user_id": USER, "stream_id": 5, "devices": [{"device_id": "D", "keys": DEVICE_KEYS}]},
        lambda answer: answer.devices[0].keys == DEVICE_KEYS,
    ),
    "queryUserEncryptionKeys": (
        lambda client: client.query_user_keys(THERE, {USER: ["D"]}),
        {"device_keys": {USER: {"D": DEVICE_KEYS}}, "master_keys": {USER: {}}},
        lambda answer: answer.device_keys == {USER: {"D": DEVICE_KEYS}},
    ),
    "claimUserEncryptionKeys": (
        lambda client: client.claim_user_keys(THERE, {USER: {"D": "signed_curve25519"}}),
        {"one_time_keys": {USER: {"D": {"signed_curve25519:A": {}}}}},
        lambda answer: answer.one_time_keys == {USER: {"D": {"signed_curve25519:A": {}}}},
    ),
    "exchangeOpenIdToken": (
        lambda client: client.openid_userinfo(THERE, "a b&c"),
        {"sub": USER},
        lambda answer: answer.sub == USER,
    ),
    "getContent": (
        lambda client: read_media(client.download_media(THERE, "abc", max_bytes=100)),
        MEDIA,
        lambda answer: answer == ("text/plain", "inline; filename=a", None, b"the file"),
    ),
    "getContentThumbnail": (
        lambda client: read_media(client.thumbnail(THERE, "abc", width=1, height=2, max_bytes=100)),
        MEDIA.replace(b"Content-Disposition: inline; filename=a", b"Location: https://cdn.example/x"),
        lambda answer: answer[2] == "https://cdn.example/x",
    ),
    "askPolicyServerToSign": (
        lambda client: client.ask_policy_server(THERE, PDU),
        {THERE: {"ed25519:policy_server": "x"}},
        lambda answer: answer == {THERE: {"ed25519:policy_server": "x"}},
    ),
}
UNSIGNED = {
    "getVersion",
    "getServerKey",
    "perspectivesKeyQuery",
    "bulkPerspectivesKeyQuery",
    "exchangeOpenIdToken",
    "onBindThirdPartyIdentifier",
}
OF_THE_CLIENT_SERVER_API = {"download_media_unsigned"}
ANYTHING_GOES = {"sendLeaveV2", "exchangeThirdPartyInvite", "onBindThirdPartyIdentifier", "getVersion"}
"""Of these nothing is needed from the answer."""


class Site:
    """Another server, that answers as it is told and writes down what it was asked."""

    def __init__(self) -> None:
        self.answer: Any = {}
        self.asked: list[tuple[str, str, Any, bool]] = []

    async def __call__(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        self.asked.append((request.method, request.raw_path, body, "Authorization" in request.headers))
        if isinstance(self.answer, bytes):
            return web.Response(body=self.answer, headers={"Content-Type": "multipart/mixed; boundary=b"})
        return web.json_response(self.answer)


@pytest.fixture
async def site(internet: Internet) -> Site:
    made = Site()
    internet.dns.names[THERE] = ["1.2.3.4"]
    await internet.site("1.2.3.4", FEDERATION, made, THERE)
    return made


@pytest.fixture
def client(internet: Internet) -> FederationClient:
    return internet.client(HERE, KEY)


@pytest.mark.skipif(not openapi.DATA.is_dir(), reason="the descriptions are not at hand")
def test_there_is_a_call_for_every_endpoint_and_an_endpoint_for_every_call() -> None:
    with (openapi.DATA.parent / "endpoints.tsv").open() as file:
        listed = {
            row["operationId"]
            for row in csv.DictReader(file, delimiter="\t")
            if row["api"] == "server-server"
        }
    # Asked by `federation.well_known`.
    assert CALLS.keys() == listed - {"getWellKnown"}
    public = [name for name, _ in inspect.getmembers(FederationClient, inspect.isfunction) if name[0] != "_"]
    assert len(public) == len(CALLS) + len(OF_THE_CLIENT_SERVER_API)


@pytest.mark.parametrize("operation", CALLS)
async def test_a_call_is_as_the_specification_describes_it(
    site: Site, client: FederationClient, operation: str
) -> None:
    call, site.answer, is_right = CALLS[operation]
    assert is_right(await call(client))
    ((method, target, body, is_signed),) = site.asked
    assert is_signed == (operation not in UNSIGNED)
    if openapi.DATA.is_dir():
        openapi.check_request(operation, method, target, body)


@pytest.mark.parametrize("operation", CALLS)
async def test_garbage_is_a_bad_answer(site: Site, client: FederationClient, operation: str) -> None:
    call, right, _ = CALLS[operation]
    garbage: list[Any] = [b"", b"{", b"[1, 2]", b"--b\r\n", b"--b--\r\n", MEDIA[:60], MEDIA[:-30], b"null"]
    if isinstance(right, dict) and operation not in ANYTHING_GOES | {
        "queryInfo",
        "queryProfile",
        "getServerKey",
    }:
        for name in right:
            garbage += [{**right, name: value} for value in (5, ["x" * 2000], {"a": 1})]
    if operation in ANYTHING_GOES:
        garbage = [b"", b"{", b"--b\r\n"]
    for answer in garbage:
        site.answer = answer
        try:
            await call(client)
        except BadAnswer:
            continue
        except Exception as error:
            error.add_note(f"{answer!r}")
            raise


async def test_an_answer_about_somebody_else_is_a_bad_one(site: Site, client: FederationClient) -> None:
    site.answer = {"user_id": "@other:there.example", "stream_id": 5, "devices": []}
    with pytest.raises(BadAnswer, match="another user"):
        await client.user_devices(THERE, USER)


async def test_a_server_says_only_who_its_own_users_are(site: Site, client: FederationClient) -> None:
    for sub in ("@user:here.example", "@user", "@user:there.example:8448"):
        site.answer = {"sub": sub}
        with pytest.raises(BadAnswer, match="another server"):
            await client.openid_userinfo(THERE, "token")


async def test_a_file_that_is_too_large_is_not_read(site: Site, client: FederationClient) -> None:
    site.answer = MEDIA.replace(b"the file", b"x" * 200_000)
    with pytest.raises(BadAnswer, match="more than 1000 bytes"):
        await read_media(client.download_media(THERE, "abc", max_bytes=1000))
    site.answer = MEDIA.replace(b"{}", b'{"a":"' + b"x" * 200_000 + b'"}')
    with pytest.raises(BadAnswer, match="description"):
        await read_media(client.download_media(THERE, "abc", max_bytes=1000))
