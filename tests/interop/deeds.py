"""Random deeds of people in one room while the servers between them come and go: the same for the same seed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx

from tests.client import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.interop.network import AnyNetwork, Peer
    from tests.interop.people import Somebody

_NOTES = 3
_LEVELS = (0, 50, 50, 75)
_MOST_AT_ONCE = 4
_FALLS_MEANWHILE = 0.03
_NOBODY_REACHED = 502
_MANY_WORDS = (5, 30, 120)
_SECONDS = 30


@dataclass(frozen=True)
class Deed:
    """Something that was done, and accepted by the server of who did it."""

    server: str
    sender: str
    kind: str


class Watch:
    """What somebody sees by `/sync`."""

    def __init__(self, who: Somebody) -> None:
        self._who = who
        self._since: str | None = None
        self.seen: Counter[str] = Counter()
        """The events of all rooms, by id, since the first look."""

    async def look(self) -> None:
        """See what is new."""
        client = self._who.client
        answer = await client.sync(since=self._since, timeout=0)
        for room_id, section in answer.get("rooms", {}).get("join", {}).items():
            timeline = section["timeline"]
            events, start = timeline["events"], timeline["prev_batch"] if timeline["limited"] else None
            while start is not None and self._since is not None:
                page = await client.messages(room_id, **{"from": start, "to": self._since})
                events, start = [*events, *page["chunk"]], page.get("end")
            self.seen.update(event["event_id"] for event in events)
        self._since = answer["next_batch"]


@dataclass
class Inhabitants:
    """The people of one server: a keeper, who stays in the room, and guests, who come and go.

    Where nobody stays the keeper is a guest as well, and now and then the server is not in the room.
    """

    peer: Peer
    keeper: Somebody
    guests: list[Somebody]
    stays: bool

    def __post_init__(self) -> None:
        self.watch = Watch(self.keeper)

    @property
    def everybody(self) -> list[Somebody]:
        return [self.keeper, *self.guests]

    @property
    def fleeting(self) -> list[Somebody]:
        """Those who may have to go."""
        return self.guests if self.stays else self.everybody


@dataclass
class Record:
    """What came of the deeds."""

    accepted: dict[str, Deed] = field(default_factory=dict)
    """By event id."""
    contested: set[str] = field(default_factory=set)
    """Users who were out of the room at some time, on some server."""
    journal: list[str] = field(default_factory=list)


class Deeds:
    """Does what chance says."""

    def __init__(
        self, seed: int, network: AnyNetwork, people: dict[str, Inhabitants], room_id: str, *, roughly: bool
    ) -> None:
        """`roughly`: in every way that costs time as well."""
        self._random = random.Random(seed)
        self._network = network
        self._people = people
        self._room_id = room_id
        self._roughly = roughly
        self._said: defaultdict[str, list[str]] = defaultdict(list)
        self.record = Record()
        self._number = 0
        self._of_keepers: dict[Any, int] = {
            self._say: 8,
            self._topic: 3,
            self._name: 3,
            self._note: 3,
            self._power: 5,
            self._join_rules: 3,
            self._kick: 3,
            self._ban: 2,
            self._unban: 4,
            self._invite: 4,
            self._redact: 3,
            **({self._babble: 1} if roughly else {}),
        }
        self._of_guests: dict[Any, int] = {
            self._say: 8,
            self._topic: 3,
            self._name: 3,
            self._note: 3,
            self._power: 3,
            self._join_rules: 2,
            self._kick: 2,
            self._ban: 1,
            self._unban: 1,
            self._invite: 2,
            self._redact: 3,
            self._leave: 2,
            self._join: 14,
        }
        self._of_network: dict[Callable[[], Awaitable[str]], int] = {
            self._cut: 5,
            **({self._jam: 1} if roughly else {}),
            self._heal: 3,
            self._isolate: 1,
            self._split: 2,
            self._heal_all: 1,
            self._fall: 2,
            self._rise: 2,
            self._rest: 6,
            self._look: 4,
        }

    async def run(self, steps: int) -> Record:
        """So many steps, each of some deeds of people at the same time or something of the network."""
        for _ in range(steps):
            if self._random.random() < 0.3:
                deed = self._chosen(self._of_network)
                self._note_down(await deed())
            else:
                doers = self._random.sample(self._everybody(), self._random.randint(1, _MOST_AT_ONCE))
                deeds = [self._do(label, who, self._deed_of(label, who)) for label, who in doers]
                if self._random.random() < _FALLS_MEANWHILE:
                    deeds.append(self._fall_meanwhile())
                await asyncio.gather(*deeds)
        return self.record

    def _chosen(self, deeds: dict[Any, int]) -> Any:
        (deed,) = self._random.choices(list(deeds), list(deeds.values()))
        return deed

    def _note_down(self, what: str) -> None:
        self.record.journal.append(f"{datetime.now(UTC):%H:%M:%S.%f} {what}")

    def _deed_of(self, label: str, who: Somebody) -> Any:
        return self._chosen(self._of_guests if who in self._people[label].fleeting else self._of_keepers)

    def _everybody(self) -> list[tuple[str, Somebody]]:
        return [(label, who) for label, here in self._people.items() for who in here.everybody]

    # -- of people -------------------------------------------------------------------------------------

    async def _do(self, label: str, somebody: Somebody, deed: Any) -> None:
        name = deed.__name__.strip("_")
        if not self._network.peer(label).is_up:
            return
        chance = self._random.getrandbits(64)
        try:
            async with asyncio.timeout(_SECONDS):
                event_id = await deed(somebody, random.Random(chance))
        except Refused as error:
            self._judge(label, error)
            outcome = f"{error.status} {error.body.get('error')}"
        except (httpx.HTTPError, TimeoutError) as error:
            outcome = type(error).__name__
        else:
            outcome = event_id or "done"
            if event_id is not None and event_id not in self.record.accepted:
                self.record.accepted[event_id] = Deed(label, somebody.user_id, name)
                self._said[label].append(event_id)
        self._note_down(f"{somebody.user_id}: {name}: {outcome}")

    def _judge(self, label: str, error: Refused) -> None:
        """A server of ours may reach none of those who could help, or be about to stop; it never fails itself."""
        is_ours = label != "synapse" and self._network.peer(label).is_up
        if error.status >= 500 and error.status != _NOBODY_REACHED and is_ours:
            raise error

    async def _say(self, who: Somebody, chance: random.Random) -> str:
        return await who.client.send(self._room_id, self._text())

    def _text(self) -> str:
        self._number += 1
        return f"{self._number}"

    async def _babble(self, who: Somebody, chance: random.Random) -> None:
        """More than Synapse fetches of what it missed, or keeps waiting."""
        label = who.server_name
        for _ in range(chance.choice(_MANY_WORDS)):
            event_id = await self._say(who, chance)
            self.record.accepted[event_id] = Deed(label, who.user_id, "say")

    async def _set(self, who: Somebody, kind: str, content: dict[str, Any], key: str = "") -> str:
        return await who.client.set_state(self._room_id, kind, content, key)

    async def _topic(self, who: Somebody, chance: random.Random) -> str:
        return await self._set(who, "m.room.topic", {"topic": self._text()})

    async def _name(self, who: Somebody, chance: random.Random) -> str:
        return await self._set(who, "m.room.name", {"name": self._text()})

    async def _note(self, who: Somebody, chance: random.Random) -> str:
        return await self._set(
            who, "org.example.note", {"text": self._text()}, f"note{chance.randrange(_NOTES)}"
        )

    async def _power(self, who: Somebody, chance: random.Random) -> str:
        levels = await who.client.get_state(self._room_id, "m.room.power_levels")
        if chance.random() < 0.7:
            levels["users"][self._guest(chance).user_id] = chance.choice(_LEVELS)
        else:
            changed = chance.choice(["invite", "kick", "ban", "redact", "state_default"])
            levels[changed] = chance.choice(_LEVELS)
        return await self._set(who, "m.room.power_levels", levels)

    async def _join_rules(self, who: Somebody, chance: random.Random) -> str:
        rule = chance.choice(["public", "public", "invite", "knock"])
        return await self._set(who, "m.room.join_rules", {"join_rule": rule})

    async def _kick(self, who: Somebody, chance: random.Random) -> None:
        target = self._guest(chance)
        self.record.contested.add(target.user_id)
        await who.client.kick(self._room_id, target.user_id)

    async def _ban(self, who: Somebody, chance: random.Random) -> None:
        target = self._guest(chance)
        self.record.contested.add(target.user_id)
        await who.client.ban(self._room_id, target.user_id)

    async def _unban(self, who: Somebody, chance: random.Random) -> None:
        await who.client.post(f"/rooms/{self._room_id}/unban", {"user_id": self._guest(chance).user_id})

    async def _invite(self, who: Somebody, chance: random.Random) -> None:
        await who.client.invite(self._room_id, self._guest(chance).user_id)

    async def _leave(self, who: Somebody, chance: random.Random) -> None:
        self.record.contested.add(who.user_id)
        await who.client.leave(self._room_id)

    async def _join(self, who: Somebody, chance: random.Random) -> None:
        # By way of others only where nobody of the own server is in the room.
        via = chance.choice([here.keeper for here in self._people.values() if here.stays])
        await who.join(self._room_id, via)

    async def _redact(self, who: Somebody, chance: random.Random) -> str | None:
        label = next(label for label, here in self._people.items() if who in here.everybody)
        said = self._said[label if chance.random() < 0.7 else chance.choice(list(self._people))]
        if not said:
            return None
        event_id = chance.choice(said[-10:])
        if self.record.accepted[event_id].kind != "say":
            return None
        return await who.client.redact(self._room_id, event_id)

    def _guests(self) -> list[Somebody]:
        return [guest for here in self._people.values() for guest in here.fleeting]

    def _guest(self, chance: random.Random) -> Somebody:
        return chance.choice(self._guests())

    # -- of the network --------------------------------------------------------------------------------

    async def _cut(self) -> str:
        pair = self._random.choice(self._network.pairs)
        await self._network.cut(pair)
        return f"cut {sorted(pair)}"

    async def _jam(self) -> str:
        pair = self._random.choice(self._network.pairs)
        await self._network.cut(pair, silently=True)
        return f"jammed {sorted(pair)}"

    async def _heal(self) -> str:
        if not self._network.cut_pairs:
            return "nothing to heal"
        pair = self._random.choice(sorted(self._network.cut_pairs, key=sorted))
        await self._network.heal(pair)
        return f"healed {sorted(pair)}"

    async def _isolate(self) -> str:
        label = self._random.choice(self._network.peers).label
        for pair in self._network.pairs:
            if label in pair:
                await self._network.cut(pair)
        return f"isolated {label}"

    async def _split(self) -> str:
        """Two halves."""
        labels = [peer.label for peer in self._network.peers]
        half = set(self._random.sample(labels, 2))
        for pair in self._network.pairs:
            await (self._network.cut(pair) if len(pair & half) == 1 else self._network.heal(pair))
        return f"split off {sorted(half)}"

    async def _heal_all(self) -> str:
        await self._network.heal_all()
        return "healed all"

    async def _fall(self) -> str:
        peer, is_killed = self._some_peer(), self._random.random() < 0.5
        if not peer.is_up:
            return f"{peer.label} is down"
        await (peer.kill() if is_killed else peer.stop())
        return f"{peer.label} {'killed' if is_killed else 'stopped'}"

    async def _fall_meanwhile(self) -> None:
        peer, seconds = self._some_peer(), self._random.random() / 20
        if peer.is_up:
            await asyncio.sleep(seconds)
            await peer.kill()
            self._note_down(f"{peer.label} killed meanwhile")

    def _some_peer(self) -> Peer:
        return self._random.choice(self._network.peers if self._roughly else self._network.ours)

    async def _rise(self) -> str:
        down = [peer for peer in self._network.peers if not peer.is_up]
        for peer in down:
            await peer.start()
        return f"started {[peer.label for peer in down]}"

    async def _look(self) -> str:
        lookers = [here for here in self._people.values() if here.stays and here.peer.is_up]
        await asyncio.gather(*(here.watch.look() for here in lookers))
        return "looked"

    async def _rest(self) -> str:
        seconds = self._random.choice([0.2, 0.5, 1.0, 2.0])
        await asyncio.sleep(seconds)
        return f"rested {seconds} s"
