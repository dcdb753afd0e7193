"""Users of other servers leave rooms, do not accept invites, knock, and take that back, by way of this server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from homeserver.eventgraph.hashing import event_id_of
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from tests.client import error_of, refused
from tests.federation_api.remote import V1

if TYPE_CHECKING:
    from tests.client import Client
    from tests.federation_api.remote import Remote


async def knockable(alice: Client, **options: Any) -> str:
    """A room that one knocks at."""
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    return await alice.create_room(preset="private_chat", name="Knock", initial_state=[rules], **options)


async def membership_of(alice: Client, room: str, user_id: str) -> str:
    return (await alice.get_state(room, "m.room.member", user_id))["membership"]


async def test_a_member_leaves(alice: Client, one: Remote, room: str) -> None:
    assert await one.become("leave", room, one.user("zoe")) == {}
    assert await membership_of(alice, room, one.user("zoe")) == "leave"
    with refused(403, "M_FORBIDDEN"):
        await one.make("leave", room, one.user("zoe"))


async def test_the_first_version_of_the_endpoint_wraps_the_same_answer(
    alice: Client, one: Remote, room: str
) -> None:
    event = one.event_from(await one.make("leave", room, one.user("zoe")))
    path = f"{V1}/send_leave/{room}/{quote(event.event_id, safe='')}"
    assert await one.call("PUT", path, event.pdu) == [200, {}]
    assert await membership_of(alice, room, one.user("zoe")) == "leave"


async def test_an_invite_is_not_accepted(alice: Client, two: Remote, room: str) -> None:
    yan = two.user("yan")
    await two.invited_by(alice, room, yan)
    await two.become("leave", room, yan)
    assert await membership_of(alice, room, yan) == "leave"


async def test_who_was_never_there_cannot_leave(alice: Client, two: Remote, room: str) -> None:
    with refused(403, "M_FORBIDDEN"):
        await two.make("leave", room, two.user("yan"))


async def test_nobody_leaves_for_somebody_else(alice: Client, one: Remote, two: Remote, room: str) -> None:
    made = await one.make("leave", room, one.user("zoe"))
    for sender, state_key in ((one.user("zoe"), alice.user_id), (alice.user_id, alice.user_id)):
        event = one.event_from(made, sender=sender, state_key=state_key)
        with refused(400, "M_INVALID_PARAM"):
            await one.send("leave", event)
    event = one.event_from(made)
    with refused(400, "M_INVALID_PARAM"):
        await two.send("leave", event)
    assert await membership_of(alice, room, alice.user_id) == "join"
    assert await membership_of(alice, room, one.user("zoe")) == "join"


async def test_who_knocks_is_shown_what_they_knock_at(alice: Client, one: Remote) -> None:
    room = await knockable(alice)
    zoe = one.user("zoe")
    answer = await one.become("knock", room, zoe)
    state = {pdu["type"]: pdu for pdu in answer["knock_room_state"]}
    assert state["m.room.name"]["content"] == {"name": "Knock"}
    # Whole events, so that the other server can tell that they are true.
    create = state["m.room.create"]
    assert event_id_of(ROOM_VERSIONS["12"], create) == "$" + room[1:]
    assert create["signatures"]["example.org"]
    assert await membership_of(alice, room, zoe) == "knock"
    await one.become("leave", room, zoe)
    assert await membership_of(alice, room, zoe) == "leave"


async def test_nobody_knocks_where_that_is_no_use(alice: Client, one: Remote, room: str) -> None:
    for other in (room, await alice.create_room(preset="private_chat", room_version="6")):
        with refused(403, "M_FORBIDDEN"):
            await one.make("knock", other, one.user("yet-another"))
    knock = await knockable(alice)
    error = await error_of(one.get(f"/make_knock/{knock}/{one.user('zoe')}", ver=["7"]))
    assert (error.errcode, error.body["room_version"]) == ("M_INCOMPATIBLE_ROOM_VERSION", "12")
    with refused(400, "M_MISSING_PARAM"):
        await one.get(f"/make_knock/{knock}/{one.user('zoe')}")


async def test_what_came_by_way_of_this_server_is_sent_on_to_the_others(
    alice: Client, one: Remote, two: Remote, room: str
) -> None:
    yan = two.event_from(await two.make("join", room, two.user("yan")))
    await two.send("join", yan)
    database = one.server.application.database
    waiting = await database.fetch_all(
        "SELECT e.event_id FROM outgoing_events o JOIN events e ON e.event_nid = o.event_nid"
    )
    assert yan.event_id in {event_id for (event_id,) in waiting}
