"""Reading what an answer says of many rooms together: by a few questions, where each alone would take some."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.sync.sliding.required_state import MEMBER
from homeserver.sync.sliding.room_state import AVATAR, NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from homeserver.eventgraph.event import StateKey
    from homeserver.ids import EventId
    from homeserver.rooms.recent_events import RecentEvents
    from homeserver.services.requester import Requester
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.sync.sliding.bump_stamps import BumpStamps
    from homeserver.sync.sliding.request import RoomConfig
    from homeserver.sync.sliding.room_state import WantedState
    from homeserver.sync.summaries import Summaries
    from homeserver.views.client_events import ClientEvents
    from homeserver.views.unread import UnreadCounts
    from homeserver.views.visibility import HistoryVisibility

_SEVERAL = 3


class RoomsTogether:
    """Has in memory what `RoomResults` asks for next."""

    def __init__(
        self,
        recent: RecentEvents,
        state: WantedState,
        summaries: Summaries,
        bump_stamps: BumpStamps,
        visibility: HistoryVisibility,
        client_events: ClientEvents,
        unread: UnreadCounts,
    ) -> None:
        self._recent = recent
        self._state = state
        self._summaries = summaries
        self._bump_stamps = bump_stamps
        self._visibility = visibility
        self._client_events = client_events
        self._unread = unread

    async def prepare(
        self,
        requester: Requester,
        rooms: Sequence[tuple[MembershipRow, RoomConfig]],
        told: Mapping[int, int],
        *,
        upto: int,
        with_counts: bool,
    ) -> Mapping[EventId, bool]:
        """Have in memory what is to be read of several rooms, by fewer questions than each alone would take.

        `told` is up to where the client was told of those that it knows, by their numbers. The answer says of the
        newest events of all of them whether anything may be bundled with them.
        """
        joined = [(row, config) for row, config in rooms if row.membership == "join"]
        if len(joined) < _SEVERAL:
            return {}
        rows = [row for row, _ in joined]
        for limit in {config.timeline_limit for _, config in joined}:
            alike = [row.room_nid for row, config in joined if config.timeline_limit == limit]
            await self._recent.prepare(alike, limit + 1)
        snapshots = {row.room_nid: await self._recent.snapshot_at(row.room_nid, upto) for row in rows}
        by_type = any(None in pattern for _, config in joined for pattern in config.required_state.patterns)
        await self._state.prepare(snapshots.values(), keys=by_type)
        places = [(row.room_nid, told[row.room_nid]) for row in rows if row.room_nid in told]
        await self._recent.prepare_snapshots(places)
        await self._state.prepare([await self._recent.snapshot_at(*place) for place in places], keys=False)
        await self._visibility.load_histories(rows)
        await self._summaries.load_counts(snapshots)
        newest = {
            row.room_nid: await self._recent.load(
                row.room_nid, after=0, upto=upto, limit=config.timeline_limit + 1
            )
            for row, config in joined
        }
        await self._visibility.prepare(requester.user_id, newest.values())
        state = await self._state.prepare_entries(
            {snapshots[row.room_nid]: _entries_of(config, newest[row.room_nid]) for row, config in joined}
        )
        named = {one.room_nid for one in state if one.event.key == NAME}
        nameless = [row for row in rows if row.room_nid not in named]
        await self._summaries.load_heroes(row.room_nid for row in nameless)
        heroes = {
            snapshots[row.room_nid]: [
                (MEMBER, hero) for hero in await self._summaries.heroes(row.room_nid, row.user_id)
            ]
            for row in nameless
        }
        await self._state.prepare_entries(heroes)
        await self._bump_stamps.prepare(snapshots, upto)
        if with_counts:
            await self._unread.prepare(requester.user_id, rows, upto=upto)
        shown = [stored for events in newest.values() for stored in events]
        related = await self._client_events.prepare([*state, *shown])
        return {stored.event.event_id: stored.event.event_id in related for stored in shown}


def _entries_of(config: RoomConfig, events: Iterable[StoredEvent]) -> set[StateKey]:
    """Entries of the state that are looked at for a room with these newest events."""
    keys = {NAME, AVATAR, *config.required_state.named}
    if config.required_state.lazy_members:
        keys |= {(MEMBER, stored.event.sender) for stored in events}
    return keys
