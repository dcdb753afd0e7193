"""The form of events: required fields, their types, ids, sizes (CS "Size limits"; the event format of each version)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crypto import canonical_json
from crypto.errors import CanonicalJsonError
from homeserver.eventgraph.errors import EventRefused
from homeserver.ids import MAX_ID_BYTES, is_event_id, is_room_id, is_user_id

if TYPE_CHECKING:
    from homeserver.eventgraph.room_versions import RoomVersion

MAX_EVENT_BYTES = 65_536
MAX_PREV_EVENTS = 20
MAX_AUTH_EVENTS = 10
MAX_INTEGER = 2**63 - 1


def max_depth(version: RoomVersion) -> int:
    """The greatest depth of an event: that of an integer, which canonical JSON bounds from version 6 on."""
    return canonical_json.MAX_INTEGER if version.strict_canonical_json else MAX_INTEGER


def check_size(canonical: bytes) -> None:
    """Raise `EventRefused` for an event over 65,536 bytes in its canonical form, signatures included."""
    if len(canonical) > MAX_EVENT_BYTES:
        raise EventRefused(f"the event has more than {MAX_EVENT_BYTES} bytes", too_large=True)


def check_format(version: RoomVersion, pdu: dict[str, Any], *, any_references: bool = False) -> None:
    """Raise `EventRefused` unless the fields of an event are there and of the right kind.

    `any_references`: however many it follows or cites, as old events may.
    """
    try:
        canonical_json.check(pdu, any_number=not version.strict_canonical_json)
    except CanonicalJsonError as error:
        raise EventRefused(str(error)) from error
    if "state_key" in pdu and pdu["state_key"] is None:
        raise EventRefused("`state_key` is not text")
    check_type_and_key(pdu.get("type"), pdu.get("state_key"))
    sender = pdu.get("sender")
    if not isinstance(sender, str) or not is_user_id(sender):
        raise EventRefused("`sender` is not a user id")
    is_create = pdu["type"] == "m.room.create" and pdu.get("state_key") == ""
    room_id = pdu.get("room_id")
    if version.room_id_is_create_hash and is_create:
        if "room_id" in pdu:
            raise EventRefused("a create event of this room version has no `room_id`")
    elif not isinstance(room_id, str) or not is_room_id(room_id):
        raise EventRefused("`room_id` is not a room id")
    elif version.room_id_is_create_hash == (":" in room_id):
        raise EventRefused("`room_id` is not a room id of this room version")
    if not isinstance(pdu.get("content"), dict):
        raise EventRefused("`content` is not an object")
    # Canonical JSON has drawn narrower limits already, from version 6 on.
    for name, least in (("origin_server_ts", -(2**63)), ("depth", 0)):
        value = pdu.get(name)
        if type(value) is not int or not least <= value <= MAX_INTEGER:
            raise EventRefused(f"`{name}` is not a number that may stand there")
    hashes = pdu.get("hashes")
    if not isinstance(hashes, dict) or not isinstance(hashes.get("sha256"), str):
        raise EventRefused("`hashes` is not an object with a `sha256`")
    if not isinstance(pdu.get("signatures"), dict):
        raise EventRefused("`signatures` is not an object")
    most = MAX_EVENT_BYTES if any_references else 0
    _check_references(version, pdu, "prev_events", most or MAX_PREV_EVENTS)
    _check_references(version, pdu, "auth_events", most or MAX_AUTH_EVENTS)
    event_id = pdu.get("event_id")
    if version.event_ids_are_given and (not isinstance(event_id, str) or not is_event_id(event_id)):
        raise EventRefused("`event_id` is not an event id")


def check_type_and_key(event_type: Any, state_key: Any) -> None:
    """Raise `EventRefused` unless a type and a state key (or None) may stand in an event."""
    if not _is_short_text(event_type):
        raise EventRefused("`type` is not text of at most 255 bytes", too_large=isinstance(event_type, str))
    if state_key is not None and not _is_short_text(state_key):
        raise EventRefused(
            "`state_key` is not text of at most 255 bytes", too_large=isinstance(state_key, str)
        )


def _check_references(version: RoomVersion, pdu: dict[str, Any], name: str, most: int) -> None:
    references = pdu.get(name)
    if not isinstance(references, list) or len(references) > most:
        raise EventRefused(f"`{name}` is not a list of at most {most} references")
    for reference in references:
        event_id = reference
        if version.event_ids_are_given:
            if (
                not isinstance(reference, list | tuple)
                or len(reference) != 2
                or not isinstance(reference[1], dict)
            ):
                raise EventRefused(f"`{name}` holds something that is not a reference")
            event_id = reference[0]
        if not isinstance(event_id, str) or not is_event_id(event_id):
            raise EventRefused(f"`{name}` holds something that is not an event id")


def _is_short_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    # The usual case without encoding: no character takes more than four bytes.
    return len(value) * 4 <= MAX_ID_BYTES or len(value.encode("utf-8", "surrogatepass")) <= MAX_ID_BYTES
