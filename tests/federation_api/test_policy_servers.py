"""Rooms with a policy server: it signs what is sent, and what it does not sign nobody sees (SS "Policy Servers")."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from crypto import base64
from crypto.keys import key_from_seed
from crypto.signatures import signature_of
from federation.errors import Refused, Unreachable
from homeserver.eventgraph.hashing import encoder_of
from homeserver.eventgraph.redaction import redact
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.services import policy_servers
from tests.client import bodies, error_of, refused
from tests.federation_api.remote import V1
from tests.federation_api.test_third_party_invites import Signing

if TYPE_CHECKING:
    from collections.abc import Callable

    from homeserver.eventgraph.event import Event
    from tests.client import Client
    from tests.federation_api.remote import Network, Remote
    from tests.server import Server

KEY = key_from_seed("policy_server", b"p" * 32)
PUBLIC = base64.encode_unpadded_urlsafe(bytes(KEY.private.verify_key))
_numbers = itertools.count()


class PolicyServer:
    """`policy.example`: it signs what it likes, and remembers what it was asked about."""

    def __init__(self, network: Network, version: str = "12") -> None:
        self.remote = network.remote("policy.example")
        self.version = version
        self.asked: list[dict[str, Any]] = []
        self.failure: Exception | None = None
        self.judge: Callable[[dict[str, Any]], None] = lambda _event: None
        self.key = KEY
        self.answers = asyncio.Event()
        self.answers.set()
        network.server.application.remote.client.ask_policy_server = self.ask  # type: ignore[method-assign]

    async def ask(self, destination: str, event: dict[str, Any]) -> dict[str, Any]:
        assert destination == self.remote.name
        self.asked.append(event)
        await self.answers.wait()
        self.judge(event)
        if self.failure is not None:
            raise self.failure
        return {self.remote.name: {"ed25519:policy_server": self.signature(event)}}

    def signature(self, event: dict[str, Any]) -> str:
        version = ROOM_VERSIONS[self.version]
        return signature_of(redact(version, event), self.key, encode=encoder_of(version))

    def refuse(self, status: int = 400, errcode: str = "M_FORBIDDEN", **more: Any) -> None:
        self.failure = Refused(self.remote.name, status, errcode, "It looks like spam", **more)


@pytest.fixture
def engine() -> str:
    """No SQL of its own: one engine says it all."""
    return "sqlite"


@pytest.fixture
def policy(network: Network) -> PolicyServer:
    return PolicyServer(network)


@pytest.fixture
async def policed(alice: Client, policy: PolicyServer, room: str) -> str:
    """The room with a policy server, which has a user in it."""
    await policy.remote.become("join", room, policy.remote.user("guard"))
    await alice.set_state(
        room, "m.room.policy", {"via": "policy.example", "public_keys": {"ed25519": PUBLIC}}
    )
    assert policy.asked == []
    return room


async def said(client: Client, room_id: str) -> list[str]:
    return bodies((await client.messages(room_id))["chunk"])[::-1]


async def foreign(one: Remote, room_id: str, body: str) -> Event:
    """A message of Zoe's."""
    made = await one.make("leave", room_id, one.user("zoe"))
    template = {name: value for name, value in made["event"].items() if name != "state_key"}
    template |= {"type": "m.room.message", "content": {"msgtype": "m.text", "body": body}}
    # What lets somebody leave lets them talk, too.
    return one.event_from({**made, "event": template})


async def bring(one: Remote, *pdus: dict[str, Any]) -> dict[str, Any]:
    transaction = {"origin": one.name, "origin_server_ts": 1, "pdus": list(pdus)}
    return (await one.call("PUT", f"{V1}/send/p{next(_numbers)}", transaction))["pdus"]


async def until_settled(server: Server, event: Event) -> str:
    """What became of an event that waited for the policy server."""
    async with asyncio.timeout(20):
        while True:
            stored = await server.application.stores.events.get(event.event_id)
            if stored is not None and stored.has_state:
                return stored.status.name
            await asyncio.sleep(0.01)


# -- what is sent here -------------------------------------------------------------------------------------


