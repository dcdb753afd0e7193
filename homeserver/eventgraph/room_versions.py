"""The room versions, each as the difference to the one before (specification, "Room Versions")."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class RoomVersion:
    """The rules that differ between room versions. Code asks these flags, never the number."""

    identifier: str
    event_ids_are_given: bool = True
    """Event ids are made by the sender, and references carry hashes (versions 1 and 2)."""
    event_id_is_urlsafe: bool = False
    """The reference hash in an event id is in URL-safe Base64 (from version 4)."""
    state_resolution: Literal["v1", "v2", "v2.1"] = "v1"
    enforces_key_validity: bool = False
    """Signing keys must have been valid at `origin_server_ts` (from version 5)."""
    strict_canonical_json: bool = False
    """No floats and no integers out of range (from version 6)."""
    aliases_are_special: bool = True
    """`m.room.aliases` has its own authorisation and redaction rules (until version 5)."""
    notification_levels_are_checked: bool = False
    """`notifications` in power levels are authorised like `events` (from version 6)."""
    redactions_are_authorised: bool = True
    """`m.room.redaction` has an authorisation rule of its own (versions 1 and 2)."""
    has_knock: bool = False
    has_restricted_join: bool = False
    has_knock_restricted_join: bool = False
    redaction_keeps_restricted_join: bool = False
    """Redaction keeps `join_authorised_via_users_server` (from version 9)."""
    power_levels_are_integers: bool = False
    """Power levels that are text are refused (from version 10)."""
    creator_is_sender: bool = False
    """The creator is the sender of the create event, and its content has no `creator` (from version 11)."""
    redaction_is_v11: bool = False
    """Redaction as of version 11: keeps all of the create event's content, `redacts` in the content, ..."""
    creators_are_privileged: bool = False
    """Creators stand above all power levels, `additional_creators` among them (from version 12)."""
    room_id_is_create_hash: bool = False
    """The room id is the hash of the create event, which nobody cites as an auth event (from version 12)."""


V1 = RoomVersion("1")
V2 = replace(V1, identifier="2", state_resolution="v2")
V3 = replace(V2, identifier="3", event_ids_are_given=False, redactions_are_authorised=False)
V4 = replace(V3, identifier="4", event_id_is_urlsafe=True)
V5 = replace(V4, identifier="5", enforces_key_validity=True)
V6 = replace(
    V5,
    identifier="6",
    strict_canonical_json=True,
    aliases_are_special=False,
    notification_levels_are_checked=True,
)
V7 = replace(V6, identifier="7", has_knock=True)
V8 = replace(V7, identifier="8", has_restricted_join=True)
V9 = replace(V8, identifier="9", redaction_keeps_restricted_join=True)
V10 = replace(V9, identifier="10", has_knock_restricted_join=True, power_levels_are_integers=True)
V11 = replace(V10, identifier="11", creator_is_sender=True, redaction_is_v11=True)
V12 = replace(
    V11,
    identifier="12",
    state_resolution="v2.1",
    creators_are_privileged=True,
    room_id_is_create_hash=True,
)

ROOM_VERSIONS: dict[str, RoomVersion] = {
    version.identifier: version for version in (V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, V11, V12)
}
"""Every room version that this server knows."""
