"""Whatever people do: what the sender of a message is told was delivered is in what the devices took, and the other way round.

The deeds, and the ways in which devices follow, are those of the tests of classic and sliding sync.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from tests.delivery_status import status
from tests.sync.machine import SyncMachine, run_machine
from tests.sync.model_client import ModelClient
from tests.sync.sliding.model_client import SlidingModelClient
from tests.sync.sliding.test_exactness import SlidingMachine

if TYPE_CHECKING:
    from tests.client import Client
    from tests.sync.machine import World
    from tests.sync.model_client import Wishes
    from tests.sync.truth import TrueRoom

EXAMPLES = 12
SOAK_EXAMPLES = int(os.environ.get("RESTANTE_SOAK_EXAMPLES", "300"))
_ASKED_ABOUT = 12
"""Of each room, the newest messages."""


class _Remembers(ModelClient):
    """Remembers which events came, whatever became of them."""

    def remember_in(self, seen: set[str]) -> ModelClient:
        self.seen = seen
        return self

    async def apply(self, answer: dict[str, Any]) -> None:
        self.seen.update(_timeline_ids(answer))
        await super().apply(answer)

    async def _page(self, room_id: str, start: str, limit: int) -> dict[str, Any]:
        page = await super()._page(room_id, start, limit)
        self.seen.update(event["event_id"] for event in page["chunk"])
        return page

    async def turn_page(self) -> None:
        catching_up = self.catching_up
        await super().turn_page()
        if catching_up is not None and catching_up.next_batch is not None:
            self.seen.update(catching_up.types)


class _Classic(_Remembers):
    """By `/sync`."""


class _Sliding(_Remembers, SlidingModelClient):
    """By sliding sync."""


class DeliveryMachine(SlidingMachine):
    """The same deeds."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.seen: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.choosy: set[tuple[str, str]] = set()
        """Devices whose pages leave something out, and prove nothing."""

    def devices_of(self, client: Client, wished: Wishes) -> list[ModelClient]:
        seed = len(self.devices)
        key = (client.user_id, client.device_id)
        sliding = _Sliding(client, wished, deployed=seed % 4 < 2, seed=seed)
        followers: list[_Remembers] = [
            [_Classic(client, wished)],
            [sliding],
            [_Classic(client, wished), sliding],
        ][seed % 3]
        if wished.without and seed % 3 != 1:
            self.choosy.add(key)
        return [one.remember_in(self.seen[key]) for one in followers]

    def catch_up(self, which: int, order: str, limit: int) -> None:
        if isinstance(self.device(which), _Classic):
            SyncMachine.catch_up(self, which, order, limit)

    def teardown(self) -> None:
        super().teardown()
        for room_id in self.rooms:
            self.world.run(self._check(room_id, self._truth(room_id)))

    async def _check(self, room_id: str, room: TrueRoom) -> None:
        people = {person.user_id: person for person in self.people}
        messages = [
            one
            for one in room.events
            if one.type == "m.room.message"
            and one.redacted_by is None
            # Of what a filter left out only what notifies is kept account of.
            and "m.new_content" not in one.content
            and room.membership(one.sender) == "join"
            and one.sender in people
        ]
        for message in messages[-_ASKED_ABOUT:]:
            answer = await status(people[message.sender], room_id, message.event_id)
            for user_id, told in answer["users"].items():
                having = {key for key, seen in self.seen.items() if message.event_id in seen}
                having = {key for key in having if key[0] == user_id}
                number = told["delivery"]["delivered"]
                context = json.dumps([message.position, message.sender, user_id, told, sorted(having)])
                assert number <= len(having), context
                assert number >= len(having - self.choosy), context


def _timeline_ids(answer: dict[str, Any]) -> set[str]:
    """The events in the timelines of an answer, of classic or sliding sync."""
    rooms = answer.get("rooms", {})
    if "pos" in answer:
        timelines = [room.get("timeline", []) for room in rooms.values()]
    else:
        sections = [*rooms.get("join", {}).values(), *rooms.get("leave", {}).values()]
        timelines = [section["timeline"]["events"] for section in sections]
    return {event["event_id"] for timeline in timelines for event in timeline}


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_senders_are_told_what_is_true_whatever_happens(world: World) -> None:
    run_machine(DeliveryMachine, world, EXAMPLES, derandomize=True)


@pytest.mark.soak
def test_senders_are_told_what_is_true_for_long(world: World) -> None:
    run_machine(DeliveryMachine, world, SOAK_EXAMPLES, derandomize=False)
