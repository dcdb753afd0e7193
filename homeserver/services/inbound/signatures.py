"""Checks the signatures of events with the keys of their servers (SS "Validating hashes and signatures")."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from crypto.errors import CryptoError
from crypto.signatures import verify_json
from federation.keyring import WantedKey
from homeserver.eventgraph.hashing import encoder_of
from homeserver.eventgraph.redaction import redact
from homeserver.eventgraph.signing import servers_that_sign

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import nacl.signing

    from federation.keyring import Keyring
    from homeserver.eventgraph.event import Event
    from homeserver.ids import EventId, ServerName

_IN_THREAD = 20
_MAX_KEYS = 10
"""How many signatures of one server are looked at."""

_Needs = dict["ServerName", list[WantedKey]]


class EventSignatures:
    """Finds the keys that events were signed with, and checks them; many events in a thread."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def rightly_signed(self, events: Collection[Event]) -> set[EventId]:
        """Those of these events that all servers have signed which must."""
        needs = {event.event_id: _needed_keys(event) for event in events}
        wanted = {key for need in needs.values() for keys in need.values() for key in keys}
        # An invite of whoever has an address needs no signature of its sender's server, and may need none at all.
        keys = await self._keyring.find(wanted) if wanted else {}
        if len(events) < _IN_THREAD:
            return _check_all(events, needs, keys)
        return await asyncio.to_thread(_check_all, events, needs, keys)


def _needed_keys(event: Event) -> _Needs:
    """By server that must have signed an event, the keys that it says to have signed with."""
    signed_ts = event.origin_server_ts if event.version.enforces_key_validity else None
    by_server = event.pdu["signatures"]
    needs: _Needs = {}
    for server_name in servers_that_sign(event):
        signatures = by_server.get(server_name)
        key_ids = list(signatures)[:_MAX_KEYS] if isinstance(signatures, dict) else []
        needs[server_name] = [WantedKey(server_name, key_id, signed_ts) for key_id in key_ids]
    return needs


def _check_all(
    events: Collection[Event],
    needs: Mapping[EventId, _Needs],
    keys: Mapping[WantedKey, nacl.signing.VerifyKey],
) -> set[EventId]:
    return {event.event_id for event in events if _is_right(event, needs[event.event_id], keys)}


def _is_right(event: Event, needs: _Needs, keys: Mapping[WantedKey, nacl.signing.VerifyKey]) -> bool:
    redacted = redact(event.version, event.pdu)
    encode = encoder_of(event.version)
    for server_name, wanted in needs.items():
        for one in wanted:
            verify_key = keys.get(one)
            if verify_key is None:
                continue
            try:
                verify_json(redacted, server_name, one.key_id, verify_key, encode=encode)
            except CryptoError:
                continue
            break
        else:
            return False
    return True
