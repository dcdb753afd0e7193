"""Servers of ours, each a process, and Synapse: between any two of them the way can be cut, in both directions."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from homeserver.storage.stored_event import Status
from tests.client import Client
from tests.interop.people import Somebody, of_synapse
from tests.interop.synapse import Link
from tests.server_process import ServerProcess, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import trustme

    from tests.interop.synapse import Synapse

Pdu = dict[str, Any]

_REQUEST_SECONDS = 90
_numbers = itertools.count()


class Fate(Enum):
    """What became of an event on a server."""

    SHOWN = auto()
    SOFT_FAILED = auto()
    REJECTED = auto()
    OUTLIER = auto()


class Peer(Protocol):
    """A server of the network."""

    label: str
    name: str
    """The server name."""
    is_up: bool

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def kill(self) -> None: ...

    async def somebody(self, name: str) -> Somebody:
        """A new user."""
        ...

    async def hurry(self) -> None:
        """Try at once to send to the others what waits for them."""
        ...

    def fates(self, room_id: str) -> dict[str, Fate]:
        """What its database says about the events of a room."""
        ...

    def dropped(self, room_id: str, events: Mapping[str, Pdu]) -> set[str]:
        """Those of these events that it has dropped, by its own account, and does not show."""
        ...


class OurServer(Peer, Protocol):
    """A server of ours in the network."""

    def events(self, room_id: str) -> dict[str, Pdu]:
        """The events of a room that it has, by id."""
        ...


class AnyNetwork(Protocol):
    """Servers, any two of which can be cut off from each other."""

    peers: Sequence[Peer]
    ours: Sequence[OurServer]
    pairs: Sequence[frozenset[str]]
    cut_pairs: set[frozenset[str]]

    async def cut(self, pair: frozenset[str], *, silently: bool = False) -> None:
        """Let nothing pass between two servers; where `silently`, connections are neither refused nor ended."""
        ...

    async def heal(self, pair: frozenset[str]) -> None:
        """Let everything pass between two servers."""
        ...

    async def heal_all(self) -> None:
        """Let everything pass."""
        ...

    def peer(self, label: str) -> Peer:
        """The server of a label."""
        ...

    async def calls(self) -> Counter[str]:
        """How often each server of ours was called by others, by endpoint."""
        ...


class OurPeer:
    """A server of ours."""

    def __init__(self, label: str, directory: Path, authority: trustme.CA, called_at: int) -> None:
        self.label = label
        self.name = f"127.0.0.1:{called_at}"
        self.port = free_port()
        """Where it listens to other servers."""
        self.ways: dict[str, int] = {}
        directory.mkdir()
        self._directory = directory
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
        certificate.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
        authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        for_clients = free_port()
        self.process = ServerProcess(
            directory,
            under=[sys.executable, "-m", "tests.interop.by_ways", str(directory / "ways.json")],
            server_name=self.name,
            listeners=[
                {"host": "127.0.0.1", "port": for_clients, "resources": ["client", "metrics"]},
                {
                    "host": "127.0.0.1",
                    "port": self.port,
                    "resources": ["federation"],
                    "tls": {
                        "certificate": str(directory / "cert.pem"),
                        "private_key": str(directory / "key.pem"),
                    },
                },
            ],
            federation={"allow_private_addresses": True, "trusted_ca": [str(directory / "ca.pem")]},
        )
        self.process.url = f"http://127.0.0.1:{for_clients}"
        self.http = httpx.AsyncClient(base_url=self.process.url, timeout=_REQUEST_SECONDS)
        self.is_up = False

    async def start(self) -> None:
        (self._directory / "ways.json").write_text(json.dumps(self.ways))
        await asyncio.to_thread(self.process.start)
        self.is_up = True

    async def stop(self) -> None:
        self.is_up = False
        await asyncio.to_thread(self.process.stop)

    async def kill(self) -> None:
        self.is_up = False
        await asyncio.to_thread(self.process.kill)

    async def somebody(self, name: str) -> Somebody:
        account = await asyncio.to_thread(self.process.register, f"{name}{next(_numbers)}")
        client = Client(self.http, account.user_id, account.device_id, account.access_token)
        return Somebody(client, self.name)

    async def hurry(self) -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(self._directory / "data" / "restante.sock"))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as control:
            for name in self.ways:
                await control.post("/federation-retry", json={"name": name})

    async def calls(self) -> Counter[str]:
        """How often other servers have called which endpoint since it was started."""
        calls: Counter[str] = Counter()
        for line in (await self.http.get("/metrics")).text.splitlines():
            if line.startswith("restante_http_requests_total") and "/_matrix/federation/" in line:
                labels, _, number = line.rpartition(" ")
                calls[f"{self.label} {labels}"] += int(float(number))
        return calls

    def fates(self, room_id: str) -> dict[str, Fate]:
        return fates_in(self._directory / "data" / "restante.db", room_id)

    def dropped(self, room_id: str, events: Mapping[str, Pdu]) -> set[str]:
        """Servers of ours drop nothing."""
        return set()

    def events(self, room_id: str) -> dict[str, Pdu]:
        return events_in(self._directory / "data" / "restante.db", room_id)


def events_in(database_file: Path, room_id: str) -> dict[str, Pdu]:
    """The events of a room that a server of ours has, by id."""
    with closing(sqlite3.connect(database_file)) as database:
        rows = database.execute(
            "SELECT e.event_id, e.json FROM events e JOIN rooms r ON r.room_nid = e.room_nid"
            " WHERE r.room_id = ?",
            [room_id],
        ).fetchall()
    return {event_id: json.loads(pdu) for event_id, pdu in rows}


def fates_in(database_file: Path, room_id: str) -> dict[str, Fate]:
    """What became of the events of a room on a server of ours."""
    with closing(sqlite3.connect(database_file)) as database:
        rows = database.execute(
            "SELECT e.event_id, e.status FROM events e JOIN rooms r ON r.room_nid = e.room_nid"
            " WHERE r.room_id = ?",
            [room_id],
        ).fetchall()
    return {event_id: _FATES[Status(status)] for event_id, status in rows}


_FATES = {
    Status.TIMELINE: Fate.SHOWN,
    Status.SOFT_FAILED: Fate.SOFT_FAILED,
    Status.REJECTED: Fate.REJECTED,
    Status.OUTLIER: Fate.OUTLIER,
    Status.NOTED: Fate.OUTLIER,
}


class SynapsePeer:
    """Synapse."""

    def __init__(self, synapse: Synapse) -> None:
        self.label = "synapse"
        self.name = synapse.name
        self.is_up = True
        self.synapse = synapse
        self.http = httpx.AsyncClient(base_url=synapse.url, verify=synapse.trust, timeout=_REQUEST_SECONDS)

    async def start(self) -> None:
        await asyncio.to_thread(self.synapse.start)
        self.is_up = True

    async def stop(self) -> None:
        await self.kill()

    async def kill(self) -> None:
        self.is_up = False
        await asyncio.to_thread(self.synapse.kill)

    async def somebody(self, name: str) -> Somebody:
        return await of_synapse(self.synapse, self.http, name)

    async def hurry(self) -> None:
        """It tries every other second, once it was called."""

    def fates(self, room_id: str) -> dict[str, Fate]:
        with closing(sqlite3.connect(self.synapse.database)) as database:
            rows = database.execute(
                "SELECT e.event_id, e.outlier, r.reason, j.internal_metadata FROM events e"
                " JOIN event_json j ON j.event_id = e.event_id LEFT JOIN rejections r ON r.event_id = e.event_id"
                " WHERE e.room_id = ?",
                [room_id],
            ).fetchall()
        fates = {}
        for event_id, is_outlier, rejection, metadata in rows:
            if rejection is not None:
                fates[event_id] = Fate.REJECTED
            elif is_outlier:
                fates[event_id] = Fate.OUTLIER
            else:
                is_soft_failed = json.loads(metadata).get("soft_failed", False)
                fates[event_id] = Fate.SOFT_FAILED if is_soft_failed else Fate.SHOWN
        return fates

    def dropped(self, room_id: str, events: Mapping[str, Pdu]) -> set[str]:
        """Of what waits in a room beyond 100 events it drops all but the ends, and fetches it when somebody reads back.

        But it shows no redaction of an event that it does not have, and fetches nothing from behind it either.
        """
        if f"events in room {room_id} from federation queue" not in self.synapse.log():
            return set()
        fates = self.fates(room_id)
        with closing(sqlite3.connect(self.synapse.database)) as database:
            ahead = [
                event_id
                for (event_id,) in database.execute(
                    "SELECT event_id FROM event_backward_extremities WHERE room_id = ?", [room_id]
                )
            ]
        here = {event_id for event_id, fate in fates.items() if fate is not Fate.OUTLIER}

        def is_blind(event_id: str) -> bool:
            return (redacts := _redacts(events[event_id])) is not None and redacts not in here

        def is_stuck(event_id: str) -> bool:
            followers = {one for one in here & events.keys() if event_id in events[one]["prev_events"]}
            return bool(followers) and all(map(is_blind, followers))

        ahead = [event_id for event_id in ahead if is_stuck(event_id)]
        dropped: set[str] = set()
        while ahead:
            event_id = ahead.pop()
            if event_id in events and event_id not in dropped | here:
                dropped.add(event_id)
                ahead += events[event_id]["prev_events"]
        return dropped | {event_id for event_id in events if _redacts(events[event_id]) in dropped}


def _redacts(pdu: Pdu) -> str | None:
    redacts: str | None = pdu.get("redacts") or pdu["content"].get("redacts")
    return redacts if pdu["type"] == "m.room.redaction" else None


class Network:
    """Three servers of ours and Synapse, each reached by each by a link of its own."""

    def __init__(self, directory: Path, authority: trustme.CA, synapse: Synapse) -> None:
        self.ours = [
            OurPeer(f"ours{number}", directory / f"ours{number}", authority, free_port())
            for number in range(3)
        ]
        self.synapse = SynapsePeer(synapse)
        self.peers: list[Peer] = [*self.ours, self.synapse]
        self.pairs = [
            frozenset((one.label, other.label)) for one, other in itertools.combinations(self.peers, 2)
        ]
        self.cut_pairs: set[frozenset[str]] = set()
        self._links: dict[frozenset[str], list[Link]] = {pair: [] for pair in self.pairs}
        for caller, called in itertools.permutations([*self.ours, self.synapse], 2):
            self._links[frozenset((caller.label, called.label))].append(self._link(caller, called))

    async def start(self) -> None:
        for pair in self.pairs:
            await self._join(pair)
        await asyncio.gather(*(peer.start() for peer in self.ours))

    async def stop(self) -> None:
        """End all but Synapse, which is needed elsewhere."""
        if not self.synapse.is_up:
            await self.synapse.start()
        for peer in self.ours:
            await (peer.stop() if peer.is_up else peer.kill())
            await peer.http.aclose()
        await self.synapse.http.aclose()
        for links in self._links.values():
            for link in links:
                await link.cut()

    async def cut(self, pair: frozenset[str], *, silently: bool = False) -> None:
        """Let nothing pass between two servers; where `silently`, connections are neither refused nor ended."""
        if pair not in self.cut_pairs:
            self.cut_pairs.add(pair)
            for link in self._links[pair]:
                if silently:
                    link.jam()
                else:
                    await link.cut()

    async def heal(self, pair: frozenset[str]) -> None:
        """Let everything pass between two servers."""
        if pair in self.cut_pairs:
            self.cut_pairs.remove(pair)
            await self._join(pair)

    async def heal_all(self) -> None:
        for pair in self.pairs:
            await self.heal(pair)

    async def calls(self) -> Counter[str]:
        """How often each server of ours was called by others, by endpoint."""
        return sum([await peer.calls() for peer in self.ours], Counter[str]())

    def peer(self, label: str) -> Peer:
        return next(peer for peer in self.peers if peer.label == label)

    async def _join(self, pair: frozenset[str]) -> None:
        for link in self._links[pair]:
            await link.join()

    def _link(self, caller: OurPeer | SynapsePeer, called: OurPeer | SynapsePeer) -> Link:
        if isinstance(caller, OurPeer):
            caller.ways[called.name] = port = free_port()
        else:
            # Synapse knows no other port than the one in the name.
            port = int(called.name.partition(":")[2])
        return called.synapse.link(port) if isinstance(called, SynapsePeer) else Link(port, called.port)
