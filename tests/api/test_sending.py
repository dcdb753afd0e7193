"""Sending events, setting and reading single entries of the state, redacting (CS "Sending events to a room")."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.client import Client, bodies, refused

if TYPE_CHECKING:
    from tests.server import Server

TEXT = {"msgtype": "m.text", "body": "hello"}


async def room_of(alice: Client, *others: Client, **options: Any) -> str:
    room_id = await alice.create_room(preset="public_chat", **options)
    for other in others:
        await other.join(room_id)
    return room_id


# -- transaction ids -----------------------------------------------------------------------------------


async def test_a_repeated_transaction_id_makes_no_second_event(alice: Client) -> None:
    room_id = await room_of(alice)
    first = await alice.send(room_id, "one", transaction_id="t")
    assert await alice.send(room_id, "two", transaction_id="t") == first
    assert await alice.put(f"/_matrix/client/r0/rooms/{room_id}/send/m.room.message/t", TEXT) == {
        "event_id": first
    }
    assert bodies((await alice.messages(room_id))["chunk"]) == ["one"]


async def test_copies_of_a_request_that_arrive_at_once_make_one_event(alice: Client) -> None:
    room_id = await room_of(alice)
    answers = await asyncio.gather(*(alice.send(room_id, "one", transaction_id="t") for _ in range(8)))
    assert len(set(answers)) == 1
    assert bodies((await alice.messages(room_id))["chunk"]) == ["one"]


async def test_a_transaction_id_belongs_to_a_device_and_an_endpoint(server: Server, alice: Client) -> None:
    room_id, other_room = await room_of(alice), await room_of(alice)
    phone = await server.login(alice)
    first = await alice.send(room_id, "one", transaction_id="t")
    others = {
        await phone.send(room_id, "two", transaction_id="t"),
        await alice.send(other_room, "three", transaction_id="t"),
        await alice.send(room_id, {}, event_type="org.example", transaction_id="t"),
        (await alice.put(f"/rooms/{room_id}/redact/{quote(first)}/t", {}))["event_id"],
    }
    assert len(others | {first}) == 5


async def test_a_redaction_is_repeated_as_well(alice: Client) -> None:
    room_id = await room_of(alice)
    event_id = await alice.send(room_id, "one")
    path = f"/rooms/{room_id}/redact/{quote(event_id)}/t"
    assert await alice.put(path, {"reason": "a"}) == await alice.put(path, {"reason": "b"})


async def test_a_transaction_id_outlives_the_access_token_and_the_server(server: Server) -> None:
    nobody = server.nobody()
    answer = await nobody.post(
        "/register",
        {"username": "dora", "password": "secret", "refresh_token": True, "auth": {"type": "m.login.dummy"}},
    )
    dora = Client(server.http, answer["user_id"], answer["device_id"], answer["access_token"])
    room_id = await room_of(dora)
    first = await dora.send(room_id, "one", transaction_id="t")
    renewed = await nobody.post("/refresh", {"refresh_token": answer["refresh_token"]})
    assert renewed["access_token"] != dora.access_token
    dora.access_token = renewed["access_token"]
    assert await dora.send(room_id, "one", transaction_id="t") == first
    await server.restart()
    dora = server.reconnect(dora)
    assert await dora.send(room_id, "one", transaction_id="t") == first
    assert bodies((await dora.messages(room_id))["chunk"]) == ["one"]


async def test_a_repetition_is_answered_even_where_sending_is_no_longer_allowed(
    alice: Client, bob: Client
) -> None:
    room_id = await room_of(alice, bob)
    first = await bob.send(room_id, "one", transaction_id="t")
    await alice.kick(room_id, bob.user_id)
    assert await bob.send(room_id, "one", transaction_id="t") == first
    with refused(403, "M_FORBIDDEN"):
        await bob.send(room_id, "one", transaction_id="u")


# -- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "status", "errcode"),
    [
        (b"{", 400, "M_NOT_JSON"),
        (b"", 400, "M_NOT_JSON"),
        (b"[]", 400, "M_BAD_JSON"),
        (b'{"a": 1.5}', 400, "M_BAD_JSON"),
        (b'{"a": 9007199254740992}', 400, "M_BAD_JSON"),
        (b'{"a": "' + b"a" * 66_000 + b'"}', 413, "M_TOO_LARGE"),
        (b'{"a": "' + b"a" * 200_000 + b'"}', 413, "M_TOO_LARGE"),
    ],
)
async def test_what_cannot_be_the_content_of_an_event(
    alice: Client, content: bytes, status: int, errcode: str
) -> None:
    room_id = await room_of(alice)
    for path in ("send/org.example/t", "state/org.example/"):
        with refused(status, errcode):
            await alice.call("PUT", f"/rooms/{room_id}/{path}", content=content)
    assert "org.example" not in [event["type"] for event in (await alice.messages(room_id))["chunk"]]


async def test_strangers_may_not_send(server: Server, alice: Client, bob: Client) -> None:
    room_id = await room_of(alice)
    carol = await server.register("carol")
    await alice.invite(room_id, carol.user_id)
    for client in (bob, carol):
        for room in (room_id, "!unknown:example.org", "nonsense"):
            with refused(403, "M_FORBIDDEN"):
                await client.put(f"/rooms/{room}/send/m.room.message/t", TEXT)
            with refused(403, "M_FORBIDDEN"):
                await client.put(f"/rooms/{room}/state/m.room.topic", {"topic": "t"})
            with refused(403, "M_FORBIDDEN"):
                await client.put(f"/rooms/{room}/redact/$a/t", {})


async def test_levels_decide_who_may_send_what(alice: Client, bob: Client) -> None:
    levels = {"events": {"org.example.loud": 10}, "events_default": 0, "state_default": 20}
    room_id = await room_of(alice, bob, power_level_content_override=levels)
    await bob.send(room_id, "hello")
    with refused(403, "M_FORBIDDEN"):
        await bob.send(room_id, {}, event_type="org.example.loud")
    with refused(403, "M_FORBIDDEN"):
        await bob.set_state(room_id, "m.room.topic", {"topic": "t"})
    for event_type in ("m.room.create", "m.room.member"):
        with refused(403, "M_FORBIDDEN"):
            await alice.send(room_id, {"membership": "join"}, event_type=event_type)
    with refused(403, "M_FORBIDDEN"):
        await alice.set_state(room_id, "m.room.create", {})
    with refused(403, "M_FORBIDDEN"):
        await alice.set_state(room_id, "org.example", {}, bob.user_id)


@pytest.mark.parametrize("name", ["k" * 256, "ä" * 128])
async def test_names_have_at_most_255_bytes(alice: Client, name: str) -> None:
    room_id = await room_of(alice)
    with refused(413, "M_TOO_LARGE"):
        await alice.send(room_id, {}, event_type=name)
    with refused(413, "M_TOO_LARGE"):
        await alice.set_state(room_id, "org.example", {}, name)
    await alice.set_state(room_id, "org.example", {}, name[:127])


# -- state ---------------------------------------------------------------------------------------------


async def test_an_empty_state_key_may_be_left_out(alice: Client) -> None:
    room_id = await room_of(alice)
    for number, slash in enumerate(("", "/")):
        path = f"/rooms/{room_id}/state/m.room.topic{slash}"
        await alice.put(path, {"topic": f"{number}"})
        assert await alice.get(path) == {"topic": f"{number}"}
        assert (await alice.get_state(room_id, "m.room.topic")) == {"topic": f"{number}"}


@pytest.mark.parametrize("key", ["a/b", "a b", "ü", "%2F", "a?b#c", "#tea:example.org", "$e", "+", "a/"])
async def test_state_keys_are_decoded_once(alice: Client, key: str) -> None:
    room_id = await room_of(alice)
    await alice.set_state(room_id, "org.example/type", {"key": key}, key)
    event = await alice.get_state(room_id, "org.example/type", key, format="event")
    assert event["state_key"] == key
    assert event["type"] == "org.example/type"
    assert await alice.get_state(room_id, "org.example/type", key, format="content") == {"key": key}


async def test_state_can_be_read_as_an_event(alice: Client) -> None:
    room_id = await room_of(alice)
    event_id = await alice.set_state(room_id, "m.room.topic", {"topic": "a"})
    event = await alice.get_state(room_id, "m.room.topic", format="event")
    assert event == await alice.event(room_id, event_id) | {"unsigned": event["unsigned"]}
    with refused(400, "M_INVALID_PARAM"):
        await alice.get_state(room_id, "m.room.topic", format="xml")
    with refused(404, "M_NOT_FOUND"):
        await alice.get_state(room_id, "m.room.avatar")
    with refused(404, "M_NOT_FOUND"):
        await alice.get_state(room_id, "m.room.topic", "other")


async def test_state_that_is_so_already_is_not_set_again(alice: Client) -> None:
    room_id = await room_of(alice)
    first = await alice.set_state(room_id, "m.room.topic", {"topic": "a"})
    assert await alice.set_state(room_id, "m.room.topic", {"topic": "a"}) == first
    second = await alice.set_state(room_id, "m.room.topic", {"topic": "b"})
    event = await alice.event(room_id, second)
    assert event["unsigned"]["replaces_state"] == first
    assert event["unsigned"]["prev_content"] == {"topic": "a"}


async def test_concurrent_changes_of_state_form_one_chain(alice: Client) -> None:
    room_id = await room_of(alice)
    ids = await asyncio.gather(
        *(alice.set_state(room_id, "m.room.topic", {"topic": f"{number}"}) for number in range(10))
    )
    events = list((await alice.messages(room_id, dir="f"))["chunk"])
    topics = [event for event in events if event["type"] == "m.room.topic"]
    assert sorted(event["event_id"] for event in topics) == sorted(ids)
    for before, after in itertools.pairwise(topics):
        assert after["unsigned"]["replaces_state"] == before["event_id"]
        assert after["unsigned"]["prev_content"] == before["content"]
    assert await alice.get_state(room_id, "m.room.topic") == topics[-1]["content"]


async def test_a_canonical_alias_leads_to_the_room(alice: Client) -> None:
    room_id, other = await room_of(alice, room_alias_name="tea"), await room_of(alice)
    await alice.put("/directory/room/%23leaves:example.org", {"room_id": room_id})
    await alice.put("/directory/room/%23coffee:example.org", {"room_id": other})
    good = {"alias": "#tea:example.org", "alt_aliases": ["#leaves:example.org"]}
    await alice.set_state(room_id, "m.room.canonical_alias", good)
    for content, errcode in (
        ({"alias": "#coffee:example.org"}, "M_BAD_ALIAS"),
        ({"alias": "#unknown:example.org"}, "M_BAD_ALIAS"),
        ({"alt_aliases": ["#tea:example.org", "#coffee:example.org"]}, "M_BAD_ALIAS"),
        ({"alias": "tea"}, "M_INVALID_PARAM"),
        ({"alt_aliases": ["tea"]}, "M_INVALID_PARAM"),
        ({"alt_aliases": [1]}, "M_INVALID_PARAM"),
    ):
        with refused(400, errcode):
            await alice.set_state(room_id, "m.room.canonical_alias", content)
    # "Servers do not validate aliases which are being removed or are already present in the state event."
    await alice.delete("/directory/room/%23leaves:example.org")
    await alice.set_state(room_id, "m.room.canonical_alias", {"alt_aliases": ["#leaves:example.org"]})
    await alice.set_state(room_id, "m.room.canonical_alias", {})


# -- redactions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1", "3", "10", "11", "12"])
@pytest.mark.parametrize("way", ["redact", "send"])
async def test_a_redaction_has_its_target_in_both_places(alice: Client, version: str, way: str) -> None:
    room_id = await room_of(alice, room_version=version)
    event_id = await alice.send(room_id, "secret")
    if way == "redact":
        redaction = await alice.redact(room_id, event_id, reason="slip")
    else:
        redaction = await alice.send(room_id, {"redacts": event_id, "reason": "slip"}, "m.room.redaction")
    event = await alice.event(room_id, redaction)
    assert event["redacts"] == event["content"]["redacts"] == event_id
    assert event["content"]["reason"] == "slip"
    redacted = await alice.event(room_id, event_id)
    assert redacted["content"] == {}
    assert redacted["unsigned"]["redacted_because"]["event_id"] == redaction


async def test_who_may_redact(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    by_alice, by_bob = await alice.send(room_id, "a"), await bob.send(room_id, "b")
    with refused(403, "M_FORBIDDEN"):
        await bob.redact(room_id, by_alice)
    await alice.redact(room_id, by_bob)
    await bob.redact(room_id, await bob.send(room_id, "c"))
    assert (await alice.event(room_id, by_alice))["content"]["body"] == "a"
    assert bodies([e for e in (await alice.messages(room_id))["chunk"] if e["content"]]) == ["a"]


async def test_a_redacted_event_is_redacted_everywhere(server: Server, alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    event_id = await alice.send(room_id, "secret")
    await alice.redact(room_id, event_id)
    for _ in range(2):
        seen = [
            await bob.event(room_id, event_id),
            *(await bob.messages(room_id))["chunk"],
            (await bob.get(f"/rooms/{room_id}/context/{quote(event_id)}"))["event"],
            *(await bob.sync())["rooms"]["join"][room_id]["timeline"]["events"],
        ]
        found = [event for event in seen if event["event_id"] == event_id]
        assert len(found) == 4
        for event in found:
            assert event["content"] == {}
            assert event["unsigned"]["redacted_because"]["type"] == "m.room.redaction"
        await server.restart()
        alice, bob = server.reconnect(alice), server.reconnect(bob)


async def test_redacted_state_is_as_though_nothing_was_said(alice: Client) -> None:
    room_id = await room_of(alice, name="Tea")
    name = (await alice.get_state(room_id, "m.room.name", format="event"))["event_id"]
    await alice.redact(room_id, name)
    assert await alice.get_state(room_id, "m.room.name") == {}
    member = (await alice.get_state(room_id, "m.room.member", alice.user_id, format="event"))["event_id"]
    await alice.redact(room_id, member)
    assert await alice.get_state(room_id, "m.room.member", alice.user_id) == {"membership": "join"}
    await alice.send(room_id, "still here")


async def test_what_cannot_be_redacted(alice: Client) -> None:
    room_id, other = await room_of(alice), await room_of(alice)
    elsewhere = await alice.send(other, "a")
    for event_id in ("$unknown", elsewhere):
        with refused(404, "M_NOT_FOUND"):
            await alice.redact(room_id, event_id)
    with refused(400, "M_BAD_JSON"):
        await alice.redact(room_id, "unknown")
    for content in ({}, {"redacts": 1}, {"redacts": "unknown"}):
        with refused(400, "M_BAD_JSON"):
            await alice.send(room_id, content, "m.room.redaction")
    assert (await alice.event(other, elsewhere))["content"]["body"] == "a"


async def test_a_redaction_can_be_redacted_and_repeated(alice: Client) -> None:
    room_id = await room_of(alice)
    event_id = await alice.send(room_id, "secret")
    first = await alice.redact(room_id, event_id, reason="slip")
    await alice.redact(room_id, event_id)
    await alice.redact(room_id, first)
    redacted = await alice.event(room_id, event_id)
    assert redacted["content"] == {}
    assert redacted["unsigned"]["redacted_because"]["event_id"] == first
    assert "reason" not in redacted["unsigned"]["redacted_because"]["content"]


# -- relations -----------------------------------------------------------------------------------------


def reaction(event_id: str, key: str) -> dict[str, Any]:
    return {"m.relates_to": {"rel_type": "m.annotation", "event_id": event_id, "key": key}}


async def test_nobody_annotates_twice_the_same(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    event_id = await alice.send(room_id, "tea?")
    first = await bob.send(room_id, reaction(event_id, "+"), "m.reaction", "t")
    assert await bob.send(room_id, reaction(event_id, "+"), "m.reaction", "t") == first
    with refused(400, "M_DUPLICATE_ANNOTATION"):
        await bob.send(room_id, reaction(event_id, "+"), "m.reaction")
    await bob.send(room_id, reaction(event_id, "-"), "m.reaction")
    await bob.send(room_id, reaction(event_id, "+"), "org.example.vote")
    await alice.send(room_id, reaction(event_id, "+"), "m.reaction")
    await bob.redact(room_id, first)
    await bob.send(room_id, reaction(event_id, "+"), "m.reaction")


async def test_of_the_same_annotations_at_once_one_is_sent(alice: Client) -> None:
    room_id = await room_of(alice)
    event_id = await alice.send(room_id, "tea?")
    answers = await asyncio.gather(
        *(alice.send(room_id, reaction(event_id, "+"), "m.reaction") for _ in range(5)),
        *(alice.send(room_id, reaction(event_id, "-"), "m.reaction", "t") for _ in range(5)),
        return_exceptions=True,
    )
    assert len([answer for answer in answers[:5] if isinstance(answer, str)]) == 1
    assert len(set(answers[5:])) == 1
    assert isinstance(answers[5], str)


async def test_a_thread_starts_from_an_event_that_relates_to_none(alice: Client) -> None:
    room_id = await room_of(alice)
    root = await alice.send(room_id, "root")

    def threaded(event_id: str) -> dict[str, Any]:
        return {**TEXT, "m.relates_to": {"rel_type": "m.thread", "event_id": event_id}}

    reply = await alice.send(room_id, threaded(root))
    with refused(400, "M_UNKNOWN"):
        await alice.send(room_id, threaded(reply))
    answer = await alice.send(room_id, {**TEXT, "m.relates_to": {"m.in_reply_to": {"event_id": root}}})
    await alice.send(room_id, threaded(answer))


@pytest.mark.parametrize(
    "relates_to",
    [
        1,
        [],
        {},
        {"rel_type": 1},
        {"rel_type": "m.thread"},
        {"rel_type": "m.thread", "event_id": 1},
        {"rel_type": "m.annotation", "event_id": "$unknown", "key": 5},
    ],
)
async def test_a_relation_of_wrong_form_is_no_relation(alice: Client, relates_to: Any) -> None:
    room_id = await room_of(alice)
    content = {**TEXT, "m.relates_to": relates_to}
    event_id = await alice.send(room_id, content)
    assert (await alice.event(room_id, event_id))["content"] == content
