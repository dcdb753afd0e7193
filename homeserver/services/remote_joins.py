"""Coming into a room that other servers are in (SS "Joining Rooms"): a durable job for each user and room.

A request for a join that is under way waits for it; it goes on when whoever asked has gone away, and after a restart.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from federation.errors import FederationError, Refused
from homeserver.errors import MatrixError, NotFound
from homeserver.eventgraph.errors import EventRefused
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.eventgraph.signing import with_signatures_of
from homeserver.ids import server_name_of
from homeserver.services.jobs import Job, Phase, Progress
from homeserver.services.member_templates import UnknownVersion, version_of
from homeserver.services.other_servers import as_matrix_error, incompatible, what_failed
from homeserver.storage.errors import DatabaseClosed, DatabaseUnavailable
from homeserver.storage.join_jobs import JoinJob

if TYPE_CHECKING:
    from collections.abc import Sequence

    from federation.answers import Template
    from federation.client import FederationClient
    from homeserver.clock import Clock
    from homeserver.eventgraph.event import Event
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import EventId, RoomId, ServerName, UserId
    from homeserver.services.inbound.arrivals import RoomArrivals
    from homeserver.services.inbound.further_joins import FurtherJoins
    from homeserver.services.inbound.outliers import Outliers
    from homeserver.services.member_templates import MemberTemplates
    from homeserver.storage.database import Database
    from homeserver.storage.join_jobs import JoinJobStore

_MAX_SERVERS = 10
_MAX_STATE = 500_000
_FORBIDDEN = 403
_BETWEEN_RESTS = 50
_AUTHORISER = "join_authorised_via_users_server"

_log = structlog.get_logger(__name__)


class RemoteJoins:
    """Joins rooms by way of servers that are in them."""

    def __init__(
        self,
        server_name: ServerName,
        templates: MemberTemplates,
        database: Database,
        clock: Clock,
        store: JoinJobStore,
        client: FederationClient,
        outliers: Outliers,
        arrivals: RoomArrivals,
        further: FurtherJoins,
    ) -> None:
        self._server_name = server_name
        self._templates = templates
        self._database = database
        self._clock = clock
        self._store = store
        self._client = client
        self._outliers = outliers
        self._arrivals = arrivals
        self._further = further
        self._under_way: dict[tuple[UserId, RoomId], asyncio.Task[None]] = {}
        self._progress: dict[tuple[UserId, RoomId], Progress] = {}

    async def start(self) -> None:
        """Go on with what was under way when the program ended."""
        for job in await self._store.load():
            self._begin(job)

    async def stop(self) -> None:
        """Stop; what is under way goes on at the next start."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def join(
        self, user_id: UserId, room_id: RoomId, servers: Sequence[ServerName], content: dict[str, Any]
    ) -> None:
        """Bring a user of ours into a room, by way of the first of these servers that lets them in.

        Others of ours may be in it, where none of them may let anybody in. When this returns they are in. Raises `MatrixError`: `NotFound` where no server is named, what the servers say
        where they refuse, 502 where none answers.
        """
        task = self._under_way.get((user_id, room_id))
        if task is None:
            asked = [name for name in dict.fromkeys(servers) if name != self._server_name][:_MAX_SERVERS]
            if not asked:
                raise NotFound("Unknown room, and no server is named that may know it")
            job = JoinJob(user_id, room_id, asked, content, self._clock.now_ms())
            await self._database.write(lambda t: self._store.insert(t, job))
            task = self._begin(job)
        await asyncio.shield(task)

    async def cancel(self, user_id: UserId, room_id: RoomId) -> bool:
        """End a join that is under way; whether there was one."""
        task = self._under_way.get((user_id, room_id))
        if task is None:
            return False
        await self._database.write(lambda t: self._store.delete(t, user_id, room_id))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return True

    async def load_jobs(self) -> list[Job]:
        """Who is coming into which room now, and how far that is."""
        return [
            Job(
                "join",
                job.user_id,
                job.room_id,
                job.created_ts,
                self._progress.get((job.user_id, job.room_id)) or Progress(),
            )
            for job in await self._store.load()
        ]

    def _begin(self, job: JoinJob) -> asyncio.Task[None]:
        key = (job.user_id, job.room_id)
        known = self._under_way.get(key)
        if known is not None:
            return known
        progress = self._progress[key] = Progress()
        task = self._under_way[key] = asyncio.create_task(self._run(job, progress))

        def ended(done: asyncio.Task[None]) -> None:
            del self._under_way[key], self._progress[key]
            if not done.cancelled():
                # Whoever asked may be gone.
                done.exception()

        task.add_done_callback(ended)
        return task

    async def _run(self, job: JoinJob, progress: Progress) -> None:
        try:
            await self._join_by_one(job, progress)
        except (DatabaseClosed, DatabaseUnavailable):
            raise
        except Exception:
            await self._database.write(lambda t: self._store.delete(t, job.user_id, job.room_id))
            raise
        await self._database.write(lambda t: self._store.delete(t, job.user_id, job.room_id))

    async def _join_by_one(self, job: JoinJob, progress: Progress) -> None:
        refusal: MatrixError | None = None
        failures: list[str] = []
        for server in job.servers:
            progress.begin(server)
            try:
                await self._join_by(server, job, progress)
            except Refused as error:
                progress.last_error = str(error)
                if refusal is None or refusal.status != _FORBIDDEN:
                    # That somebody may not come in says more than that a server cannot tell.
                    refusal = as_matrix_error(error, of_our_making=True)
                _log.info("join_refused", room_id=job.room_id, server=server, why=str(error))
            except UnknownVersion as error:
                progress.last_error = str(error)
                refusal = refusal or incompatible(error.room_version)
                _log.info("join_failed", room_id=job.room_id, server=server, why=str(error))
            except (FederationError, EventRefused) as error:
                progress.last_error = str(error)
                failures.append(what_failed(server, error))
                _log.info("join_failed", room_id=job.room_id, server=server, why=str(error))
            else:
                return
        raise refusal or MatrixError(f"No server lets you in: {'; '.join(failures)}", status=502)

    async def _join_by(self, server: ServerName, job: JoinJob, progress: Progress) -> None:
        template = await self._client.make_join(server, job.room_id, job.user_id, list(ROOM_VERSIONS))
        version = version_of(template)
        authoriser = _authoriser(version, template)
        content = {**job.content, **({_AUTHORISER: authoriser} if authoriser is not None else {})}
        event = self._templates.complete(
            version, template, job.room_id, job.user_id, content, membership="join"
        )
        # Read as they come: neither the text of the answer nor its objects are ever here as a whole.
        told: dict[str, dict[EventId, Event]] = {"state": {}, "auth_chain": {}}
        signed: Any = None
        is_here = await self._further.is_here(job.room_id)
        async with self._client.send_join(
            server, job.room_id, event.event_id, event.pdu, omit_members=is_here
        ) as members:
            async for name, value in members:
                if name in told and not is_here:
                    progress.phase = Phase.RECEIVING
                    progress.received += 1
                    if progress.received > _MAX_STATE:
                        raise EventRefused(f"the room has more than {_MAX_STATE} events as its state")
                    told[name].update(self._outliers.read(version, job.room_id, [value]))
                    if progress.received % _BETWEEN_RESTS == 0:
                        await asyncio.sleep(0)
                elif name == "event":
                    signed = value
                elif name == "members_omitted" and value is True and not is_here:
                    # We did not ask for half a state.
                    raise EventRefused("the state of the room is not whole")
        if authoriser is not None and isinstance(signed, dict):
            # Signed by the server of whoever lets us in, too.
            event = with_signatures_of(server_name_of(authoriser), event, signed)
        if is_here:
            await self._further.take(version, event, server)
            return
        await self._arrivals.arrive(version, event, told["state"], told["auth_chain"], progress)


def _authoriser(version: RoomVersion, template: Template) -> str | None:
    """The user that a template names as the one who lets us in."""
    content = template.event.get("content")
    authoriser = content.get(_AUTHORISER) if isinstance(content, dict) else None
    return authoriser if isinstance(authoriser, str) and version.has_restricted_join else None
