"""Questions about keys that only another server can answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.ids import ServerName


def unreachable(server_names: Iterable[ServerName]) -> dict[ServerName, dict[str, str]]:
    """The `failures` of an answer: none of these servers could be asked."""
    return {name: {"errcode": "M_UNKNOWN", "error": "This server cannot be reached"} for name in server_names}
