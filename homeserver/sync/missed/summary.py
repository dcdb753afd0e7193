"""How much a user missed, room by room, at the cost of a few rows for each room and not for each event."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from homeserver.storage.missed import ArrivedInRoom

if TYPE_CHECKING:
    from homeserver.notifier.notifier import Notifier
    from homeserver.services.requester import Requester
    from homeserver.storage.missed import MissedStore
    from homeserver.storage.owed_rooms import OwedRoomStore
    from homeserver.sync.missed.plan import PlanMaker
    from homeserver.sync.missed.rooms import MissedRoomReader, MissedRooms
    from homeserver.views.tokens import Tokens

_MAX_MENTIONS = 100_000


class MissedSummary:
    """Counts what was missed."""

    def __init__(
        self,
        notifier: Notifier,
        rooms: MissedRoomReader,
        plans: PlanMaker,
        missed: MissedStore,
        tokens: Tokens,
        owed_rooms: OwedRoomStore,
    ) -> None:
        self._notifier = notifier
        self._rooms = rooms
        self._plans = plans
        self._missed = missed
        self._tokens = tokens
        self._owed_rooms = owed_rooms

    async def read(self, requester: Requester, start: str) -> dict[str, Any]:
        """For each room with news: messages, mentions, time of the first and the last event, size in bytes.

        Counted is what arrived while the user was in the room. A message is what notifies by the default push rules; the
        size is that of the events as servers send them. `InvalidParam` for a token that is none of this server's.
        """
        user_id = requester.user_id
        since = await self._tokens.read_sync_token(start, user_id, requester.device_id)
        after = max(since.position, since.told)
        upto = max(after, self._notifier.position)
        owed = await self._owed_rooms.load(user_id, requester.device_id, since.owed)
        missed = await self._rooms.read(user_id, since=since.position, after=after, upto=upto, owed=owed)
        ignored = await self._plans.ignored_numbers(requester)
        arrived = await self._arrived(missed, ignored)
        mentions = Counter(
            mention.room_nid
            for mention in await self._missed.load_mentions(
                user_id, list(arrived), after=missed.earliest, upto=upto, but=ignored, limit=_MAX_MENTIONS
            )
            if missed.was_there(mention.room_nid, mention.position)
        )
        rooms = {
            missed.room_ids[room_nid]: {
                "messages": news.messages,
                "mentions": mentions[room_nid],
                "first_ts": news.first_ts,
                "last_ts": news.last_ts,
                "bytes": news.bytes,
            }
            for room_nid, news in arrived.items()
        }
        totals = {
            name: sum(room[name] for room in rooms.values()) for name in ("messages", "mentions", "bytes")
        }
        return {
            "rooms": rooms,
            "totals": {"rooms": len(rooms), **totals},
            "to": self._tokens.page_token(upto, None),
        }

    async def _arrived(self, missed: MissedRooms, ignored: list[int]) -> dict[int, ArrivedInRoom]:
        arrived = await self._count(missed.throughout, missed.after, missed.upto, ignored)
        for room_nid, stays in missed.stays.items():
            for after, upto in stays if room_nid not in missed.forgotten else ():
                for news in (await self._count([room_nid], after, upto, ignored)).values():
                    arrived[room_nid] = _sum(arrived.get(room_nid), news)
        return arrived

    async def _count(
        self, room_nids: list[int], after: int, upto: int, ignored: list[int]
    ) -> dict[int, ArrivedInRoom]:
        if not room_nids:
            return {}
        arrived = await self._missed.load_totals(room_nids, after=after, upto=upto)
        if ignored:
            unwanted = await self._missed.count_messages_of(list(arrived), ignored, after=after, upto=upto)
            for room_nid, number in unwanted.items():
                news = arrived[room_nid]
                arrived[room_nid] = ArrivedInRoom(
                    max(0, news.messages - number), news.bytes, news.first_ts, news.last_ts
                )
        return arrived


def _sum(one: ArrivedInRoom | None, other: ArrivedInRoom) -> ArrivedInRoom:
    if one is None:
        return other
    return ArrivedInRoom(one.messages + other.messages, one.bytes + other.bytes, one.first_ts, other.last_ts)
