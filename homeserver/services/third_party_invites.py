"""Invites to addresses, such as those of email, in place of users (CS, SS "Third-party invites").

The room holds an `m.room.third_party_invite` event with a token and public keys of an identity server. Once the server
of whoever has the address shows the token signed for one of its users, it is exchanged for an invite of that user.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import structlog

from federation.errors import FederationError, Refused
from homeserver.errors import Forbidden, InvalidParam, MatrixError, NotFound
from homeserver.eventgraph.third_party_invites import keys_that_signed
from homeserver.ids import RoomId, UserId, is_room_id, is_user_id, server_name_of
from homeserver.services.event_writer import NewEvent
from homeserver.services.other_servers import as_matrix_error, of_no_use
from homeserver.services.suspension import check_not_suspended

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from federation.client import FederationClient
    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.ids import ServerName
    from homeserver.rooms.hosted_rooms import HostedRooms
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.event_writer import EventWriter
    from homeserver.services.identity_servers import IdentityServers, ThirdPartyAddress
    from homeserver.services.membership import Membership
    from homeserver.services.profiles import Profiles
    from homeserver.services.requester import Requester
    from homeserver.services.resident.access import ResidentAccess
    from homeserver.storage.accounts import AccountStore

INVITE = "m.room.third_party_invite"
MAX_BOUND = 100
"""So many invites are taken in at once when an address is bound to a user."""
_MAX_NAME = 255
_MAX_KEYS = 5
_AT_ONCE = 10
_SECONDS = 60.0
_TOLD: tuple[tuple[StateKey, str, str], ...] = (
    (("m.room.canonical_alias", ""), "alias", "room_alias"),
    (("m.room.avatar", ""), "url", "room_avatar_url"),
    (("m.room.join_rules", ""), "join_rule", "room_join_rules"),
    (("m.room.name", ""), "name", "room_name"),
    (("m.room.create", ""), "type", "room_type"),
)
"""What an identity server is told of a room: entry of the state, field of its content, name there."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """A token that an identity server has signed for a user, and who made the invite that it belongs to."""

    room_id: RoomId
    sender: UserId
    target: UserId
    signed: dict[str, Any]

    @property
    def content(self) -> dict[str, Any]:
        """The content of the invite that it is exchanged for; the name that is shown is the room's to say."""
        return {"membership": "invite", "third_party_invite": {"display_name": "", "signed": self.signed}}


def read_claim(room_id: Any, sender: Any, target: Any, signed: Any) -> Claim:
    """A claim out of what somebody sent; `InvalidParam` for what is none."""
    if not isinstance(room_id, str) or not is_room_id(room_id):
        raise InvalidParam("`room_id` is not the id of a room")
    for name, value in (("sender", sender), ("mxid", target)):
        if not isinstance(value, str) or not is_user_id(value):
            raise InvalidParam(f"`{name}` is not a user id")
    if not isinstance(signed, dict) or not isinstance(signed.get("token"), str):
        raise InvalidParam("`signed` has no token")
    if signed.get("mxid") != target:
        raise InvalidParam("`signed` is for somebody else")
    return Claim(RoomId(room_id), UserId(sender), UserId(target), signed)


