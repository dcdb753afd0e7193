"""Sending to other servers, as a whole: hears what happens, wakes the sender, shares the work with other processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import structlog

from homeserver.delivery.servers import Kind
from homeserver.ids import RoomId, ServerName, UserId, server_name_of
from homeserver.storage.announcements import Topic
from homeserver.storage.errors import DatabaseClosed

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine, Iterable

    from federation.sender import Sender
    from homeserver.clock import Clock
    from homeserver.delivery.greetings import Greetings
    from homeserver.delivery.passing import PassingNotices
    from homeserver.delivery.servers import ServerOutbox
    from homeserver.rooms.memberships import Memberships
    from homeserver.storage.announcements import Announcement
    from homeserver.storage.database import Database
    from homeserver.storage.destinations import Destination, DestinationStore
    from homeserver.storage.outgoing_devices import OutgoingDeviceStore
    from homeserver.storage.outgoing_events import OutgoingEventStore
    from homeserver.storage.room_servers import RoomServerStore

_TICK_SECONDS = 5.0
_ALIVE_MS = 20_000
_RENEW_TICKS = 6
_PRUNE_TICKS = 120
# Twenty-five minutes.
_PRESENCE_TICKS = 300
_SILENT_MS = 90 * 24 * 3_600_000
_DAY_MS = 24 * 3_600_000
_HEARD_AGAIN_MS = 60_000
_MAX_HEARD = 10_000
_TOPICS = frozenset(
    {
        Topic.OUTGOING_EVENTS,
        Topic.DESTINATIONS,
        Topic.DESTINATION_ALIVE,
        Topic.DEVICE_LISTS,
        Topic.TYPING,
        Topic.RECEIPTS,
        Topic.DELIVERY,
        Topic.PRESENCE,
    }
)

_log = structlog.get_logger(__name__)


class ServerDelivery:
    """Everything that goes to other servers without being asked for."""

    def __init__(
        self,
        server_name: ServerName,
        database: Database,
        clock: Clock,
        sender: Sender,
        outbox: ServerOutbox,
        passing: PassingNotices,
        greetings: Greetings,
        memberships: Memberships,
        room_servers: RoomServerStore,
        destinations: DestinationStore,
        outgoing_events: OutgoingEventStore,
        outgoing_devices: OutgoingDeviceStore,
        process_id: str,
    ) -> None:
        self._server_name = server_name
        self._database = database
        self._clock = clock
        self._sender = sender
        self._outbox = outbox
        self._passing = passing
        self._greetings = greetings
        self._memberships = memberships
        self._room_servers = room_servers
        self._destinations = destinations
        self._outgoing_events = outgoing_events
        self._outgoing_devices = outgoing_devices
        self._process_id = process_id
        self._heard: OrderedDict[ServerName, int] = OrderedDict()
        self._news: dict[tuple[Topic, str], None] = {}
        self._arrived = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticks = 0
        self._runs = False

    async def start(self) -> None:
        """Go on with every destination that something waits for, and let the others know that this server is there."""
        self._runs = True
        self._outbox.heard_upto = self._database.position
        if self._database.is_shared:
            await self._stay_alive()
        else:
            # A process that ended without a word held the only database there is.
            await self._database.write(self._destinations.forget_processes)
            await self._take_on()
        self._spawn(self._distribute_for_ever())
        self._spawn(self._look_after_for_ever())

    async def stop(self) -> None:
        """Send no more, and leave the destinations to others."""
        if not self._runs:
            return
        self._runs = False
        await self._sender.stop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._database.is_shared:
            with contextlib.suppress(DatabaseClosed):
                await self._database.write(lambda t: self._destinations.leave(t, self._process_id))

    # -- what happens ----------------------------------------------------------------------------------

    def hear(self, announcement: Announcement) -> None:
        """Something was committed, here or by another process."""
        if self._runs and announcement.topic in _TOPICS:
            self._news[announcement.topic, announcement.key] = None
            self._arrived.set()

    def heard_from(self, server_name: ServerName) -> None:
        """A server has made a valid request: it is there, and may be tried at once."""
        if not self._runs:
            return
        self._call_back(server_name)
        now = self._clock.now_ms()
        if now - self._heard.get(server_name, -_HEARD_AGAIN_MS) < _HEARD_AGAIN_MS:
            return
        self._heard[server_name] = now
        self._heard.move_to_end(server_name)
        while len(self._heard) > _MAX_HEARD:
            self._heard.popitem(last=False)
        self._spawn(self._note_alive(server_name))

    def _call_back(self, server_name: ServerName) -> None:
        """End the back-off of a server that is there again."""
        if self._outbox.is_away(server_name):
            # Also if nothing waits for it: what passes is told only to those that answered well.
            self._sender.greet(server_name)
        self._sender.heard_from(server_name)

    async def _note_alive(self, server_name: ServerName) -> None:
        """Note that a server is alive, where that is news: once a day, or where another process takes it for away."""
        try:
            known = await self._destinations.get(server_name)
            now = self._clock.now_ms()
            if known is None:
                # It may be about to come into a room, and is to be known for alive then.
                self._heard.pop(server_name, None)
                return
            is_away_elsewhere = known.failures > 0 and known.process_id not in (None, self._process_id)
            if is_away_elsewhere or now - (known.alive_ts or 0) > _DAY_MS:
                await self._database.write(lambda t: self._destinations.end_back_off(t, server_name, now))
        except DatabaseClosed:
            return
        except Exception:  # noqa: BLE001 - it is logged; the server is heard from again
            _log.exception("sign_of_life_not_noted")

    async def _distribute_for_ever(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            # What lies before the position was announced before it moved.
            news, self._news, upto = self._news, {}, self._database.position
            try:
                concerned = await self._distribute(news, upto)
            except DatabaseClosed:
                return
            except Exception:  # noqa: BLE001 - it is logged, and everybody's cursor is looked at instead
                _log.exception("news_not_distributed")
                self._outbox.forget_all()
                concerned = await self._load_waiting()
            self._outbox.heard_upto = upto
            for server_name in concerned:
                self._sender.wake(server_name)

    async def _load_waiting(self) -> set[ServerName]:
        """Every destination that something waits for, as soon as the database tells."""
        while True:
            try:
                return set(await self._destinations.load_waiting())
            except Exception:  # noqa: BLE001 - it is logged, and tried again
                _log.exception("destinations_not_loaded")
                await asyncio.sleep(_TICK_SECONDS)

    async def _distribute(self, news: Iterable[tuple[Topic, str]], upto: int) -> set[ServerName]:
        """Mark the destinations that news up to a position concern; the answer is which these are."""
        concerned: set[ServerName] = set()
        receipts, senders = [], []
        for topic, key in news:
            if topic is Topic.OUTGOING_EVENTS:
                concerned |= self._mark(await self._room_servers.load(int(key)), Kind.EVENTS)
            elif topic is Topic.DESTINATIONS:
                concerned |= self._mark([ServerName(key)], Kind.EVENTS, Kind.MESSAGES)
            elif topic is Topic.DESTINATION_ALIVE:
                self._outbox.is_alive(ServerName(key))
                self._call_back(ServerName(key))
                concerned.add(ServerName(key))
            elif topic is Topic.DEVICE_LISTS:
                concerned |= await self._devices_changed(UserId(key))
            elif topic is Topic.TYPING:
                concerned.update(await self._passing.typing(RoomId(key)))
            elif topic is Topic.PRESENCE:
                concerned.update(await self._passing.presence(UserId(key)))
            elif topic is Topic.RECEIPTS:
                receipts.append(RoomId(key))
            elif topic is Topic.DELIVERY:
                senders.append(UserId(key))
        if senders:
            concerned.update(await self._passing.delivery_receipts(senders, upto))
        if receipts:
            concerned.update(await self._passing.receipts(receipts, upto))
        return concerned

    async def _devices_changed(self, user_id: UserId) -> set[ServerName]:
        concerned: set[ServerName] = set()
        if server_name_of(user_id) == self._server_name:
            for row in list((await self._memberships.of_user(user_id)).values()):
                if row.membership == "join":
                    concerned |= self._mark(await self._room_servers.load(row.room_nid), Kind.DEVICES)
        return concerned

    def _mark(self, server_names: Collection[ServerName], *kinds: Kind) -> set[ServerName]:
        for server_name in server_names:
            for kind in kinds:
                self._outbox.mark(server_name, kind)
        return set(server_names)

    # -- for the operator ------------------------------------------------------------------------------

    async def load_destinations(self) -> list[tuple[Destination, bool]]:
        """Every destination, and whether something waits for it."""
        waiting = set(await self._destinations.load_waiting())
        return [(one, one.server_name in waiting) for one in await self._destinations.load_all()]

    async def retry(self, server_name: ServerName) -> bool:
        """Try a destination at once, whichever process sends to it; False where there is none."""
        return await self._database.write(lambda t: self._destinations.end_back_off(t, server_name))

    # -- every now and then ----------------------------------------------------------------------------

    async def _look_after_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._ticks += 1
            try:
                if self._database.is_shared:
                    await self._stay_alive()
                if self._ticks % _RENEW_TICKS == 0:
                    for server_name in await self._passing.renew_typing():
                        self._sender.wake(server_name)
                if self._ticks % _PRESENCE_TICKS == 0:
                    for server_name in await self._passing.renew_presence():
                        self._sender.wake(server_name)
                if self._ticks % _PRUNE_TICKS == 0:
                    await self.prune()
            except DatabaseClosed:
                return
            except Exception:  # noqa: BLE001 - it is logged, and tried again
                _log.exception("delivery_not_looked_after")

    async def _stay_alive(self) -> None:
        """Keep the destinations that this process has taken on, and take on those of one that is gone."""
        now = self._clock.now_ms()
        was_known, others_gone = await self._database.write(
            lambda t: self._destinations.stay_alive(t, self._process_id, now + _ALIVE_MS, now)
        )
        if others_gone or not was_known:
            self._outbox.forget_all()
            await self._take_on()

    async def _take_on(self) -> None:
        """Go on with what others do not send, and greet those to whom they do not."""
        await self._sender.resume()
        self._spawn(self._greet())

    async def _greet(self) -> None:
        try:
            await self._greetings.greet_all()
        except DatabaseClosed:
            return
        except Exception:  # noqa: BLE001 - it is logged; they call again in the end
            _log.exception("not_greeted")

    async def prune(self) -> None:
        """Drop what everybody has, and forget servers that nobody has heard of for long."""
        upto, before_ts = self._database.position, self._clock.now_ms() - _SILENT_MS
        await self._database.write(lambda t: self._destinations.advance_idle(t, upto))
        await self._database.write(self._outgoing_events.prune)
        await self._database.write(self._outgoing_devices.prune)
        for server_name in await self._database.write(
            lambda t: self._destinations.forget_silent(t, before_ts)
        ):
            self._outbox.forget(server_name)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
