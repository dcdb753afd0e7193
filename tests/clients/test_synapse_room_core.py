"""The room core against Synapse's: the same ids, redactions, verdicts and resolved states for random rooms.

Synapse (from PyPI, unmodified, in an environment of its own) is asked through a small script of ours. The events
are also stored in a database, and the states resolved from there.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.eventgraph.event import Event
from homeserver.eventgraph.hashing import has_right_content_hash
from homeserver.eventgraph.redaction import redact
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from tests.clients.environment import synapse_python
from tests.eventgraph.msc4297 import problem_a, problem_b
from tests.eventgraph.random_rooms import RandomRoom
from tests.eventgraph.rooms import ALICE, BOB, Room
from tests.eventgraph.stored_rooms import store_room

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from homeserver.eventgraph.event import StateKey
    from homeserver.ids import EventId
    from homeserver.storage.database import Database

pytestmark = pytest.mark.interop
_SCRIPT = Path(__file__).resolve().parent / "synapse" / "judge.py"
_VERSIONS = list(ROOM_VERSIONS)
_EVENTS = 50
_ROOMS = 15


class Judge:
    """Synapse's room core, in a process of its own."""

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen(
            [python, _SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to a question; their forms are in the script."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the script has ended; what it said is among the captured output"
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    judge = Judge(synapse_python())
    yield judge
    judge.close()


@pytest.mark.parametrize("version", _VERSIONS)
async def test_synapse_gives_the_same_verdicts_and_the_same_resolved_states(
    version: str, judge: Judge, database: Database
) -> None:
    for seed in range(_ROOMS):
        await _compare(RandomRoom(version, seed, _EVENTS), judge, database)


@pytest.mark.soak
@pytest.mark.parametrize("version", _VERSIONS)
async def test_synapse_gives_the_same_for_many_larger_rooms(
    version: str, judge: Judge, database: Database
) -> None:
    for seed in range(1_000, 1_040):
        await _compare(RandomRoom(version, seed, 120), judge, database)


_CONTENT = dict.fromkeys(
    [
        "membership",
        "join_authorised_via_users_server",
        "creator",
        "join_rule",
        "allow",
        "ban",
        "events",
        "events_default",
        "kick",
        "redact",
        "state_default",
        "users",
        "users_default",
        "invite",
        "notifications",
        "history_visibility",
        "aliases",
        "redacts",
        "other",
    ],
    "x",
)
_TYPES = [
    "m.room.join_rules",
    "m.room.power_levels",
    "m.room.history_visibility",
    "m.room.aliases",
    "m.room.redaction",
    "m.room.message",
    "m.room.name",
    "m.room.encryption",
]
_INVITES = (
    {},
    {"signed": {}},
    {"signed": {"a": 1}, "display_name": "x"},
    {"signed": 1},
    {"a": 1},
    [],
    "x",
    None,
)
_NUMBERS = (0.1, 50.57, 1e-5, 1e-7, 1e16, 1e22, 1.5e300, -0.5, 123456789.125, 2**53, 2**60, -(2**63))


@pytest.mark.parametrize("version", _VERSIONS)
def test_synapse_names_redacts_and_hashes_odd_events_alike(version: str, judge: Judge) -> None:
    room = Room(version)
    events = [room.create]

    def add(event_type: str, content: dict[str, Any], **options: Any) -> None:
        events.append(room.send(event_type, ALICE, content, prev=[room.create], auth=[], **options))

    for invite in _INVITES:
        add("m.room.member", {**_CONTENT, "third_party_invite": invite}, state_key=BOB)
    for event_type in _TYPES:
        add(event_type, _CONTENT, state_key="")
    add("m.room.member", {}, state_key=BOB)
    add(
        "m.room.message",
        {"body": '\x00\x1f\x7f\u2028 \N{PILE OF POO} "\\"', "\N{PILE OF POO}": 1, "\uffff": 2},
    )
    for number in _NUMBERS if not room.version.strict_canonical_json else ():
        add("m.room.power_levels", {"users": {BOB: number}}, state_key="")
    extra = {"prev_state": [], "membership": "x", "origin": "y", "age_ts": 5, "redacts": "$x", "other": 1}
    pdu = {**events[-1].pdu, **extra, "unsigned": {"age": 1}}
    events.append(Event.from_json(room.version, pdu))
    answer = judge.ask(
        {
            "version": version,
            "events": [event.pdu for event in events],
            "rejected": [],
            "checks": [],
            "resolutions": [],
        }
    )
    assert answer["event_ids"] == [event.event_id for event in events]
    right = [has_right_content_hash(room.version, event.pdu) for event in events]
    assert right == [True] * (len(events) - 1) + [False]
    assert answer["right_hashes"] == right
    for event, theirs in zip(events, answer["redacted"], strict=True):
        theirs.pop("unsigned", None)
        assert redact(room.version, event.pdu) == theirs


@pytest.mark.parametrize("version", _VERSIONS[1:])
@pytest.mark.parametrize("problem", [problem_a, problem_b])
def test_synapse_resolves_the_problems_of_msc4297_alike(problem: Any, version: str, judge: Judge) -> None:
    room, states, _ = problem(version)
    events = list(room.events)
    answer = judge.ask(
        {
            "version": version,
            "events": [event.pdu for event in room.events.values()],
            "rejected": [],
            "checks": [],
            "resolutions": [[[events.index(event_id) for event_id in state.values()] for state in states]],
        }
    )
    (theirs,) = answer["resolved"]
    assert {events[index] for index in theirs} == set(room.resolve(states).values())


async def _compare(made: RandomRoom, judge: Judge, database: Database) -> None:
    room = made.room
    events = list(room.events.values())
    index_of = {event.event_id: index for index, event in enumerate(events)}

    def indexes(state: Mapping[StateKey, EventId]) -> list[int]:
        return sorted(index_of[event_id] for event_id in state.values())

    answer = judge.ask(
        {
            "version": room.version.identifier,
            "events": [event.pdu for event in events],
            "rejected": [index for index, event in enumerate(events) if event.rejected],
            "checks": [[index, indexes(_before(room, index))] for index in range(len(events))],
            "resolutions": [[indexes(state) for state in states] for states in made.resolutions],
        }
    )
    name = room.name
    assert answer["event_ids"] == [event.event_id for event in events], name
    assert all(answer["right_hashes"]), name
    for event, theirs in zip(events, answer["redacted"], strict=True):
        theirs.pop("unsigned", None)
        assert redact(room.version, event.pdu) == theirs, name
    for event, verdict in zip(events, answer["verdicts"], strict=True):
        ours = room.why_rejected.get(event.event_id)
        assert (ours is None) == (verdict is None), (
            f"{name}: {event} {event.pdu}: we say {ours!r}, Synapse {verdict!r}"
        )
    stored = await store_room(database, room)
    for number, (states, theirs) in enumerate(zip(made.resolutions, answer["resolved"], strict=True)):
        assert indexes(room.resolve(states)) == theirs, f"{name}: resolution {number}"
        assert indexes(await stored.resolve(states)) == theirs, f"{name}: resolution {number}, as stored"


def _before(room: Room, index: int) -> Mapping[StateKey, EventId]:
    event = list(room.events.values())[index]
    return room.state_before([room.events[event_id] for event_id in event.prev_event_ids])
