"""A server that is up to no good: it knows the rooms that its users are in, and signs whatever it likes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from crypto import base64, canonical_json
from homeserver.eventgraph.auth_rules import auth_types_for
from homeserver.eventgraph.builder import EventReference, build
from homeserver.eventgraph.event import Event
from homeserver.eventgraph.hashing import content_hash, encoder_of, reference_hash
from homeserver.eventgraph.redaction import redact
from homeserver.ids import EventId, RoomId, UserId
from tests.client import Refused
from tests.federation_api.remote import V1, Remote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crypto.keys import SigningKey
    from homeserver.eventgraph.room_versions import RoomVersion

_numbers = itertools.count()


class Mallory(Remote):
    """Sends events into rooms of the server under test, as they should be but for what the test says."""

    async def event_in(
        self,
        room_id: str,
        type: str,
        content: dict[str, Any],
        *,
        sender: str | None = None,
        state_key: str | None = None,
        prev: Sequence[str] | None = None,
        auth: Sequence[str] | None = None,
        depth: int | None = None,
        room: str | None = None,
        key: SigningKey | None = None,
        event_id: str | None = None,
        ts: int | None = None,
        also: Sequence[Event] = (),
    ) -> Event:
        """An event that follows what stands in the room and cites what holds there.

        `also` are events of this server's own that are cited in the place of those that they replace.
        """
        application = self.server.application
        live = await application.rooms.live.get(RoomId(room_id))
        row = await application.stores.rooms.get(RoomId(room_id))
        assert row is not None
        sender = sender or self.user("mallory")
        wanted = auth_types_for(live.version, type=type, state_key=state_key, sender=sender, content=content)
        state = await application.rooms.live.state_entries(live, wanted)
        state.update({one.key: one for one in also if one.key in wanted})
        cited = [one.event_id for one in state.values()] if auth is None else auth
        followed = [one.event_id for one in row.forward_extremities][:20] if prev is None else prev
        return build(
            live.version,
            room_id=RoomId(room or room_id),
            sender=UserId(sender),
            type=type,
            state_key=state_key,
            content=content,
            origin_server_ts=self.server.clock.now_ms() if ts is None else ts,
            depth=row.depth + 1 if depth is None else depth,
            prev_events=[self.reference(live.version, one) for one in followed],
            auth_events=[self.reference(live.version, one) for one in cited],
            server_name=self.name,
            key=key or self.key,
            event_id=EventId(event_id or f"$m{next(_numbers)}:{self.name}")
            if live.version.event_ids_are_given
            else None,
        )

    def reference(self, version: RoomVersion, event_id: str) -> EventReference:
        """How an event is named; the hash in old versions is read by nobody."""
        return EventReference(EventId(event_id), "x" if version.event_ids_are_given else None)

    def signed(self, version: RoomVersion, pdu: dict[str, Any]) -> dict[str, Any]:
        """A changed event with the hash and the signature that it needs now, as far as this server can make them."""
        pdu = {name: value for name, value in pdu.items() if name not in ("hashes", "signatures", "unsigned")}
        pdu["hashes"] = {"sha256": base64.encode_unpadded(content_hash(version, pdu))}
        encode = encoder_of(version)
        signature = base64.encode_unpadded(
            self.key.sign(
                encode({name: value for name, value in redact(version, pdu).items() if name != "signatures"})
            )
        )
        return {**pdu, "signatures": {self.name: {self.key.key_id: signature}}}

    async def tell(self, *pdus: Any, edus: Sequence[Any] = ()) -> dict[str, dict[str, str]]:
        """Send a transaction; the answer says what was wrong with each event."""
        sent = [one.pdu if isinstance(one, Event) else one for one in pdus]
        content = {
            "origin": self.name,
            "origin_server_ts": self.server.clock.now_ms(),
            "pdus": sent,
            "edus": list(edus),
        }
        answer = await self.call("PUT", f"{V1}/send/t{next(_numbers)}", content)
        outcome: dict[str, dict[str, str]] = answer["pdus"]
        return outcome

    async def tell_bytes(self, body: bytes) -> dict[str, dict[str, str]]:
        """Send a transaction that need not be one, signed as it stands there."""
        target, destination = f"{V1}/send/t{next(_numbers)}", self.server.settings.server_name
        around = {"destination": destination, "method": "PUT", "origin": self.name, "uri": target}
        text = b'{"content":%s,%s' % (body, canonical_json.encode(around)[1:])
        signature = base64.encode_unpadded(self.key.sign(text))
        header = f'X-Matrix origin="{self.name}",destination="{destination}",key="{self.key.key_id}",sig="{signature}"'
        response = await self.server.http.request(
            "PUT", target, content=body, headers={"Authorization": header}
        )
        if response.status_code != 200:
            raise Refused(response.status_code, response.json(), dict(response.headers))
        outcome: dict[str, dict[str, str]] = response.json()["pdus"]
        return outcome


def reference_of(event: Event) -> EventReference:
    """How an event is named by others."""
    sha256 = None
    if event.version.event_ids_are_given:
        sha256 = base64.encode_unpadded(reference_hash(event.version, event.pdu))
    return EventReference(event.event_id, sha256)
