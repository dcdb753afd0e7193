"""In which order what was missed is told: that of the log, or the important first.

The important first is: direct chats; what mentions the user elsewhere; favourite rooms; the rest. What a room or an event
is taken for is decided once, when a device begins to catch up, and kept (`catch_ups`): a chat that becomes a favourite, or
a mention that is read meanwhile, would otherwise be told twice or never.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import orjson

from homeserver.errors import UnknownPosition
from homeserver.views.room_marks import FAVOURITES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from homeserver.clock import Clock
    from homeserver.services.requester import Requester
    from homeserver.storage.catch_ups import CatchUpStore
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.missed import MissedStore
    from homeserver.sync.missed.rooms import MissedRooms
    from homeserver.views.ignored import IgnoredUsers
    from homeserver.views.room_marks import RoomMarks

_MAX_MENTIONS = 10_000


class Part(StrEnum):
    """What the events of a page are, where the important comes first."""

    DIRECT = "direct"
    MENTIONS = "mentions"
    FAVOURITES = "favourites"
    REST = "rest"


@dataclass(frozen=True, slots=True)
class Leg:
    """A part of the way: rooms by number, a stretch of the log, and where a room has other bounds than that."""

    part: Part | None
    room_nids: Sequence[int]
    after: int
    upto: int
    begins: Mapping[int, int]
    ends: Mapping[int, int]
    told: Collection[int] = ()
    """The numbers of events that a leg before this one has told."""
    only: Sequence[int] | None = None
    """The numbers of the events that it tells, where these are not all."""

    def holds(self, room_nid: int, position: int) -> bool:
        """Whether an event of the stretch is within the bounds of its room."""
        return self.begins.get(room_nid, self.after) < position <= self.ends.get(room_nid, self.upto)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is important, by the numbers of rooms and events."""

    direct: frozenset[int]
    favourite: frozenset[int]
    mentions: Sequence[int]

    def dump(self) -> bytes:
        """The plan as it is stored."""
        return orjson.dumps([sorted(self.direct), sorted(self.favourite), list(self.mentions)])

    @classmethod
    def load(cls, stored: bytes) -> Plan:
        """A stored plan."""
        direct, favourite, mentions = orjson.loads(stored)
        return cls(frozenset(direct), frozenset(favourite), mentions)


def legs_of_log(missed: MissedRooms) -> list[Leg]:
    """In the order of the log: what stands before the interval, then the interval."""
    return _legs_of(None, missed, missed.all, ())


def legs_by_importance(missed: MissedRooms, plan: Plan) -> list[Leg]:
    """The important first. Their number and order is the same however often they are made."""
    rooms = missed.all
    direct = [nid for nid in rooms if nid in plan.direct]
    favourite = [nid for nid in rooms if nid in plan.favourite]
    rest = [nid for nid in rooms if nid not in plan.direct and nid not in plan.favourite]
    mentions = frozenset(plan.mentions)
    return [
        *_legs_of(Part.DIRECT, missed, direct, ()),
        Leg(Part.MENTIONS, (), missed.after, missed.upto, {}, missed.ends, only=plan.mentions),
        *_legs_of(Part.FAVOURITES, missed, favourite, mentions),
        *_legs_of(Part.REST, missed, rest, mentions),
    ]


def _legs_of(
    part: Part | None, missed: MissedRooms, room_nids: Sequence[int], told: Collection[int]
) -> list[Leg]:
    back = [nid for nid in room_nids if nid in missed.begins]
    earliest = min((missed.begins[nid] for nid in back), default=missed.after)
    return [
        Leg(part, back, earliest, missed.after, missed.begins, missed.ends, told),
        Leg(part, room_nids, missed.after, missed.upto, {}, missed.ends, told),
    ]


class PlanMaker:
    """Decides what is important, and remembers it for the parts that follow."""

    def __init__(
        self,
        clock: Clock,
        catch_ups: CatchUpStore,
        missed: MissedStore,
        marks: RoomMarks,
        ignored: IgnoredUsers,
        numbers: NumberStore,
    ) -> None:
        self._clock = clock
        self._catch_ups = catch_ups
        self._missed = missed
        self._marks = marks
        self._ignored = ignored
        self._numbers = numbers

    async def begin(self, requester: Requester, missed: MissedRooms) -> tuple[int, Plan]:
        """A new plan and its number."""
        user_id = requester.user_id
        marks = await self._marks.of(user_id)
        favourites = marks.with_any(FAVOURITES)
        direct = frozenset(nid for nid, room_id in missed.room_ids.items() if room_id in marks.direct)
        favourite = frozenset(
            nid for nid, room_id in missed.room_ids.items() if room_id in favourites and nid not in direct
        )
        mentions = await self._missed.load_mentions(
            user_id,
            [nid for nid in missed.all if nid not in direct],
            after=missed.after,
            upto=missed.upto,
            but=await self.ignored_numbers(requester),
            limit=_MAX_MENTIONS,
        )
        plan = Plan(direct, favourite, [mention.event_nid for mention in mentions])
        number = secrets.randbits(62)
        await self._catch_ups.insert(user_id, requester.device_id, number, plan.dump(), self._clock.now_ms())
        return number, plan

    async def resume(self, requester: Requester, number: int) -> Plan:
        """A plan by its number; `UnknownPosition` where it is no longer kept."""
        stored = await self._catch_ups.get(requester.user_id, requester.device_id, number)
        if stored is None:
            message = "This catch-up is too old to go on with: begin it anew"
            raise UnknownPosition(message)
        return Plan.load(stored)

    async def ignored_numbers(self, requester: Requester) -> list[int]:
        """The numbers of the users that somebody ignores."""
        ignored = await self._ignored.of(requester.user_id)
        numbers = [await self._numbers.user_number(user_id) for user_id in ignored]
        return [number for number in numbers if number is not None]
