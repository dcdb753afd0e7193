"""The policy server of a room, and whether it recommends an event (SS "Policy Servers")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crypto.errors import CryptoError
from crypto.keys import parse_verify_key
from crypto.signatures import verify_json
from homeserver.eventgraph.hashing import encoder_of
from homeserver.eventgraph.redaction import redact
from homeserver.ids import ServerName

if TYPE_CHECKING:
    from homeserver.eventgraph.event import Event

POLICY = ("m.room.policy", "")
KEY_ID = "ed25519:policy_server"
""" "The Key ID for the `ed25519` key in `m.room.policy` is *always* `ed25519:policy_server`." """


@dataclass(frozen=True, slots=True)
class PolicyServer:
    """A server that a room asks about its events, and the key by which it recommends them."""

    name: ServerName
    public_key: str

    def recommends(self, event: Event) -> bool:
        """Whether an event carries its signature."""
        try:
            verify_json(
                redact(event.version, event.pdu),
                self.name,
                KEY_ID,
                parse_verify_key(self.public_key),
                encode=encoder_of(event.version),
            )
        except CryptoError:
            return False
        return True


def policy_server_of(policy: Event | None) -> PolicyServer | None:
    """The server that an `m.room.policy` event names; None where it is not valid, or there is none.

    Whether the server has a user in the room, as it must, is not known here.
    """
    if policy is None:
        return None
    via, keys = policy.content.get("via"), policy.content.get("public_keys")
    key = keys.get("ed25519") if isinstance(keys, dict) else None
    if not isinstance(via, str) or not isinstance(key, str):
        return None
    return PolicyServer(ServerName(via), key)


def is_policed(event: Event) -> bool:
    """Whether a policy server is asked about an event: about all but the one that names it."""
    return (event.type, event.state_key) != POLICY


def is_own_leave(event: Event) -> bool:
    """Whether somebody leaves a room by this event, rejects an invite or takes back a knock; nobody is put out."""
    return event.type == "m.room.member" and event.membership == "leave" and event.state_key == event.sender
