"""Who must sign an event, and with which keys (SS "Validating hashes and signatures on received events")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crypto.signatures import signature_of
from homeserver.eventgraph.event import Event
from homeserver.eventgraph.hashing import encoder_of
from homeserver.eventgraph.redaction import redact
from homeserver.ids import ServerName, server_name_of

if TYPE_CHECKING:
    from crypto.keys import SigningKey
    from homeserver.eventgraph.room_versions import RoomVersion

_MAX_SIGNATURES = 10
_MAX_SIGNATURE_BYTES = 512
_LONGEST_VALIDITY_MS = 7 * 24 * 60 * 60 * 1000


def servers_that_sign(event: Event) -> frozenset[ServerName]:
    """The servers whose signatures an event needs."""
    servers = set()
    is_member = event.type == "m.room.member"
    # "unless the event is a 3rd party invite": its sender must match that of the `m.room.third_party_invite`.
    if not (is_member and event.membership == "invite" and "third_party_invite" in event.content):
        servers.add(server_name_of(event.sender))
    if event.version.event_ids_are_given:
        # "Room versions 1 and 2 also require that a signature is present from the domain in the `event_id`."
        servers.add(server_name_of(event.event_id))
    if event.version.has_restricted_join and is_member:
        # "If the event is not validly signed by the homeserver of the user ID denoted by the key, reject."
        authoriser = event.content.get("join_authorised_via_users_server")
        if isinstance(authoriser, str):
            servers.add(server_name_of(authoriser))
    return frozenset(servers)


def is_key_valid_at(version: RoomVersion, origin_server_ts: int, *, valid_until_ts: int, now: int) -> bool:
    """Whether a key may have signed an event of a time (milliseconds), as far as the room version cares.

    From version 5 on: "Servers MUST use the lesser of `valid_until_ts` and 7 days into the future".
    """
    if not version.enforces_key_validity:
        return True
    return origin_server_ts <= min(valid_until_ts, now + _LONGEST_VALIDITY_MS)


def countersigned(event: Event, server_name: ServerName, key: SigningKey) -> Event:
    """An event with a further signature; it stays the same event."""
    encode = encoder_of(event.version)
    signatures = {
        name: dict(by_key) for name, by_key in event.pdu["signatures"].items() if isinstance(by_key, dict)
    }
    signature = signature_of(redact(event.version, event.pdu), key, encode=encode)
    signatures.setdefault(server_name, {})[key.key_id] = signature
    pdu = {**event.pdu, "signatures": signatures}
    return Event(event.version, pdu, event.event_id, encode(pdu), rejected=event.rejected)


def with_signatures_of(server_name: ServerName, event: Event, pdu: dict[str, Any]) -> Event:
    """An event with the signatures that a server added to its copy; nothing else of that is taken over.

    They are not checked here.
    """
    signatures = pdu.get("signatures")
    by_key = signatures.get(server_name) if isinstance(signatures, dict) else None
    added = {
        key_id: signature
        for key_id, signature in list(by_key.items() if isinstance(by_key, dict) else ())[:_MAX_SIGNATURES]
        if isinstance(signature, str) and len(key_id) + len(signature) <= _MAX_SIGNATURE_BYTES
    }
    known = event.pdu["signatures"].get(server_name)
    by_server = {
        **event.pdu["signatures"],
        server_name: {**(known if isinstance(known, dict) else {}), **added},
    }
    changed = {**event.pdu, "signatures": by_server}
    encode = encoder_of(event.version)
    return Event(event.version, changed, event.event_id, encode(changed), rejected=event.rejected)
