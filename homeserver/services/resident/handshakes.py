"""What a server is told whose user came into a room by way of this one, or knocks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.views.client_events import stripped_state_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import ServerName
    from homeserver.rooms.live_rooms import LiveRoom
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.resident.graph import RoomGraph
    from homeserver.services.resident.member_events import MemberEvents, SignedMemberEvent
    from homeserver.storage.memberships import MembershipStore
    from homeserver.storage.state import StateStore

_HEROES = 5
_NAMES = (("m.room.name", ""), ("m.room.canonical_alias", ""))


@dataclass(frozen=True, slots=True)
class Joined:
    """The answer of `send_join`; events by their numbers."""

    event: bytes
    state: Sequence[int]
    auth_chain: Sequence[int]
    servers_in_room: Sequence[ServerName] | None
    """None where the members are in the state."""


class Handshakes:
    """The second halves of the handshakes."""

    def __init__(
        self,
        member_events: MemberEvents,
        graph: RoomGraph,
        rooms: RoomReader,
        state: StateStore,
        memberships: MembershipStore,
    ) -> None:
        self._member_events = member_events
        self._graph = graph
        self._rooms = rooms
        self._state = state
        self._memberships = memberships

    async def join(self, sent: SignedMemberEvent, *, omit_members: bool) -> Joined:
        """Take in a join; raises as `MemberEvents.take` does.

        `omit_members` leaves out of the state all members but those that a room without a name is called after, and
        out of the auth chain what is in the state (MSC3706).
        """
        servers = await self._rooms.servers(sent.room_id) if omit_members else None
        room, stored = await self._member_events.take(sent)
        if servers is None:
            state, chain = await self._graph.state_and_chain(room, stored.state_before, [stored.event_nid])
            return Joined(stored.event.json, state, chain, None)
        numbers = await self._without_members(room, stored.state_before, sent)
        auth_chain = await self._graph.auth_chain(room, [*numbers, stored.event_nid])
        return Joined(stored.event.json, sorted(numbers), sorted(auth_chain - numbers), sorted(servers))

    async def knock(self, sent: SignedMemberEvent) -> list[bytes]:
        """Take in a knock; the answer is the state that lets the other server show what room this is."""
        room, stored = await self._member_events.take(sent)
        keys = stripped_state_keys(stored.event.sender, stored.event.sender)
        state = await self._rooms.state_entries(room.room_id, keys)
        return [state[key].json for key in dict.fromkeys(keys) if key in state]

    async def leave(self, sent: SignedMemberEvent) -> None:
        """Take in that somebody leaves, does not accept an invite, or takes a knock back."""
        await self._member_events.take(sent)

    async def _without_members(self, room: LiveRoom, snapshot_nid: int, sent: SignedMemberEvent) -> set[int]:
        others = set(await self._state.load_numbers_of_type(snapshot_nid, "m.room.member", others=True))
        if await self._rooms.stored_entries_at(snapshot_nid, _NAMES):
            return others
        members = await self._memberships.load_first_members(room.room_nid, ("join", "invite"), _HEROES + 1)
        heroes = [user_id for user_id in members if user_id != sent.pdu.get("sender")][:_HEROES]
        return others | {one.event_nid for one in await self._rooms.members_at(snapshot_nid, heroes)}
