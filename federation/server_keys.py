"""Documents of signing keys: reading and trusting those of others, writing our own, answering as a notary.

Pure: the time is an argument. (Server-Server API, "Retrieving server keys"; Room Version 5, "Signing key validity period".)

Whom a document is believed:
1. It names the server that was asked for, and is signed by a key that it lists; no such signature in it is wrong.
2. It came from the server itself over TLS, or it is signed by a notary that the operator named, with a key that the
   notary itself gave us.
3. What came from the server itself outranks what a notary says: a notary may add keys and prolong them, but neither
   replace a key that the server gave, nor bring one back that the server retired.
4. A key holds until `valid_until_ts`, and no longer than seven days after it was fetched; a retired one until
   `expired_ts`, and for events only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from crypto import canonical_json, keys, signatures
from crypto.errors import CryptoError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import nacl.signing

    from crypto.keys import SigningKey

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
MAX_VALIDITY_MS = 7 * _DAY_MS
"""The spec: "Servers MUST use the lesser of this field and 7 days into the future when determining if a key is valid"."""
OWN_VALIDITY_MS = _DAY_MS
"""How long our own document holds at least; it is signed anew every hour."""

MAX_DOCUMENT_BYTES = 16 << 10
_MAX_KEYS = 32
_MAX_OLD_KEYS = 64
_KEY_ID = re.compile(r"ed25519:[a-zA-Z0-9_]{1,128}")


class BadKeyDocument(ValueError):
    """A document that is not believed; the text says why."""


@dataclass(frozen=True, slots=True)
class ServerKey:
    """A signing key of another server, as far as we know."""

    server_name: str
    key_id: str
    public_base64: str
    valid_until_ts: int
    """What is signed later than this is not valid; rule 4 is applied already."""
    retired: bool
    """The server signs no requests with it any more."""
    direct: bool
    """Whether the server itself said so, over TLS, or a notary did."""

    def signs_requests_at(self, now_ms: int) -> bool:
        """Whether a request that comes in now may be signed with it."""
        return not self.retired and now_ms <= self.valid_until_ts

    def signs_events_at(self, origin_server_ts: int | None) -> bool:
        """Whether an event may be signed with it; None where the room version does not enforce validity (1 to 4)."""
        return origin_server_ts is None or origin_server_ts <= self.valid_until_ts

    def verify_key(self) -> nacl.signing.VerifyKey:
        """The key, to check signatures with."""
        return keys.parse_verify_key(self.public_base64)


@dataclass(frozen=True, slots=True)
class KeyDocument:
    """A document that is believed."""

    server_name: str
    content: dict[str, Any]
    """As the server signed it."""
    keys: tuple[ServerKey, ...]
    valid_until_ts: int
    fetched_ts: int
    direct: bool


def parse_document(document: Any, server_name: str, now_ms: int, *, direct: bool) -> KeyDocument:
    """The document of a server (rules 1 and 4), from it or from a notary; raises `BadKeyDocument`."""
    if not isinstance(document, dict):
        raise BadKeyDocument("not an object")
    if document.get("server_name") != server_name:
        raise BadKeyDocument("not of the server that was asked for")
    most = now_ms + MAX_VALIDITY_MS
    valid_until_ts = min(_timestamp(document.get("valid_until_ts"), "valid_until_ts"), most)
    found: dict[str, ServerKey] = {}
    for key_id, entry in _entries(document, "old_verify_keys", _MAX_OLD_KEYS):
        expired_ts = min(_timestamp(entry.get("expired_ts"), "expired_ts"), most)
        found[key_id] = ServerKey(
            server_name, key_id, _public(entry), expired_ts, retired=True, direct=direct
        )
    for key_id, entry in _entries(document, "verify_keys", _MAX_KEYS):
        found[key_id] = ServerKey(
            server_name, key_id, _public(entry), valid_until_ts, retired=False, direct=direct
        )
    current = {key_id: key.verify_key() for key_id, key in found.items() if not key.retired}
    _check_signatures(document, server_name, current)
    return KeyDocument(server_name, document, tuple(found.values()), valid_until_ts, now_ms, direct)


def parse_notary_answer(
    documents: Sequence[Any],
    wanted: Iterable[str],
    notary: str,
    notary_keys: Mapping[str, nacl.signing.VerifyKey],
    now_ms: int,
) -> list[KeyDocument]:
    """What is believed of a notary's answer (rule 2); `notary_keys` are those the notary itself gave, by their ids."""
    asked = set(wanted)
    believed = []
    for document in documents:
        name = document.get("server_name") if isinstance(document, dict) else None
        if not isinstance(name, str) or name not in asked:
            continue
        try:
            _check_signatures(document, notary, notary_keys)
            believed.append(parse_document(document, name, now_ms, direct=False))
        except BadKeyDocument:
            # One bad document says nothing about the others.
            continue
    return believed


