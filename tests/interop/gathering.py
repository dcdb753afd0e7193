"""People of several servers in one room, who do random things while the servers are cut off from each other.

Afterwards all is healed, and what the servers hold and show is compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.client import Refused
from tests.interop.deeds import Deeds, Inhabitants
from tests.interop.network import Fate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from tests.interop.deeds import Deed, Record
    from tests.interop.network import AnyNetwork
    from tests.interop.people import Somebody, StateIds

GUESTS = 2
_NOMADS = 0.4
_SECONDS_WITHOUT_A_WORD = 20
_WAIT_SECONDS = 90
_TIMES_SAID = 3
_QUIET_SECONDS = 3
_POLL_SECONDS = 0.5

Timelines = dict[str, Counter[str]]

_log = logging.getLogger(__name__)


def seeds(*usual: int) -> list[int]:
    """Those of the environment (`RESTANTE_PARTITION_SEED`: one, or two with a dash between them), or the usual ones."""
    first, _, last = os.environ.get("RESTANTE_PARTITION_SEED", "").partition("-")
    return list(range(int(first), int(last or first) + 1)) if first else list(usual)


class Gathering:
    """The people of the four servers in their room."""

    def __init__(self, network: AnyNetwork, people: dict[str, Inhabitants], room_id: str) -> None:
        self.network = network
        self.people = people
        self.room_id = room_id
        self.present = people
        """Whose keepers are in the room, as far as that is certain."""
        self._known: set[str] = set()
        """The events of the room before the troubles began."""

    @property
    def hosts(self) -> list[Somebody]:
        """Those who stay."""
        return [one.keeper for one in self.people.values() if one.stays]

    async def begin(self) -> None:
        """Wait until everybody is in, and watch what comes from now on."""
        assert await self.agreed(_WAIT_SECONDS) is not None, await self.differences()
        await self.look()
        for label, timeline in (await self.timelines()).items():
            self.people[label].watch.seen.clear()
            self._known |= timeline.keys()

    def part(self) -> None:
        """From now on only those are there for certain who stay."""
        self.present = {label: one for label, one in self.people.items() if one.stays}

    async def come_back(self) -> None:
        """Those who did not stay are let in again, once the others agree about them.

        While they were cut off their join may have lost against a new join rule, say: then they are out, no event
        tells them so, and no server tells theirs what went before. So all of them leave, and come anew.
        """
        if len(self.present) == len(self.people):
            return
        await self.speak_and_agree()
        nomads = [one for one in self.people.values() if not one.stays]
        left = []
        for one in nomads:
            for somebody in one.everybody:
                with contextlib.suppress(Refused):
                    await somebody.client.leave(self.room_id)
                    left.append(somebody.user_id)
        # What they built on while they were cut off might yet undo what lets them in.
        await self._until_all_see(left, lambda membership: membership != "join")
        for one in nomads:
            await self._let_in(one.keeper, self.hosts[0])
            # Until the others know that somebody is in, it is not for them to tell their server anything.
            await self._until_all_see([one.keeper.user_id], lambda membership: membership == "join")
        self.present = self.people

    async def _let_in(self, who: Somebody, host: Somebody) -> None:
        await host.client.set_state(self.room_id, "m.room.join_rules", {"join_rule": "public"})
        if await host.membership(self.room_id, who.user_id) == "ban":
            await host.client.post(f"/rooms/{self.room_id}/unban", {"user_id": who.user_id})
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            try:
                return await who.join(self.room_id, host)
            except Refused:
                # Their own server has yet to hear that they may.
                assert time.monotonic() < deadline, f"{who.user_id} is not let in"
                await asyncio.sleep(_POLL_SECONDS)

    async def _until_all_see(self, user_ids: Collection[str], sees: Callable[[str | None], bool]) -> None:
        """Wait until the memberships of users are so on all servers that are there for certain.

        Where the server of the users does not know of another one, that one hears it from whoever goes on from there.
        """
        for _ in range(_TIMES_SAID):
            if not (unaware := await self._unaware(user_ids, sees, _WAIT_SECONDS / _TIMES_SAID)):
                return
            await self.hosts[0].client.send(self.room_id, "have you heard?")
        raise AssertionError(f"it is otherwise with one of {user_ids} on {unaware}")

    async def _unaware(
        self, user_ids: Collection[str], sees: Callable[[str | None], bool], seconds: float
    ) -> list[str]:
        """Where that does not become so in the time."""
        deadline = time.monotonic() + seconds
        while True:
            unaware = [
                label
                for label, one in self.present.items()
                if not all([sees(await one.keeper.membership(self.room_id, each)) for each in user_ids])
            ]
            if not unaware or time.monotonic() > deadline:
                return unaware
            await asyncio.sleep(_POLL_SECONDS)

    # -- what they see ---------------------------------------------------------------------------------

    async def states(self) -> dict[str, StateIds]:
        """The current state on each server."""
        found = await asyncio.gather(*(one.keeper.state(self.room_id) for one in self.present.values()))
        return dict(zip(self.present, found, strict=True))

    async def timelines(self) -> Timelines:
        """How often each server shows which event, of all that there is to page back to."""
        found = await asyncio.gather(*(one.keeper.timeline(self.room_id) for one in self.people.values()))
        counts = [Counter(event["event_id"] for event in events) for events in found]
        return dict(zip(self.people, counts, strict=True))

    async def look(self) -> None:
        """See what is new."""
        await asyncio.gather(*(one.watch.look() for one in self.people.values()))

    async def differences(self) -> dict[Any, dict[str, str | None]]:
        """What of the state is not the same everywhere, by server."""
        states = await self.states()
        keys = {key for state in states.values() for key in state}
        by_key = {key: {label: state.get(key) for label, state in states.items()} for key in sorted(keys)}
        return {key: found for key, found in by_key.items() if len(set(found.values())) > 1}

    async def agreed(self, seconds: float) -> float | None:
        """After how many seconds all agreed about the state; None where they did not in the time."""
        began = time.monotonic()
        while await self.differences():
            if time.monotonic() - began > seconds:
                return None
            await asyncio.sleep(_POLL_SECONDS)
        return time.monotonic() - began

    async def speak_and_agree(self) -> None:
        """All keepers say something, and hear what the others say; then they agree about the state.

        Synapse drops an event whose predecessors it tried in vain to fetch a short time ago ("because we already tried
        to pull recently", says its log), and gets it with the next one: so they say it again where they are not heard.
        """
        for _ in range(_TIMES_SAID):
            said = {await one.keeper.client.send(self.room_id, "here I am") for one in self.present.values()}
            unheard = await self._without(said)
            if unheard != ["synapse"]:
                break
        assert not unheard, f"not all of {said} is heard on {unheard}"
        assert await self.agreed(_WAIT_SECONDS) is not None, await self.differences()

    async def _without(self, said: set[str]) -> list[str]:
        """Where not all of this is heard in the time, which is shorter for Synapse alone."""
        began = time.monotonic()
        waiting = dict(self.present)
        while waiting:
            seconds = _WAIT_SECONDS / (_TIMES_SAID if list(waiting) == ["synapse"] else 1)
            if time.monotonic() - began > seconds:
                break
            for label, one in list(waiting.items()):
                # Where their server had yet to catch up, it stands far behind in the room.
                if all([await one.keeper.sees(self.room_id, event_id) for event_id in said]):
                    del waiting[label]
            await asyncio.sleep(_POLL_SECONDS)
        return list(waiting)

    # -- what must hold --------------------------------------------------------------------------------

    async def all_is_told(self, record: Record) -> None:
        """Wait until every server shows what it should, once."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            await self.look()
            timelines = await self.timelines()
            faults = [*self._gone_astray(timelines, record), *self._untold(timelines)]
            if not faults:
                return
            assert time.monotonic() < deadline, "\n".join(faults)
            await asyncio.sleep(_POLL_SECONDS)

    def _gone_astray(self, timelines: Timelines, record: Record) -> list[str]:
        """What was accepted and is not shown everywhere, once, where nothing speaks against it."""
        fates = {peer.label: peer.fates(self.room_id) for peer in self.network.peers}
        events: dict[str, Any] = {}
        for peer in self.network.ours:
            events |= peer.events(self.room_id)
        dropped = {peer.label: peer.dropped(self.room_id, events) for peer in self.network.peers}
        faults = []
        for event_id, deed in record.accepted.items():
            for label, timeline in timelines.items():
                number, fate = timeline[event_id], fates[label].get(event_id)
                if number == 0 and event_id in dropped[label]:
                    continue
                is_kept_back = (number, fate) == (0, Fate.SOFT_FAILED)
                if (number, fate) != (1, Fate.SHOWN) and not (
                    is_kept_back and self._may_be_kept_back(label, deed, record)
                ):
                    faults.append(f"{label} shows {event_id} {number} times, {fate}: {deed}")
        return faults

    def _may_be_kept_back(self, label: str, deed: Deed, record: Record) -> bool:
        """Whether a server may take a deed for one that the room does not allow now (soft failure)."""
        if not self.people[label].stays and label == "synapse":
            # What comes to Synapse about a room that it has left is judged by an empty state: "is missing a create
            # event in auth_events", says its log.
            return True
        if deed.sender in {host.user_id for host in self.hosts}:
            return False
        return deed.kind != "say" or deed.sender in record.contested

    def _untold(self, timelines: Timelines) -> list[str]:
        """What our servers show in the room, and do not tell by `/sync`, once."""
        faults = []
        for label, timeline in timelines.items():
            one = self.people[label]
            if not one.stays or label == "synapse":
                continue
            seen = one.watch.seen
            faults += [
                f"{label} does not tell {each}" for each in timeline.keys() - seen.keys() - self._known
            ]
            faults += [f"{label} shows {each} no more" for each in seen.keys() - timeline.keys()]
            faults += [f"{label} tells {each} {number} times" for each, number in seen.items() if number > 1]
        return faults

    async def is_quiet(self) -> None:
        """Once all is said, no server of ours calls another again and again."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            before = await self.network.calls()
            await asyncio.sleep(_QUIET_SECONDS)
            calls = await self.network.calls() - before
            if calls.total() == 0:
                return
            assert time.monotonic() < deadline, f"still called: {calls}"


async def gather(network: AnyNetwork, version: str, seed: int, *, roughly: bool) -> Gathering:
    """A room with everybody in it. Where it goes `roughly`, of some server nobody may stay."""
    chance = random.Random(seed)
    nomad = chance.choice(network.peers).label if roughly and chance.random() < _NOMADS else None
    people: dict[str, Inhabitants] = {}
    for peer in network.peers:
        keeper, *guests = [
            await peer.somebody(f"{name}-{peer.label}-") for name in ("keeper", *["guest"] * GUESTS)
        ]
        people[peer.label] = Inhabitants(peer, keeper, guests, stays=peer.label != nomad)
    host = chance.choice([one.keeper for one in people.values() if one.stays])
    room_id = await host.client.create_room(preset="public_chat", room_version=version)
    made = Gathering(network, people, room_id)
    for one in people.values():
        for somebody in one.everybody:
            if somebody is not host:
                await somebody.join(room_id, host)
    levels = await host.client.get_state(room_id, "m.room.power_levels")
    levels["users"] |= {one.user_id: 100 for one in made.hosts if one is not host}
    levels["users"] |= {guest.user_id: 50 for one in people.values() for guest in one.fleeting[::2]}
    levels["events"] |= dict.fromkeys(("m.room.power_levels", "m.room.topic", "m.room.name"), 50)
    await host.client.set_state(room_id, "m.room.power_levels", levels)
    await made.begin()
    return made


async def come_apart_and_heal(
    network: AnyNetwork, version: str, seed: int, steps: int, *, roughly: bool = False
) -> None:
    """So many steps of trouble, and what must have come of it in the end."""
    gathering = await gather(network, version, seed, roughly=roughly)
    deeds = Deeds(seed, network, gathering.people, gathering.room_id, roughly=roughly)
    gathering.part()
    try:
        record = await deeds.run(steps)
        await network.heal_all()
        for peer in network.peers:
            if not peer.is_up:
                await peer.start()
            await peer.hurry()
        # What was soft-failed on one server alone may keep them apart until somebody builds on it.
        seconds = await gathering.agreed(_SECONDS_WITHOUT_A_WORD)
        _log.info("seed %s: agreed without a word after %s s", seed, seconds)
        _log_what_came_of_it(network, gathering.room_id, record)
        _log.info("calls: %s", _told(await network.calls()))
        await gathering.come_back()
        await gathering.speak_and_agree()
        await gathering.all_is_told(record)
        await gathering.is_quiet()
    except BaseException as error:
        error.add_note("\n".join([*deeds.record.journal, f"RESTANTE_PARTITION_SEED={seed}"]))
        raise


def _log_what_came_of_it(network: AnyNetwork, room_id: str, record: Record) -> None:
    _log.info("accepted: %s", _told(Counter(deed.kind for deed in record.accepted.values())))
    for peer in network.peers:
        fates = Counter(fate.name for fate in peer.fates(room_id).values())
        _log.info("%s: %s", peer.label, _told(fates))


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items())