class ThirdPartyInvites:
    """Makes invites to addresses, and exchanges them for invites of users."""

    def __init__(
        self,
        server_name: ServerName,
        rooms: RoomReader,
        hosted: HostedRooms,
        access: ResidentAccess,
        accounts: AccountStore,
        writer: EventWriter,
        membership: Membership,
        profiles: Profiles,
        client: FederationClient,
        identity_servers: IdentityServers,
    ) -> None:
        self._server_name = server_name
        self._rooms = rooms
        self._hosted = hosted
        self._access = access
        self._accounts = accounts
        self._writer = writer
        self._membership = membership
        self._profiles = profiles
        self._client = client
        self._identity_servers = identity_servers

    async def invite(
        self,
        requester: Requester,
        room_id: RoomId,
        who: ThirdPartyAddress,
        content: Mapping[str, Any],
    ) -> None:
        """Invite whoever has an address; where nobody is known to, the identity server keeps the invite for them.

        Raises `Forbidden` where the room does not allow it, and whatever the identity server says.
        """
        check_not_suspended(requester)
        await self._check_may_invite(requester.user_id, room_id)
        user_id = await self._identity_servers.look_up(who)
        if user_id is not None:
            await self._membership.invite(requester, room_id, user_id, None, **content)
            return
        details = await self._details(requester.user_id, room_id)
        stored = await self._identity_servers.store_invite(who, details)
        new = NewEvent(INVITE, stored.content, requester.user_id, state_key=stored.token)
        await self._writer.write(room_id, new)

    async def exchange(self, origin: ServerName, claim: Claim) -> None:
        """Invite a user of another server, which shows their claim, into a room that this server is in.

        Raises `NotFound` where this server is not in the room, `Forbidden` where the claim does not hold.
        """
        if server_name_of(claim.target) != origin:
            raise Forbidden("The invited user is not of your server")
        await self._access.room(origin, claim.room_id)
        await self._invite(claim)

    async def _invite(self, claim: Claim) -> None:
        """Nothing where the user is invited already, or in the room."""
        row = await self._rooms.membership(claim.room_id, claim.target)
        if row is not None and row.membership in ("invite", "join"):
            return
        source = await self._rooms.state_event(claim.room_id, INVITE, claim.signed["token"])
        if source is None or source.sender != claim.sender:
            raise Forbidden("There is no such invite in the room")
        await self._check_keys(source, claim)
        name = source.content.get("display_name")
        shown = name[:_MAX_NAME] if isinstance(name, str) else ""
        invite = {"third_party_invite": {"display_name": shown, "signed": claim.signed}}
        await self._membership.invite_in_name_of(claim.sender, claim.room_id, claim.target, invite)

    async def claim(self, claim: Claim) -> None:
        """Have a user of ours invited, here or by the server of whoever invited; raises as `exchange` does."""
        if not await self._hosted.is_elsewhere(claim.room_id):
            await self._invite(claim)
            return
        server = server_name_of(claim.sender)
        if server == self._server_name:
            raise NotFound("Nobody of this server is in this room")
        event = {
            "type": "m.room.member",
            "room_id": claim.room_id,
            "sender": claim.sender,
            "state_key": claim.target,
            "content": claim.content,
        }
        try:
            await self._client.exchange_third_party_invite(server, claim.room_id, event)
        except Refused as error:
            raise as_matrix_error(error) from error
        except FederationError as error:
            raise of_no_use(server, error) from error

    async def bound(self, user_id: str, invites: Sequence[Mapping[str, Any]]) -> None:
        """An address now belongs to a user of ours, and these invites waited for it.

        What is refused stays refused; 502 where a server could not be asked, so that the identity server tells it again.
        """
        account = None
        if is_user_id(user_id) and server_name_of(user_id) == self._server_name:
            account = await self._accounts.get(UserId(user_id))
        if account is None or account.deactivated_ts is not None:
            raise NotFound("Unknown user")
        if len(invites) > MAX_BOUND:
            raise InvalidParam(f"There are more than {MAX_BOUND} invites")
        slots = asyncio.Semaphore(_AT_ONCE)

        async def claim(invite: Mapping[str, Any]) -> bool:
            async with slots:
                return await self._claim_for(user_id, invite)

        try:
            async with asyncio.timeout(_SECONDS):
                done = await asyncio.gather(*map(claim, invites))
        except TimeoutError:
            done = [False]
        if not all(done):
            raise MatrixError("Not all of the servers could be asked", status=502)

    async def _claim_for(self, user_id: str, invite: Mapping[str, Any]) -> bool:
        """Whether an invite has come to its end, be it that it was refused; False where it is to be tried again."""
        try:
            await self.claim(
                read_claim(invite.get("room_id"), invite.get("sender"), user_id, invite.get("signed"))
            )
        except MatrixError as error:
            _log.info("third_party_invite_not_exchanged", user_id=user_id, why=error.message)
            return error.status < 500
        return True

    async def _check_may_invite(self, user_id: UserId, room_id: RoomId) -> None:
        """The identity server writes to whoever is invited: it is not asked for what the room would refuse."""
        row = await self._rooms.membership(room_id, user_id)
        if row is None or row.membership != "join":
            raise Forbidden("You are not in this room")
        levels = await self._rooms.power_levels(room_id)
        if levels.user_level(user_id) < levels.required_for("invite"):
            raise Forbidden("Your power level does not let you invite")

    async def _check_keys(self, source: Event, claim: Claim) -> None:
        """ "H1 MUST verify [...] the `signed` property is correct as well as the `key_validity_url` as still being valid." """
        keys = keys_that_signed(source.version, claim.signed, source.content)
        for key in islice(dict.fromkeys(keys), _MAX_KEYS):
            # "If this URL is absent, the key must be considered valid indefinitely."
            if key.key_validity_url is None:
                return
            if await self._identity_servers.is_key_valid(key.key_validity_url, key.public_key):
                return
        raise Forbidden("The invite is not signed with a key that holds")

    async def _details(self, user_id: UserId, room_id: RoomId) -> dict[str, Any]:
        """What the identity server may say in its message: who invites, and into which room."""
        state = await self._rooms.state_entries(room_id, [key for key, _, _ in _TOLD])
        details: dict[str, Any] = {"room_id": room_id, "sender": user_id}
        for key, field, name in _TOLD:
            value = state[key].content.get(field) if key in state else None
            if isinstance(value, str):
                details[name] = value
        profile = await self._profiles.member_content(user_id)
        for field, name in (("displayname", "sender_display_name"), ("avatar_url", "sender_avatar_url")):
            if field in profile:
                details[name] = profile[field]
        return details