async def test_what_is_sent_is_signed_by_the_policy_server_first(
    alice: Client, one: Remote, policy: PolicyServer, policed: str
) -> None:
    event_id = await alice.send(policed, "hello")
    (asked,) = policy.asked
    assert asked["content"]["body"] == "hello"
    assert list(asked["signatures"]) == ["example.org"]
    sent = await one.event(event_id)
    assert sent["signatures"] == {
        **asked["signatures"],
        "policy.example": {"ed25519:policy_server": policy.signature(sent)},
    }
    await alice.set_state(policed, "m.room.topic", {"topic": "Tea"})
    await alice.set_state(policed, "m.room.topic", {"topic": "Tea"})
    await alice.redact(policed, event_id)
    types = [event["type"] for event in policy.asked]
    assert types == ["m.room.message", "m.room.topic", "m.room.redaction"]
    assert (await alice.event(policed, event_id))["content"] == {}


async def test_what_it_refuses_is_not_sent_and_the_client_is_told_its_words(
    alice: Client, policy: PolicyServer, policed: str
) -> None:
    policy.refuse()
    error = await error_of(alice.send(policed, "spam", transaction_id="1"))
    assert (error.status, error.body) == (400, {"errcode": "M_FORBIDDEN", "error": "It looks like spam"})
    policy.refuse(429, "M_LIMIT_EXCEEDED", retry_after_ms=2_000)
    error = await error_of(alice.send(policed, "spam"))
    assert (error.status, error.errcode, error.body["retry_after_ms"]) == (429, "M_LIMIT_EXCEEDED", 2_000)
    # No words of another server log a client out.
    policy.refuse(401, "M_UNKNOWN_TOKEN")
    asked = len(policy.asked)
    with refused(502, "M_UNKNOWN"):
        await alice.send(policed, "spam")
    assert len(policy.asked) == asked, "it wanted to be left alone"
    assert await said(alice, policed) == []


async def test_a_request_that_was_refused_may_be_made_again_and_one_that_was_not_is_not_asked_about_again(
    server: Server, alice: Client, policy: PolicyServer, policed: str
) -> None:
    policy.refuse()
    with refused(400, "M_FORBIDDEN"):
        await alice.send(policed, "once", transaction_id="1")
    policy.failure = None
    first = await alice.send(policed, "once", transaction_id="1")
    asked = len(policy.asked)
    policy.refuse()
    assert await alice.send(policed, "once", transaction_id="1") == first
    assert len(policy.asked) == asked
    assert await said(alice, policed) == ["once"]
    answer = await alice.sync(timeout=0)
    (message,) = answer["rooms"]["join"][policed]["timeline"]["events"][-1:]
    assert message["unsigned"]["transaction_id"] == "1"


async def test_where_it_does_not_answer_nothing_is_sent_and_it_is_left_alone_for_a_while(
    server: Server, alice: Client, policy: PolicyServer, policed: str
) -> None:
    policy.failure = Unreachable(policy.remote.name, "away")
    for _ in range(3):
        with refused(502, "M_UNKNOWN"):
            await alice.send(policed, "anybody there?")
    assert len(policy.asked) == 1
    policy.failure = None
    server.clock.offset_ms += 31_000
    await alice.send(policed, "hello")
    assert await said(alice, policed) == ["hello"]


async def test_one_that_is_slow_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, alice: Client, policy: PolicyServer, policed: str
) -> None:
    monkeypatch.setattr(policy_servers, "_SECONDS", 0.01)
    policy.answers.clear()
    with refused(502, "M_UNKNOWN"):
        await alice.send(policed, "hello")


async def test_a_signature_by_another_key_is_none(alice: Client, policy: PolicyServer, policed: str) -> None:
    policy.key = key_from_seed("policy_server", b"q" * 32)
    with refused(502, "M_UNKNOWN"):
        await alice.send(policed, "hello")
    assert await said(alice, policed) == []


async def test_it_can_always_be_switched_off(alice: Client, policy: PolicyServer, policed: str) -> None:
    policy.refuse()
    await alice.set_state(policed, "m.room.policy", {})
    await alice.send(policed, "free")
    assert policy.asked == []
    assert await said(alice, policed) == ["free"]


async def test_one_that_has_gone_out_of_the_room_is_none(
    alice: Client, policy: PolicyServer, policed: str
) -> None:
    guard = policy.remote.user("guard")
    leave = policy.remote.event_from(await policy.remote.make("leave", policed, guard))
    await policy.remote.send("leave", leave)
    policy.asked.clear()
    policy.refuse()
    await alice.send(policed, "free")
    assert policy.asked == []


