"""Relations, threads, and what is bundled with events (CS "Forming relationships between events", "Threading")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.client import Client, refused

if TYPE_CHECKING:
    from tests.server import Server

V1 = "/_matrix/client/v1"


def related(event_id: str, relation: str, **content: Any) -> dict[str, Any]:
    return {
        "msgtype": "m.text",
        "body": "related",
        **content,
        "m.relates_to": {"rel_type": relation, "event_id": event_id},
    }


def edit(event_id: str, body: str) -> dict[str, Any]:
    return related(event_id, "m.replace", **{"m.new_content": {"msgtype": "m.text", "body": body}})


def path_of(room_id: str, event_id: str, *more: str) -> str:
    return "/".join([f"{V1}/rooms/{room_id}/relations/{quote(event_id)}", *map(quote, more)])


def ids(answer: dict[str, Any]) -> list[str]:
    return [event["event_id"] for event in answer["chunk"]]


async def bundle(client: Client, room_id: str, event_id: str) -> dict[str, Any]:
    """What is bundled with an event; every endpoint must tell the same."""
    event = await client.event(room_id, event_id)
    context = await client.get(f"/rooms/{room_id}/context/{quote(event_id)}", limit=0)
    page = await client.messages(room_id, limit=1000)
    (paged,) = [one for one in page["chunk"] if one["event_id"] == event_id]
    bundles = [shown(one["unsigned"].get("m.relations", {})) for one in (event, context["event"], paged)]
    assert bundles[0] == bundles[1] == bundles[2]
    return bundles[0]


def shown(value: Any) -> Any:
    """Without the ages of events, which change from answer to answer."""
    if isinstance(value, dict):
        return {name: shown(item) for name, item in value.items() if name != "age"}
    return [shown(item) for item in value] if isinstance(value, list) else value


async def room_of(alice: Client, *others: Client) -> str:
    room_id = await alice.create_room(preset="public_chat")
    for other in others:
        await other.join(room_id)
    return room_id


# -- replacements and references -----------------------------------------------------------------------


async def test_the_latest_edit_by_the_author_is_bundled(server: Server, alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    event_id = await alice.send(room_id, "one")
    await alice.send(room_id, edit(event_id, "two"))
    server.clock.offset_ms += 1_000
    latest = await alice.send(room_id, edit(event_id, "three"))
    server.clock.offset_ms -= 500
    await alice.send(room_id, edit(event_id, "older by its time"))
    server.clock.offset_ms += 5_000
    await bob.send(room_id, edit(event_id, "not bob's to edit"))
    await alice.send(room_id, edit(event_id, "another type"), "org.example.other")
    await alice.send(room_id, related(event_id, "m.replace"))  # without m.new_content
    replacement = (await bundle(bob, room_id, event_id))["m.replace"]
    assert replacement["event_id"] == latest
    assert replacement["content"]["m.new_content"]["body"] == "three"
    assert replacement["room_id"] == room_id
    # The content of the original is left as it is.
    assert (await bob.event(room_id, event_id))["content"]["body"] == "one"
    await alice.redact(room_id, latest)
    replacement = (await bundle(bob, room_id, event_id))["m.replace"]
    assert replacement["content"]["m.new_content"]["body"] == "older by its time"


async def test_an_edit_of_an_edit_and_an_edit_of_what_is_redacted_are_not_bundled(alice: Client) -> None:
    room_id = await room_of(alice)
    event_id = await alice.send(room_id, "one")
    first = await alice.send(room_id, edit(event_id, "two"))
    await alice.send(room_id, edit(first, "three"))
    assert await bundle(alice, room_id, first) == {}
    await alice.redact(room_id, event_id)
    assert await bundle(alice, room_id, event_id) == {}
    assert first in ids(await alice.get(path_of(room_id, event_id)))


async def test_encrypted_edits_are_judged_by_the_client(alice: Client) -> None:
    room_id = await room_of(alice)
    encrypted = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "...", "session_id": "s"}
    event_id = await alice.send(room_id, encrypted, "m.room.encrypted")
    relation = {"m.relates_to": {"rel_type": "m.replace", "event_id": event_id}}
    edited = await alice.send(room_id, {**encrypted, **relation}, "m.room.encrypted")
    assert (await bundle(alice, room_id, event_id))["m.replace"]["event_id"] == edited


async def test_references_are_listed(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    event_id = await alice.send(room_id, "one")
    first = await bob.send(room_id, related(event_id, "m.reference"))
    second = await alice.send(room_id, related(event_id, "m.reference"), "org.example.reference")
    assert await bundle(alice, room_id, event_id) == {
        "m.reference": {"chunk": [{"event_id": first}, {"event_id": second}]}
    }
    await bob.redact(room_id, first)
    assert await bundle(alice, room_id, event_id) == {"m.reference": {"chunk": [{"event_id": second}]}}


async def test_annotations_and_other_relations_are_not_bundled(alice: Client) -> None:
    room_id = await room_of(alice)
    event_id = await alice.send(room_id, "one")
    reaction = {"m.relates_to": {"rel_type": "m.annotation", "event_id": event_id, "key": "+"}}
    await alice.send(room_id, reaction, "m.reaction")
    await alice.send(room_id, related(event_id, "org.example.relation"))
    assert "m.relations" not in (await alice.event(room_id, event_id))["unsigned"]


async def test_nothing_is_bundled_with_state(alice: Client) -> None:
    room_id = await room_of(alice)
    event_id = await alice.set_state(room_id, "m.room.topic", {"topic": "t"})
    await alice.send(room_id, related(event_id, "m.reference"))
    assert "m.relations" not in (await alice.event(room_id, event_id))["unsigned"]


async def test_nobody_relates_to_an_event_from_another_room(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    other = await room_of(bob)
    event_id = await alice.send(room_id, "one")
    for relation in ("m.thread", "m.reference", "org.example"):
        await bob.send(other, related(event_id, relation))
    assert await bundle(alice, room_id, event_id) == {}
    assert ids(await alice.get(path_of(room_id, event_id))) == []
    assert ids(await alice.get(f"{V1}/rooms/{room_id}/threads")) == []
    assert ids(await bob.get(f"{V1}/rooms/{other}/threads")) == []


@pytest.mark.parametrize(
    ("event_id", "relation"), [("unknown", "m.reference"), ("$" + "a" * 300, "m.reference"), ("", "r" * 300)]
)
async def test_what_is_no_event_id_or_no_type_is_no_relation(
    alice: Client, event_id: str, relation: str
) -> None:
    room_id = await room_of(alice)
    root = await alice.send(room_id, "root")
    await alice.send(room_id, related(event_id or root, relation))
    assert ids(await alice.get(path_of(room_id, root))) == []
    await alice.send(room_id, related(root, "r" * 255))
    assert len(ids(await alice.get(path_of(room_id, root)))) == 1


# -- threads -------------------------------------------------------------------------------------------


async def test_a_thread_is_summed_up(server: Server, alice: Client, bob: Client) -> None:
    carol = await server.register("carol")
    room_id = await room_of(alice, bob, carol)
    root = await alice.send(room_id, "root")
    await bob.send(room_id, related(root, "m.thread"))
    latest = await bob.send(room_id, related(root, "m.thread", body="latest"))
    for client, participated in ((alice, True), (bob, True), (carol, False)):
        thread = (await bundle(client, room_id, root))["m.thread"]
        assert thread["count"] == 2
        assert thread["current_user_participated"] is participated
        assert thread["latest_event"]["event_id"] == latest
        assert thread["latest_event"]["room_id"] == room_id
    await bob.redact(room_id, latest)
    assert (await bundle(alice, room_id, root))["m.thread"]["count"] == 1


async def test_the_latest_reply_brings_what_is_bundled_with_it(alice: Client) -> None:
    room_id = await room_of(alice)
    root = await alice.send(room_id, "root")
    reply = await alice.send(room_id, related(root, "m.thread"))
    edited = await alice.send(room_id, edit(reply, "edited"))
    latest = (await bundle(alice, room_id, root))["m.thread"]["latest_event"]
    assert latest["event_id"] == reply
    assert latest["unsigned"]["m.relations"]["m.replace"]["event_id"] == edited


async def test_a_redacted_root_still_has_its_thread(alice: Client) -> None:
    room_id = await room_of(alice)
    root = await alice.send(room_id, "root")
    await alice.send(room_id, related(root, "m.thread"))
    await alice.redact(room_id, root)
    assert (await bundle(alice, room_id, root))["m.thread"]["count"] == 1
    assert ids(await alice.get(f"{V1}/rooms/{room_id}/threads")) == [root]


async def test_replies_that_one_may_not_see_are_not_counted(alice: Client, bob: Client) -> None:
    visibility = {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
    room_id = await alice.create_room(preset="public_chat", initial_state=[visibility])
    await bob.join(room_id)
    root = await alice.send(room_id, "root")
    first = await alice.send(room_id, related(root, "m.thread"))
    unanswered = await alice.send(room_id, "unanswered")
    await bob.leave(room_id)
    await alice.send(room_id, related(root, "m.thread", body="secret"))
    await alice.send(room_id, related(unanswered, "m.thread", body="secret"))
    await alice.send(room_id, related(root, "m.reference", body="secret"))
    await alice.send(room_id, edit(root, "secret"))
    thread = await bundle(bob, room_id, root)
    assert list(thread) == ["m.thread"]
    assert thread["m.thread"]["count"] == 1
    assert thread["m.thread"]["latest_event"]["event_id"] == first
    assert thread["m.thread"]["current_user_participated"] is False
    assert await bundle(bob, room_id, unanswered) == {}
    assert ids(await bob.get(path_of(room_id, root))) == [first]
    assert ids(await bob.get(f"{V1}/rooms/{room_id}/threads")) == [root]


async def test_threads_are_listed_by_their_latest_reply(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    roots = [await alice.send(room_id, f"root {number}") for number in range(5)]
    await alice.send(room_id, "no thread")
    for index in (0, 1, 2, 3, 4, 1):
        await bob.send(room_id, related(roots[index], "m.thread"))
    path = f"{V1}/rooms/{room_id}/threads"
    expected = [roots[index] for index in (1, 4, 3, 2, 0)]
    assert ids(await alice.get(path)) == expected
    paged: list[str] = []
    token = None
    while True:
        answer = await alice.get(path, limit=2, **({"from": token} if token else {}))
        assert all("m.thread" in event["unsigned"]["m.relations"] for event in answer["chunk"])
        paged += ids(answer)
        token = answer.get("next_batch")
        if token is None:
            break
    assert paged == expected


async def test_threads_that_one_took_part_in(server: Server, alice: Client, bob: Client) -> None:
    carol = await server.register("carol")
    room_id = await room_of(alice, bob, carol)
    by_bob = await bob.send(room_id, "bob's")
    by_alice = await alice.send(room_id, "alice's")
    await carol.send(room_id, related(by_bob, "m.thread"))
    await bob.send(room_id, related(by_alice, "m.thread"))
    path = f"{V1}/rooms/{room_id}/threads"
    for client, expected in (
        (alice, [by_alice]),
        (bob, [by_alice, by_bob]),
        (carol, [by_bob]),
    ):
        assert ids(await client.get(path, include="participated")) == expected
        assert ids(await client.get(path, include="all")) == [by_alice, by_bob]
    dora = await server.register("dora")
    await dora.join(room_id)
    assert ids(await dora.get(path, include="participated")) == []


@pytest.mark.parametrize(
    "query",
    [{"include": "none"}, {"limit": 0}, {"limit": "x"}, {"from": "nonsense"}, {"from": "o" + "A" * 33}],
)
async def test_lists_of_threads_that_cannot_be_asked_for(alice: Client, query: dict[str, Any]) -> None:
    room_id = await room_of(alice)
    with refused(400, "M_INVALID_PARAM"):
        await alice.get(f"{V1}/rooms/{room_id}/threads", **query)


async def test_a_token_of_one_list_of_threads_is_none_of_another(alice: Client) -> None:
    tokens = []
    rooms = [await room_of(alice), await room_of(alice)]
    for room_id in rooms:
        for _ in range(2):
            root = await alice.send(room_id, "root")
            await alice.send(room_id, related(root, "m.thread"))
        tokens.append((await alice.get(f"{V1}/rooms/{room_id}/threads", limit=1))["next_batch"])
    with refused(400, "M_INVALID_PARAM"):
        await alice.get(f"{V1}/rooms/{rooms[0]}/threads", **{"from": tokens[1]})


# -- /relations ----------------------------------------------------------------------------------------


async def test_relations_by_type(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    event_id = await alice.send(room_id, "one")
    replies = [await bob.send(room_id, related(event_id, "m.thread")) for _ in range(3)]
    other = await bob.send(room_id, related(event_id, "m.thread"), "org.example")
    reaction = await bob.send(
        room_id,
        {"m.relates_to": {"rel_type": "m.annotation", "event_id": event_id, "key": "+"}},
        "m.reaction",
    )
    everything = [*replies, other, reaction]
    assert ids(await alice.get(path_of(room_id, event_id))) == everything[::-1]
    assert ids(await alice.get(path_of(room_id, event_id), dir="f")) == everything
    assert ids(await alice.get(path_of(room_id, event_id, "m.thread"))) == [*replies, other][::-1]
    assert ids(await alice.get(path_of(room_id, event_id, "m.thread", "org.example"))) == [other]
    assert ids(await alice.get(path_of(room_id, event_id, "m.unknown"))) == []
    assert ids(await alice.get(path_of(room_id, replies[0]))) == []
    answer = await alice.get(path_of(room_id, event_id))
    assert "recursion_depth" not in answer
    assert "prev_batch" not in answer
    unstable = path_of(room_id, event_id).replace("/v1/", "/unstable/")
    assert ids(await alice.get(unstable)) == everything[::-1]


async def test_relations_of_relations(alice: Client) -> None:
    room_id = await room_of(alice)
    chain = [await alice.send(room_id, "root")]
    for _ in range(5):
        chain.append(await alice.send(room_id, related(chain[-1], "m.reference")))
    reaction = {"m.relates_to": {"rel_type": "m.annotation", "event_id": chain[1], "key": "+"}}
    reacted = await alice.send(room_id, reaction, "m.reaction")
    answer = await alice.get(path_of(room_id, chain[0]), recurse=True, dir="f")
    assert answer["recursion_depth"] >= 3
    assert ids(answer) == [*chain[1 : answer["recursion_depth"] + 1], reacted]
    answer = await alice.get(path_of(room_id, chain[0], "m.annotation"), recurse=True)
    assert ids(answer) == [reacted]
    assert ids(await alice.get(path_of(room_id, chain[0]), recurse=False)) == [chain[1]]


@pytest.mark.parametrize(
    "query",
    [{"dir": "x"}, {"limit": 0}, {"limit": "x"}, {"from": "nonsense"}, {"to": "nonsense"}, {"recurse": "x"}],
)
async def test_relations_that_cannot_be_asked_for(alice: Client, query: dict[str, Any]) -> None:
    room_id = await room_of(alice)
    event_id = await alice.send(room_id, "one")
    with refused(400, "M_INVALID_PARAM"):
        await alice.get(path_of(room_id, event_id), **query)


async def test_relations_start_from_tokens_of_sync_and_messages(alice: Client) -> None:
    room_id = await room_of(alice)
    event_id = await alice.send(room_id, "one")
    replies = [await alice.send(room_id, related(event_id, "m.thread")) for _ in range(2)]
    since = (await alice.sync())["next_batch"]
    replies += [await alice.send(room_id, related(event_id, "m.thread")) for _ in range(2)]
    middle = (await alice.messages(room_id, limit=1))["end"]
    path = path_of(room_id, event_id)
    assert ids(await alice.get(path, **{"from": since})) == replies[1::-1]
    assert ids(await alice.get(path, **{"from": since, "dir": "f"})) == replies[2:]
    assert ids(await alice.get(path, **{"from": middle})) == replies[2::-1]
    assert ids(await alice.get(path, **{"from": middle, "to": since})) == [replies[2]]


@pytest.mark.parametrize("direction", ["b", "f"])
@pytest.mark.parametrize("limit", [1, 2, 5, 6])
async def test_relations_are_paged_without_gap_or_repetition(
    alice: Client, direction: str, limit: int
) -> None:
    room_id = await room_of(alice)
    event_id = await alice.send(room_id, "one")
    replies = []
    for number in range(5):
        replies.append(await alice.send(room_id, related(event_id, "m.thread")))
        await alice.send(room_id, f"{number}")
    path = path_of(room_id, event_id)
    paged: list[str] = []
    tokens: list[str] = []
    while True:
        query = {"from": tokens[-1]} if tokens else {}
        answer = await alice.get(path, dir=direction, limit=limit, **query)
        assert len(answer["chunk"]) <= limit
        assert ("prev_batch" in answer) == bool(tokens)
        paged += ids(answer)
        if "next_batch" not in answer:
            break
        tokens.append(answer["next_batch"])
    expected = replies if direction == "f" else replies[::-1]
    assert paged == expected
    # A token is a gap: `to` stops there, whichever way one comes.
    for number, token in enumerate(tokens, 1):
        before, after = expected[: number * limit], expected[number * limit :]
        back = "b" if direction == "f" else "f"
        assert ids(await alice.get(path, dir=direction, to=token)) == before
        assert ids(await alice.get(path, dir=back, **{"from": token})) == before[::-1]
        assert ids(await alice.get(path, dir=back, to=token)) == after[::-1]


# -- against a reference -------------------------------------------------------------------------------

DEEDS = st.lists(
    st.tuples(
        st.sampled_from(["m.thread", "m.replace", "m.reference", "redact", "ignore"]),
        st.integers(0, 1),
        st.integers(0, 30),
    ),
    min_size=3,
    max_size=16,
)


def reference_bundle(events: list[dict[str, Any]], root: dict[str, Any], reader: str) -> dict[str, Any]:
    """What is to be bundled with an event, computed from all events that the reader sees, in order."""
    children: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        relates_to = event["content"].get("m.relates_to", {})
        if relates_to.get("event_id") == root["event_id"]:
            children.setdefault(relates_to["rel_type"], []).append(event)
    expected: dict[str, Any] = {}
    edits = [
        event
        for event in children.get("m.replace", [])
        if event["sender"] == root["sender"] and "redacted_because" not in root["unsigned"]
    ]
    own_relation = root["content"].get("m.relates_to", {}).get("rel_type")
    if edits and own_relation != "m.replace":
        latest = max(edits, key=lambda event: (event["origin_server_ts"], event["event_id"]))
        expected["m.replace"] = latest["event_id"]
    if children.get("m.reference"):
        expected["m.reference"] = [event["event_id"] for event in children["m.reference"]]
    replies = children.get("m.thread", [])
    if replies:
        expected["m.thread"] = (
            replies[-1]["event_id"],
            len(replies),
            reader in (root["sender"], *(event["sender"] for event in replies)),
        )
    return expected


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(deeds=DEEDS)
async def test_what_is_bundled_equals_what_a_client_would_compute(
    alice: Client, bob: Client, deeds: list[tuple[str, int, int]]
) -> None:
    await alice.put(f"/user/{alice.user_id}/account_data/m.ignored_user_list", {"ignored_users": {}})
    room_id = await room_of(alice, bob)
    sent = [await client.send(room_id, "root") for client in (alice, bob)]
    roots = list(sent)
    for kind, who, which in deeds:
        client = (alice, bob)[who]
        if kind == "redact":
            await alice.redact(room_id, sent[which % len(sent)])
        elif kind == "ignore":
            content = {"ignored_users": {bob.user_id: {}} if who else {}}
            await alice.put(f"/user/{alice.user_id}/account_data/m.ignored_user_list", content)
        elif kind == "m.thread":
            sent.append(await client.send(room_id, related(roots[which % 2], kind)))
        else:
            parent = sent[which % len(sent)]
            content = edit(parent, "new") if kind == "m.replace" else related(parent, kind)
            sent.append(await client.send(room_id, content))
    for reader in (alice, bob):
        events = (await reader.messages(room_id, dir="f", limit=1000))["chunk"]
        for event in events:
            if "state_key" in event:
                continue
            bundled = event["unsigned"].get("m.relations", {})
            told: dict[str, Any] = {}
            if "m.replace" in bundled:
                told["m.replace"] = bundled["m.replace"]["event_id"]
            if "m.reference" in bundled:
                told["m.reference"] = [one["event_id"] for one in bundled["m.reference"]["chunk"]]
            if "m.thread" in bundled:
                thread = bundled["m.thread"]
                told["m.thread"] = (
                    thread["latest_event"]["event_id"],
                    thread["count"],
                    thread["current_user_participated"],
                )
            assert told == reference_bundle(events, event, reader.user_id)
