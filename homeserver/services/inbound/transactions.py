"""Transactions of other servers (SS "Transactions"): each event and each message in them is judged by itself."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from crypto import canonical_json
from crypto.errors import CanonicalJsonError
from homeserver.errors import MatrixError
from homeserver.eventgraph.errors import EventRefused
from homeserver.eventgraph.receiving import read_pdu
from homeserver.eventgraph.server_acls import SERVER_ACL, lets_in
from homeserver.ids import RoomId, is_room_id
from homeserver.services.inbound.events import Unplaceable
from homeserver.storage.errors import DatabaseUnavailable
from homeserver.storage.stored_event import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from homeserver.eventgraph.event import Event
    from homeserver.ids import EventId, ServerName
    from homeserver.rooms.hosted_rooms import HostedRooms
    from homeserver.rooms.live_rooms import LiveRoom, LiveRooms
    from homeserver.services.inbound.ends_elsewhere import EndsElsewhere
    from homeserver.services.inbound.events import InboundEvents
    from homeserver.services.inbound.queues import RoomQueues
    from homeserver.services.inbound.sources import SignatureCheck
    from homeserver.services.policy_servers import PolicyServers

MAX_PDUS = 50
MAX_EDUS = 100
_MAX_ENDS = 3
_WRONGLY_SIGNED = "its signatures are not right"

_log = structlog.get_logger(__name__)


class EduReceiver(Protocol):
    """Takes in what is no event."""

    async def receive(self, origin: ServerName, edu_type: str, content: dict[str, Any]) -> None:
        """One EDU; what is wrong with it is its sender's affair. Durable when this returns, where it must not be lost."""
        ...


