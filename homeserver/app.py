"""The composition root: builds every object once and hands each what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from federation.remote_servers import RemoteServers
from federation.resolver import DnsResolver
from federation.sender import Sender
from homeserver.api.context import ApiContext
from homeserver.api.control import Control
from homeserver.api.federation.streams import BigAnswers
from homeserver.api.health import HealthEndpoint, MetricsEndpoint
from homeserver.api.routes import Api
from homeserver.clock import Clock
from homeserver.delivery.device_updates import DeviceUpdates
from homeserver.delivery.passing import PassingNotices
from homeserver.delivery.server_delivery import ServerDelivery
from homeserver.delivery.servers import OutboxStores, ServerOutbox
from homeserver.errors import StartupError
from homeserver.http.application import HttpApplication
from homeserver.http.authentication import Authenticator
from homeserver.http.federation_authentication import FederationAuthenticator
from homeserver.http.rate_limits import RateLimits
from homeserver.http.routing import Router
from homeserver.http.trust import federation_tls
from homeserver.ids import EventId, RoomId, ServerName, UserId, random_string
from homeserver.metrics import Metrics
from homeserver.notifier.notifier import Notifier
from homeserver.rooms.auth_chains import AuthChains
from homeserver.rooms.hosted_rooms import HostedRooms
from homeserver.rooms.live_rooms import LiveRooms
from homeserver.rooms.memberships import Memberships
from homeserver.rooms.reader import RoomReader
from homeserver.rooms.recent_events import RecentEvents
from homeserver.rooms.room_servers import RoomServers
from homeserver.rooms.snapshots import SnapshotWriter
from homeserver.rooms.state_resolver import StateResolver
from homeserver.services.access_tokens import AccessTokens
from homeserver.services.account_data import AccountData
from homeserver.services.accounts import Accounts
from homeserver.services.cross_signing import CrossSigning
from homeserver.services.deactivation import Deactivation
from homeserver.services.dehydrated_devices import DehydratedDevices
from homeserver.services.device_keys import DeviceKeys
from homeserver.services.devices import Devices
from homeserver.services.directory import Directory
from homeserver.services.event_persistence import EventPersistence, EventStores
from homeserver.services.event_preparation import EventPreparation
from homeserver.services.event_writer import EventWriter
from homeserver.services.filters import Filters
from homeserver.services.history import History
from homeserver.services.inbound.arrivals import RoomArrivals
from homeserver.services.inbound.backfill import Backfill
from homeserver.services.inbound.edus import InboundEdus
from homeserver.services.inbound.events import InboundEvents
from homeserver.services.inbound.extremities import Extremities
from homeserver.services.inbound.gaps import GapFiller
from homeserver.services.inbound.invitations import Invitations
from homeserver.services.inbound.outliers import Outliers
from homeserver.services.inbound.queues import RoomQueues
from homeserver.services.inbound.remote import RemoteSources
from homeserver.services.inbound.signatures import EventSignatures
from homeserver.services.inbound.transactions import InboundTransactions
from homeserver.services.key_backups import KeyBackups
from homeserver.services.key_queries import KeyQueries
from homeserver.services.key_signatures import KeySignatures
from homeserver.services.logins import Logins
from homeserver.services.member_templates import MemberTemplates
from homeserver.services.membership import Membership
from homeserver.services.memberships_elsewhere import MembershipsElsewhere
from homeserver.services.messages import Messages
from homeserver.services.one_time_keys import OneTimeKeys
from homeserver.services.openid import OpenId
from homeserver.services.passwords import Passwords
from homeserver.services.presence import Presence
from homeserver.services.profiles import Profiles
from homeserver.services.published_rooms import PublishedRooms
from homeserver.services.receipts import Receipts
from homeserver.services.registration import Registration
from homeserver.services.relation_rules import RelationRules
from homeserver.services.relations import Relations
from homeserver.services.remote_departures import RemoteDepartures
from homeserver.services.remote_invites import RemoteInvites
from homeserver.services.remote_joins import RemoteJoins
from homeserver.services.remote_keys.calls import ServerCalls
from homeserver.services.remote_keys.claims import RemoteClaims
from homeserver.services.remote_keys.queries import RemoteKeys
from homeserver.services.remote_keys.updates import RemoteDevices
from homeserver.services.remote_lookups import RemoteLookups
from homeserver.services.resident.access import ResidentAccess
from homeserver.services.resident.graph import RoomGraph
from homeserver.services.resident.handshakes import Handshakes
from homeserver.services.resident.join_conditions import JoinConditions
from homeserver.services.resident.member_events import MemberEvents
from homeserver.services.resident.spaces import SpaceAnswers
from homeserver.services.resident.templates import Templates
from homeserver.services.restricted_joins import RestrictedJoins
from homeserver.services.room_access import RoomAccessRules
from homeserver.services.room_creation import RoomCreation
from homeserver.services.room_state import RoomState
from homeserver.services.room_summaries import RoomSummaries
from homeserver.services.room_upgrades import RoomUpgrades
from homeserver.services.room_writes import RoomWrites
from homeserver.services.spaces import Spaces
from homeserver.services.to_device import ToDevice
from homeserver.services.typing import Typing
from homeserver.services.upkeep import Upkeep
from homeserver.services.user_interactive import UserInteractive
from homeserver.storage import key_file
from homeserver.storage.access_tokens import AccessTokenStore
from homeserver.storage.account_data import AccountDataStore
from homeserver.storage.accounts import AccountStore
from homeserver.storage.announcements import Announcement, Topic
from homeserver.storage.cross_signing import CrossSigningStore
from homeserver.storage.dehydrated_devices import DehydratedDeviceStore
from homeserver.storage.destinations import DestinationStore
from homeserver.storage.device_keys import DeviceKeyStore
from homeserver.storage.device_lists import DeviceListStore
from homeserver.storage.devices import DeviceStore
from homeserver.storage.directory import DirectoryStore
from homeserver.storage.engines import open_database
from homeserver.storage.errors import DatabaseRefused
from homeserver.storage.events import EventStore
from homeserver.storage.filters import FilterStore
from homeserver.storage.gaps import GapStore
from homeserver.storage.interning import NumberStore
from homeserver.storage.join_jobs import JoinJobStore
from homeserver.storage.key_backups import KeyBackupStore
from homeserver.storage.key_signatures import KeySignatureStore
from homeserver.storage.memberships import MembershipStore
from homeserver.storage.notifications import HighlightStore
from homeserver.storage.one_time_keys import OneTimeKeyStore
from homeserver.storage.openid_tokens import OpenIdTokenStore
from homeserver.storage.outgoing_devices import OutgoingDeviceStore
from homeserver.storage.outgoing_events import OutgoingEventStore
from homeserver.storage.outgoing_to_device import OutgoingToDeviceStore
from homeserver.storage.outliers import OutlierStore
from homeserver.storage.presence import PresenceStore
from homeserver.storage.profiles import ProfileStore
from homeserver.storage.raw_events import RawEventStore
from homeserver.storage.receipts import ReceiptStore
from homeserver.storage.registration_tokens import RegistrationTokenStore
from homeserver.storage.relations import RelationStore
from homeserver.storage.remote_device_lists import RemoteDeviceListStore
from homeserver.storage.room_servers import RoomServerStore
from homeserver.storage.rooms import RoomStore
from homeserver.storage.server_keys import ServerKeyStore
from homeserver.storage.shared_rooms import SharedRoomStore
from homeserver.storage.staged_events import StagedEventStore
from homeserver.storage.state import StateStore
from homeserver.storage.stripped_state import StrippedStateStore
from homeserver.storage.to_device import ToDeviceStore
from homeserver.storage.transaction_ids import TransactionIdStore
from homeserver.storage.typing import TypingStore
from homeserver.storage.user_interactive import UserInteractiveStore
from homeserver.sync.classic import ClassicSync
from homeserver.sync.device_lists import DeviceLists
from homeserver.sync.extras import Extras
from homeserver.sync.lazy_members import LazyMembers
from homeserver.sync.moves import MoveReader
from homeserver.sync.rooms import RoomSections
from homeserver.sync.state import StateReader
from homeserver.sync.summaries import Summaries
from homeserver.sync.timeline import TimelineReader
from homeserver.sync.to_device import Inboxes
from homeserver.views.aggregations import Aggregations
from homeserver.views.client_events import ClientEvents
from homeserver.views.erasure import Erasure
from homeserver.views.ignored import IgnoredUsers
from homeserver.views.keys_left import KeysLeftNow
from homeserver.views.presence import PresenceNow
from homeserver.views.server_visibility import ServerVisibility
from homeserver.views.tokens import Tokens
from homeserver.views.typing import TypingNow
from homeserver.views.unread import UnreadCounts
from homeserver.views.visibility import HistoryVisibility

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from crypto.keys import SigningKey
    from federation.resolver import Resolver
    from federation.sender import Courier
    from homeserver.config import Settings
    from homeserver.storage.database import Database


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
        courier: Courier | None = None,
    ) -> None:
        """`courier` takes the transactions for other servers, in the place of the client of federation."""
        server_name = ServerName(settings.server_name)
        key = keys[0]
        budget = settings.memory_budget_bytes
        self.settings = settings
        self.database = database
        self.clock = clock
        self.metrics = Metrics()

        # Stores.
        rooms = RoomStore(database)
        self._events = events = EventStore(database, budget // 2)
        state = StateStore(database)
        numbers = NumberStore(database)
        membership_store = MembershipStore(database)
        shared_room_store = SharedRoomStore(database)
        self._room_servers = room_servers = RoomServerStore(database, server_name)
        outgoing_events = OutgoingEventStore(database, room_servers)
        relation_store = RelationStore(database)
        highlights = HighlightStore(database)
        transaction_ids = TransactionIdStore(database)
        accounts_store = AccountStore(database)
        token_store = AccessTokenStore(database)
        device_list_store = DeviceListStore(database)
        device_store = DeviceStore(database, device_list_store)
        profile_store = ProfileStore(database)
        account_data_store = AccountDataStore(database)
        receipt_store = ReceiptStore(database)
        typing_store = TypingStore(database)
        presence_store = PresenceStore(database)
        registration_tokens = RegistrationTokenStore(database)
        filter_store = FilterStore(database)
        to_device_store = ToDeviceStore(database)
        dehydrated_device_store = DehydratedDeviceStore(database)
        key_backup_store = KeyBackupStore(database)
        device_key_store = DeviceKeyStore(database)
        one_time_key_store = OneTimeKeyStore(database)
        cross_signing_store = CrossSigningStore(database)
        key_signatures = KeySignatureStore(database)
        openid_tokens = OpenIdTokenStore(database)
        stripped_state = StrippedStateStore(database)

        # Other servers.
        server_key_store = ServerKeyStore(database)
        self.remote_servers = RemoteServers(
            server_name,
            keys,
            tls,
            resolver,
            server_key_store,
            clock,
            allow_private_addresses=settings.federation.allow_private_addresses,
            key_servers=settings.federation.key_servers,
            enabled=settings.federation.enabled,
        )

        self._server_calls = ServerCalls(clock)
        remote_device_lists = RemoteDeviceListStore(database, server_name)
        self._remote_keys = RemoteKeys(
            database, remote_device_lists, device_list_store, self.remote_servers.client, self._server_calls
        )

        # Rooms in memory.
        self._live_rooms = live_rooms = LiveRooms(rooms, events)
        self._memberships = memberships = Memberships(membership_store)
        self.notifier = Notifier(database.position, memberships.known, memberships.of_user)
        self._recent = recent = RecentEvents(events, budget // 8)
        hosted = HostedRooms(server_name, live_rooms, membership_store, room_servers)
        servers = RoomServers(server_name, hosted, room_servers)
        self.rooms = reader = RoomReader(
            live_rooms, events, state, numbers, memberships, membership_store, servers
        )

        # What readers are shown. The secret of the tokens comes from the signing key: it outlives restarts.
        tokens = Tokens(bytes(key.private), database.epoch, database)
        self._ignored = ignored = IgnoredUsers(account_data_store)
        visibility = HistoryVisibility(memberships, membership_store, state, events, numbers)
        aggregations = Aggregations(relation_store, events, numbers, visibility, ignored)
        self._typing_now = TypingNow(clock, typing_store)
        self._presence_now = PresenceNow(database.position, presence_store, memberships)
        self._keys_left = KeysLeftNow(one_time_key_store)
        self._erasure = erasure = Erasure(accounts_store, visibility)
        client_events = ClientEvents(clock, events, visibility, aggregations, erasure, budget // 8)
        self._unread = unread = UnreadCounts(highlights, receipt_store, numbers, ignored, recent)

        # Deeds.
        outlier_store, snapshots = OutlierStore(events, numbers), SnapshotWriter(state, numbers)
        persistence = EventPersistence(
            server_name,
            database,
            EventStores(
                rooms=rooms,
                events=events,
                state=state,
                numbers=numbers,
                memberships=membership_store,
                outliers=outlier_store,
                snapshots=snapshots,
                shared_rooms=shared_room_store,
                room_servers=room_servers,
                outgoing_events=outgoing_events,
                relations=relation_store,
                remote_device_lists=remote_device_lists,
                highlights=highlights,
                transaction_ids=transaction_ids,
                typing=typing_store,
            ),
            live_rooms,
            memberships,
            recent,
            self.notifier,
            self.metrics,
        )
        self._room_writes = RoomWrites(persistence)
        preparation = EventPreparation(server_name, live_rooms, events)
        writer = EventWriter(server_name, key, clock, live_rooms, events, preparation, self._room_writes)
        self.writer = writer
        state_resolver, gaps = StateResolver(events, state, numbers), GapStore(database)
        self.inbound_events = InboundEvents(
            database,
            clock,
            live_rooms,
            events,
            outlier_store,
            gaps,
            state_resolver,
            snapshots,
            preparation,
            self._room_writes,
        )
        signatures = EventSignatures(self.remote_servers.keyring)
        self.elsewhere = elsewhere = MembershipsElsewhere(
            database,
            rooms,
            live_rooms,
            events,
            outlier_store,
            membership_store,
            memberships,
            stripped_state,
        )
        outliers = Outliers(database, events, outlier_store, signatures)
        filler = GapFiller(clock, rooms, events, state_resolver, outliers, self.inbound_events)
        sources = RemoteSources(server_name, self.remote_servers.client, reader)
        self._queues = RoomQueues(database, StagedEventStore(database), live_rooms, filler, sources)
        self._backfill = Backfill(clock, live_rooms, hosted, gaps, filler, sources)
        templates = MemberTemplates(server_name, key, clock)
        self.remote_joins = RemoteJoins(
            server_name,
            templates,
            database,
            clock,
            JoinJobStore(database),
            self.remote_servers.client,
            outliers,
            RoomArrivals(database, rooms, live_rooms, events, outliers, self.inbound_events, elsewhere),
        )
        self._extremities = Extremities(server_name, reader, membership_store, writer, self.inbound_events)
        self.inbound_events.on_forked = self._extremities.notice
        summaries = RoomSummaries(reader)
        directory_store = DirectoryStore(database)
        self._published_rooms = PublishedRooms(directory_store, summaries, tokens)
        directory = Directory(
            server_name,
            settings.room_directory,
            database,
            clock,
            directory_store,
            reader,
            self.remote_servers.client,
        )
        self.receipts = Receipts(database, clock, receipt_store, account_data_store, highlights, reader)
        self.presence = presence = Presence(
            server_name, database, clock, presence_store, reader, enabled=settings.presence.enabled
        )
        profiles = Profiles(server_name, database, profile_store, accounts_store, reader, writer)
        account_data = AccountData(database, account_data_store, reader)
        restricted = RestrictedJoins(server_name, reader, membership_store)
        membership = Membership(
            server_name,
            database,
            reader,
            memberships,
            membership_store,
            accounts_store,
            writer,
            profiles,
            directory,
            account_data,
            hosted,
            self.remote_joins,
            RemoteInvites(self.remote_servers.client, live_rooms, reader, writer, self.inbound_events),
            RemoteDepartures(
                server_name,
                self.remote_servers.client,
                templates,
                live_rooms,
                events,
                stripped_state,
                elsewhere,
            ),
            restricted,
        )
        rate_limits = RateLimits(clock, self.metrics, enabled=settings.rate_limits.enabled)
        self.to_device = ToDevice(
            server_name,
            database,
            clock,
            to_device_store,
            rate_limits,
            OutgoingToDeviceStore(database) if settings.federation.enabled else None,
        )
        passwords = Passwords(settings.passwords.hash_cost)
        devices = Devices(
            database,
            device_store,
            token_store,
            cross_signing_store,
            (
                to_device_store,
                dehydrated_device_store,
                device_key_store,
                one_time_key_store,
                key_signatures,
            ),
        )
        accounts = Accounts(
            server_name,
            database,
            clock,
            accounts_store,
            token_store,
            profile_store,
            devices,
            passwords,
            rate_limits,
        )
        key_backups = KeyBackups(database, key_backup_store)
        cross_signing = CrossSigning(
            database, device_store, device_key_store, cross_signing_store, key_signatures, device_list_store
        )
        self._deactivation = deactivation = Deactivation(
            database,
            clock,
            accounts_store,
            token_store,
            devices,
            membership,
            (
                profile_store,
                account_data_store,
                filter_store,
                presence,
                key_backup_store,
                cross_signing,
                openid_tokens,
            ),
            key_backups,
        )
        self._access_tokens = access_tokens = AccessTokens(database, clock, token_store, device_store)
        logins = Logins(
            database,
            clock,
            accounts,
            accounts_store,
            access_tokens,
            token_store,
            device_store,
            devices,
            dehydrated_device_store,
        )
        registration = Registration(
            database, clock, settings.registration, accounts, logins, passwords, registration_tokens
        )
        creation = RoomCreation(server_name, settings.rooms, writer, profiles, membership, directory)
        access = RoomAccessRules(reader, visibility)
        history = History(
            database, reader, access, visibility, client_events, ignored, tokens, self._backfill
        )
        self._typing = Typing(database, clock, typing_store, reader)
        self.inbound_transactions = InboundTransactions(
            live_rooms,
            hosted,
            elsewhere,
            signatures,
            self.inbound_events,
            self._queues,
            InboundEdus(
                server_name,
                clock,
                live_rooms,
                self._typing,
                self.receipts,
                self.presence,
                self.to_device,
                RemoteDevices(database, remote_device_lists, device_list_store, reader, live_rooms, hosted),
            ),
        )
        user_interactive_store = UserInteractiveStore(database)
        self._upkeep = Upkeep(
            database,
            clock,
            transaction_ids,
            to_device_store,
            user_interactive_store,
            token_store,
            access_tokens,
            self.presence,
            self._typing,
            key_backups,
            server_key_store,
            (openid_tokens,),
            self._remote_keys,
        )
        self._inboxes = Inboxes(database, to_device_store)
        device_lists = DeviceLists(
            self.notifier,
            tokens,
            memberships,
            membership_store,
            shared_room_store,
            device_list_store,
            key_signatures,
        )
        sync = ClassicSync(
            self.notifier,
            clock,
            tokens,
            memberships,
            MoveReader(membership_store, events),
            rooms,
            RoomSections(
                reader,
                TimelineReader(recent, visibility),
                StateReader(recent, events, state, numbers),
                Summaries(self.notifier, recent, membership_store),
                client_events,
                tokens,
                stripped_state,
            ),
            Extras(clock, account_data_store, receipt_store, self._typing_now, self._presence_now, ignored),
            device_lists,
            unread,
            ignored,
            LazyMembers(),
            self._inboxes,
            self._keys_left,
        )

        key_queries = KeyQueries(
            server_name,
            accounts_store,
            device_key_store,
            cross_signing_store,
            key_signatures,
            self._remote_keys,
            device_list_store,
        )
        one_time_keys = OneTimeKeys(
            server_name,
            database,
            one_time_key_store,
            RemoteClaims(self.remote_servers.client, self._server_calls),
        )
        spaces = Spaces(reader, summaries, tokens)
        device_keys = DeviceKeys(
            database,
            device_store,
            device_key_store,
            key_signatures,
            cross_signing_store,
            one_time_key_store,
            one_time_keys,
            device_list_store,
        )

        # Answers to other servers.
        resident = ResidentAccess(live_rooms, servers)
        raw_events = RawEventStore(database)
        graph = RoomGraph(
            resident,
            events,
            raw_events,
            state,
            AuthChains(events, raw_events),
            ServerVisibility(visibility, membership_store, erasure),
        )
        conditions = JoinConditions(live_rooms, reader, servers, restricted)
        member_events = MemberEvents(
            server_name,
            key,
            resident,
            live_rooms,
            events,
            signatures,
            conditions,
            self.inbound_events,
        )

        # Doors.
        self.api = Api(
            ApiContext(
                settings=settings,
                clock=clock,
                metrics=self.metrics,
                big_answers=BigAnswers(),
                handshakes=Handshakes(member_events, graph, reader, state, membership_store),
                invitations=Invitations(
                    server_name,
                    key,
                    resident,
                    live_rooms,
                    servers,
                    accounts_store,
                    signatures,
                    elsewhere,
                ),
                member_templates=Templates(server_name, resident, writer, conditions),
                openid=OpenId(server_name, database, clock, openid_tokens),
                room_graph=graph,
                space_answers=SpaceAnswers(live_rooms, spaces, summaries, servers, membership_store),
                authenticator=Authenticator(access_tokens, rate_limits),
                federation_authenticator=FederationAuthenticator(
                    server_name, self.remote_servers.keyring, rate_limits, self._heard_from
                ),
                keyring=self.remote_servers.keyring,
                inbound_transactions=self.inbound_transactions,
                remote_lookups=RemoteLookups(server_name, self.remote_servers.client),
                rate_limits=rate_limits,
                access_tokens=access_tokens,
                account_data=account_data,
                accounts=accounts,
                client_events=client_events,
                cross_signing=cross_signing,
                deactivation=deactivation,
                device_lists=device_lists,
                devices=devices,
                dehydrated_devices=DehydratedDevices(
                    database,
                    clock,
                    dehydrated_device_store,
                    devices,
                    device_store,
                    device_keys,
                    to_device_store,
                    tokens,
                ),
                device_keys=device_keys,
                directory=directory,
                filters=Filters(database, filter_store),
                history=history,
                key_backups=key_backups,
                key_queries=key_queries,
                key_signatures=KeySignatures(
                    server_name,
                    database,
                    device_key_store,
                    cross_signing_store,
                    key_signatures,
                    device_list_store,
                    self._remote_keys,
                ),
                logins=logins,
                membership=membership,
                messages=Messages(
                    reader,
                    writer,
                    membership,
                    directory,
                    RelationRules(events, relation_store, numbers),
                    transaction_ids,
                ),
                one_time_keys=one_time_keys,
                presence=self.presence,
                profiles=profiles,
                published_rooms=self._published_rooms,
                receipts=self.receipts,
                registration=registration,
                relations=Relations(
                    database,
                    reader,
                    access,
                    history,
                    relation_store,
                    events,
                    numbers,
                    visibility,
                    client_events,
                    ignored,
                    tokens,
                ),
                room_creation=creation,
                room_state=RoomState(reader, access, history, client_events),
                room_summaries=summaries,
                room_upgrades=RoomUpgrades(reader, writer, creation, profiles, directory, membership),
                spaces=spaces,
                sync=sync,
                to_device=self.to_device,
                typing=self._typing,
                user_interactive=UserInteractive(
                    database,
                    clock,
                    user_interactive_store,
                    registration_tokens,
                    accounts,
                    settings.registration.terms,
                ),
            ),
            HealthEndpoint(database),
            MetricsEndpoint(self.metrics, self._measure),
        )
        self.delivery = None
        if settings.federation.enabled:
            self.delivery = self._delivery(
                courier or self.remote_servers.client,
                OutboxStores(
                    destinations=DestinationStore(database),
                    outgoing_events=outgoing_events,
                    to_device=OutgoingToDeviceStore(database),
                    events=events,
                ),
                DeviceUpdates(OutgoingDeviceStore(database), device_store, events, key_queries),
                PassingNotices(
                    server_name,
                    database,
                    clock,
                    typing_store,
                    receipt_store,
                    presence_store,
                    live_rooms,
                    memberships,
                    room_servers,
                ),
            )
        self.control = Control(accounts, deactivation, registration, self.delivery)
        database.on_commit = self._hear

    def _delivery(
        self, courier: Courier, stores: OutboxStores, device_updates: DeviceUpdates, passing: PassingNotices
    ) -> ServerDelivery:
        process_id = random_string(20)
        outbox = ServerOutbox(self.database, self.clock, stores, device_updates, passing, process_id)
        passing.is_away = outbox.is_away
        server_name = ServerName(self.settings.server_name)
        return ServerDelivery(
            server_name,
            self.database,
            self.clock,
            Sender(server_name, courier, outbox, self.metrics, self.clock.now_ms),
            outbox,
            passing,
            self._memberships,
            self._room_servers,
            stores.destinations,
            stores.outgoing_events,
            OutgoingDeviceStore(self.database),
            process_id,
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
        try:
            database = await open_database(
                settings.database_url, settings.server_name, clock, directory=settings.data_dir
            )
        except DatabaseRefused as error:
            raise StartupError(f"database.url: {error}") from error
        return cls(settings, database, keys, clock, tls, resolver or DnsResolver(), courier)

    async def start(self) -> None:
        """Take up what goes on in the background."""
        await self._erasure.start()
        await self._typing.start()
        await self.presence.start()
        await self._deactivation.resume()
        await self._queues.start()
        await self.remote_joins.start()
        if self.delivery is not None:
            await self.delivery.start()
        self._upkeep.start()

    async def close(self) -> None:
        """Let those who wait go, finish what was begun, close the database."""
        self.notifier.stop()
        self._typing.stop()
        if self.delivery is not None:
            await self.delivery.stop()
        await self._upkeep.stop()
        await self.remote_joins.stop()
        await self._queues.stop()
        await self._extremities.stop()
        await self._backfill.stop()
        await self._remote_keys.close()
        await self.remote_servers.close()
        await self._room_writes.close()
        await self.database.close()

    def http(self, resources: Sequence[str]) -> HttpApplication:
        """The ASGI application of a listener."""
        return HttpApplication(
            Router(self.api.routes(resources)), self.metrics, self.settings.trusted_proxies
        )

    def _hear(self, position: int, announcements: Sequence[Announcement]) -> None:
        """What is held in memory follows every commit, of this process and of others; then the waiting are woken."""
        for announcement in announcements:
            topic, key = announcement.topic, announcement.key
            if self.delivery is not None:
                self.delivery.hear(announcement)
            if topic is Topic.ACCOUNT_DATA:
                self._ignored.invalidate(UserId(key))
            elif topic is Topic.READ:
                user_id, _, room_id = key.partition("|")
                self._unread.forget(UserId(user_id), RoomId(room_id))
            elif topic is Topic.CREDENTIALS:
                self._access_tokens.invalidate(UserId(key))
            elif topic is Topic.REDACTED:
                self._published_rooms.redacted(key)
                if not announcement.local:
                    self._events.forget(EventId(key))
            elif topic is Topic.TYPING:
                self._typing_now.invalidate(RoomId(key))
            elif topic is Topic.ONE_TIME_KEYS:
                self._keys_left.invalidate(key)
            elif topic is Topic.PRESENCE:
                self._presence_now.hear(announcement.position, UserId(key))
                if not announcement.local:
                    self.presence.written_elsewhere(UserId(key))
            elif topic is Topic.TO_DEVICE:
                self._inboxes.hear(announcement.position, key)
            elif topic is Topic.ERASED:
                self._erasure.add(UserId(key), announcement.position)
            elif announcement.local:
                continue
            elif topic is Topic.ROOM_SERVERS:
                self._room_servers.invalidate(int(key))
            elif topic is Topic.ROOM_EVENTS:
                self._live_rooms.invalidate(RoomId(key))
                self._recent.invalidate(RoomId(key))
            elif topic is Topic.MEMBERSHIP:
                self._memberships.invalidate(UserId(key))
            elif topic is Topic.MANY_MEMBERS:
                self._memberships.clear()
        self.notifier.on_commit(position, announcements)

    def _heard_from(self, server_name: ServerName) -> None:
        self._server_calls.heard_from(server_name)
        if self.delivery is not None:
            self.delivery.heard_from(server_name)

    def _measure(self) -> None:
        self.metrics.waiting_syncs.set(self.notifier.waiting)
        self.metrics.position.set(self.notifier.position)
