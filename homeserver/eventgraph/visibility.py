"""Who may see an event (CS "Room history visibility"): a rule over what held at the event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

HISTORY_VISIBILITY = ("m.room.history_visibility", "")
SHARED = "shared"
_OTHERS = ("invited", "joined", "world_readable")


def history_visibility_in(content: Mapping[str, Any] | None) -> str:
    """What an `m.room.history_visibility` event with this content sets; `shared` without one and where it is not understood."""
    value = content.get("history_visibility") if content is not None else None
    return value if isinstance(value, str) and value in _OTHERS else SHARED


def may_see(visibilities: Collection[str], memberships: Collection[str], *, joins_later: bool) -> bool:
    """Whether a user may see an event.

    `visibilities` and `memberships` (of the user) are those at the event: one each, or what held before and after
    it, where the event changes the one or the other: "allowed to see the event if the `history_visibility` before
    *or* after the event would allow them to see it", and likewise for the user's own membership. `joins_later`:
    whether the user joined the room at any point after the event.
    """
    if "world_readable" in visibilities or "join" in memberships:
        return True
    if SHARED in visibilities and joins_later:
        return True
    return "invited" in visibilities and "invite" in memberships
