"""Presence as clients see it (CS "Presence")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from homeserver.storage.presence import PresenceRow

CURRENTLY_ACTIVE_MS = 60_000


def presence_content(row: PresenceRow, now_ms: int) -> dict[str, Any]:
    """The content of an `m.presence` event."""
    ago = max(0, now_ms - row.last_active_ts)
    content: dict[str, Any] = {"presence": row.state, "last_active_ago": ago}
    if row.state == "online":
        content["currently_active"] = ago < CURRENTLY_ACTIVE_MS
    if row.status_message is not None:
        content["status_msg"] = row.status_message
    return content
