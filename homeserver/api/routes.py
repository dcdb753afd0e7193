"""Which endpoints a listener answers, by its resources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.api.admin.register import SharedSecretRegistration
from homeserver.api.client.account import AccountEndpoints
from homeserver.api.client.dehydrated_devices import DehydratedDeviceEndpoints
from homeserver.api.client.delivery_status import DeliveryStatusEndpoints
from homeserver.api.client.devices import DeviceEndpoints
from homeserver.api.client.directory import DirectoryEndpoints
from homeserver.api.client.ephemeral import EphemeralEndpoints
from homeserver.api.client.events import EventEndpoints
from homeserver.api.client.fallback import FallbackEndpoints
from homeserver.api.client.history import HistoryEndpoints
from homeserver.api.client.key_backup import KeyBackupEndpoints
from homeserver.api.client.key_changes import KeyChangesEndpoints
from homeserver.api.client.keys import KeyEndpoints
from homeserver.api.client.login import LoginEndpoints
from homeserver.api.client.media import MediaEndpoints
from homeserver.api.client.membership import MembershipEndpoints
from homeserver.api.client.missed import MissedEndpoints
from homeserver.api.client.openid import OpenIdEndpoints
from homeserver.api.client.profiles import ProfileEndpoints
from homeserver.api.client.registration import RegistrationEndpoints
from homeserver.api.client.room_creation import RoomCreationEndpoints
from homeserver.api.client.sliding_sync import SlidingSyncEndpoints
from homeserver.api.client.sync import SyncEndpoints
from homeserver.api.client.thread_subscriptions import ThreadSubscriptionEndpoints
from homeserver.api.client.to_device import ToDeviceEndpoints
from homeserver.api.client.user_data import UserDataEndpoints
from homeserver.api.client.versions import VersionEndpoints
from homeserver.api.federation.events import GraphEndpoints
from homeserver.api.federation.handshakes import HandshakeEndpoints
from homeserver.api.federation.invites import InviteEndpoints
from homeserver.api.federation.media import MediaAnswerEndpoints
from homeserver.api.federation.openid import OpenIdInfoEndpoints
from homeserver.api.federation.queries import QueryEndpoints
from homeserver.api.federation.server_keys import ServerKeyEndpoints
from homeserver.api.federation.third_party_invites import ThirdPartyInviteEndpoints
from homeserver.api.federation.transactions import TransactionEndpoints
from homeserver.api.federation.user_keys import UserKeyEndpoints
from homeserver.api.federation.version import FederationVersionEndpoints

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from homeserver.api.context import ApiContext
    from homeserver.api.health import HealthEndpoint, MetricsEndpoint
    from homeserver.http.routing import Route

_CLIENT = (
    VersionEndpoints,
    RegistrationEndpoints,
    LoginEndpoints,
    FallbackEndpoints,
    AccountEndpoints,
    DeviceEndpoints,
    KeyEndpoints,
    DehydratedDeviceEndpoints,
    ProfileEndpoints,
    RoomCreationEndpoints,
    MembershipEndpoints,
    EventEndpoints,
    HistoryEndpoints,
    DirectoryEndpoints,
    UserDataEndpoints,
    EphemeralEndpoints,
    ThreadSubscriptionEndpoints,
    ToDeviceEndpoints,
    KeyChangesEndpoints,
    SyncEndpoints,
    MissedEndpoints,
    DeliveryStatusEndpoints,
    SlidingSyncEndpoints,
    KeyBackupEndpoints,
    OpenIdEndpoints,
    MediaEndpoints,
)

_FEDERATION = (
    FederationVersionEndpoints,
    ServerKeyEndpoints,
    TransactionEndpoints,
    GraphEndpoints,
    HandshakeEndpoints,
    InviteEndpoints,
    ThirdPartyInviteEndpoints,
    QueryEndpoints,
    UserKeyEndpoints,
    OpenIdInfoEndpoints,
    MediaAnswerEndpoints,
)


class Api:
    """All endpoints, built once and shared by the listeners."""

    def __init__(self, context: ApiContext, health: HealthEndpoint, metrics: MetricsEndpoint) -> None:
        self._health = health.routes()
        self._by_resource: dict[str, Sequence[Route]] = {
            "client": [route for endpoints in _CLIENT for route in endpoints(context).routes()],
            "admin": SharedSecretRegistration(context).routes(),
            "metrics": metrics.routes(),
            "federation": [
                route
                for endpoints in (_FEDERATION if context.settings.federation.enabled else ())
                for route in endpoints(context).routes()
            ],
        }

    def routes(self, resources: Iterable[str]) -> list[Route]:
        """The routes of a listener with these resources; the health of the server is told everywhere."""
        return [*self._health, *(route for name in resources for route in self._by_resource[name])]