class InboundTransactions:
    """Takes in transactions."""

    def __init__(
        self,
        live_rooms: LiveRooms,
        hosted: HostedRooms,
        ends: EndsElsewhere,
        signatures: SignatureCheck,
        inbound: InboundEvents,
        queues: RoomQueues,
        policy: PolicyServers,
        edus: EduReceiver,
        count: Callable[[str, int], None],
    ) -> None:
        """`count` hears what became of how many events."""
        self._live_rooms = live_rooms
        self._hosted = hosted
        self._ends = ends
        self._signatures = signatures
        self._inbound = inbound
        self._queues = queues
        self._policy = policy
        self._edus = edus
        self._count = count

    async def receive(
        self, origin: ServerName, pdus: Sequence[Any], edus: Sequence[Any]
    ) -> dict[EventId, dict[str, str]]:
        """Take in a transaction; the answer says of each event that could be named what was wrong with it, if anything.

        When this returns, whatever was taken in is durable. A transaction may come again: nothing is done twice.
        """
        by_room: dict[RoomId, list[Any]] = {}
        for pdu in pdus:
            room_id = pdu.get("room_id") if isinstance(pdu, dict) else None
            # Only create events of room version 12 have none, and these are never sent by themselves.
            if isinstance(room_id, str) and is_room_id(room_id):
                by_room.setdefault(RoomId(room_id), []).append(pdu)
        # The keys of encrypted events come beside them: nobody is to see an event that they cannot read yet.
        # They are written together, in their order.
        await asyncio.gather(*(self._receive_edu(origin, edu) for edu in edus if _is_to_device(edu)))
        results: dict[EventId, dict[str, str]] = {}
        rooms = [self._receive_in_room(origin, room_id, of_room) for room_id, of_room in by_room.items()]
        for outcome in await asyncio.gather(*rooms):
            results.update({event_id: {"error": why} if why else {} for event_id, why in outcome.items()})
        await asyncio.gather(*(self._receive_in_turn(origin, lane) for lane in _lanes(edus)))
        return results

    # -- events ----------------------------------------------------------------------------------------

    async def _receive_in_room(
        self, origin: ServerName, room_id: RoomId, pdus: Sequence[Any]
    ) -> dict[EventId, str | None]:
        """Take in the events of one room, in their order; what was wrong with each."""
        room = await self._live_rooms.find(room_id)
        if room is None:
            self._count("not_here", len(pdus))
            return {}
        results: dict[EventId, str | None] = {}
        events: list[Event] = []
        for pdu in pdus:
            try:
                event = read_pdu(room.version, pdu)
            except EventRefused as error:
                event_id = pdu.get("event_id")
                if room.version.event_ids_are_given and isinstance(event_id, str):
                    results[event_id] = str(error)  # type: ignore[index]
                self._count("malformed", 1)
                continue
            events.append(event)
            results[event.event_id] = None
        refusal = await self._refusal(origin, room)
        if refusal is not None:
            self._count("denied", len(events))
            return dict.fromkeys(results, refusal)
        if not await self._hosted.hosts(room):
            self._count("not_here", len(events))
            return await self._receive_elsewhere(room, events)
        signed = await self._signatures.rightly_signed(events)
        results.update((one.event_id, _WRONGLY_SIGNED) for one in events if one.event_id not in signed)
        self._count("wrongly_signed", sum(one.event_id not in signed for one in events))
        late: list[Event] = []
        ahead = deque(event for event in events if event.event_id in signed)
        while ahead:
            placed = await self._inbound.place_in_turn(room, list(ahead))
            self._count("taken", placed)
            for _ in range(placed):
                ahead.popleft()
            if not ahead:
                break
            event = ahead.popleft()
            if await self._policy.lacking(room, event) is not None:
                # Another server is to be asked first, which this one does not wait for.
                late.append(event)
                continue
            try:
                status = await self._inbound.place(room, event)
                self._count("taken" if status is Status.TIMELINE else status.name.lower(), 1)
                if status is Status.REJECTED:
                    results[event.event_id] = "the room does not allow it"
            except Unplaceable:
                late.append(event)
        if late:
            crowded_out = await self._queues.add(room, origin, late)
            self._count("crowded_out", len(crowded_out))
            self._count("waiting", len(late) - len(crowded_out))
            for event_id in crowded_out:
                # It comes again with the next event that follows it.
                results[event_id] = "too many events wait for this room"
        return results

    async def _receive_elsewhere(self, room: LiveRoom, events: Sequence[Event]) -> dict[EventId, str | None]:
        """Of a room that nobody here is in, hear only that an invite or a knock is at its end."""
        ends = [
            (event, row) for event in events if (row := await self._ends.ended_by(room, event)) is not None
        ]
        ends = ends[:_MAX_ENDS]
        signed = await self._signatures.rightly_signed([event for event, _ in ends])
        results: dict[EventId, str | None] = {
            event.event_id: "nobody here is in this room" for event in events
        }
        for event, row in ends:
            if event.event_id in signed and await self._ends.take(room, event, row):
                results[event.event_id] = None
        return results

    async def _refusal(self, origin: ServerName, room: LiveRoom) -> str | None:
        """Why a server may send nothing into a room."""
        acl = (await self._live_rooms.state_entries(room, [SERVER_ACL])).get(SERVER_ACL)
        if not lets_in(acl, origin):
            return "your server is denied access to this room"
        return None

    # -- the rest --------------------------------------------------------------------------------------

    async def _receive_in_turn(self, origin: ServerName, edus: Sequence[Any]) -> None:
        for edu in edus:
            await self._receive_edu(origin, edu)

    async def _receive_edu(self, origin: ServerName, edu: Any) -> None:
        if not isinstance(edu, dict):
            return
        edu_type, content = edu.get("edu_type"), edu.get("content")
        if not isinstance(edu_type, str) or not isinstance(content, dict):
            return
        try:
            canonical_json.check(content, any_number=True)
            await self._edus.receive(origin, edu_type, content)
        except CanonicalJsonError as error:
            _log.info("edu_refused", origin=origin, edu_type=edu_type[:100], why=str(error))
        except MatrixError as error:
            _log.info("edu_refused", origin=origin, edu_type=edu_type[:100], why=error.message)
        except DatabaseUnavailable:
            # It would be lost: the whole transaction is to come again.
            raise
        except Exception:  # noqa: BLE001 - one that cannot be taken in must not stop the others
            _log.exception("edu_not_received", origin=origin, edu_type=edu_type[:100])


def _is_to_device(edu: Any) -> bool:
    return isinstance(edu, dict) and edu.get("edu_type") == "m.direct_to_device"


def _lanes(edus: Sequence[Any]) -> list[list[Any]]:
    """The EDUs that are no messages to devices, those together that are to be taken in one after the other.

    What is said of one user keeps its order. Receipts need none: one that points back changes nothing.
    """
    lanes: dict[Any, list[Any]] = {}
    for number, edu in enumerate(edus):
        if isinstance(edu, dict) and not _is_to_device(edu):
            edu_type, content = edu.get("edu_type"), edu.get("content")
            user_id = content.get("user_id") if isinstance(content, dict) else None
            lane = number if edu_type == "m.receipt" else str(user_id or edu_type)
            lanes.setdefault(lane, []).append(edu)
    return list(lanes.values())
