"""How the events of other servers come in, and how users here get into the rooms of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.rooms.auth_chains import AuthChains
from homeserver.rooms.state_resolver import StateResolver
from homeserver.services.inbound.arrivals import RoomArrivals
from homeserver.services.inbound.backfill import Backfill
from homeserver.services.inbound.ends_elsewhere import EndsElsewhere
from homeserver.services.inbound.event_times import EventTimes
from homeserver.services.inbound.events import InboundEvents
from homeserver.services.inbound.extremities import Extremities
from homeserver.services.inbound.further_joins import FurtherJoins
from homeserver.services.inbound.gaps import GapFiller
from homeserver.services.inbound.outliers import Outliers
from homeserver.services.inbound.queues import RoomQueues
from homeserver.services.inbound.redactions import InboundRedactions
from homeserver.services.inbound.remote import RemoteSources
from homeserver.services.inbound.room_ends import RoomEnds
from homeserver.services.inbound.short_way import ShortWay
from homeserver.services.inbound.signatures import EventSignatures
from homeserver.services.member_templates import MemberTemplates
from homeserver.services.memberships_elsewhere import MembershipsElsewhere
from homeserver.services.policed_writes import PolicedWrites
from homeserver.services.policy_servers import PolicyServers
from homeserver.services.remote_joins import RemoteJoins

if TYPE_CHECKING:
    from crypto.keys import SigningKey
    from homeserver.clock import Clock
    from homeserver.composition.remote import RemoteLayer
    from homeserver.composition.rooms import RoomLayer
    from homeserver.composition.stores import Stores
    from homeserver.composition.writing import WritingLayer
    from homeserver.ids import ServerName
    from homeserver.storage.database import Database


class InboundLayer:
    """Events of other servers: judged, fetched, queued; gaps and rooms that are yet to come."""

    def __init__(
        self,
        server_name: ServerName,
        database: Database,
        stores: Stores,
        remote: RemoteLayer,
        rooms: RoomLayer,
        writing: WritingLayer,
        key: SigningKey,
        clock: Clock,
    ) -> None:
        stores.outliers.on_renumbered = rooms.memberships.invalidate
        self.chains = AuthChains(stores.events, stores.raw_events)
        resolver = StateResolver(stores.events, stores.state, stores.numbers, self.chains)
        self.policy = PolicyServers(rooms.live, rooms.servers, remote.client, clock)
        redactions = InboundRedactions(stores.events, stores.gaps)
        self.events = InboundEvents(
            database,
            clock,
            rooms.live,
            stores.events,
            stores.outliers,
            stores.gaps,
            resolver,
            writing.snapshots,
            writing.preparation,
            writing.room_writes,
            self.policy,
            redactions,
            ShortWay(
                clock,
                rooms.live,
                stores.events,
                writing.preparation,
                writing.room_writes,
                self.policy,
                redactions,
            ),
            RoomEnds(server_name, stores.events, stores.gaps, stores.memberships, resolver),
        )
        writing.events.policed = PolicedWrites(
            clock, self.policy, writing.events, self.events, stores.transaction_ids
        )
        self.signatures = EventSignatures(remote.servers.keyring)
        self.elsewhere = MembershipsElsewhere(
            database,
            stores.rooms,
            rooms.live,
            stores.events,
            stores.outliers,
            stores.memberships,
            rooms.memberships,
            stores.stripped_state,
        )
        self.ends = EndsElsewhere(self.elsewhere, stores.events, remote.client, remote.calls)
        outliers = Outliers(database, stores.events, stores.outliers, self.signatures)
        filler = GapFiller(
            server_name,
            clock,
            stores.rooms,
            stores.events,
            stores.gaps,
            stores.memberships,
            resolver,
            outliers,
            self.events,
        )
        sources = RemoteSources(server_name, remote.client, rooms.reader)
        self.queues = RoomQueues(database, stores.staged_events, rooms.live, filler, sources)
        self.times = EventTimes(
            server_name,
            rooms.live,
            rooms.hosted,
            rooms.reader,
            stores.events,
            stores.gaps,
            filler,
            sources,
            remote.client,
            remote.calls,
        )
        self.backfill = Backfill(clock, rooms.live, rooms.hosted, stores.gaps, filler, sources)
        self.extremities = Extremities(
            server_name, rooms.reader, stores.memberships, writing.events, self.events
        )
        self.events.on_forked = self.extremities.notice
        self.templates = MemberTemplates(server_name, key, clock)
        self.joins = RemoteJoins(
            server_name,
            self.templates,
            database,
            clock,
            stores.join_jobs,
            remote.client,
            outliers,
            RoomArrivals(
                database,
                stores.rooms,
                rooms.live,
                stores.events,
                outliers,
                self.events,
                self.elsewhere,
            ),
            FurtherJoins(rooms.live, rooms.hosted, outliers, filler, sources),
        )

    async def start(self) -> None:
        """Take up what was left at the last end."""
        await self.queues.start()
        await self.joins.start()

    async def stop(self) -> None:
        """Finish or put down what is under way."""
        await self.joins.stop()
        await self.queues.stop()
        await self.extremities.stop()
        await self.backfill.stop()
