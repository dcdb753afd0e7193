"""What users do in rooms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import ServerName
from homeserver.services.deactivation import Deactivation
from homeserver.services.directory import Directory
from homeserver.services.history import History
from homeserver.services.joins import Joins
from homeserver.services.membership import Membership
from homeserver.services.messages import Messages
from homeserver.services.published_rooms import PublishedRooms
from homeserver.services.relation_rules import RelationRules
from homeserver.services.relations import Relations
from homeserver.services.remote_departures import RemoteDepartures
from homeserver.services.remote_invites import RemoteInvites
from homeserver.services.resident.access import ResidentAccess
from homeserver.services.restricted_joins import RestrictedJoins
from homeserver.services.room_access import RoomAccessRules
from homeserver.services.room_creation import RoomCreation
from homeserver.services.room_descriptions import RoomDescriptions
from homeserver.services.room_previews import RoomPreviews
from homeserver.services.room_state import RoomState
from homeserver.services.room_summaries import RoomSummaries
from homeserver.services.room_upgrades import RoomUpgrades
from homeserver.services.spaces import Spaces
from homeserver.services.third_party_invites import ThirdPartyInvites
from homeserver.services.thread_subscriptions import ThreadSubscriptions

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.composition.inbound import InboundLayer
    from homeserver.composition.keys import KeyLayer
    from homeserver.composition.people import PeopleLayer
    from homeserver.composition.remote import RemoteLayer
    from homeserver.composition.rooms import RoomLayer
    from homeserver.composition.stores import Stores
    from homeserver.composition.views import ViewLayer
    from homeserver.composition.writing import WritingLayer
    from homeserver.config import Settings
    from homeserver.storage.database import Database
    from homeserver.sync.delivered import Delivered


class DeedLayer:
    """Rooms made, joined, left, read and written in; what ends an account stands here too, since it leaves rooms."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        stores: Stores,
        remote: RemoteLayer,
        rooms: RoomLayer,
        views: ViewLayer,
        writing: WritingLayer,
        inbound: InboundLayer,
        people: PeopleLayer,
        keys: KeyLayer,
        delivered: Delivered,
        clock: Clock,
    ) -> None:
        server_name = ServerName(settings.server_name)
        reader, writer = rooms.reader, writing.events
        self.summaries = RoomSummaries(reader)
        self.published_rooms = PublishedRooms(stores.directory, self.summaries, views.tokens)
        self.directory = Directory(
            server_name, settings.room_directory, database, clock, stores.directory, reader, remote.client
        )
        self.restricted_joins = RestrictedJoins(server_name, reader, stores.memberships)
        self.joins = Joins(
            reader,
            rooms.hosted,
            writer,
            people.profiles,
            people.account_data,
            self.restricted_joins,
            inbound.joins,
        )
        self.membership = Membership(
            server_name,
            database,
            reader,
            rooms.memberships,
            stores.memberships,
            stores.thread_subscriptions,
            stores.accounts,
            writer,
            people.profiles,
            rooms.hosted,
            self.joins,
            views.invites_blocked,
            RemoteInvites(remote.client, rooms.live, reader, writer, inbound.events, inbound.policy),
            RemoteDepartures(
                server_name,
                remote.client,
                inbound.templates,
                rooms.live,
                stores.events,
                inbound.elsewhere,
                RoomDescriptions(inbound.signatures),
            ),
        )
        self.resident_access = ResidentAccess(rooms.live, rooms.servers)
        self.third_party_invites = ThirdPartyInvites(
            server_name,
            reader,
            rooms.hosted,
            self.resident_access,
            stores.accounts,
            writer,
            self.membership,
            people.profiles,
            remote.client,
            remote.identity_servers,
        )
        self.creation = RoomCreation(
            server_name,
            settings.rooms,
            writer,
            people.profiles,
            self.membership,
            self.third_party_invites,
            self.directory,
        )
        self.upgrades = RoomUpgrades(
            reader, writer, self.creation, people.profiles, self.directory, self.joins
        )
        access = RoomAccessRules(reader, views.visibility)
        self.history = History(
            database,
            reader,
            access,
            views.visibility,
            views.client_events,
            views.ignored,
            views.tokens,
            inbound.backfill,
            delivered,
            inbound.times,
        )
        self.relations = Relations(
            database,
            reader,
            access,
            self.history,
            stores.relations,
            stores.events,
            stores.numbers,
            views.visibility,
            views.client_events,
            views.ignored,
            views.tokens,
        )
        self.thread_subscriptions = ThreadSubscriptions(
            database, stores.thread_subscriptions, self.history, views.tokens
        )
        self.state = RoomState(reader, access, self.history, views.client_events)
        self.messages = Messages(
            reader,
            writer,
            self.membership,
            self.directory,
            RelationRules(stores.events, stores.relations, stores.numbers),
            stores.transaction_ids,
        )
        self.previews = RoomPreviews(reader, rooms.hosted, self.summaries, remote.spaces)
        self.spaces = Spaces(reader, rooms.hosted, self.summaries, remote.spaces, views.tokens, clock)
        self.deactivation = Deactivation(
            database,
            clock,
            stores.accounts,
            stores.access_tokens,
            people.devices,
            self.membership,
            (
                stores.profiles,
                stores.account_data,
                stores.filters,
                stores.thread_subscriptions,
                people.presence,
                stores.key_backups,
                keys.cross_signing,
                stores.openid_tokens,
                stores.media,
            ),
            keys.backups,
        )
