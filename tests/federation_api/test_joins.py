"""Users of other servers come into rooms by way of this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from homeserver.eventgraph.hashing import event_id_of
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from tests.client import error_of, refused
from tests.federation_api.remote import V1

if TYPE_CHECKING:
    from tests.client import Client
    from tests.federation_api.remote import Remote

VERSIONS = ("1", "2", "3", "6", "10", "11", "12")


def ids(version: str, pdus: list[dict[str, Any]]) -> set[str]:
    return {event_id_of(ROOM_VERSIONS[version], pdu) for pdu in pdus}


def keys(pdus: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(pdu["type"], pdu["state_key"]) for pdu in pdus}


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_join_comes_into_the_room_and_is_answered_with_the_state_before_it(
    alice: Client, one: Remote, version: str
) -> None:
    room = await alice.create_room(preset="public_chat", room_version=version, name="The room")
    state = {event["event_id"] for event in await alice.get(f"/rooms/{room}/state")}
    made = await one.make("join", room, one.user("zoe"))
    assert made["room_version"] == version
    event = one.event_from(made)
    answer = await one.send("join", event)
    assert ids(version, answer["state"]) == state
    assert not answer["members_omitted"]
    chain = ids(version, answer["auth_chain"])
    cited = {
        one if isinstance(one, str) else one[0]
        for pdu in (*answer["state"], event.pdu)
        for one in pdu["auth_events"]
    }
    assert cited <= chain <= state
    assert await alice.get_state(room, "m.room.member", one.user("zoe")) == {"membership": "join"}
    (joined,) = (await alice.sync(timeout=0))["rooms"]["join"].values()
    assert joined["timeline"]["events"][-1]["event_id"] == event.event_id


async def test_a_join_that_comes_again_is_answered_again_and_told_once(alice: Client, one: Remote) -> None:
    room = await alice.create_room(preset="public_chat")
    event = one.event_from(await one.make("join", room, one.user("zoe")))
    first = await one.send("join", event)
    assert await one.send("join", event) == first
    chunk = (await alice.messages(room))["chunk"]
    assert [one["event_id"] for one in chunk].count(event.event_id) == 1


async def test_a_join_that_was_overtaken_finds_its_place(alice: Client, one: Remote) -> None:
    room = await alice.create_room(preset="public_chat")
    made = await one.make("join", room, one.user("zoe"))
    await alice.set_state(room, "m.room.topic", {"topic": "new"})
    answer = await one.send("join", one.event_from(made))
    assert ("m.room.topic", "") not in keys(answer["state"])
    assert await alice.get_state(room, "m.room.topic") == {"topic": "new"}
    assert await alice.get_state(room, "m.room.member", one.user("zoe")) == {"membership": "join"}


async def test_the_first_version_of_the_endpoint_wraps_the_same_answer(alice: Client, one: Remote) -> None:
    room = await alice.create_room(preset="public_chat")
    event = one.event_from(await one.make("join", room, one.user("zoe")))
    status, answer = await one.call("PUT", f"{V1}/send_join/{room}/{event.event_id}", event.pdu)
    assert status == 200
    assert ("m.room.create", "") in keys(answer["state"])


async def test_members_are_left_out_for_who_wants_that(
    alice: Client, bob: Client, one: Remote, two: Remote
) -> None:
    room = await alice.create_room(preset="public_chat", name="It has a name")
    await bob.join(room)
    await two.become("join", room, two.user("yan"))
    answer = await one.become("join", room, one.user("zoe"), omit_members="true")
    assert answer["members_omitted"]
    assert {event_type for event_type, _ in keys(answer["state"])}.isdisjoint({"m.room.member"})
    assert answer["servers_in_room"] == ["example.org", "two.example"]
    assert not keys(answer["auth_chain"]) & keys(answer["state"])


async def test_all_that_the_answer_rests_on_is_in_it_without_members(
    alice: Client, bob: Client, one: Remote
) -> None:
    levels = {"events": {"m.room.topic": 0}}
    room = await alice.create_room(
        preset="public_chat", room_version="11", power_level_content_override=levels
    )
    await bob.join(room)
    # His membership is in no state of the answer, and what he set stands on it.
    await bob.set_state(room, "m.room.topic", {"topic": "Tea"})
    await alice.set_state(room, "m.room.name", {"name": "It has a name"})
    answer = await one.become("join", room, one.user("zoe"), omit_members="true")
    assert ("m.room.member", bob.user_id) not in keys(answer["state"])
    assert ("m.room.member", bob.user_id) in keys(answer["auth_chain"])
    pdus = [*answer["state"], *answer["auth_chain"]]
    version = ROOM_VERSIONS["11"]
    told = {event_id_of(version, pdu) for pdu in pdus}
    for pdu in (*pdus, answer["event"]):
        assert told.issuperset(pdu["auth_events"])


async def test_a_room_without_a_name_shows_after_whom_it_is_called(
    alice: Client, bob: Client, one: Remote
) -> None:
    room = await alice.create_room(preset="public_chat")
    await bob.join(room)
    answer = await one.become("join", room, one.user("zoe"), omit_members="true")
    members = {key for event_type, key in keys(answer["state"]) if event_type == "m.room.member"}
    assert members == {alice.user_id, bob.user_id}


async def test_who_may_not_come_in_gets_no_template(alice: Client, one: Remote, two: Remote) -> None:
    room = await alice.create_room(preset="private_chat")
    with refused(403, "M_FORBIDDEN"):
        await one.make("join", room, one.user("zoe"))
    with refused(404, "M_NOT_FOUND"):
        await one.make("join", "!unknown:example.org", one.user("zoe"))
    public = await alice.create_room(preset="public_chat")
    with refused(403, "M_FORBIDDEN"):
        await one.make("join", public, two.user("yan"))
    await alice.ban(public, one.user("zoe"))
    with refused(403, "M_FORBIDDEN"):
        await one.make("join", public, one.user("zoe"))


async def test_a_server_that_does_not_know_the_version_of_the_room_is_told_it(
    alice: Client, one: Remote
) -> None:
    room = await alice.create_room(preset="public_chat", room_version="11")
    for query in ({"ver": ["1", "12"]}, {}):
        error = await error_of(one.get(f"/make_join/{room}/{one.user('zoe')}", **query))
        assert (error.status, error.errcode) == (400, "M_INCOMPATIBLE_ROOM_VERSION")
        assert error.body["room_version"] == "11"


async def test_what_is_not_the_join_of_a_user_of_the_server_is_refused(
    alice: Client, bob: Client, one: Remote, two: Remote
) -> None:
    room = await alice.create_room(preset="public_chat")
    other = await alice.create_room(preset="public_chat")
    made = await one.make("join", room, one.user("zoe"))
    zoe, yan = one.user("zoe"), two.user("yan")
    for changed in (
        {"sender": yan, "state_key": yan},
        {"sender": bob.user_id, "state_key": bob.user_id},
        {"state_key": bob.user_id},
        {"content": {"membership": "leave"}},
        {"type": "m.room.topic", "state_key": ""},
        {"room_id": other},
    ):
        event = one.event_from(made, **changed)
        path = f"/_matrix/federation/v2/send_join/{room}/{event.event_id}"
        with refused(400, "M_INVALID_PARAM"):
            await one.call("PUT", path, event.pdu)
    event = one.event_from(made)
    with refused(400, "M_INVALID_PARAM"):
        await one.call("PUT", f"/_matrix/federation/v2/send_join/{room}/$other", event.pdu)
    with refused(400, "M_INVALID_PARAM"):
        await one.send("join", one.event_from(made, signed=False))
    with refused(400, "M_INVALID_PARAM"):
        altered = {**event.pdu, "content": {"membership": "join", "displayname": "altered"}}
        await one.call("PUT", f"/_matrix/federation/v2/send_join/{room}/{event.event_id}", altered)
    with refused(400, "M_INVALID_PARAM"):
        await one.send("join", one.event_from(made, prev_events=["$" + "x" * 43]))
    assert len((await alice.get(f"/rooms/{room}/joined_members"))["joined"]) == 1
    assert zoe not in str(await alice.messages(room))


async def test_what_the_room_does_not_allow_is_refused_and_leaves_nothing(alice: Client, one: Remote) -> None:
    room = await alice.create_room(preset="public_chat")
    made = await one.make("join", room, one.user("zoe"))
    await alice.set_state(room, "m.room.join_rules", {"join_rule": "invite"})
    event = one.event_from(made)
    with refused(403, "M_FORBIDDEN"):
        await one.send("join", event)
    assert await one.server.application.stores.events.get(event.event_id) is None


async def test_a_server_that_the_room_denies_access_is_let_into_nothing(alice: Client, one: Remote) -> None:
    room = await alice.create_room(preset="public_chat")
    made = await one.make("join", room, one.user("zoe"))
    await alice.set_state(room, "m.room.server_acl", {"allow": ["*"], "deny": ["ONE.*"]})
    zoe = one.user("zoe")
    with refused(403, "M_FORBIDDEN"):
        await one.send("join", one.event_from(made))
    for membership in ("join", "leave", "knock"):
        with refused(403, "M_FORBIDDEN"):
            await one.make(membership, room, zoe)


async def test_a_room_that_everybody_of_this_server_has_left_is_not_known(
    alice: Client, one: Remote, room: str
) -> None:
    await alice.leave(room)
    with refused(404, "M_NOT_FOUND"):
        await one.make("join", room, one.user("yet-another"))


async def test_who_does_not_sign_is_nobody(alice: Client, one: Remote, two: Remote) -> None:
    room = await alice.create_room(preset="public_chat")
    path = f"{V1}/make_join/{room}/{two.user('yan')}"
    with refused(401, "M_UNAUTHORIZED"):
        await one.call("GET", path, origin=two.name, ver=["12"])
    response = await one.server.http.get(path)
    assert response.status_code == 401
