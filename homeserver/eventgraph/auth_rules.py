"""The authorisation rules of all room versions (specification, "Authorization rules" of each room version).

Where a rule quotes numbers, they are those of room version 12.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.eventgraph.auth_member import check_member
from homeserver.eventgraph.errors import AuthRuleViolated
from homeserver.eventgraph.power_levels import PowerLevels, check_power_levels_event
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.ids import is_user_id, server_name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.eventgraph.room_versions import RoomVersion

CREATE = ("m.room.create", "")
POWER_LEVELS = ("m.room.power_levels", "")
JOIN_RULES = ("m.room.join_rules", "")


def auth_types_for(
    version: RoomVersion, *, type: str, state_key: str | None, sender: str, content: Mapping[str, Any]
) -> frozenset[StateKey]:
    """The entries of the state that an event cites as its `auth_events` (SS "Auth events selection")."""
    if type == "m.room.create":
        return frozenset()
    keys = {POWER_LEVELS, ("m.room.member", sender)}
    if not version.room_id_is_create_hash:
        keys.add(CREATE)
    if type == "m.room.member" and state_key is not None:
        keys.add(("m.room.member", state_key))
        membership = content.get("membership")
        if membership in ("join", "invite") or (membership == "knock" and version.has_knock):
            keys.add(JOIN_RULES)
        invite = content.get("third_party_invite")
        if membership == "invite" and isinstance(invite, dict):
            signed = invite.get("signed")
            token = signed.get("token") if isinstance(signed, dict) else None
            if isinstance(token, str):
                keys.add(("m.room.third_party_invite", token))
        authoriser = content.get("join_authorised_via_users_server")
        if membership == "join" and version.has_restricted_join and isinstance(authoriser, str):
            keys.add(("m.room.member", authoriser))
    return frozenset(keys)


def auth_types_of(event: Event) -> frozenset[StateKey]:
    """The entries of the state that decide whether an event is allowed."""
    return auth_types_for(
        event.version, type=event.type, state_key=event.state_key, sender=event.sender, content=event.content
    )


def check_auth_events(event: Event, auth_events: Iterable[Event]) -> None:
    """Rule 3: what an event cites; raises `AuthRuleViolated`."""
    wanted = auth_types_of(event)
    seen: set[StateKey] = set()
    for cited in auth_events:
        if cited.state_key is None or cited.key not in wanted:
            raise AuthRuleViolated("3.2", f"{cited.event_id} does not belong among the auth events")
        if cited.key in seen:
            raise AuthRuleViolated("3.1", f"two auth events for {cited.key}")
        if cited.rejected:
            raise AuthRuleViolated("3.3", f"the auth event {cited.event_id} was rejected")
        if cited.room_id != event.room_id:
            raise AuthRuleViolated("3.5", f"the auth event {cited.event_id} is of another room")
        seen.add(cited.key)
    if event.type != "m.room.create" and not event.version.room_id_is_create_hash and CREATE not in seen:
        raise AuthRuleViolated("3.4", "the create event is not among the auth events")


def check_auth_rules(event: Event, state: Mapping[StateKey, Event]) -> None:
    """Whether the state allows the event; raises `AuthRuleViolated`.

    `state` holds at least the entries of `auth_types_for` that exist, and the create event always.
    """
    if event.type == "m.room.create":
        _check_create(event)
        return
    create = state.get(CREATE)
    if create is None or create.rejected:
        raise AuthRuleViolated("2", "the room has no create event")
    if event.version.room_id_is_create_hash and event.room_id != create.room_id:
        raise AuthRuleViolated("2", "the event is of another room than its create event")
    if create.content.get("m.federate") is False and server_name_of(event.sender) != server_name_of(
        create.sender
    ):
        raise AuthRuleViolated("4", "this room is not federated")
    if event.type == "m.room.aliases" and event.version.aliases_are_special:
        # Versions 1 to 5: "If sender's domain doesn't match state_key, reject. Otherwise, allow."
        if event.state_key is None or event.state_key != server_name_of(event.sender):
            raise AuthRuleViolated("aliases", "a server sets its own aliases only")
        return
    levels = PowerLevels(event.version, create, state.get(POWER_LEVELS))
    if event.type == "m.room.member":
        check_member(event, create, state, levels)
        return
    sender_member = state.get(("m.room.member", event.sender))
    if sender_member is None or sender_member.content.get("membership") != "join":
        raise AuthRuleViolated("6", f"{event.sender} is not in the room")
    sender_level = levels.user_level(event.sender)
    if event.type == "m.room.third_party_invite":
        if sender_level < levels.required_for("invite"):
            raise AuthRuleViolated("7.1", "your power level does not let you invite")
        return
    required = levels.required_for_event(event.type, is_state=event.state_key is not None)
    if sender_level < required:
        raise AuthRuleViolated("8", f"{event.type} needs power level {required}, you have {sender_level}")
    if event.state_key is not None and event.state_key.startswith("@") and event.state_key != event.sender:
        raise AuthRuleViolated("9", "a state key that is a user id belongs to that user")
    if event.type == "m.room.power_levels":
        check_power_levels_event(event, create, state.get(POWER_LEVELS), sender_level)
    elif event.type == "m.room.redaction" and event.version.redactions_are_authorised:
        _check_redaction(event, levels, sender_level)


def _check_create(event: Event) -> None:
    """Rule 1."""
    version = event.version
    if event.prev_event_ids:
        raise AuthRuleViolated("1.1", "a create event has no previous events")
    if version.room_id_is_create_hash:
        if "room_id" in event.pdu:
            raise AuthRuleViolated("1.2", "a create event has no room id")
    elif server_name_of(event.room_id) != server_name_of(event.sender):
        raise AuthRuleViolated("1.2", "the room id is not of the sender's server")
    room_version = event.content.get("room_version", "1")
    if not isinstance(room_version, str) or room_version not in ROOM_VERSIONS:
        raise AuthRuleViolated("1.3", "unknown room version")
    if not version.creator_is_sender and "creator" not in event.content:
        raise AuthRuleViolated("1.4", "the create event names no creator")
    if version.creators_are_privileged and "additional_creators" in event.content:
        additional = event.content["additional_creators"]
        if not isinstance(additional, list) or not all(
            isinstance(user, str) and is_user_id(user) for user in additional
        ):
            raise AuthRuleViolated("1.4", "`additional_creators` is not a list of user ids")


def _check_redaction(event: Event, levels: PowerLevels, sender_level: int) -> None:
    """Versions 1 and 2: the redact level, or an event of one's own server."""
    if sender_level >= levels.required_for("redact"):
        return
    target = event.redacts
    if target is None or server_name_of(target) != server_name_of(event.event_id):
        raise AuthRuleViolated("redaction", "your power level does not let you redact")
