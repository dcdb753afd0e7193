"""Checks the signatures of events with the keys of their servers (SS "Validating hashes and signatures")."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from crypto import exact_json
from crypto.errors import CryptoError
from crypto.signatures import verify_json
from federation.keyring import WantedKey
from homeserver.eventgraph.hashing import encoder_of
from homeserver.eventgraph.redaction import redact
from homeserver.eventgraph.signing import servers_that_sign

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import nacl.signing

    from federation.keyring import Keyring
    from homeserver.eventgraph.event import Event
    from homeserver.ids import EventId, ServerName

_IN_THREAD = 20
_PART = 200
_THREADS = min(4, os.cpu_count() or 1)
_MAX_KEYS = 10
"""How many signatures of one server are looked at."""

_Needs = dict["ServerName", list[WantedKey]]
"""By server that must have signed an event, the keys that it says to have signed with."""


class EventSignatures:
    """Finds the keys that events were signed with, and checks them; those of many events in threads."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def rightly_signed(
        self, events: Collection[Event], checked: Callable[[int], None] | None = None
    ) -> set[EventId]:
        """Those of these events that all servers have signed which must; `checked` hears how many more were looked at."""
        checks = [(event, _needed_keys(event)) for event in events]
        wanted = {key for _, needs in checks for keys in needs.values() for key in keys}
        # One question for all of them. An invite of whoever has an address needs no signature of its sender's server, and
        # may need none at all.
        keys = await self._keyring.find(wanted) if wanted else {}
        if len(checks) < _IN_THREAD:
            if checked is not None:
                checked(len(checks))
            return _check(checks, keys)
        right: set[EventId] = set()
        parts = iter(range(0, len(checks), _PART))

        async def work() -> None:
            for start in parts:
                part = checks[start : start + _PART]
                right.update(await asyncio.to_thread(_check, part, keys))
                if checked is not None:
                    checked(len(part))

        async with asyncio.TaskGroup() as group:
            for _ in range(_THREADS):
                group.create_task(work())
        return right


def _needed_keys(event: Event) -> _Needs:
    signed_ts = event.origin_server_ts if event.version.enforces_key_validity else None
    by_server = event.pdu["signatures"]
    needs: _Needs = {}
    for server_name in servers_that_sign(event):
        signatures = by_server.get(server_name)
        key_ids = list(signatures)[:_MAX_KEYS] if isinstance(signatures, dict) else []
        needs[server_name] = [WantedKey(server_name, key_id, signed_ts) for key_id in key_ids]
    return needs


def _check(
    checks: Sequence[tuple[Event, _Needs]], keys: Mapping[WantedKey, nacl.signing.VerifyKey]
) -> set[EventId]:
    return {event.event_id for event, needs in checks if _is_right(event, needs, keys)}


def _is_right(event: Event, needs: _Needs, keys: Mapping[WantedKey, nacl.signing.VerifyKey]) -> bool:
    pdu = event.pdu if event.version.strict_canonical_json else exact_json.loads(event.json)
    redacted = redact(event.version, pdu)
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
