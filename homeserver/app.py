"""The composition root: puts the layers of a server together, and keeps what is in memory in step with every commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from federation.resolver import DnsResolver
from homeserver.api.context import ApiContext
from homeserver.api.control import Control
from homeserver.api.federation.streams import BigAnswers
from homeserver.api.health import HealthEndpoint, MetricsEndpoint
from homeserver.api.routes import Api
from homeserver.clock import Clock
from homeserver.composition.deeds import DeedLayer
from homeserver.composition.delivered import DeliveredLayer
from homeserver.composition.delivery import build_delivery
from homeserver.composition.inbound import InboundLayer
from homeserver.composition.keys import KeyLayer
from homeserver.composition.media import MediaLayer
from homeserver.composition.people import PeopleLayer
from homeserver.composition.reading import ReadingLayer
from homeserver.composition.remote import RemoteLayer
from homeserver.composition.resident import ResidentLayer
from homeserver.composition.rooms import RoomLayer
from homeserver.composition.stores import Stores
from homeserver.composition.views import ViewLayer
from homeserver.composition.writing import WritingLayer
from homeserver.errors import StartupError
from homeserver.http.application import HttpApplication
from homeserver.http.authentication import Authenticator
from homeserver.http.body_budget import BodyBudget
from homeserver.http.federation_authentication import FederationAuthenticator
from homeserver.http.rate_limits import RateLimits
from homeserver.http.routing import Router
from homeserver.http.trust import federation_tls
from homeserver.ids import EventId, RoomId, ServerName, UserId
from homeserver.metrics import Metrics
from homeserver.services.upkeep import Upkeep
from homeserver.storage import key_file
from homeserver.storage.announcements import Announcement, Topic
from homeserver.storage.engines import open_database
from homeserver.storage.errors import DatabaseRefused
from homeserver.storage.media_bucket import MediaBucket
from homeserver.storage.media_files import MediaDirectory

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from crypto.keys import SigningKey
    from federation.resolver import Resolver
    from federation.sender import Courier
    from homeserver.config import Settings
    from homeserver.storage.database import Database
    from homeserver.storage.media_files import MediaFiles


class Application:
    """One server, without the sockets."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        keys: Sequence[SigningKey],
        clock: Clock,
        tls: ssl.SSLContext,
        resolver: Resolver,
        files: MediaFiles,
        courier: Courier | None = None,
    ) -> None:
        """`courier` takes the transactions for other servers, in the place of the client of federation."""
        server_name = ServerName(settings.server_name)
        key = keys[0]
        budget = settings.memory_budget_bytes
        self.settings = settings
        self.database = database
        self.clock = clock
        self.metrics = metrics = Metrics()
        self.body_budget = BodyBudget()
        self._rate_limits = RateLimits(clock, metrics, enabled=settings.rate_limits.enabled)

        self.stores = stores = Stores(database, server_name, budget)
        self.remote = remote = RemoteLayer(settings, database, stores, keys, clock, tls, resolver)
        self.rooms = rooms = RoomLayer(database, stores, server_name, budget)
        self.views = views = ViewLayer(settings, database, stores, rooms, keys[-1], clock, budget)
        self.writing = writing = WritingLayer(server_name, database, stores, rooms, key, clock, metrics)
        self.inbound = inbound = InboundLayer(
            server_name, database, stores, remote, rooms, writing, key, clock
        )
        self.people = people = PeopleLayer(
            settings, database, stores, rooms, views, writing, clock, self._rate_limits
        )
        self.keys = KeyLayer(server_name, database, stores, remote, views, people, clock)
        delivered = DeliveredLayer(server_name, database, stores, rooms, views, clock)
        self.delivered = delivered.delivered
        self.deeds = deeds = DeedLayer(
            settings,
            database,
            stores,
            remote,
            rooms,
            views,
            writing,
            inbound,
            people,
            self.keys,
            self.delivered,
            clock,
        )
        self.reading = ReadingLayer(settings, database, stores, rooms, views, deeds.history, delivered, clock)
        self.resident = ResidentLayer(
            server_name, database, stores, rooms, views, writing, inbound, people, deeds, key, clock, metrics
        )
        self.media = MediaLayer(settings, database, stores, remote, files, clock)
        self.upkeep = Upkeep(
            database,
            clock,
            stores.transaction_ids,
            stores.to_device,
            stores.server_keys,
            (
                stores.user_interactive,
                stores.access_tokens,
                stores.openid_tokens,
                stores.catch_ups,
                stores.sliding_sync,
                stores.media,
                stores.delivery_news,
            ),
            {
                "presence": people.presence.sweep,
                "typing": people.typing.end_expired,
                "access tokens": people.access_tokens.flush_seen,
                "key backups": self.keys.backups.delete_dropped,
                "remote keys": remote.keys.forget_unshared,
                "media": self.media.housekeeping.look_after,
            },
        )
        self.delivery = None
        if settings.federation.enabled:
            self.delivery = build_delivery(
                server_name, database, stores, rooms, self.keys, courier or remote.client, clock, metrics
            )
        self.api = Api(self._context(), HealthEndpoint(database), MetricsEndpoint(metrics, self._measure))
        self.control = Control(
            people.accounts, deeds.deactivation, people.registration, self.delivery, [inbound.joins]
        )
        database.on_commit = self._hear

    def _context(self) -> ApiContext:
        people, keys, deeds, resident = self.people, self.keys, self.deeds, self.resident
        server_name = ServerName(self.settings.server_name)
        return ApiContext(
            settings=self.settings,
            clock=self.clock,
            metrics=self.metrics,
            big_answers=BigAnswers(),
            authenticator=Authenticator(people.access_tokens, self._rate_limits),
            federation_authenticator=FederationAuthenticator(
                server_name, self.remote.servers.keyring, self._rate_limits, self.heard_from
            ),
            keyring=self.remote.servers.keyring,
            remote_lookups=self.remote.lookups,
            rate_limits=self._rate_limits,
            client_events=self.views.client_events,
            device_lists=self.reading.device_lists,
            sync=self.reading.sync,
            delivery_receipts=people.delivery_receipts,
            delivery_status=self.reading.delivery_status,
            missed_pages=self.reading.missed_pages,
            missed_summary=self.reading.missed_summary,
            sliding_sync=self.reading.sliding_sync,
            # People.
            access_tokens=people.access_tokens,
            account_data=people.account_data,
            accounts=people.accounts,
            deactivation=deeds.deactivation,
            devices=people.devices,
            filters=people.filters,
            logins=people.logins,
            openid=people.openid,
            presence=people.presence,
            profiles=people.profiles,
            receipts=people.receipts,
            registration=people.registration,
            to_device=people.to_device,
            typing=people.typing,
            user_interactive=people.user_interactive,
            # Keys.
            cross_signing=keys.cross_signing,
            dehydrated_devices=keys.dehydrated_devices,
            device_keys=keys.device_keys,
            key_backups=keys.backups,
            key_queries=keys.queries,
            key_signatures=keys.signatures,
            one_time_keys=keys.one_time_keys,
            # Media.
            media_contents=self.media.contents,
            thumbnails=self.media.thumbnails,
            uploads=self.media.uploads,
            # Rooms.
            directory=deeds.directory,
            history=deeds.history,
            joins=deeds.joins,
            membership=deeds.membership,
            messages=deeds.messages,
            published_rooms=deeds.published_rooms,
            relations=deeds.relations,
            room_creation=deeds.creation,
            room_previews=deeds.previews,
            room_state=deeds.state,
            room_upgrades=deeds.upgrades,
            spaces=deeds.spaces,
            third_party_invites=deeds.third_party_invites,
            thread_subscriptions=deeds.thread_subscriptions,
            # Other servers.
            handshakes=resident.handshakes,
            inbound_transactions=resident.transactions,
            invitations=resident.invitations,
            member_templates=resident.templates,
            room_graph=resident.graph,
            space_answers=resident.spaces,
        )

    @classmethod
    async def open(
        cls,
        settings: Settings,
        clock: Clock | None = None,
        resolver: Resolver | None = None,
        courier: Courier | None = None,
    ) -> Application:
        """Open the key file and the database; raises `StartupError`."""
        clock = clock or Clock()
        tls = federation_tls(settings.federation)
        keys = key_file.load_or_make(settings.signing_key_path)
        files = _media_files(settings)
        try:
            database = await open_database(
                settings.database_url, settings.server_name, clock, directory=settings.data_dir
            )
        except DatabaseRefused as error:
            raise StartupError(f"database.url: {error}") from error
        return cls(settings, database, keys, clock, tls, resolver or DnsResolver(), files, courier)

    async def start(self) -> None:
        """Take up what goes on in the background."""
        await self.views.erasure.start()
        await self.people.typing.start()
        await self.people.presence.start()
        await self.deeds.deactivation.resume()
        await self.inbound.start()
        await self.media.housekeeping.start()
        if self.delivery is not None:
            await self.delivery.start()
        self.delivered.start()
        self.upkeep.start()

    async def close(self) -> None:
        """Let those who wait go, finish what was begun, close the database."""
        self.rooms.notifier.stop()
        self.people.typing.stop()
        self.media.arrivals.stop()
        if self.delivery is not None:
            await self.delivery.stop()
        await self.delivered.stop()
        await self.upkeep.stop()
        await self.people.access_tokens.flush_seen()
        await self.deeds.creation.stop()
        await self.inbound.stop()
        await self.media.close()
        await self.remote.close()
        await self.writing.room_writes.close()
        await self.database.close()

    def http(self, resources: Sequence[str]) -> HttpApplication:
        """The ASGI application of a listener."""
        return HttpApplication(
            Router(self.api.routes(resources)), self.metrics, self.settings.trusted_proxies, self.body_budget
        )

    def heard_from(self, server_name: ServerName) -> None:
        """Another server has called: it is there, and what waits for it may go."""
        self.remote.calls.heard_from(server_name)
        self.media.calls.heard_from(server_name)
        self.inbound.queues.heard_from(server_name)
        if self.delivery is not None:
            self.delivery.heard_from(server_name)

    def _hear(self, position: int, announcements: Sequence[Announcement]) -> None:
        """What is held in memory follows every commit, of this process and of others; then the waiting are woken."""
        views, rooms, people = self.views, self.rooms, self.people
        for announcement in announcements:
            topic, key = announcement.topic, announcement.key
            if self.delivery is not None:
                self.delivery.hear(announcement)
            if topic is Topic.ACCOUNT_DATA:
                views.ignored.invalidate(UserId(key))
                views.invites_blocked.invalidate(UserId(key))
                views.delivery_sharing.invalidate(UserId(key))
                views.room_marks.invalidate(UserId(key))
            elif topic is Topic.READ:
                user_id, _, room_id = key.partition("|")
                views.unread.forget(UserId(user_id), RoomId(room_id))
            elif topic is Topic.THREAD_SUBSCRIPTIONS:
                views.subscribed_threads.invalidate(UserId(key))
            elif topic is Topic.CREDENTIALS:
                people.access_tokens.invalidate(UserId(key))
            elif topic is Topic.REDACTED:
                self.deeds.published_rooms.redacted(key)
                if not announcement.local:
                    self.stores.events.forget(EventId(key))
            elif topic is Topic.TYPING:
                views.typing.invalidate(RoomId(key))
            elif topic is Topic.ONE_TIME_KEYS:
                views.keys_left.invalidate(key)
            elif topic is Topic.PRESENCE:
                views.presence.hear(announcement.position, UserId(key))
                people.presence.written(UserId(key), here=announcement.local)
            elif topic is Topic.TO_DEVICE:
                self.reading.inboxes.hear(announcement.position, key)
            elif topic is Topic.MEDIA:
                self.media.arrivals.hear(key)
            elif topic is Topic.ERASED:
                views.erasure.add(UserId(key), announcement.position)
            elif announcement.local:
                continue
            elif topic is Topic.ROOM_SERVERS:
                self.stores.room_servers.invalidate(int(key))
            elif topic is Topic.ROOM_EVENTS:
                rooms.live.invalidate(RoomId(key))
                rooms.recent.invalidate(RoomId(key))
            elif topic is Topic.MEMBERSHIP:
                rooms.memberships.invalidate(UserId(key))
            elif topic is Topic.MANY_MEMBERS:
                rooms.memberships.clear()
        rooms.notifier.on_commit(position, announcements)

    def _measure(self) -> None:
        self.metrics.waiting_syncs.set(self.rooms.notifier.waiting)
        self.metrics.position.set(self.rooms.notifier.position)


def _media_files(settings: Settings) -> MediaFiles:
    """Where the files of media are; raises `StartupError`."""
    s3 = settings.media.s3
    if s3.bucket is None:
        return MediaDirectory(settings.media_path)
    return MediaBucket(
        s3.bucket,
        prefix=s3.prefix,
        endpoint=s3.endpoint,
        region=s3.region,
        access_key_id=s3.access_key_id,
        secret_access_key=s3.secret_access_key,
    )