def merge(known: Mapping[str, ServerKey], document: KeyDocument) -> dict[str, ServerKey]:
    """The keys of a server by their ids, once a new document has come (rule 3)."""
    merged = dict(known)
    for key in document.keys:
        before = known.get(key.key_id)
        if before is None or key.direct:
            merged[key.key_id] = key
        elif before.public_base64 == key.public_base64:
            if not before.retired:
                later = max(before.valid_until_ts, key.valid_until_ts)
                merged[key.key_id] = replace(
                    before, valid_until_ts=key.valid_until_ts if key.retired else later, retired=key.retired
                )
        elif not before.direct and key.valid_until_ts > before.valid_until_ts:
            merged[key.key_id] = key
    return merged


# -- our own ---------------------------------------------------------------------------------------------


def own_document(server_name: str, own_keys: Sequence[SigningKey], now_ms: int) -> dict[str, Any]:
    """What we answer at `/_matrix/key/v2/server`: the same within an hour, and good for a day at least."""
    document: dict[str, Any] = {
        "server_name": server_name,
        "valid_until_ts": (now_ms // _HOUR_MS + 1) * _HOUR_MS + OWN_VALIDITY_MS,
        "verify_keys": {key.key_id: {"key": key.public_base64} for key in own_keys if key.retired_ts is None},
        "old_verify_keys": {
            key.key_id: {"key": key.public_base64, "expired_ts": key.retired_ts}
            for key in own_keys
            if key.retired_ts is not None
        },
    }
    return countersign(document, server_name, own_keys)


def countersign(document: dict[str, Any], notary: str, own_keys: Sequence[SigningKey]) -> dict[str, Any]:
    """A document with our signatures added, as a notary adds them."""
    for key in own_keys:
        if key.retired_ts is None:
            document = signatures.sign_json(document, notary, key)
    return document


# -- reading ---------------------------------------------------------------------------------------------


def is_key_id(text: str) -> bool:
    """Whether this is the id of a key of a kind that we know."""
    return _KEY_ID.fullmatch(text) is not None


def _entries(document: dict[str, Any], name: str, most: int) -> list[tuple[str, dict[str, Any]]]:
    entries = document.get(name, {})
    if not isinstance(entries, dict) or len(entries) > most:
        raise BadKeyDocument(f"`{name}` is not an object of at most {most} keys")
    known = [(key_id, entry) for key_id, entry in entries.items() if is_key_id(key_id)]
    if not all(isinstance(entry, dict) for _, entry in known):
        raise BadKeyDocument(f"`{name}` holds what is not an object")
    return known


def _public(entry: dict[str, Any]) -> str:
    text = entry.get("key")
    try:
        keys.parse_verify_key(text if isinstance(text, str) else "")
    except CryptoError:
        raise BadKeyDocument("a key in it is not an Ed25519 key") from None
    return str(text)


def _timestamp(value: Any, name: str) -> int:
    if type(value) is not int or not 0 <= value <= canonical_json.MAX_INTEGER:
        raise BadKeyDocument(f"`{name}` is not a time")
    return value


def _check_signatures(
    document: dict[str, Any], entity: str, verify_keys: Mapping[str, nacl.signing.VerifyKey]
) -> None:
    """At least one signature of the entity by these keys, and none of them wrong."""
    all_signatures = document.get("signatures")
    by_key = all_signatures.get(entity) if isinstance(all_signatures, dict) else None
    signed_by = [key_id for key_id in verify_keys if isinstance(by_key, dict) and key_id in by_key]
    if not signed_by:
        raise BadKeyDocument(f"not signed by {entity} with a key that is known")
    try:
        for key_id in signed_by:
            signatures.verify_json(
                document, entity, key_id, verify_keys[key_id], encode=canonical_json.encode
            )
    except CryptoError as error:
        raise BadKeyDocument(str(error)) from None
