"""The hashes of events (SS "Calculating the content hash", "Calculating the reference hash")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crypto import base64, canonical_json
from crypto.errors import CryptoError
from crypto.hashes import sha256
from homeserver.eventgraph.redaction import redact
from homeserver.ids import EventId

if TYPE_CHECKING:
    from crypto.signatures import Encoder
    from homeserver.eventgraph.room_versions import RoomVersion

_NOT_IN_CONTENT_HASH = frozenset({"unsigned", "signatures", "hashes"})
_NOT_IN_REFERENCE_HASH = frozenset({"unsigned", "signatures", "age_ts"})


def encoder_of(version: RoomVersion) -> Encoder:
    """How events of a room version are written where they are hashed and signed."""
    if version.strict_canonical_json:
        return canonical_json.encode_unchecked
    return canonical_json.encode_historical


def content_hash(version: RoomVersion, pdu: dict[str, Any]) -> bytes:
    """The SHA-256 over all of an event but `unsigned`, `signatures` and `hashes`."""
    return sha256(
        encoder_of(version)({name: value for name, value in pdu.items() if name not in _NOT_IN_CONTENT_HASH})
    )


def has_right_content_hash(version: RoomVersion, pdu: dict[str, Any]) -> bool:
    """Whether the event carries the hash of its own content; a wrong one means that it is to be redacted."""
    hashes = pdu.get("hashes")
    text = hashes.get("sha256") if isinstance(hashes, dict) else None
    if not isinstance(text, str):
        return False
    try:
        return base64.decode(text) == content_hash(version, pdu)
    except CryptoError:
        return False


def reference_hash(version: RoomVersion, pdu: dict[str, Any]) -> bytes:
    """The SHA-256 by which other events refer to this one; redaction does not change it."""
    redacted = redact(version, pdu)
    return sha256(
        encoder_of(version)(
            {name: value for name, value in redacted.items() if name not in _NOT_IN_REFERENCE_HASH}
        )
    )


def event_id_of(version: RoomVersion, pdu: dict[str, Any]) -> EventId:
    """The id of an event: given in room versions 1 and 2, the reference hash from then on."""
    if version.event_ids_are_given:
        return EventId(pdu["event_id"])
    encode = base64.encode_unpadded_urlsafe if version.event_id_is_urlsafe else base64.encode_unpadded
    return EventId("$" + encode(reference_hash(version, pdu)))
