"""Which rooms a request is about: the windows of its lists, and its subscriptions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from homeserver.ids import RoomId
from homeserver.sync.sliding.holdings import LIVE
from homeserver.views.invite_permission import HiddenInvites

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from homeserver.ids import UserId
    from homeserver.storage.memberships import MembershipRow
    from homeserver.sync.moves import MoveReader
    from homeserver.sync.sliding.holdings import Holdings
    from homeserver.sync.sliding.request import ListRequest, RoomConfig, RoomListFilter, SlidingRequest
    from homeserver.sync.sliding.room_order import RoomOrder, RoomOrders
    from homeserver.sync.sliding.room_traits import RoomTraits
    from homeserver.views.ignored import IgnoredUsers
    from homeserver.views.invite_permission import InvitesBlocked
    from homeserver.views.room_marks import Marks, RoomMarks

_OUT = ("leave", "ban")


@dataclass(frozen=True, slots=True)
class Selection:
    """What a request is about at a position of the log."""

    upto: int
    rooms: Mapping[RoomId, MembershipRow]
    """All rooms that the user has a membership in."""
    counts: Mapping[str, int]
    """How many rooms each list has, window or not."""
    windows: Mapping[str, AbstractSet[RoomId]]
    wanted: Mapping[RoomId, RoomConfig]
    """The rooms that the request is about: those subscribed to, then by their last activity."""
    activity: Mapping[RoomId, int]
    """Where what came last into each of these stands, and into each where something came since the last answer."""
    marks: Marks
    ignored: frozenset[UserId]


class RoomLists:
    """Finds the rooms of requests; from memory, and without looking at rooms that no list shows."""

    def __init__(
        self,
        orders: RoomOrders,
        traits: RoomTraits,
        marks: RoomMarks,
        ignored: IgnoredUsers,
        invites_blocked: InvitesBlocked,
        moves: MoveReader,
    ) -> None:
        self._orders = orders
        self._traits = traits
        self._marks = marks
        self._ignored = ignored
        self._invites_blocked = invites_blocked
        self._moves = moves

    async def select(
        self, user_id: UserId, request: SlidingRequest, held: Holdings, since: int | None
    ) -> Selection:
        """The rooms of a request of a client that holds `held` up to the position `since`."""
        shown: dict[int, MembershipRow | None] = {}
        while True:
            marks = await self._marks.of(user_id)
            ignored = await self._ignored.of(user_id)
            hidden = HiddenInvites(await self._invites_blocked.of(user_id), ignored)
            order = await self._orders.now(user_id)
            untold = [row for row in _hidden(order, hidden) if _is_news(row, held, since)]
            missing = [row for row in untold if row.event_nid not in shown]
            for row in missing:
                shown[row.event_nid] = await self._moves.shown(row, hidden)
            asked = await self._traits.match(order, {one.filter for one in request.lists.values()})
            if not asked and not missing:
                break
            # Something may have happened while the database was asked.
        before = [one for row in untold if (one := shown[row.event_nid]) is not None]
        return _select(order, request, held, since, marks, hidden, before)


def _select(
    order: RoomOrder,
    request: SlidingRequest,
    held: Holdings,
    since: int | None,
    marks: Marks,
    hidden_invites: HiddenInvites,
    before_hidden: Sequence[MembershipRow],
) -> Selection:
    """`before_hidden` is what the user was in rooms that the client holds, before invites that are not shown."""
    rooms = order.rooms
    listed: AbstractSet[RoomId] = order.listed
    told_of = {room_id for room_id in order.left if _was_told_of(rooms[room_id], held, since)}
    hidden = {row.room_id for row in _hidden(order, hidden_invites)}
    untold = {row.room_id: row for row in before_hidden if _is_news(row, held, since)}
    if untold:
        rooms = {**rooms, **untold}
        told_of |= untold.keys()
    if told_of or hidden:
        listed = order.listed - hidden | told_of
    wanted = {
        room_id: config
        for room_id, config in request.subscriptions.items()
        if room_id in rooms
        and not hidden_invites.has(rooms[room_id])
        and _may_be_subscribed_to(order, rooms[room_id], told_of)
    }
    counts: dict[str, int] = {}
    windows: dict[str, set[RoomId]] = {}
    in_lists: dict[RoomId, RoomConfig] = {}
    combined: _Combined = {}
    for name, one in request.lists.items():
        passing = _passing(order, rooms, one.filter, listed, marks)
        counts[name] = len(passing)
        window = _window(order, one, passing)
        windows[name] = set(window)
        for room_id in window:
            _combine(in_lists, room_id, one.config, combined)
    for room_id in sorted(in_lists, key=lambda one: -order.activity[one]):
        _combine(wanted, room_id, in_lists[room_id], combined)
    activity = {room_id: order.activity[room_id] for room_id in wanted}
    if since is not None:
        activity |= {room_id: order.activity[room_id] for room_id in order.newest_first(after=since)}
    return Selection(order.position, rooms, counts, windows, wanted, activity, marks, hidden_invites.ignored)


def _hidden(order: RoomOrder, invites: HiddenInvites) -> list[MembershipRow]:
    """The invites in the lists that are not shown."""
    if not invites.may_be_any:
        return []
    return [row for room_id in order.listed if invites.has(row := order.rooms[room_id])]


_Combined = dict[tuple[int, int], tuple["RoomConfig", "RoomConfig", "RoomConfig"]]
"""Two configurations and what they make together, by the identities of the two: most rooms have the same."""


def _combine(
    configs: dict[RoomId, RoomConfig], room_id: RoomId, config: RoomConfig, combined: _Combined
) -> None:
    known = configs.get(room_id)
    if known is None or known is config:
        configs[room_id] = config
        return
    key = (id(known), id(config))
    if key not in combined:
        # The two are held, too, so that nothing else gets their identities.
        combined[key] = (known, config, known.combined_with(config))
    configs[room_id] = combined[key][2]


def _was_told_of(row: MembershipRow, held: Holdings, since: int | None) -> bool:
    """Whether the client holds a room that the user left. Of a forgotten one it only has to hear that it is left."""
    return _is_news(row, held, since) if row.forgotten else row.room_nid in held.rooms


def _is_news(row: MembershipRow, held: Holdings, since: int | None) -> bool:
    """Whether a client that holds a room was not told of a membership in it yet."""
    known = held.rooms.get(row.room_nid)
    return known is not None and row.stream_id > ((since or 0) if known.events == LIVE else known.events)


def _may_be_subscribed_to(order: RoomOrder, row: MembershipRow, told_of: AbstractSet[RoomId]) -> bool:
    """Those that the user is or was in, is invited to, or knocks at; the others are passed over."""
    if row.membership in _OUT:
        return row.room_id in told_of or (row.room_nid in order.was_in and not row.forgotten)
    return True


def _passing(
    order: RoomOrder,
    rooms: Mapping[RoomId, MembershipRow],
    filter_: RoomListFilter,
    listed: AbstractSet[RoomId],
    marks: Marks,
) -> AbstractSet[RoomId]:
    passing = listed
    if filter_.asks_for_traits:
        passing = passing & order.matching[filter_.traits]
    if filter_.spaces is not None:
        passing = passing & _in_spaces(order, filter_.spaces)
    if filter_.is_dm is not None:
        passing = passing & _ids(marks.direct) if filter_.is_dm else passing - _ids(marks.direct)
    if filter_.tags is not None:
        passing = passing & _ids(marks.with_any(filter_.tags))
    if filter_.not_tags:
        passing = passing - _ids(marks.with_any(filter_.not_tags))
    if filter_.is_invited is not None:
        passing = {
            room_id for room_id in passing if (rooms[room_id].membership == "invite") is filter_.is_invited
        }
    return passing


def _in_spaces(order: RoomOrder, spaces: Iterable[str]) -> set[RoomId]:
    """What those of these spaces list that the user is in."""
    children: set[RoomId] = set()
    for space in _ids(spaces):
        row = order.rooms.get(space)
        if row is not None and row.membership == "join":
            children |= order.children.get(space, frozenset())
    return children


def _ids(room_ids: Iterable[str]) -> set[RoomId]:
    return {RoomId(room_id) for room_id in room_ids}


def _window(order: RoomOrder, one: ListRequest, passing: AbstractSet[RoomId]) -> list[RoomId]:
    if one.ranges is None:
        return list(passing)
    last = min(max((end for _, end in one.ranges), default=-1), len(passing) - 1)
    shown = list(islice((i for i in order.newest_first() if i in passing), last + 1))
    if len(one.ranges) == 1:
        return shown[one.ranges[0][0] :]
    window: list[RoomId] = []
    reached = 0
    # However many of them lie over each other, no room is looked at twice.
    for begin, end in sorted(one.ranges):
        window += shown[max(begin, reached) : end + 1]
        reached = max(reached, end + 1)
    return window
