"""The predefined push rules, as clients read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.client import Client, refused

if TYPE_CHECKING:
    from tests.server import Server

OVERRIDE = [
    ".m.rule.master",
    ".m.rule.suppress_notices",
    ".m.rule.invite_for_me",
    ".m.rule.member_event",
    ".m.rule.is_user_mention",
    ".m.rule.is_room_mention",
    ".m.rule.tombstone",
    ".m.rule.reaction",
    ".m.rule.room.server_acl",
    ".m.rule.suppress_edits",
]
UNDERRIDE = [
    ".m.rule.call",
    ".m.rule.encrypted_room_one_to_one",
    ".m.rule.room_one_to_one",
    ".m.rule.message",
    ".m.rule.encrypted",
]


THREADS = [".io.element.msc4306.rule.unsubscribed_thread", ".io.element.msc4306.rule.subscribed_thread"]


async def test_the_rules_are_those_of_the_specification_in_their_order(alice: Client) -> None:
    answer = await alice.get("/pushrules/")
    assert answer.keys() == {"global"}
    rules = answer["global"]
    assert {kind: [rule["rule_id"] for rule in rules[kind]] for kind in rules} == {
        "override": OVERRIDE,
        "content": [],
        # MSC4306; it is tested in test_thread_subscriptions.py.
        "postcontent": THREADS,
        "room": [],
        "sender": [],
        "underride": UNDERRIDE,
    }
    every = [*rules["override"], *rules["underride"]]
    assert all(rule["default"] is True for rule in every)
    assert [rule["rule_id"] for rule in every if not rule["enabled"]] == [".m.rule.master"]
    assert await alice.get("/pushrules/global/") == rules


async def test_rules_name_their_user(alice: Client, bob: Client) -> None:
    for client in (alice, bob):
        mention = await client.get("/pushrules/global/override/.m.rule.is_user_mention")
        assert mention["conditions"] == [
            {
                "kind": "event_property_contains",
                "key": r"content.m\.mentions.user_ids",
                "value": client.user_id,
            }
        ]
        invite = await client.get("/pushrules/global/override/.m.rule.invite_for_me")
        assert invite["conditions"][2]["pattern"] == client.user_id


async def test_parts_of_a_rule_can_be_read(alice: Client) -> None:
    path = "/pushrules/global/underride/.m.rule.call"
    rule = await alice.get(path)
    assert rule["actions"] == ["notify", {"set_tweak": "sound", "value": "ring"}]
    assert await alice.get(f"{path}/actions") == {"actions": rule["actions"]}
    assert await alice.get(f"{path}/enabled") == {"enabled": True}
    assert await alice.get("/pushrules/global/override/.m.rule.master/enabled") == {"enabled": False}


@pytest.mark.parametrize(
    "path", ["override/.m.rule.unknown", "underride/.m.rule.master", "content/a", "unknown/.m.rule.master"]
)
async def test_an_unknown_rule_is_not_found(alice: Client, path: str) -> None:
    for part in ("", "/enabled", "/actions"):
        with refused(404, "M_NOT_FOUND"):
            await alice.get(f"/pushrules/global/{path}{part}")


async def test_rules_need_a_login(server: Server) -> None:
    with refused(401, "M_MISSING_TOKEN"):
        await server.nobody().get("/pushrules/")


async def test_mentions_of_those_who_are_not_there_cost_nothing(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    carol = await server.register("carol")
    mentioned = [bob.user_id, carol.user_id, "@nobody:example.org", "@somebody:elsewhere.org"]
    await alice.send(room_id, {"body": "hello", "m.mentions": {"user_ids": mentioned}})
    rows = await server.application.database.fetch_all("SELECT user_id FROM highlights")
    assert rows == [(bob.user_id,)]


async def test_the_counts_follow_the_rules(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    mention = {"m.mentions": {"user_ids": [bob.user_id]}}
    # He may not call everybody.
    await bob.send(room_id, {"body": "counts", "m.mentions": {"room": True}})
    assert await counts(alice, room_id) == (1, 0)
    first = await alice.send(room_id, "counts")
    await alice.send(room_id, {"body": "counts and highlights", **mention})
    await alice.send(room_id, {"msgtype": "m.notice", "body": "silent", **mention})
    await alice.send(room_id, {"body": "everybody", "m.mentions": {"room": True}})
    edit = {"rel_type": "m.replace", "event_id": first}
    await alice.send(room_id, {"body": "silent", "m.relates_to": edit})
    reaction = {"rel_type": "m.annotation", "event_id": first, "key": "+"}
    await alice.send(room_id, {"m.relates_to": reaction}, "m.reaction")
    await alice.set_state(room_id, "m.room.topic", {"topic": "silent"})
    assert await counts(bob, room_id) == (3, 2)


async def test_who_writes_has_read(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    root = await alice.send(room_id, "counts")
    reply = {"body": "counts in a thread", "m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    await alice.send(room_id, reply)
    assert await counts(bob, room_id) == (2, 0)
    await bob.send(room_id, "an answer, not in the thread")
    assert await counts(bob, room_id) == (1, 0)
    await bob.send(room_id, reply)
    assert await counts(bob, room_id) == (0, 0)


async def counts(client: Client, room_id: str) -> tuple[int, int]:
    answer = await client.sync()
    unread = answer["rooms"]["join"][room_id]["unread_notifications"]
    return unread["notification_count"], unread["highlight_count"]
