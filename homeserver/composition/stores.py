"""Every store, over one database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.storage.access_tokens import AccessTokenStore
from homeserver.storage.account_data import AccountDataStore
from homeserver.storage.accounts import AccountStore
from homeserver.storage.catch_ups import CatchUpStore
from homeserver.storage.cross_signing import CrossSigningStore
from homeserver.storage.dehydrated_devices import DehydratedDeviceStore
from homeserver.storage.delivery_news import DeliveryNewsStore
from homeserver.storage.destinations import DestinationStore
from homeserver.storage.device_keys import DeviceKeyStore
from homeserver.storage.device_lists import DeviceListStore
from homeserver.storage.device_positions import DevicePositionStore
from homeserver.storage.devices import DeviceStore
from homeserver.storage.directory import DirectoryStore
from homeserver.storage.events import EventStore
from homeserver.storage.filters import FilterStore
from homeserver.storage.gaps import GapStore
from homeserver.storage.handovers import HandoverStore
from homeserver.storage.interning import NumberStore
from homeserver.storage.join_jobs import JoinJobStore
from homeserver.storage.key_backups import KeyBackupStore
from homeserver.storage.key_signatures import KeySignatureStore
from homeserver.storage.left_out import LeftOutStore
from homeserver.storage.media import MediaStore
from homeserver.storage.media_strays import StrayFiles
from homeserver.storage.media_thumbnails import ThumbnailStore
from homeserver.storage.memberships import MembershipStore
from homeserver.storage.missed import MissedStore
from homeserver.storage.notifications import HighlightStore
from homeserver.storage.one_time_keys import OneTimeKeyStore
from homeserver.storage.openid_tokens import OpenIdTokenStore
from homeserver.storage.outgoing_devices import OutgoingDeviceStore
from homeserver.storage.outgoing_events import OutgoingEventStore
from homeserver.storage.outgoing_to_device import OutgoingToDeviceStore
from homeserver.storage.outliers import OutlierStore
from homeserver.storage.owed_rooms import OwedRoomStore
from homeserver.storage.presence import PresenceStore
from homeserver.storage.profiles import ProfileStore
from homeserver.storage.raw_events import RawEventStore
from homeserver.storage.receipts import ReceiptStore
from homeserver.storage.registration_tokens import RegistrationTokenStore
from homeserver.storage.relations import RelationStore
from homeserver.storage.remote_device_lists import RemoteDeviceListStore
from homeserver.storage.room_arrivals import RoomArrivalStore
from homeserver.storage.room_servers import RoomServerStore
from homeserver.storage.rooms import RoomStore
from homeserver.storage.server_keys import ServerKeyStore
from homeserver.storage.shared_rooms import SharedRoomStore
from homeserver.storage.sliding_sync import SlidingSyncStore
from homeserver.storage.staged_events import StagedEventStore
from homeserver.storage.state import StateStore
from homeserver.storage.stripped_state import StrippedStateStore
from homeserver.storage.thread_subscriptions import ThreadSubscriptionStore
from homeserver.storage.to_device import ToDeviceStore
from homeserver.storage.transaction_ids import TransactionIdStore
from homeserver.storage.typing import TypingStore
from homeserver.storage.user_interactive import UserInteractiveStore

if TYPE_CHECKING:
    from homeserver.ids import ServerName
    from homeserver.storage.database import Database


class Stores:
    """What the database holds, a store for each topic; parsed events are kept within half of the memory budget."""

    def __init__(self, database: Database, server_name: ServerName, budget: int) -> None:
        # Rooms.
        self.rooms = RoomStore(database)
        self.events = EventStore(database, budget // 2)
        self.raw_events = RawEventStore(database)
        self.numbers = NumberStore(database)
        self.outliers = OutlierStore(self.events, self.numbers)
        self.state = StateStore(database)
        self.stripped_state = StrippedStateStore(database)
        self.memberships = MembershipStore(database)
        self.shared_rooms = SharedRoomStore(database)
        self.relations = RelationStore(database)
        self.highlights = HighlightStore(database)
        self.transaction_ids = TransactionIdStore(database)
        self.directory = DirectoryStore(database)
        self.missed = MissedStore(database)
        self.catch_ups = CatchUpStore(database)

        # People.
        self.accounts = AccountStore(database)
        self.access_tokens = AccessTokenStore(database)
        self.registration_tokens = RegistrationTokenStore(database)
        self.openid_tokens = OpenIdTokenStore(database)
        self.user_interactive = UserInteractiveStore(database)
        self.profiles = ProfileStore(database)
        self.account_data = AccountDataStore(database)
        self.filters = FilterStore(database)
        self.receipts = ReceiptStore(database)
        self.thread_subscriptions = ThreadSubscriptionStore(database)
        self.typing = TypingStore(database)
        self.presence = PresenceStore(database)

        # Devices and keys.
        self.device_lists = DeviceListStore(database)
        self.devices = DeviceStore(database, self.device_lists)
        self.dehydrated_devices = DehydratedDeviceStore(database)
        self.to_device = ToDeviceStore(database)
        self.sliding_sync = SlidingSyncStore(database)
        self.device_keys = DeviceKeyStore(database)
        self.one_time_keys = OneTimeKeyStore(database)
        self.cross_signing = CrossSigningStore(database)
        self.key_signatures = KeySignatureStore(database)
        self.key_backups = KeyBackupStore(database)

        # Media.
        self.media_strays = StrayFiles(database)
        self.media = MediaStore(database, self.media_strays)
        self.thumbnails = ThumbnailStore(database)

        # What came where.
        self.device_positions = DevicePositionStore(database)
        self.owed_rooms = OwedRoomStore(database)
        self.left_out = LeftOutStore(database)
        self.room_arrivals = RoomArrivalStore(database)
        self.delivery_news = DeliveryNewsStore(database)

        # Other servers.
        self.server_keys = ServerKeyStore(database)
        self.room_servers = RoomServerStore(database, server_name)
        self.remote_device_lists = RemoteDeviceListStore(database, server_name)
        self.gaps = GapStore(database)
        self.staged_events = StagedEventStore(database)
        self.join_jobs = JoinJobStore(database)
        self.destinations = DestinationStore(database)
        self.handovers = HandoverStore(database)
        self.outgoing_events = OutgoingEventStore(database, self.room_servers)
        self.outgoing_devices = OutgoingDeviceStore(database)
        self.outgoing_to_device = OutgoingToDeviceStore(database)
