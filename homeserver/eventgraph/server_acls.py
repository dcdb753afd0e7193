"""Which servers a room lets in (CS "Server Access Control Lists (ACLs) for rooms")."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from federation.server_names import parse_server_name

if TYPE_CHECKING:
    from homeserver.eventgraph.event import Event

SERVER_ACL = ("m.room.server_acl", "")
_MAX_PATTERNS = 10_000
_CACHED = 1_000


def lets_in(event: Event | None, server_name: str) -> bool:
    """Whether the `m.room.server_acl` event of a room, if there is one, allows a server to take part.

    Without regard to upper and lower case; ports do not count. What is malformed in the event counts as absent.
    """
    if event is None:
        return True
    parsed = parse_server_name(server_name)
    if parsed is None:
        return False
    content = event.content
    if content.get("allow_ip_literals", True) is False and parsed.is_ip_literal:
        return False
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    if _matches(content.get("deny"), host):
        return False
    return _matches(content.get("allow"), host)


def _matches(patterns: Any, host: str) -> bool:
    if not isinstance(patterns, list):
        return False
    texts = tuple(pattern for pattern in patterns[:_MAX_PATTERNS] if isinstance(pattern, str))
    return any(_matches_one(pattern, host.lower()) for pattern in texts)


def _matches_one(pattern: str, host: str) -> bool:
    if "*" not in pattern and "?" not in pattern:
        return pattern.lower() == host
    return _compiled(pattern).fullmatch(host) is not None


@functools.lru_cache(_CACHED)
def _compiled(pattern: str) -> re.Pattern[str]:
    """A glob: `*` is any text, `?` any character."""
    # Of a row of stars one is enough; each star then takes the shortest text, and gives none back.
    parts = [re.escape(part).replace(r"\?", ".") for part in re.split(r"\*+", pattern.lower())]
    if len(parts) == 1:
        return re.compile(parts[0], re.DOTALL)
    first, *middle, last = parts
    body = "".join(f"(?>.*?{part})" for part in middle)
    return re.compile(f"{first}{body}.*{last}", re.DOTALL)
