"""What a federation tester says of a server: how it is found, whether its certificate is right, its keys, its version.

Every step is tried, and said in plain words: what was found, or what is wrong and what to look at.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from yarl import URL

from federation.addresses import is_public, parse_address
from federation.answers import Version, parse
from federation.errors import (
    AddressForbidden,
    BadAnswer,
    CertificateRefused,
    FederationError,
    NameNotFound,
    TimedOut,
    Unreachable,
    plain,
)
from federation.server_keys import MAX_DOCUMENT_BYTES, BadKeyDocument, parse_document
from federation.transport import Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from crypto.keys import SigningKey
    from federation.discovery import Discovered, Discovery, Place
    from federation.resolver import Resolver
    from federation.server_keys import KeyDocument
    from federation.transport import Transport

_OF_PROXIES = (502, 503, 504)
_LIMITS = Limits(max_bytes=MAX_DOCUMENT_BYTES, seconds=20)


class _ProxyError(BadAnswer):
    """A proxy answers, and the server behind it does not."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `is_good` is None where it is neither good nor bad."""

    subject: str
    is_good: bool | None
    text: str


async def check_server(
    server_name: str,
    discovery: Discovery,
    resolver: Resolver,
    transport: Transport,
    now_ms: int,
    own_keys: Sequence[SigningKey] = (),
) -> AsyncIterator[Finding]:
    """Look at a server, one finding after the other; it is reachable where none of them is bad.

    Where it is this server, `own_keys` are those that it signs with.
    """
    try:
        discovered = await discovery.find(server_name)
    except NameNotFound as error:
        yield Finding("name", False, error.why)
        return
    for finding in _how_found(server_name, discovered):
        yield finding
    for number, place in enumerate(discovered.places):
        async for finding in _check_place(
            server_name, place, resolver, transport, now_ms, own_keys, is_spare=number > 0
        ):
            yield finding


def _how_found(server_name: str, discovered: Discovered) -> list[Finding]:
    findings = []
    if discovered.delegated is not None:
        findings.append(Finding("well-known", True, f"{server_name} delegates to {discovered.delegated}"))
    elif discovered.well_known_error is not None:
        findings.append(
            Finding(
                "well-known",
                None,
                f"none that can be used ({discovered.well_known_error}): servers go on with SRV records and port 8448",
            )
        )
    else:
        findings.append(Finding("name", True, "it has a port or is an address: it is called just there"))
    if discovered.service is not None:
        findings.append(Finding("SRV", True, f"{discovered.service} says where"))
        if discovered.service.startswith("_matrix._tcp"):
            findings.append(
                Finding("SRV", None, "_matrix._tcp is deprecated: use a well-known file, or _matrix-fed._tcp")
            )
    return findings


async def _check_place(
    server_name: str,
    place: Place,
    resolver: Resolver,
    transport: Transport,
    now_ms: int,
    own_keys: Sequence[SigningKey],
    *,
    is_spare: bool,
) -> AsyncIterator[Finding]:
    where = place.authority
    try:
        if parse_address(place.host) is None:
            addresses = await resolver.addresses(place.host)
            shown = ", ".join(
                f"{address}{'' if is_public(address) else ' (not public)'}" for address in addresses
            )
            yield Finding("address", True, f"{place.host} is {shown}")
    except OSError as error:
        yield Finding("address", False, f"{error}: give it an A or AAAA record")
        return
    try:
        document, certificate = await _get(place, "/_matrix/key/v2/server", transport, server_name)
    except FederationError as error:
        # Of several places others are tried as well; the first is the one that counts.
        advice = _advice(error, place, is_own=bool(own_keys))
        yield Finding("connection", None if is_spare else False, f"{where}: {advice}")
        return
    yield Finding("connection", True, f"{where} answers, called as {place.host_header}")
    yield Finding("certificate", True, _about(certificate, place))
    try:
        believed = parse_document(document, server_name, now_ms, direct=True)
    except BadKeyDocument as error:
        yield Finding(
            "keys", False, f"the document of its keys is not believed: {error}{_whose(document, server_name)}"
        )
    else:
        until = datetime.fromtimestamp(believed.valid_until_ts / 1000, UTC)
        names = ", ".join(key.key_id for key in believed.keys if not key.retired)
        if own_keys and not _is_of(own_keys, believed):
            yield Finding(
                "keys",
                False,
                f"{names} is not the key of this server, {own_keys[0].key_id}: another server answers to this name",
            )
        elif believed.valid_until_ts < now_ms:
            yield Finding(
                "keys", False, f"{names} ran out at {until:%Y-%m-%d %H:%M} UTC: is its clock right?"
            )
        else:
            yield Finding("keys", True, f"{names}, good until {until:%Y-%m-%d %H:%M} UTC")
    try:
        answer, _ = await _get(place, "/_matrix/federation/v1/version", transport, server_name)
        version = parse(Version, server_name, answer).server
    except FederationError as error:
        yield Finding("version", False, error.why)
    else:
        yield Finding("version", True, plain(f"{version.name or 'unnamed'} {version.version}"))


