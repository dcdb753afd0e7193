"""Asks Synapse's room core: reads graphs of events as JSON lines, prints its verdicts and resolved states.

Run by the Python that has Synapse. A line of input:

    {"version": "10", "events": [pdu, ...], "rejected": [index, ...],
     "checks": [[index of the event, [indexes of the state before it]], ...],
     "resolutions": [[[indexes of a state], ...], ...]}

The line of output has the ids and redacted forms of the events, whether their content hashes are right, a verdict for each check (null, or why it is
refused), and the resolved states as lists of indexes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict

from synapse.api.errors import SynapseError
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS, StateResolutionVersions
from synapse.crypto.event_signing import check_event_content_hash
from synapse.event_auth import check_state_dependent_auth_rules, check_state_independent_auth_rules
from synapse.events import make_event_from_dict
from synapse.events.utils import prune_event
from synapse.state import v1, v2
from synapse.storage.databases.main.event_federation import StateDifference


class Clock:
    async def sleep(self, _):
        pass


class Graph:
    """The events of a room, with what Synapse's store answers about them."""

    def __init__(self, version, pdus, rejected):
        self.version = version
        self.events = [
            make_event_from_dict(pdu, version, rejected_reason="rejected" if index in rejected else None)
            for index, pdu in enumerate(pdus)
        ]
        self.by_id = {event.event_id: event for event in self.events}
        self.index_of = {event.event_id: index for index, event in enumerate(self.events)}

    async def get_events(self, event_ids, *_, **__):
        return {event_id: self.by_id[event_id] for event_id in event_ids if event_id in self.by_id}

    async def get_auth_chain_difference(self, _, states, conflicted, __):
        """By the definitions; the chain of a state has the events of the state in it, as Synapse's store has it."""
        chains = [self.chain(state) for state in states]
        difference = set.union(*chains) - set.intersection(*chains)
        subgraph = None
        if conflicted is not None:
            cited_by = defaultdict(set)
            for event in self.events:
                for event_id in event.auth_event_ids():
                    cited_by[event_id].add(event.event_id)
            older = self.chain(conflicted)
            newer = walk(conflicted, lambda event_id: cited_by[event_id])
            subgraph = older & newer
        return StateDifference(auth_difference=difference, conflicted_subgraph=subgraph)

    def chain(self, event_ids):
        return walk(event_ids, lambda event_id: self.by_id[event_id].auth_event_ids())

    async def verdict(self, index, state):
        event = self.events[index]
        try:
            await check_state_independent_auth_rules(self, event)
            check_state_dependent_auth_rules(event, [self.events[number] for number in state])
        except SynapseError as error:
            return error.msg
        return None

    async def resolve(self, states):
        state_sets = [
            {(event.type, event.state_key): event.event_id for event in map(self.events.__getitem__, state)}
            for state in states
        ]
        room_id = self.events[0].room_id
        if self.version.state_res == StateResolutionVersions.V1:
            resolved = await v1.resolve_events_with_store(
                room_id, self.version, state_sets, None, self.get_events
            )
        else:
            resolved = await v2.resolve_events_with_store(
                Clock(), room_id, self.version, state_sets, None, self
            )
        return sorted(self.index_of[event_id] for event_id in resolved.values())


def walk(start, following):
    found = set()
    ahead = list(start)
    while ahead:
        event_id = ahead.pop()
        if event_id not in found:
            found.add(event_id)
            ahead.extend(following(event_id))
    return found


async def judge(question):
    version = KNOWN_ROOM_VERSIONS[question["version"]]
    graph = Graph(version, question["events"], set(question["rejected"]))
    return {
        "event_ids": [event.event_id for event in graph.events],
        "right_hashes": [check_event_content_hash(event) for event in graph.events],
        "redacted": [prune_event(event).get_pdu_json() for event in graph.events],
        "verdicts": [await graph.verdict(index, state) for index, state in question["checks"]],
        "resolved": [await graph.resolve(states) for states in question["resolutions"]],
    }


async def main():
    for line in sys.stdin:
        sys.stdout.write(json.dumps(await judge(json.loads(line))) + "\n")
        sys.stdout.flush()


asyncio.run(main())
