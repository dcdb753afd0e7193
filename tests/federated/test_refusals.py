"""What a client is told where another server refuses, or cannot be asked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.ids import ServerName
from homeserver.services import room_creation
from tests.client import error_of, refused
from tests.hostile.elsewhere import EVIL, MALLORY, Elsewhere, room_elsewhere
from tests.hostile.wire import Answered, Asked, Wire

if TYPE_CHECKING:
    from tests.client import Client
    from tests.eventgraph.rooms import Room
    from tests.server import Server


@pytest.fixture
def engine() -> str:
    """The same on both."""
    return "sqlite"


@pytest.fixture
def room() -> Room:
    return room_elsewhere("11")


@pytest.fixture
def elsewhere(server: Server, room: Room) -> Elsewhere:
    wire = Wire()
    wire.plug_in(server)
    return Elsewhere(wire, server, room)


def refusing(status: int, errcode: str, **fields: Any) -> Any:
    return lambda _, __: Answered.json({"errcode": errcode, "error": "No", **fields}, status)


async def test_who_wants_into_a_room_of_a_version_that_is_unknown_here_is_told_the_version(
    alice: Client, room: Room, elsewhere: Elsewhere
) -> None:
    elsewhere.lies["make_join"] = refusing(400, "M_INCOMPATIBLE_ROOM_VERSION", room_version="99")
    error = await error_of(alice.post(f"/join/{room.room_id}?via={EVIL}"))
    assert (error.status, error.errcode) == (400, "M_INCOMPATIBLE_ROOM_VERSION")
    assert error.body["room_version"] == "99"


@pytest.mark.parametrize("deed", ["join", "knock"])
async def test_so_is_who_gets_a_template_of_such_a_version(
    alice: Client, room: Room, elsewhere: Elsewhere, deed: str
) -> None:
    template = {"event": {"type": "m.room.member"}, "room_version": "99"}
    elsewhere.lies[f"make_{deed}"] = lambda _, __: Answered.json(template)
    error = await error_of(alice.post(f"/{deed}/{room.room_id}?via={EVIL}", {}))
    assert (error.status, error.errcode) == (400, "M_INCOMPATIBLE_ROOM_VERSION")
    assert error.body["room_version"] == "99"


@pytest.mark.parametrize("errcode", ["M_INVALID_PARAM", "M_MISSING_PARAM"])
@pytest.mark.parametrize("endpoint", ["make_join", "send_join", "make_knock", "invite"])
async def test_what_another_server_finds_wrong_with_our_request_is_not_the_clients_fault(
    alice: Client, room: Room, elsewhere: Elsewhere, endpoint: str, errcode: str
) -> None:
    elsewhere.lies[endpoint] = refusing(400, errcode)
    if endpoint == "invite":
        asked = alice.post(f"/rooms/{await alice.create_room()}/invite", {"user_id": MALLORY})
    else:
        deed = "join" if endpoint.endswith("join") else "knock"
        asked = alice.post(f"/{deed}/{room.room_id}?via={EVIL}", {})
    with refused(502, "M_UNKNOWN"):
        await asked


async def test_why_each_server_did_not_let_somebody_in_is_said_without_addresses(
    server: Server, alice: Client, room: Room, elsewhere: Elsewhere
) -> None:
    elsewhere.lies["make_join"] = lambda _, __: Answered.json({"event": "garbage"})
    error = await error_of(alice.post(f"/join/{room.room_id}?via=nobody.example&via={EVIL}"))
    assert error.status == 502
    assert "nobody.example cannot be reached" in error.body["error"]
    assert f"{EVIL} gave an answer that cannot be used" in error.body["error"]


@pytest.mark.parametrize("asks", ["an alias", "a profile", "public rooms", "an invite"])
async def test_the_operator_reads_why_a_server_was_of_no_use_and_the_client_what_kind_of_fault_it_is(
    alice: Client, elsewhere: Elsewhere, capsys: pytest.CaptureFixture[str], asks: str
) -> None:
    asked = {
        "an alias": lambda: alice.get("/directory/room/%23tea:nobody.example"),
        "a profile": lambda: alice.get("/profile/@zoe:nobody.example"),
        "public rooms": lambda: alice.get("/publicRooms", server="nobody.example"),
        "an invite": lambda: alice.post(f"/rooms/{room_id}/invite", {"user_id": "@zoe:nobody.example"}),
    }
    room_id = await alice.create_room()
    error = await error_of(asked[asks]())
    assert error.status == 502
    assert error.body["error"] == "This cannot be done: nobody.example cannot be reached"
    said = capsys.readouterr().out
    assert "server_of_no_use" in said
    assert "nobody is there" in said


async def test_a_new_room_does_not_wait_long_for_the_servers_of_those_who_are_invited(
    alice: Client, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(request: Asked) -> Answered:
        asked.set()
        await may_answer.wait()
        return Answered.json({"event": request.content["event"]})

    elsewhere.wire.sites[EVIL] = slow
    monkeypatch.setattr(room_creation, "_SECONDS", 0.05)
    async with asyncio.timeout(20):
        room_id = await alice.create_room(invite=[MALLORY])
    assert asked.is_set()
    with refused(404, "M_NOT_FOUND"):
        await alice.get_state(room_id, "m.room.member", MALLORY)
    since = (await alice.sync())["next_batch"]
    may_answer.set()
    section = (await alice.sync(since, timeout=20_000))["rooms"]["join"][room_id]
    assert [event["state_key"] for event in section["timeline"]["events"]] == [MALLORY]


async def test_profiles_of_a_server_that_does_not_answer_are_not_asked_for_again_and_again(
    server: Server, alice: Client, elsewhere: Elsewhere
) -> None:
    def asked() -> int:
        return elsewhere.wire.asked[server.settings.server_name, "nobody.example", "query"]

    for number in range(5):
        with refused(502, "M_UNKNOWN"):
            await alice.get(f"/profile/@user{number}:nobody.example")
    assert asked() == 1
    server.application.heard_from(ServerName("nobody.example"))
    with refused(502, "M_UNKNOWN"):
        await alice.get("/profile/@zoe:nobody.example")
    assert asked() == 2


async def test_that_somebody_elsewhere_wants_no_invites_is_passed_on(
    alice: Client, elsewhere: Elsewhere
) -> None:
    elsewhere.lies["invite"] = refusing(403, "M_INVITE_BLOCKED")
    with refused(403, "M_INVITE_BLOCKED"):
        await alice.post(f"/rooms/{await alice.create_room()}/invite", {"user_id": MALLORY})
