"""Random rooms: forks, bans, fights over power levels, join rules, topics, invites of every kind, in any version."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from crypto import keys, signatures
from homeserver.ids import server_name_of
from tests.eventgraph.rooms import ALICE, BOB, CHARLIE, JOIN_RULES, POWER_LEVELS, Room, member

if TYPE_CHECKING:
    from collections.abc import Callable

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.ids import EventId
    from tests.eventgraph.rooms import State

DAVE = "@dave:one.example"
EVE = "@eve:two.example"
USERS = [ALICE, BOB, CHARLIE, DAVE, EVE]
DECIDING = {POWER_LEVELS, JOIN_RULES, *map(member, USERS)}
IDENTITY_SERVER = keys.key_from_seed("0", bytes(range(32)))
_LEVELS = (0, 0, 10, 50, 50, 75, 100)
_NAMED = ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite")
_JOIN_RULES = ("public", "public", "public", "invite", "knock", "restricted", "knock_restricted", "private")
_STATE_TYPES = (
    "m.room.topic",
    "m.room.name",
    "m.room.aliases",
    "m.room.history_visibility",
    "org.example.any",
)


class RandomRoom:
    """A room that grows at random, and sets of states in it that are worth resolving.

    Here nothing is ever taken away from an event. A server that keeps redacted events as such resolves states with
    what is left of them: for a comparison with one, redactions are to be `without_effect`.
    """

    def __init__(self, version: str, seed: int, events: int, *, without_effect: bool = False) -> None:
        self._without_effect = without_effect
        self._random = Random(f"{version}-{seed}")
        self._federated = self._random.random() < 0.95
        self._tokens: list[str] = []
        self.room = self._founded(version, seed)
        self._grow(events)
        self.resolutions = [self._states() for _ in range(8)]

    def _founded(self, version: str, seed: int) -> Room:
        random = self._random
        content: dict[str, Any] = {} if self._federated else {"m.federate": False}
        if random.random() < 0.3:
            content["additional_creators"] = [DAVE]
        room = Room(version, content=content, name=f"v{version}-{seed}")
        room.join(ALICE)
        self.room = room
        if random.random() < 0.9:
            named = {} if room.version.creators_are_privileged else {ALICE: 100}
            users = {user: random.choice(_LEVELS) for user in (BOB, CHARLIE) if random.random() < 0.7}
            room.set_levels(ALICE, {"users": {**named, **users}})
        if random.random() < 0.9:
            room.set_join_rule(ALICE, "public")
        for user in USERS[1:]:
            if random.random() < 0.8:
                room.join(user)
        return room

    # -- growing ---------------------------------------------------------------------------------------

    def _grow(self, events: int) -> None:
        deeds: list[Callable[[str, State, dict[str, Any]], None]] = [
            self._join,
            self._join,
            self._set_membership,
            self._set_membership,
            self._set_membership,
            self._set_levels,
            self._set_levels,
            self._set_join_rule,
            self._set_state,
            self._set_state,
            self._set_own_state,
            self._say,
            self._redact,
            self._offer_third_party_invite,
            self._use_third_party_invite,
        ]
        while len(self.room.events) < events:
            prev = self._prev()
            state = self.room.state_before(prev)
            deed = self._random.choice(deeds)
            ts = self.room.clock + self._random.randint(-20, 20)
            deed(self._sender(state), state, {"prev": prev, "ts": ts})

    def _accepted(self) -> list[Event]:
        return [event for event in self.room.events.values() if not event.rejected]

    def _prev(self) -> list[Event]:
        recent = self._accepted()[-8:]
        chance = self._random.random()
        if chance < 0.35:
            return [self._random.choice(recent)]
        if chance < 0.6 and len(recent) > 3:
            return self._random.sample(recent, self._random.randint(2, 3))
        return recent[-1:]

    def _sender(self, state: State) -> str:
        """Mostly somebody who is in the room: others may do little."""
        joined = [user for user in USERS if self._membership(state, user) == "join"]
        return self._random.choice(joined if joined and self._random.random() < 0.8 else USERS)

    def _membership(self, state: State, user_id: str) -> str | None:
        event_id = state.get(member(user_id))
        return self.room.events[event_id].membership if event_id is not None else None

    def _someone(self, sender: str) -> str:
        """Whom something is done to.

        Where a room is not federated Synapse refuses member events about users of other servers as well, whoever
        sends them. The specification refuses those of senders of other servers only: "If [...] `m.federate` [is]
        set to `false`, and the `sender` domain of the event does not match [...]". So there are none of these here.
        """
        users = USERS
        if not self._federated and server_name_of(sender) == server_name_of(ALICE):
            users = [ALICE, DAVE]
        return self._random.choice(users)

    def _join(self, sender: str, _: State, options: dict[str, Any]) -> None:
        content = {"membership": "join"}
        if self._random.random() < 0.5:
            content["join_authorised_via_users_server"] = self._random.choice(USERS)
        self.room.send("m.room.member", sender, content, state_key=sender, **options)

    def _set_membership(self, sender: str, _: State, options: dict[str, Any]) -> None:
        membership = self._random.choice(("invite", "leave", "ban", "knock", "leave", "ban", "join", "odd"))
        target = self._someone(sender)
        if membership == "knock" and self._random.random() < 0.7:
            target = sender
        self.room.set_member(sender, target, membership, **options)

    def _set_levels(self, sender: str, state: State, options: dict[str, Any]) -> None:
        random = self._random
        current = self.room.events[state[POWER_LEVELS]].content if POWER_LEVELS in state else {}
        content = {name: dict(value) if isinstance(value, dict) else value for name, value in current.items()}
        for _ in range(random.randint(1, 3)):
            where = random.choice(("users", "users", "events", "notifications", None))
            level = self._level()
            if where is None:
                content[random.choice(_NAMED)] = level
                continue
            levels = content.setdefault(where, {})
            entry = random.choice(USERS if where == "users" else ["room", *_STATE_TYPES, "m.room.message"])
            if random.random() < 0.2:
                levels.pop(entry, None)
            else:
                levels[entry] = level
        self.room.set_levels(sender, content, **options)

    def _level(self) -> Any:
        level = self._random.choice(_LEVELS)
        kind = self._random.random()
        version = self.room.version
        if kind < 0.1 and not version.power_levels_are_integers:
            return f" 0{level} "
        if kind < 0.2 and not version.strict_canonical_json:
            return level + 0.5
        if kind < 0.03 and version.power_levels_are_integers:
            return str(level)
        return level

    def _set_join_rule(self, sender: str, _: State, options: dict[str, Any]) -> None:
        self.room.set_join_rule(sender, self._random.choice(_JOIN_RULES), **options)

    def _set_state(self, sender: str, _: State, options: dict[str, Any]) -> None:
        event_type = self._random.choice(_STATE_TYPES)
        state_key = ""
        if event_type == "m.room.aliases":
            state_key = server_name_of(self._random.choice(USERS))
        self.room.send(event_type, sender, {"n": len(self.room.events)}, state_key=state_key, **options)

    def _set_own_state(self, sender: str, _: State, options: dict[str, Any]) -> None:
        owner = self._random.choice([sender, *USERS])
        self.room.send("org.example.any", sender, {}, state_key=owner, **options)

    def _say(self, sender: str, _: State, options: dict[str, Any]) -> None:
        self.room.send("m.room.message", sender, {"body": "hello"}, **options)

    def _redact(self, sender: str, _: State, options: dict[str, Any]) -> None:
        target = self._random.choice(self._accepted())
        redacts = f"$nothing{self.room.clock}:one.example" if self._without_effect else target.event_id
        self.room.send("m.room.redaction", sender, {}, redacts=redacts, **options)

    def _offer_third_party_invite(self, sender: str, _: State, options: dict[str, Any]) -> None:
        token = f"token{len(self.room.events)}"
        self._tokens.append(token)
        key = {"public_key": IDENTITY_SERVER.public_base64}
        content = self._random.choice(({**key, "public_keys": []}, {"public_keys": [key]}))
        self.room.send("m.room.third_party_invite", sender, content, state_key=token, **options)

    def _use_third_party_invite(self, sender: str, state: State, options: dict[str, Any]) -> None:
        offers = [key for key in state if key[0] == "m.room.third_party_invite"]
        if not offers:
            return
        offer = self._random.choice(offers)
        if self._random.random() < 0.9:
            sender = self.room.events[state[offer]].sender
        target = self._someone(sender)
        named = target if self._random.random() < 0.9 else self._random.choice(USERS)
        key = IDENTITY_SERVER if self._random.random() < 0.9 else keys.key_from_seed("0", bytes(32))
        signed = signatures.sign_json({"mxid": named, "token": offer[1]}, "identity.example", key)
        content = {"membership": "invite", "third_party_invite": {"display_name": "x", "signed": signed}}
        self.room.send("m.room.member", sender, content, state_key=target, **options)

    # -- states to resolve -----------------------------------------------------------------------------

    def _states(self) -> list[State]:
        """A few states of the room; some of them changed, as a faulty or hostile server may tell them."""
        accepted = self._accepted()
        count = self._random.choice((2, 2, 2, 3, 4))
        states = [dict(self.room.state_after[self._random.choice(accepted).event_id]) for _ in range(count)]
        if self._random.random() < 0.6:
            self._distort(self._random.choice(states))
        return states

    def _distort(self, state: dict[StateKey, EventId]) -> None:
        """Put other events, mostly older ones that authorisation rests on, into a state."""
        events = [event for event in self._accepted() if event.state_key is not None]
        deciding = [event for event in events if event.key in DECIDING]
        for _ in range(self._random.randint(1, 3)):
            other = self._random.choice(deciding if self._random.random() < 0.8 else events)
            if other.type == "m.room.create":
                continue
            if self._random.random() < 0.9:
                state[other.key] = other.event_id
            else:
                state.pop(other.key, None)
