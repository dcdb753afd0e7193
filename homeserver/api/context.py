"""What the endpoints need: every service, by name. Built once, by `homeserver.app`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from federation.keyring import Keyring
    from homeserver.api.federation.streams import BigAnswers
    from homeserver.clock import Clock
    from homeserver.config import Settings
    from homeserver.http.authentication import Authenticator
    from homeserver.http.federation_authentication import FederationAuthenticator
    from homeserver.http.rate_limits import RateLimits
    from homeserver.metrics import Metrics
    from homeserver.services.access_tokens import AccessTokens
    from homeserver.services.account_data import AccountData
    from homeserver.services.accounts import Accounts
    from homeserver.services.cross_signing import CrossSigning
    from homeserver.services.deactivation import Deactivation
    from homeserver.services.dehydrated_devices import DehydratedDevices
    from homeserver.services.delivery_receipts import DeliveryReceipts
    from homeserver.services.delivery_status import DeliveryStatus
    from homeserver.services.device_keys import DeviceKeys
    from homeserver.services.devices import Devices
    from homeserver.services.directory import Directory
    from homeserver.services.filters import Filters
    from homeserver.services.history import History
    from homeserver.services.inbound.invitations import Invitations
    from homeserver.services.inbound.transactions import InboundTransactions
    from homeserver.services.joins import Joins
    from homeserver.services.key_backups import KeyBackups
    from homeserver.services.key_queries import KeyQueries
    from homeserver.services.key_signatures import KeySignatures
    from homeserver.services.logins import Logins
    from homeserver.services.media.contents import Contents
    from homeserver.services.media.thumbnails import Thumbnails
    from homeserver.services.media.uploads import Uploads
    from homeserver.services.membership import Membership
    from homeserver.services.messages import Messages
    from homeserver.services.one_time_keys import OneTimeKeys
    from homeserver.services.openid import OpenId
    from homeserver.services.presence import Presence
    from homeserver.services.profiles import Profiles
    from homeserver.services.published_rooms import PublishedRooms
    from homeserver.services.receipts import Receipts
    from homeserver.services.registration import Registration
    from homeserver.services.relations import Relations
    from homeserver.services.remote_lookups import RemoteLookups
    from homeserver.services.resident.graph import RoomGraph
    from homeserver.services.resident.handshakes import Handshakes
    from homeserver.services.resident.spaces import SpaceAnswers
    from homeserver.services.resident.templates import Templates
    from homeserver.services.room_creation import RoomCreation
    from homeserver.services.room_previews import RoomPreviews
    from homeserver.services.room_state import RoomState
    from homeserver.services.room_upgrades import RoomUpgrades
    from homeserver.services.spaces import Spaces
    from homeserver.services.third_party_invites import ThirdPartyInvites
    from homeserver.services.thread_subscriptions import ThreadSubscriptions
    from homeserver.services.to_device import ToDevice
    from homeserver.services.typing import Typing
    from homeserver.services.user_interactive import UserInteractive
    from homeserver.sync.classic import ClassicSync
    from homeserver.sync.device_lists import DeviceLists
    from homeserver.sync.missed.pages import MissedPages
    from homeserver.sync.missed.summary import MissedSummary
    from homeserver.sync.sliding.engine import SlidingSync
    from homeserver.views.client_events import ClientEvents


@dataclass(frozen=True, slots=True)
class ApiContext:
    """Everything that handlers call."""

    settings: Settings
    clock: Clock
    metrics: Metrics
    big_answers: BigAnswers
    authenticator: Authenticator
    federation_authenticator: FederationAuthenticator
    keyring: Keyring
    inbound_transactions: InboundTransactions
    remote_lookups: RemoteLookups
    rate_limits: RateLimits
    access_tokens: AccessTokens
    account_data: AccountData
    accounts: Accounts
    client_events: ClientEvents
    cross_signing: CrossSigning
    deactivation: Deactivation
    delivery_receipts: DeliveryReceipts
    delivery_status: DeliveryStatus
    device_lists: DeviceLists
    device_keys: DeviceKeys
    dehydrated_devices: DehydratedDevices
    devices: Devices
    directory: Directory
    filters: Filters
    handshakes: Handshakes
    history: History
    invitations: Invitations
    key_backups: KeyBackups
    key_queries: KeyQueries
    key_signatures: KeySignatures
    logins: Logins
    media_contents: Contents
    member_templates: Templates
    joins: Joins
    membership: Membership
    messages: Messages
    missed_pages: MissedPages
    missed_summary: MissedSummary
    one_time_keys: OneTimeKeys
    openid: OpenId
    presence: Presence
    profiles: Profiles
    published_rooms: PublishedRooms
    receipts: Receipts
    registration: Registration
    relations: Relations
    room_creation: RoomCreation
    room_graph: RoomGraph
    room_previews: RoomPreviews
    room_state: RoomState
    room_upgrades: RoomUpgrades
    space_answers: SpaceAnswers
    spaces: Spaces
    sliding_sync: SlidingSync
    sync: ClassicSync
    third_party_invites: ThirdPartyInvites
    thread_subscriptions: ThreadSubscriptions
    thumbnails: Thumbnails
    to_device: ToDevice
    typing: Typing
    uploads: Uploads
    user_interactive: UserInteractive