@pytest.mark.parametrize(
    "content",
    [
        {"via": "policy.example"},
        {"via": "policy.example", "public_keys": {}},
        {"via": 5, "public_keys": {"ed25519": PUBLIC}},
        {"via": "policy.example", "public_keys": {"ed25519": 5}},
        {"via": "nowhere.example", "public_keys": {"ed25519": PUBLIC}},
    ],
)
async def test_an_event_that_does_not_name_one_as_it_must_names_none(
    alice: Client, policy: PolicyServer, policed: str, content: dict[str, Any]
) -> None:
    await alice.set_state(policed, "m.room.policy", content)
    policy.refuse()
    await alice.send(policed, "free")
    await alice.set_state(
        policed, "m.room.policy", {"via": "policy.example", "public_keys": {"ed25519": PUBLIC}}, "x"
    )
    assert policy.asked == []


async def test_other_events_of_that_type_are_asked_about(
    alice: Client, policy: PolicyServer, policed: str
) -> None:
    await alice.set_state(policed, "m.room.policy", {"a": 1}, "not empty")
    await alice.send(policed, {"a": 1}, "m.room.policy")
    assert [event["type"] for event in policy.asked] == ["m.room.policy"] * 2


async def test_many_who_send_at_once_are_all_heard(
    alice: Client, bob: Client, policy: PolicyServer, policed: str
) -> None:
    await bob.join(policed)
    texts = [f"{number}" for number in range(20)]
    await asyncio.gather(*(client.send(policed, text) for text in texts for client in (alice, bob)))
    assert sorted(await said(alice, policed)) == sorted(texts * 2)


async def test_a_slow_one_does_not_hold_up_what_comes_in(
    server: Server, alice: Client, one: Remote, policy: PolicyServer, policed: str
) -> None:
    message = await foreign(one, policed, "from afar")
    message.pdu["signatures"]["policy.example"] = {"ed25519:policy_server": policy.signature(message.pdu)}
    policy.answers.clear()
    sending = asyncio.create_task(alice.send(policed, "from here"))
    while not policy.asked:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.001)
    assert await bring(one, message.pdu) == {message.event_id: {}}
    assert await said(alice, policed) == ["from afar"]
    policy.answers.set()
    await sending
    assert sorted(await said(alice, policed)) == ["from afar", "from here"]


async def test_invites_of_other_servers_users_are_signed_before_these_servers_see_them(
    server: Server, alice: Client, two: Remote, policy: PolicyServer, policed: str
) -> None:
    signing = Signing(server, two)
    await alice.invite(policed, two.user("yan"))
    (invite,) = signing.came
    assert set(invite["signatures"]) == {"example.org", "policy.example"}
    policy.refuse()
    with refused(400, "M_FORBIDDEN"):
        await alice.invite(policed, two.user("xena"))
    assert len(signing.came) == 1


async def test_a_room_is_upgraded_only_if_the_policy_server_lets_it(
    alice: Client, policy: PolicyServer, policed: str
) -> None:
    await alice.put("/directory/room/%23here:example.org", {"room_id": policed})
    policy.refuse()
    with refused(400, "M_FORBIDDEN"):
        await alice.post(f"/rooms/{policed}/upgrade", {"new_version": "12"})
    assert (await alice.get("/directory/room/%23here:example.org"))["room_id"] == policed
    policy.failure = None
    new = (await alice.post(f"/rooms/{policed}/upgrade", {"new_version": "12"}))["replacement_room"]
    assert (await alice.get("/directory/room/%23here:example.org"))["room_id"] == new
    assert (await alice.get_state(policed, "m.room.tombstone"))["replacement_room"] == new


@pytest.mark.parametrize("failure", ["refuses", "is away"])
@pytest.mark.parametrize("before", ["join", "invite"])
async def test_nobody_is_kept_in_a_room_by_it(
    server: Server, alice: Client, bob: Client, policy: PolicyServer, policed: str, before: str, failure: str
) -> None:
    await alice.invite(policed, bob.user_id)
    if before == "join":
        await bob.join(policed)
    start = (await bob.sync())["next_batch"]
    policy.asked.clear()
    policy.refuse()
    if failure == "is away":
        policy.failure = Unreachable(policy.remote.name, "away")
    await bob.post(f"/rooms/{policed}/leave")
    (asked,) = policy.asked
    assert asked["content"] == {"membership": "leave"}
    assert (await alice.get_state(policed, "m.room.member", bob.user_id)) == {"membership": "leave"}
    assert policed in (await bob.sync(start))["rooms"]["leave"]
    assert (await bob.get("/joined_rooms"))["joined_rooms"] == []
    # It is about leaving, by whichever door, and about nothing else.
    with refused(
        400 if failure == "refuses" else 502, "M_FORBIDDEN" if failure == "refuses" else "M_UNKNOWN"
    ):
        await alice.invite(policed, bob.user_id)