async def _get(place: Place, path: str, transport: Transport, server_name: str) -> tuple[Any, dict[str, Any]]:
    """The JSON at a path, and the certificate that was shown for it."""
    async with transport.stream(
        "GET",
        URL(f"https://{place.authority}{path}", encoded=True),
        _LIMITS,
        headers={"Host": place.host_header},
        tls_name=place.tls_name,
        destination=server_name,
    ) as answer:
        certificate = answer.certificate
        body = await answer.read()
    if answer.status in _OF_PROXIES:
        raise _ProxyError(server_name, f"it answers {path} with status {answer.status}")
    if answer.status != 200:
        raise BadAnswer(server_name, f"it answers {path} with status {answer.status}")
    try:
        return orjson.loads(body), certificate
    except orjson.JSONDecodeError:
        raise BadAnswer(server_name, f"it answers {path} with what is not JSON") from None


def _about(certificate: dict[str, Any], place: Place) -> str:
    if not certificate:
        return "not checked, as federation.verify_tls is off"
    issuer = {name: value for part in certificate.get("issuer", ()) for name, value in part}
    by = issuer.get("organizationName") or issuer.get("commonName") or "somebody unnamed"
    return f"good for {place.tls_name}, by {plain(by)}, until {certificate.get('notAfter', 'an unknown day')}"


def _whose(document: Any, server_name: str) -> str:
    said = document.get("server_name") if isinstance(document, dict) else None
    if not isinstance(said, str) or said == server_name:
        return ""
    return f", but of {plain(said)}: is that the `server_name` of its configuration?"


def _is_of(own_keys: Sequence[SigningKey], document: KeyDocument) -> bool:
    own = {(key.key_id, key.public_base64) for key in own_keys}
    return any((key.key_id, key.public_base64) in own for key in document.keys if not key.retired)


def _advice(error: FederationError, place: Place, *, is_own: bool) -> str:
    if isinstance(error, CertificateRefused) and "expired" in error.why:
        return f"{error.why}: renew it"
    if isinstance(error, CertificateRefused):
        return (
            f"{error.why}. It must be for {place.tls_name}, with the certificates of all authorities between"
        )
    if isinstance(error, AddressForbidden) and is_own:
        return f"{error.why}. If it is so in this network only, look from outside"
    if isinstance(error, AddressForbidden):
        return f"{error.why}. In a network for tests, federation.allow_private_addresses lets it be called"
    if isinstance(error, TimedOut):
        return f"{error.why}. Does a firewall keep the port closed?"
    if isinstance(error, _ProxyError):
        return f"{error.why}. Does it run behind the reverse proxy?"
    if isinstance(error, BadAnswer):
        return f"{error.why}. Does the reverse proxy pass /_matrix on?"
    if "TLS" in error.why:
        return f"{error.why}. Is that a port for HTTPS?"
    if isinstance(error, Unreachable) and not isinstance(error, NameNotFound) and not error.connected:
        return f"{error.why}. Is the port forwarded to the server, and does it run?"
    return error.why
