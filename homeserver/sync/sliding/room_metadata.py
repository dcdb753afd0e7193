"""What an answer says about a room itself: its name and avatar, how many are in it, and by whom it is called without a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.sync.sliding.required_state import MEMBER
from homeserver.sync.sliding.room_state import AVATAR, NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from homeserver.eventgraph.event import StateKey
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.sync.sliding.room_state import StateChange, WantedState
    from homeserver.sync.summaries import Summaries


class RoomMetadata:
    """Reads it."""

    def __init__(self, state: WantedState, summaries: Summaries) -> None:
        self._state = state
        self._summaries = summaries

    async def of(
        self,
        row: MembershipRow,
        snapshot: int,
        change: StateChange,
        *,
        whole: bool,
        may_count_otherwise: bool,
    ) -> dict[str, Any]:
        """The fields about a room with the state of a snapshot; but for the `whole`, as far as they changed.

        `may_count_otherwise` says whether what is told of the timeline may change who is in the room.
        """
        fields: dict[str, Any] = {}
        changed = [key for key in (NAME, AVATAR) if whole or key in change]
        entries = await self._state.entries(snapshot, changed)
        for key, field_name, content_name in ((NAME, "name", "name"), (AVATAR, "avatar", "url")):
            if key in changed:
                value = _text(entries, key, content_name)
                if value is not None or not whole:
                    fields[field_name] = value
        if row.membership != "join":
            # Who comes and goes where they are no more is not theirs to know.
            return fields
        if whole or may_count_otherwise or change.has_members or NAME in change:
            counts = await self._summaries.counts(row.room_nid)
            fields["joined_count"] = counts["m.joined_member_count"]
            fields["invited_count"] = counts["m.invited_member_count"]
            if NAME not in entries and NAME not in changed:
                entries |= await self._state.entries(snapshot, [NAME])
            if _text(entries, NAME, "name") is None:
                heroes = await self._summaries.heroes(row.room_nid, row.user_id)
                fields["heroes"] = await self._heroes(snapshot, heroes)
        return fields

    async def _heroes(self, snapshot: int, user_ids: Iterable[str]) -> list[dict[str, Any]]:
        user_ids = list(user_ids)
        members = await self._state.members(snapshot, user_ids)
        heroes = []
        for user_id in user_ids:
            hero = {"user_id": user_id}
            for name in ("displayname", "avatar_url"):
                value = _text(members, (MEMBER, user_id), name)
                if value is not None:
                    hero[name] = value
            heroes.append(hero)
        return heroes


def _text(entries: Mapping[StateKey, StoredEvent], key: StateKey, name: str) -> str | None:
    stored = entries.get(key)
    value = stored.event.content.get(name) if stored is not None else None
    return value if isinstance(value, str) and value else None