async def test_a_leave_that_it_refuses_for_its_words_is_made_without_them(
    alice: Client, bob: Client, one: Remote, policy: PolicyServer, policed: str
) -> None:
    await bob.join(policed)

    def refuse_words(event: dict[str, Any]) -> None:
        policy.failure = None
        if "reason" in event["content"]:
            policy.refuse()

    policy.judge = refuse_words
    await bob.post(f"/rooms/{policed}/leave", {"reason": "buy my book"})
    leave = next(
        event
        for event in await alice.get(f"/rooms/{policed}/state")
        if event["state_key"] == bob.user_id and event["type"] == "m.room.member"
    )
    assert leave["content"] == {"membership": "leave"}
    sent = await one.event(leave["event_id"])
    assert sent["signatures"]["policy.example"] == {"ed25519:policy_server": policy.signature(sent)}


async def test_putting_others_out_is_for_it_to_judge(
    alice: Client, bob: Client, policy: PolicyServer, policed: str
) -> None:
    await bob.join(policed)
    policy.refuse()
    for deed in ("kick", "ban"):
        with refused(400, "M_FORBIDDEN"):
            await alice.post(f"/rooms/{policed}/{deed}", {"user_id": bob.user_id})
    assert (await alice.get_state(policed, "m.room.member", bob.user_id))["membership"] == "join"


# -- what comes from elsewhere -----------------------------------------------------------------------------


async def test_an_event_with_its_signature_is_taken_in_and_it_is_not_asked(
    alice: Client, one: Remote, policy: PolicyServer, policed: str
) -> None:
    message = await foreign(one, policed, "signed")
    message.pdu["signatures"]["policy.example"] = {"ed25519:policy_server": policy.signature(message.pdu)}
    assert await bring(one, message.pdu) == {message.event_id: {}}
    assert await said(alice, policed) == ["signed"]
    assert policy.asked == []


@pytest.mark.parametrize("signature", [None, "x" * 86, 5])
async def test_for_an_event_without_it_is_asked_without_the_sender_waiting(
    server: Server, alice: Client, one: Remote, policy: PolicyServer, policed: str, signature: Any
) -> None:
    message = await foreign(one, policed, "unsigned")
    if signature is not None:
        message.pdu["signatures"]["policy.example"] = {"ed25519:policy_server": signature}
    policy.answers.clear()
    assert await bring(one, message.pdu) == {message.event_id: {}}
    assert await said(alice, policed) == []
    policy.answers.set()
    assert await until_settled(server, message) == "TIMELINE"
    assert await said(alice, policed) == ["unsigned"]
    kept = (await one.event(message.event_id))["signatures"]["policy.example"]
    assert kept == {"ed25519:policy_server": policy.signature(message.pdu)}


@pytest.mark.parametrize("failure", ["refuses", "is away"])
async def test_what_it_does_not_sign_nobody_sees_and_nothing_follows_it(
    server: Server, alice: Client, one: Remote, policy: PolicyServer, policed: str, failure: str
) -> None:
    message = await foreign(one, policed, "spam")
    policy.refuse()
    if failure == "is away":
        policy.failure = Unreachable(policy.remote.name, "away")
    await bring(one, message.pdu)
    assert await until_settled(server, message) == "SOFT_FAILED"
    policy.failure = None
    server.clock.offset_ms += 31_000
    event_id = await alice.send(policed, "ham")
    assert await said(alice, policed) == ["ham"]
    assert message.event_id not in (await one.event(event_id))["prev_events"]


async def test_who_comes_in_by_way_of_this_server_is_asked_about(
    alice: Client, two: Remote, policy: PolicyServer, policed: str
) -> None:
    policy.refuse()
    with refused(403, "M_FORBIDDEN"):
        await two.become("join", policed, two.user("yan"))
    policy.failure = None
    answer = await two.become("join", policed, two.user("xena"))
    assert set(answer["event"]["signatures"]) == {"two.example", "policy.example"}
    members = (await alice.get(f"/rooms/{policed}/joined_members"))["joined"]
    assert two.user("xena") in members
    assert two.user("yan") not in members
