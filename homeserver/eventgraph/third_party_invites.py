"""Third-party invites: whether an identity server has said who the invited address belongs to (rule 5.4.1)."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from crypto import keys, signatures
from crypto.errors import CryptoError
from homeserver.eventgraph.hashing import encoder_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from homeserver.eventgraph.room_versions import RoomVersion

# Keys times signatures: an invite has one or two of each, and an event of 64 KiB could ask for a million.
_MAX_VERIFICATIONS = 500


class InviteKey(NamedTuple):
    """A public key of an `m.room.third_party_invite` event, and where to ask whether it still holds."""

    public_key: str
    key_validity_url: str | None


def keys_that_signed(
    version: RoomVersion, signed: Mapping[str, Any], content: Mapping[str, Any]
) -> Iterator[InviteKey]:
    """The keys in the content of an `m.room.third_party_invite` event with which `signed` is signed."""
    by_entity = signed.get("signatures")
    made = [
        (entity, key_id)
        for entity, by_key in (by_entity.items() if isinstance(by_entity, dict) else ())
        if isinstance(by_key, dict)
        for key_id in by_key
        if key_id.startswith("ed25519:")
    ]
    pairs = ((key, *signature) for key in _keys_of(content) for signature in made)
    for key, entity, key_id in islice(pairs, _MAX_VERIFICATIONS):
        try:
            verify_key = keys.parse_verify_key(key.public_key)
            signatures.verify_json(dict(signed), entity, key_id, verify_key, encode=encoder_of(version))
        except CryptoError:
            continue
        yield key


def _keys_of(content: Mapping[str, Any]) -> Iterator[InviteKey]:
    listed = content.get("public_keys")
    for entry in (content, *(listed if isinstance(listed, list) else ())):
        public_key = entry.get("public_key") if isinstance(entry, dict) else None
        if isinstance(public_key, str):
            url = entry.get("key_validity_url")
            yield InviteKey(public_key, url if isinstance(url, str) else None)
