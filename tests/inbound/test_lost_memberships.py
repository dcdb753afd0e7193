"""What users are told of a membership of theirs that was lost in the resolution of a fork, or stood against another.

Clients take what they are from the events of `/sync`: they must not show a room as joined that refuses everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.client import refused
from tests.eventgraph.rooms import ALICE, BOB, member, public_room
from tests.inbound.foreign_rooms import ForeignRoom
from tests.sync.sliding.client import ACCEPTED

if TYPE_CHECKING:
    from homeserver.eventgraph.event import Event
    from tests.client import Client
    from tests.eventgraph.rooms import Room
    from tests.server import Server


class OwnMembership:
    """A client that takes what its user is in a room from the events that it is told."""

    def __init__(self, client: Client, room_id: str) -> None:
        self._client = client
        self._room_id = room_id
        self._since: str | None = None
        self.membership: str | None = None
        self.section: str | None = None

    async def look(self) -> None:
        answer = await self._client.sync(since=self._since, **self._options())
        self._since = answer["next_batch"]
        for name, rooms in answer.get("rooms", {}).items():
            if self._room_id in rooms:
                self.section = name
                self._take_in(rooms[self._room_id])

    def _options(self) -> dict[str, Any]:
        return {}

    def _take_in(self, section: dict[str, Any]) -> None:
        self._apply(section.get("invite_state", section.get("state", {})).get("events", []))
        self._apply(section.get("timeline", {}).get("events", []))

    def _apply(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            if (event["type"], event.get("state_key")) == member(self._client.user_id):
                self.membership = event["content"]["membership"]


class OwnMembershipAfter(OwnMembership):
    """One that believes `state_after`, and what invites say."""

    def _options(self) -> dict[str, Any]:
        return {"use_state_after": True}

    def _take_in(self, section: dict[str, Any]) -> None:
        self._apply(section.get("invite_state", section.get("state_after", {})).get("events", []))


class OwnMembershipBySliding(OwnMembership):
    """One that asks for its own membership by sliding sync."""

    async def look(self) -> None:
        wanted = {
            "timeline_limit": 10,
            "required_state": {"include": [{"type": "m.room.member", "state_key": "$ME"}]},
        }
        body = {"lists": {"all": wanted}, **({"pos": self._since} if self._since else {})}
        answer = await self._client.post(ACCEPTED, body)
        self._since = answer["pos"]
        room = answer["rooms"].get(self._room_id)
        if room is not None:
            self.section = room.get("membership", self.section)
            self.membership = self.section
            told = room.get("required_state", [])
            assert {(event["type"], event["state_key"]) for event in told} <= {member(self._client.user_id)}
            self._apply(told)


everybody_follows = pytest.mark.parametrize(
    "follow", [OwnMembership, OwnMembershipAfter, OwnMembershipBySliding]
)


def join_that_a_rule_undid(user_id: str) -> tuple[Room, list[Event], Event]:
    """They came in while elsewhere the room was closed: nothing is left that says what they are."""
    room = public_room("11", BOB)
    before = room.newest()
    joined = room.join(user_id)
    closed = room.set_join_rule(ALICE, "invite", prev=[before])
    return room, [joined], closed


def join_that_a_ban_undid(user_id: str) -> tuple[Room, list[Event], Event]:
    """They were banned, and let in again by somebody who elsewhere had no right to do so any more."""
    room = public_room("11", BOB, users={BOB: 50})
    joined = room.join(user_id)
    ban = room.set_member(ALICE, user_id, "ban")
    unban = room.set_member(BOB, user_id, "leave")
    again = room.join(user_id)
    demoted = room.set_levels(ALICE, {"users": {ALICE: 100}}, prev=[ban])
    return room, [joined, ban, unban, again], demoted


@pytest.mark.parametrize("often", [True, False])
@everybody_follows
@pytest.mark.parametrize(
    ("lost", "membership"), [(join_that_a_rule_undid, "leave"), (join_that_a_ban_undid, "ban")]
)
async def test_whoever_is_out_hears_of_it(
    lost: Any, membership: str, follow: type[OwnMembership], often: bool, server: Server
) -> None:
    alice = await server.register("alice")
    room, (joined, *told), last = lost(alice.user_id)
    foreign = ForeignRoom(server, room)
    client = follow(alice, room.room_id)
    await client.look()
    await foreign.arrive(joined)
    for event in told:
        if often:
            await client.look()
        await foreign.take(event)
    if often:
        await client.look()
        assert (client.section, client.membership) == ("join", "join")
    await foreign.take(last)
    current = (await foreign.current_state()).get(member(alice.user_id))
    assert current is None or room.events[current].membership == membership
    await client.look()
    await client.look()
    assert client.membership == membership
    assert client.section in ("leave", membership)
    with refused(403, "M_FORBIDDEN"):
        await alice.send(room.room_id, "hello")


def invite_that_a_ban_undid(user_id: str) -> tuple[Room, list[Event], Event]:
    """As the join that a ban undid."""
    room = public_room("11", BOB, user_id, users={BOB: 50})
    ban = room.set_member(ALICE, user_id, "ban")
    unban = room.set_member(BOB, user_id, "leave")
    invite = room.set_member(BOB, user_id, "invite")
    return room, [ban, unban, invite], room.set_levels(ALICE, {"users": {ALICE: 100}}, prev=[ban])


def invite_that_nobody_might_give(user_id: str) -> tuple[Room, list[Event], Event]:
    """By somebody who elsewhere had no right to do so any more."""
    room = public_room("11", BOB, users={BOB: 50})
    room.set_levels(ALICE, {"users": {ALICE: 100, BOB: 50}, "invite": 50})
    before = room.newest()
    invite = room.set_member(BOB, user_id, "invite")
    return room, [invite], room.set_levels(ALICE, {"users": {ALICE: 100}, "invite": 50}, prev=[before])


@everybody_follows
@pytest.mark.parametrize(
    ("lost", "membership"), [(invite_that_nobody_might_give, "leave"), (invite_that_a_ban_undid, "ban")]
)
async def test_whoever_is_not_invited_after_all_hears_of_it(
    lost: Any, membership: str, follow: type[OwnMembership], server: Server
) -> None:
    """Another user of this server is in the room, which so hears of it."""
    alice, bella = await server.register("alice"), await server.register("bella")
    room, told, last = lost(alice.user_id)
    foreign = ForeignRoom(server, room)
    before = room.events[told[0].prev_event_ids[0]]
    joined = room.join(bella.user_id, prev=[before])
    client = follow(alice, room.room_id)
    await foreign.arrive(joined)
    for event in told:
        await foreign.take(event)
    await client.look()
    assert (client.section, client.membership) == ("invite", "invite")
    await foreign.take(last)
    await client.look()
    assert client.membership == membership
    assert client.section in ("leave", membership)


@pytest.mark.parametrize("often", [True, False])
@everybody_follows
async def test_whoever_was_not_thrown_out_after_all_stays(
    follow: type[OwnMembership], often: bool, server: Server
) -> None:
    """It was done by somebody who elsewhere had no right to do so any more; and then by nobody at all."""
    alice = await server.register("alice")
    room = public_room("11", BOB, users={BOB: 50})
    foreign = ForeignRoom(server, room)
    client = follow(alice, room.room_id)
    await foreign.arrive(room.join(alice.user_id))
    await client.look()
    before = room.newest()
    demoted = room.set_levels(ALICE, {"users": {ALICE: 100}})
    kick = room.set_member(BOB, alice.user_id, "leave", prev=[before])
    for event in (kick, demoted):
        await foreign.take(event)
        if often:
            await client.look()
    assert member(alice.user_id) in await foreign.current_state()
    await client.look()
    assert (client.section, client.membership) == ("join", "join")
    await alice.send(room.room_id, "still here")
