"""New rooms (CS "Creation"): from a preset and options to the first events, all written at once or not at all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from homeserver.errors import BadJson, Forbidden, InvalidParam, MatrixError
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.ids import is_user_id, server_name_of
from homeserver.services.directory import alias_in_use
from homeserver.services.event_writer import NewEvent
from homeserver.services.suspension import check_not_suspended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.config import RoomSettings
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import RoomAlias, RoomId, ServerName, UserId
    from homeserver.services.directory import Directory
    from homeserver.services.event_writer import EventWriter
    from homeserver.services.identity_servers import ThirdPartyAddress
    from homeserver.services.membership import Membership
    from homeserver.services.profiles import Profiles
    from homeserver.services.requester import Requester
    from homeserver.services.third_party_invites import ThirdPartyInvites
    from homeserver.storage.database import Transaction

MAX_INITIAL_STATE = 500
MAX_INVITES = 100
CREATOR_LEVEL = 100
TOMBSTONE_LEVEL = 150


# So long a new room waits for other servers; the rest is done behind the answer.
_SECONDS = 15.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Preset:
    """What a preset stands for."""

    join_rule: str
    history_visibility: str
    guest_access: str
    invite_level: int
    trusts_invitees: bool = False


PRESETS = {
    "private_chat": Preset("invite", "shared", "can_join", 0),
    "trusted_private_chat": Preset("invite", "shared", "can_join", 0, trusts_invitees=True),
    "public_chat": Preset("public", "shared", "forbidden", 50),
}


@dataclass(frozen=True, slots=True)
class InitialState:
    """A state event of a new room."""

    type: str
    state_key: str
    content: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RoomOptions:
    """How a new room is to be; the fields are those of `POST /createRoom`."""

    preset: str | None = None
    public: bool = False
    version: str | None = None
    alias_localpart: str | None = None
    name: str | None = None
    topic: str | None = None
    invite: Sequence[str] = ()
    invite_3pid: Sequence[ThirdPartyAddress] = ()
    is_direct: bool = False
    creation_content: dict[str, Any] = field(default_factory=dict)
    initial_state: Sequence[InitialState] = ()
    power_levels: dict[str, Any] = field(default_factory=dict)


def room_version(identifier: str) -> RoomVersion:
    """A room version; `MatrixError` for one that this server does not know."""
    version = ROOM_VERSIONS.get(identifier)
    if version is None:
        raise MatrixError(f"Unknown room version {identifier}", errcode="M_UNSUPPORTED_ROOM_VERSION")
    return version


class RoomCreation:
    """Makes rooms."""

    def __init__(
        self,
        server_name: ServerName,
        settings: RoomSettings,
        writer: EventWriter,
        profiles: Profiles,
        membership: Membership,
        third_party_invites: ThirdPartyInvites,
        directory: Directory,
    ) -> None:
        self._server_name = server_name
        self._settings = settings
        self._writer = writer
        self._profiles = profiles
        self._membership = membership
        self._third_party_invites = third_party_invites
        self._directory = directory
        self._inviting: set[asyncio.Task[None]] = set()

    async def create(self, requester: Requester, options: RoomOptions) -> RoomId:
        """Make a room; the answer is its id."""
        check_not_suspended(requester)
        version = room_version(options.version or self._settings.default_version)
        if options.preset is not None and options.preset not in PRESETS:
            raise BadJson(f"`preset` is none of {', '.join(PRESETS)}")
        preset = PRESETS[options.preset or ("public_chat" if options.public else "private_chat")]
        invites = len(options.invite) + len(options.invite_3pid)
        if len(options.initial_state) > MAX_INITIAL_STATE or invites > MAX_INVITES:
            raise InvalidParam(
                f"At most {MAX_INITIAL_STATE} events and {MAX_INVITES} invites come with a new room"
            )
        invitees = [
            await self._membership.check_invitee(user_id) for user_id in dict.fromkeys(options.invite)
        ]
        invitees = [user_id for user_id in invitees if user_id != requester.user_id]
        alias = None
        if options.alias_localpart is not None:
            alias = await self._directory.check_free(options.alias_localpart)
        creator = requester.user_id
        events = await self._first_events(creator, version, preset, options, invitees, alias)
        room_id = await self.write(creator, version, events, alias=alias, published=options.public)
        elsewhere = [user_id for user_id in invitees if not self._is_ours(user_id)]
        if elsewhere or options.invite_3pid:
            await self._begin_to_invite(requester, room_id, elsewhere, options)
        return room_id

    async def stop(self) -> None:
        """Invite nobody any more."""
        for task in self._inviting:
            task.cancel()
        await asyncio.gather(*self._inviting, return_exceptions=True)

    async def _begin_to_invite(
        self, requester: Requester, room_id: RoomId, user_ids: Sequence[UserId], options: RoomOptions
    ) -> None:
        """Invite those for whom other servers are to be asked; those that are slow are waited for in the background."""
        task = asyncio.create_task(self._invite_elsewhere(requester, room_id, user_ids, options))
        self._inviting.add(task)
        task.add_done_callback(self._inviting.discard)
        await asyncio.wait([task], timeout=_SECONDS)

    async def _invite_elsewhere(
        self, requester: Requester, room_id: RoomId, user_ids: Sequence[UserId], options: RoomOptions
    ) -> None:
        """The room is there already: who cannot be reached is invited again by hand."""
        content = {"is_direct": True} if options.is_direct else {}
        for user_id in user_ids:
            try:
                await self._membership.invite_in_name_of(requester.user_id, room_id, user_id, dict(content))
            except MatrixError as error:
                _log.info("invite_failed", room_id=room_id, user_id=user_id, why=error.message)
            except Exception:  # noqa: BLE001 - the fault is ours, and the others are to be invited
                _log.exception("invite_failed", room_id=room_id, user_id=user_id)
        for who in options.invite_3pid:
            try:
                await self._third_party_invites.invite(requester, room_id, who, content)
            except MatrixError as error:
                _log.info("third_party_invite_failed", room_id=room_id, why=error.message)
            except Exception:  # noqa: BLE001 - as above
                _log.exception("third_party_invite_failed", room_id=room_id)

    def _is_ours(self, user_id: UserId) -> bool:
        return server_name_of(user_id) == self._server_name

    async def write(
        self,
        creator: UserId,
        version: RoomVersion,
        events: Sequence[NewEvent],
        *,
        alias: RoomAlias | None = None,
        published: bool = False,
    ) -> RoomId:
        """Write the first events of a room, with its alias and its place in the directory."""

        async def extra(transaction: Transaction, room_id: RoomId) -> None:
            if alias is not None and not await self._directory.create_in(
                transaction, creator, alias, room_id
            ):
                raise alias_in_use(alias)
            if published:
                await self._directory.publish_in(transaction, room_id, published=True)

        try:
            return await self._writer.create_room(version, events, extra=extra)
        except Forbidden as error:
            raise MatrixError(error.message, errcode="M_INVALID_ROOM_STATE") from error

    async def _first_events(
        self,
        creator: UserId,
        version: RoomVersion,
        preset: Preset,
        options: RoomOptions,
        invitees: Sequence[UserId],
        alias: RoomAlias | None,
    ) -> list[NewEvent]:
        create = create_content(creator, version, options.creation_content)
        trusted = invitees if preset.trusts_invitees else []
        if version.creators_are_privileged and trusted:
            named = create.get("additional_creators", [])
            create["additional_creators"] = list(dict.fromkeys([*named, *trusted]))
        join = {**await self._profiles.member_content(creator), "membership": "join"}
        events = [
            NewEvent("m.room.create", create, creator, state_key=""),
            NewEvent("m.room.member", join, creator, state_key=creator),
            NewEvent(
                "m.room.power_levels",
                _power_levels(creator, version, preset, trusted, options.power_levels),
                creator,
                state_key="",
            ),
        ]
        state: dict[tuple[str, str], dict[str, Any]] = {
            ("m.room.join_rules", ""): {"join_rule": preset.join_rule},
            ("m.room.history_visibility", ""): {"history_visibility": preset.history_visibility},
            ("m.room.guest_access", ""): {"guest_access": preset.guest_access},
        }
        if alias is not None:
            state = {("m.room.canonical_alias", ""): {"alias": alias}, **state}
        for one in options.initial_state:
            if one.type in ("m.room.create", "m.room.member"):
                raise InvalidParam(f"{one.type} cannot be part of `initial_state`")
            state.pop((one.type, one.state_key), None)
            state[one.type, one.state_key] = one.content
        for event_type, content in (
            ("m.room.name", {"name": options.name} if options.name is not None else None),
            ("m.room.topic", topic_content(options.topic) if options.topic is not None else None),
        ):
            if content is not None:
                state.pop((event_type, ""), None)
                state[event_type, ""] = content
        events += [
            NewEvent(event_type, content, creator, state_key=state_key)
            for (event_type, state_key), content in state.items()
        ]
        for user_id in filter(self._is_ours, invitees):
            invite = {**await self._profiles.member_content(user_id), "membership": "invite"}
            if options.is_direct:
                invite["is_direct"] = True
            events.append(NewEvent("m.room.member", invite, creator, state_key=user_id))
        return events


def create_content(creator: UserId, version: RoomVersion, wanted: dict[str, Any]) -> dict[str, Any]:
    """The content of a create event, the keys that are ours to set overwritten."""
    content = {name: value for name, value in wanted.items() if name not in ("creator", "room_version")}
    content["room_version"] = version.identifier
    if not version.creator_is_sender:
        content["creator"] = creator
    if version.creators_are_privileged:
        named = content.get("additional_creators", [])
        if not isinstance(named, list) or not all(isinstance(one, str) and is_user_id(one) for one in named):
            raise BadJson("`additional_creators` is not a list of user ids")
    return content


def topic_content(topic: str) -> dict[str, Any]:
    """The content of a topic event, in the old form and in that of `m.topic`."""
    return {"topic": topic, "m.topic": {"m.text": [{"mimetype": "text/plain", "body": topic}]}}


def _power_levels(
    creator: UserId,
    version: RoomVersion,
    preset: Preset,
    trusted: Sequence[UserId],
    override: dict[str, Any],
) -> dict[str, Any]:
    users: dict[str, int] = {}
    if not version.creators_are_privileged:
        users = dict.fromkeys([creator, *trusted], CREATOR_LEVEL)
    levels: dict[str, Any] = {
        "ban": 50,
        "events": {
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.encryption": 100,
            "m.room.history_visibility": 100,
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.server_acl": 100,
            "m.room.tombstone": CREATOR_LEVEL,
        },
        "events_default": 0,
        "invite": preset.invite_level,
        "kick": 50,
        "redact": 50,
        "state_default": 50,
        "users": users,
        "users_default": 0,
    }
    levels.update(override)
    if version.creators_are_privileged:
        levels["events"] = _with_tombstone_level(levels, override)
    return levels


def _with_tombstone_level(levels: dict[str, Any], override: dict[str, Any]) -> Any:
    """The levels of events with that of tombstones; a level that the client names is kept."""
    events, named = levels["events"], override.get("events")
    if not isinstance(events, dict) or (isinstance(named, dict) and "m.room.tombstone" in named):
        return events
    return {**events, "m.room.tombstone": tombstone_level(levels["state_default"])}


def tombstone_level(state_default: Any) -> int:
    """The level that tombstones need from version 12 on: it "MUST explicitly be higher than `state_default`"."""
    return max(TOMBSTONE_LEVEL, state_default + 1 if isinstance(state_default, int) else 0)
