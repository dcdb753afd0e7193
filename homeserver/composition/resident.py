"""What other servers ask of us and bring to us."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.services.inbound.edus import InboundEdus
from homeserver.services.inbound.invitations import Invitations
from homeserver.services.inbound.transactions import InboundTransactions
from homeserver.services.remote_keys.updates import RemoteDevices
from homeserver.services.resident.graph import RoomGraph
from homeserver.services.resident.handshakes import Handshakes
from homeserver.services.resident.join_conditions import JoinConditions
from homeserver.services.resident.member_events import MemberEvents
from homeserver.services.resident.spaces import SpaceAnswers
from homeserver.services.resident.templates import Templates
from homeserver.views.server_visibility import ServerVisibility

if TYPE_CHECKING:
    from crypto.keys import SigningKey
    from homeserver.clock import Clock
    from homeserver.composition.deeds import DeedLayer
    from homeserver.composition.inbound import InboundLayer
    from homeserver.composition.people import PeopleLayer
    from homeserver.composition.rooms import RoomLayer
    from homeserver.composition.stores import Stores
    from homeserver.composition.views import ViewLayer
    from homeserver.composition.writing import WritingLayer
    from homeserver.ids import ServerName
    from homeserver.metrics import Metrics
    from homeserver.storage.database import Database


class ResidentLayer:
    """Answers to other servers about rooms here, and the transactions that they send."""

    def __init__(
        self,
        server_name: ServerName,
        database: Database,
        stores: Stores,
        rooms: RoomLayer,
        views: ViewLayer,
        writing: WritingLayer,
        inbound: InboundLayer,
        people: PeopleLayer,
        deeds: DeedLayer,
        key: SigningKey,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        access = deeds.resident_access
        self.graph = RoomGraph(
            access,
            stores.events,
            stores.raw_events,
            stores.state,
            inbound.chains,
            ServerVisibility(views.visibility, stores.memberships, views.erasure),
        )
        conditions = JoinConditions(rooms.live, rooms.reader, rooms.servers, deeds.restricted_joins)
        self.templates = Templates(server_name, access, writing.events, conditions)
        self.handshakes = Handshakes(
            MemberEvents(
                server_name,
                key,
                access,
                rooms.live,
                stores.events,
                inbound.signatures,
                conditions,
                inbound.events,
            ),
            self.graph,
            rooms.reader,
            stores.state,
            stores.memberships,
        )
        self.invitations = Invitations(
            server_name,
            key,
            access,
            rooms.live,
            rooms.servers,
            stores.accounts,
            views.invites_blocked,
            inbound.signatures,
            inbound.elsewhere,
            inbound.queues,
        )
        self.spaces = SpaceAnswers(
            rooms.live, deeds.spaces, deeds.summaries, rooms.servers, stores.memberships
        )
        self.transactions = InboundTransactions(
            rooms.live,
            rooms.hosted,
            inbound.ends,
            inbound.signatures,
            inbound.events,
            inbound.queues,
            inbound.policy,
            InboundEdus(
                server_name,
                clock,
                rooms.live,
                people.typing,
                people.receipts,
                people.delivery_receipts,
                people.presence,
                people.to_device,
                RemoteDevices(
                    database,
                    stores.remote_device_lists,
                    stores.device_lists,
                    rooms.reader,
                    rooms.live,
                    rooms.hosted,
                ),
            ),
            metrics.event_received,
        )
