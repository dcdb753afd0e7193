"""The grammar of server names (Appendices, "Server Name")."""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass

_DNS_NAME = re.compile(r"[A-Za-z0-9.-]{1,255}")
_PORT = re.compile(r"[0-9]{1,5}")
_MAX_LENGTH = 230
_MAX_PORT = 65535
_CACHED = 4_000


@dataclass(frozen=True, slots=True)
class ParsedServerName:
    """The parts of a server name; `host` of an IPv6 literal is without its brackets."""

    host: str
    port: int | None
    is_ip_literal: bool


def parse_server_name(text: str) -> ParsedServerName | None:
    """The parts of a server name, or None where it is none."""
    return _parse(text) if 0 < len(text) <= _MAX_LENGTH else None


# Every id of a user, and of most rooms, has one, and they are few.
@functools.lru_cache(_CACHED)
def _parse(text: str) -> ParsedServerName | None:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not _is_ip(host, ipaddress.IPv6Address) or (rest and not rest.startswith(":")):
            return None
        port = rest[1:] if rest else None
        literal = True
    else:
        host, colon, after = text.partition(":")
        port = after if colon else None
        if _DNS_NAME.fullmatch(host) is None:
            return None
        literal = _is_ip(host, ipaddress.IPv4Address)
    if port is None:
        return ParsedServerName(host, None, literal)
    if _PORT.fullmatch(port) is None or int(port) > _MAX_PORT:
        return None
    return ParsedServerName(host, int(port), literal)


def is_server_name(text: str) -> bool:
    """Whether this is a server name by its form."""
    return parse_server_name(text) is not None


def _is_ip(text: str, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return "%" not in text
