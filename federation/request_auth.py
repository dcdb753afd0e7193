"""Signed requests (Server-Server API, "Request Authentication"): `X-Matrix` in the `Authorization` header.

Pure: bytes, text and keys in, the same out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nacl.exceptions
import nacl.signing

from crypto import base64, canonical_json, signatures
from crypto.errors import CryptoError
from federation.server_names import is_server_name

if TYPE_CHECKING:
    from crypto.keys import SigningKey

SCHEME = "X-Matrix"
NO_CONTENT: Any = object()
"""The content of a request without a body; None would be the JSON `null`."""

_MAX_HEADER = 4096
_SCHEME = re.compile(r"X-Matrix +", re.IGNORECASE)
# RFC 9110, 5.6.2 and 5.6.4. "For compatibility with older servers, the recipient should allow colons to be included
# in values without requiring the value to be enclosed in quotes."
_PARAMETER = re.compile(
    r"""([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*"""
    r"""(?:"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[^\x00-\x08\x0a-\x1f\x7f])*)"|([!#$%&'*+.^_`|~:0-9A-Za-z-]+))"""
)
_COMMAS = re.compile(r"[ \t]*,[ \t,]*")
_SPACE = re.compile(r"[ \t]*")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class BadAuthorization(ValueError):
    """A header that is not `X-Matrix`, or lacks what it must say. The text may be shown to the sender."""


@dataclass(frozen=True, slots=True)
class Authorization:
    """What the header of a request says. `destination` is None where an older server left it out."""

    origin: str
    destination: str | None
    key_id: str
    signature: str


def sign_request(
    key: SigningKey, origin: str, destination: str, method: str, target: str, content: Any = NO_CONTENT
) -> str:
    """The `Authorization` header of a request; `target` is its path and query as they are sent."""
    signed = _signed_object(origin, destination, method, target, content)
    signature = signatures.signature_of(signed, key, encode=canonical_json.encode_message)
    # Without spaces, with all values in quotes: so every older server can read it.
    return f'{SCHEME} origin="{origin}",destination="{destination}",key="{key.key_id}",sig="{signature}"'


def parse_authorization(header: str) -> Authorization:
    """The parts of an `Authorization` header; raises `BadAuthorization`."""
    scheme = _SCHEME.match(header)
    if scheme is None or len(header) > _MAX_HEADER:
        raise BadAuthorization(f"The request is not signed: its Authorization is not {SCHEME}")
    parameters = _parameters(header, scheme.end())
    missing = [name for name in ("origin", "key", "sig") if not parameters.get(name)]
    if missing:
        raise BadAuthorization(f"`{missing[0]}` is missing in the Authorization header")
    if not is_server_name(parameters["origin"]):
        raise BadAuthorization("`origin` in the Authorization header is not a server name")
    return Authorization(
        parameters["origin"], parameters.get("destination"), parameters["key"], parameters["sig"]
    )


def verify_request(
    authorization: Authorization,
    verify_key: nacl.signing.VerifyKey,
    destination: str,
    method: str,
    target: str,
    content: Any = NO_CONTENT,
) -> bool:
    """Whether the origin signed just this request, for `destination`, with this key.

    Older servers leave the destination out of the header, but not out of what they sign: what was signed for another
    server cannot be brought here.
    """
    if authorization.destination not in (None, destination):
        return False
    signed = _signed_object(authorization.origin, destination, method, target, content)
    signed["signatures"] = {authorization.origin: {authorization.key_id: authorization.signature}}
    try:
        signatures.verify_json(
            signed,
            authorization.origin,
            authorization.key_id,
            verify_key,
            encode=canonical_json.encode_message,
        )
    except CryptoError:
        return False
    return True


def verify_canonical_request(
    authorization: Authorization,
    verify_key: nacl.signing.VerifyKey,
    destination: str,
    method: str,
    target: str,
    body: bytes,
) -> bool:
    """The same for a body that came in the very form that is signed, as nearly all do: it need not be read for that.

    What is before and after the body in the signed text is of this request, so the body is what the origin signed.
    """
    if authorization.destination not in (None, destination):
        return False
    around = canonical_json.encode(
        _signed_object(authorization.origin, destination, method, target, NO_CONTENT)
    )
    try:
        # "content" is the first of the names.
        verify_key.verify(b'{"content":%s,%s' % (body, around[1:]), base64.decode(authorization.signature))
    except (CryptoError, ValueError, nacl.exceptions.CryptoError):
        return False
    return True


def _signed_object(origin: str, destination: str, method: str, target: str, content: Any) -> dict[str, Any]:
    signed = {"method": method, "uri": target, "origin": origin, "destination": destination}
    # Room versions 1 to 5 have events with numbers that strict canonical JSON has not, and transactions carry them.
    if content is not NO_CONTENT:
        signed["content"] = content
    return signed


def _parameters(header: str, position: int) -> dict[str, str]:
    """`name=value` pairs between commas, names in small letters; empty elements are allowed, repeated names not."""
    parameters: dict[str, str] = {}
    position = _past(_COMMAS, header, _past(_SPACE, header, position))
    while position < len(header):
        found = _PARAMETER.match(header, position)
        if found is None:
            raise BadAuthorization("The Authorization header is malformed")
        name, quoted, token = found.groups()
        name = name.lower()
        if name in parameters:
            raise BadAuthorization("The Authorization header says something twice")
        parameters[name] = token if quoted is None else _ESCAPED.sub(r"\1", quoted)
        comma = _COMMAS.match(header, found.end())
        position = _past(_SPACE, header, found.end()) if comma is None else comma.end()
        if comma is None and position < len(header):
            raise BadAuthorization("The Authorization header is malformed")
    return parameters


def _past(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return position if found is None else found.end()
