"""A client that only applies what it gets, and is asked afterwards whether it holds the truth."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.client import Refused
from tests.sync.catch_up import CatchUp
from tests.sync.inbox import Inbox
from tests.sync.pool import Pool

if TYPE_CHECKING:
    from tests.client import Client
    from tests.sync.truth import StateKey, TrueEvent, TrueRoom

HEROES = 5


@dataclass(frozen=True)
class Wishes:
    """What a device asks for in every sync."""

    limit: int
    without: tuple[str, ...] = ()
    """Types that are not wanted in timelines."""
    lazy: bool = False
    by_thread: bool = False
    state_after: str | None = None

    @property
    def filter(self) -> dict[str, Any]:
        return {
            "room": {
                "timeline": {
                    "limit": self.limit,
                    "not_types": list(self.without),
                    "unread_thread_notifications": self.by_thread,
                },
                "state": {"lazy_load_members": self.lazy},
            }
        }

    def wants(self, event: TrueEvent) -> bool:
        return event.type not in self.without


@dataclass
class HeldRoom:
    """What the client holds of a room that it is, or was, in."""

    membership: str = "join"
    timeline: list[str] = field(default_factory=list)
    prev_batch: str | None = None
    state: dict[StateKey, str] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    thread_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    receipts: dict[tuple[str, str, str], str] = field(default_factory=dict)
    account_data: dict[str, Any] = field(default_factory=dict)
    typing: frozenset[str] | None = frozenset()
    """None where the client was not told who is, over a weak link or over a restart of the server."""

    def take_receipts(self, content: dict[str, Any]) -> None:
        for event_id, by_type in content.items():
            for receipt_type, by_user in by_type.items():
                for user_id, receipt in by_user.items():
                    self.receipts[user_id, receipt_type, receipt.get("thread_id", "")] = event_id


@dataclass(frozen=True)
class Link:
    """What a client says of its link, by parameters of the query and by headers."""

    query: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def is_weak(self) -> bool:
        return bool(self.query or self.headers) and "good" not in self.query.values()


LINKS = (
    Link(),
    *2 * (Link({"dev.restante.max_bytes": 1}),),
    Link({"dev.restante.max_bytes": 1_500}),
    Link({"dev.restante.max_bytes": 4_000}),
    Link({"dev.restante.network": "weak"}),
    Link(headers={"Save-Data": "on", "ECT": "slow-2g"}),
    Link(headers={"Downlink": "0.01", "RTT": "2000"}),
    Link({"dev.restante.network": "good"}, {"Save-Data": "on"}),
)


class ModelClient:
    """One device, or one way in which a device follows."""

    STORE: tuple[str, ...] = ("since", "rooms", "invites", "knocks", "account_data", "_prev_batches", "_link")
    """What a client keeps, and a backup of it has."""

    def __init__(
        self, client: Client, wishes: Wishes, inbox: Inbox | None = None, pool: Pool | None = None
    ) -> None:
        self.client = client
        self.wishes = wishes
        self.since: str | None = None
        self.rooms: dict[str, HeldRoom] = {}
        self.invites: set[str] = set()
        self.knocks: set[str] = set()
        self.account_data: dict[str, Any] = {}
        self.inbox = inbox if inbox is not None else Inbox()
        self.pool = pool if pool is not None else Pool()
        self.ignored: frozenset[str] = frozenset()
        """Whom the user has ignored ever since there was something to hear of them."""
        self.catching_up: CatchUp | None = None
        self._prev_batches: dict[str, str] = {}
        # Now and then the link is weak, and an answer holds one room, or two or three.
        self._dice = random.Random(wishes.limit)
        self._link = Link()
        self._backup: dict[str, Any] | None = None

    @property
    def way(self) -> str:
        """The name of the way, among those of the device."""
        return "classic"

    # -- asking ----------------------------------------------------------------------------------------

    async def ask(self) -> dict[str, Any]:
        """An answer that is not applied yet; it may be lost, and asked for again."""
        query: dict[str, Any] = {"filter": json.dumps(self.wishes.filter), **self._link.query}
        if self.wishes.state_after is not None:
            query[self.wishes.state_after] = True
        if self.since is not None:
            self.inbox.acknowledge(self.way)
        return await self.client.call("GET", "/sync", headers=self._link.headers, since=self.since, **query)

    async def sync(self) -> None:
        await self.apply(await self.ask())

    async def sync_until_quiet(self) -> None:
        while True:
            answer = await self.ask()
            await self.apply(answer)
            if not answer.keys() & {"rooms", "account_data", "to_device"}:
                return

    # -- catching up -----------------------------------------------------------------------------------

    async def catch_up(self, order: str, limit: int, to: str | None = None) -> None:
        """Fetch all that was missed, page by page; `/sync` then goes on from where that ended."""
        self.begin_catch_up(order, limit, to)
        while self.catching_up is not None:
            await self.turn_page()

    def begin_catch_up(self, order: str, limit: int, to: str | None = None) -> None:
        """Begin it, or begin it anew; a device that has no token yet has missed nothing."""
        if self.since is not None:
            lazy = self.wishes.lazy
            self.catching_up = CatchUp(self.client, self.since, order, limit, to=to, lazy=lazy)

    async def turn_page(self) -> None:
        """Fetch a page, where there is one; with the last one all of them are taken."""
        catching_up = self.catching_up
        if catching_up is None:
            return
        catching_up.take(await catching_up.ask())
        if catching_up.next_batch is None:
            return
        self._prev_batches.update(catching_up.prev_batches)
        for room_id, ids in catching_up.rooms.items():
            held = self.rooms.setdefault(room_id, HeldRoom())
            if not held.timeline and held.prev_batch is None:
                held.prev_batch = self._prev_batches.get(room_id)
            assert not set(ids) & set(held.timeline), f"{set(ids) & set(held.timeline)} were told already"
            held.timeline += [i for i in ids if catching_up.types[i] not in self.wishes.without]
        self.since, self.catching_up = catching_up.next_batch, None
        self.pool.take(self.rooms)

    # -- backups ---------------------------------------------------------------------------------------

    def back_up(self) -> None:
        """Keep all that there is, for later."""
        self._backup = copy.deepcopy({name: getattr(self, name) for name in self.STORE})
        self.inbox.back_up(self.way)

    def restore(self) -> None:
        """Go on from the backup, as if nothing had happened since; a device that has none begins anew."""
        # What is owed by a token is kept for the newest ones only: the client of an old one is told some things again.
        if self._backup is None or (self._backup.get("since") or "s")[0] != "s":
            return
        for name, value in copy.deepcopy(self._backup).items():
            setattr(self, name, value)
        self.inbox.restore(self.way)
        self.catching_up = None

    # -- paging ----------------------------------------------------------------------------------------

    async def page_back(self, room_id: str, limit: int) -> None:
        """Read on into the past of a room."""
        held = self.rooms[room_id]
        if held.prev_batch is None:
            return
        page = await self._page(room_id, held.prev_batch, limit)
        ids = [event["event_id"] for event in reversed(page["chunk"])]
        assert not set(ids) & set(held.timeline), "paging back repeats events"
        held.timeline = ids + held.timeline
        held.prev_batch = page.get("end")
        self.pool.take(self.rooms)

    async def _page(self, room_id: str, start: str, limit: int) -> dict[str, Any]:
        wanted = json.dumps({"not_types": list(self.wishes.without)})
        return await self.client.messages(room_id, **{"from": start, "limit": limit, "filter": wanted})

    # -- applying --------------------------------------------------------------------------------------

    async def apply(self, answer: dict[str, Any]) -> None:
        rooms = answer.get("rooms", {})
        for room_id, section in rooms.get("join", {}).items():
            await self._apply_room(room_id, section, "join")
        for room_id, section in rooms.get("leave", {}).items():
            await self._apply_room(room_id, section, "leave")
        for kind, held in (("invite", self.invites), ("knock", self.knocks)):
            for room_id in rooms.get(kind, {}):
                self._move_out(room_id)
                held.add(room_id)
                if room_id in self.rooms:
                    self.rooms[room_id].membership = "leave"
        for event in answer.get("account_data", {}).get("events", []):
            self.account_data[event["type"]] = event["content"]
        self.inbox.take(self.way, answer.get("to_device", {}).get("events", []))
        # Whoever syncs instead of going on with catching up has all of it by that.
        self.since, self.catching_up = answer["next_batch"], None
        if self._link.is_weak:
            self.forget_typing()
        self._link = self._dice.choice(LINKS)
        self.pool.take(self.rooms)

    def forget_typing(self) -> None:
        """From now on it is not known who is typing, where that is not told anew."""
        for held in self.rooms.values():
            held.typing = None

    def _move_out(self, room_id: str) -> None:
        self.invites.discard(room_id)
        self.knocks.discard(room_id)

    async def _apply_room(self, room_id: str, section: dict[str, Any], membership: str) -> None:
        self._move_out(room_id)
        held = self.rooms.setdefault(room_id, HeldRoom())
        if held.membership == "leave" and section["timeline"]["limited"]:
            # Back after a gap: a new timeline begins.
            held.timeline, held.prev_batch = [], None
        held.membership = membership
        await self._apply_timeline(room_id, held, section["timeline"])
        self._apply_state(held, section)
        held.summary.update(section.get("summary", {}))
        if "unread_notifications" in section:
            held.counts = section["unread_notifications"]
            held.thread_counts = section.get("unread_thread_notifications", {})
        for event in section.get("account_data", {}).get("events", []):
            held.account_data[event["type"]] = event["content"]
        for event in section.get("ephemeral", {}).get("events", []):
            if event["type"] == "m.receipt":
                held.take_receipts(event["content"])
            elif event["type"] == "m.typing":
                held.typing = frozenset(event["content"]["user_ids"])

    async def _apply_timeline(self, room_id: str, held: HeldRoom, timeline: dict[str, Any]) -> None:
        new = [event["event_id"] for event in timeline["events"]]
        assert len(set(new)) == len(new), "an event twice in one answer"
        assert len(new) <= self.wishes.limit, "more events than asked for"
        assert not set(new) & set(held.timeline), f"{set(new) & set(held.timeline)} were told already"
        if not held.timeline and held.prev_batch is None:
            held.timeline, held.prev_batch = new, timeline["prev_batch"]
            return
        token = timeline["prev_batch"] if timeline["limited"] else None
        gap: list[str] = []
        if token is not None and new and held.timeline:
            missing = self.pool.between(room_id, held.timeline[-1], new[0])
            if missing is not None:
                gap, token = missing[::-1], None
        known = set(held.timeline)
        while token is not None:
            try:
                page = await self._page(room_id, token, 5)
            except Refused:
                # Of a room that was forgotten nothing can be read until one is back: a new timeline begins.
                assert held.membership == "leave"
                held.timeline, held.prev_batch = new, timeline["prev_batch"]
                return
            ids = [event["event_id"] for event in page["chunk"]]
            reached = next((index for index, event_id in enumerate(ids) if event_id in known), None)
            gap += ids if reached is None else ids[:reached]
            token = page.get("end") if reached is None else None
            if not known and reached is None and token is None:
                # Nothing was held that could be met: all of the past is here now.
                held.prev_batch = None
        assert not set(gap) & set(new), "the gap overlaps the timeline"
        assert len(set(gap)) == len(gap), "an event twice in a gap"
        held.timeline += [*reversed(gap), *new]

    def _apply_state(self, held: HeldRoom, section: dict[str, Any]) -> None:
        names = {
            "use_state_after": "state_after",
            "org.matrix.msc4222.use_state_after": "org.matrix.msc4222.state_after",
        }
        if self.wishes.state_after is None:
            events = [*section["state"]["events"], *section["timeline"]["events"]]
        else:
            assert "state" not in section
            events = section[names[self.wishes.state_after]]["events"]
        for event in events:
            if "state_key" in event:
                held.state[event["type"], event["state_key"]] = event["event_id"]

    # -- being asked -----------------------------------------------------------------------------------

    def check_rooms(self, truth: dict[str, TrueRoom], forgotten: set[str]) -> None:
        """Whether the client, which has nothing left to hear, holds what is true."""
        user_id = self.client.user_id
        joined = {room_id for room_id, room in truth.items() if room.membership(user_id) == "join"}
        assert {room_id for room_id, held in self.rooms.items() if held.membership == "join"} == joined
        assert self.invites == {
            i
            for i, room in truth.items()
            if room.membership(user_id) == "invite" and not self._is_unwanted(room)
        }
        assert self.knocks == {i for i, room in truth.items() if room.membership(user_id) == "knock"}
        for room_id, held in self.rooms.items():
            if room_id in forgotten:
                continue
            room = truth[room_id]
            if room.membership(user_id) in ("invite", "knock"):
                # The client holds what it had when it was last in; nothing more is told of the room.
                continue
            self._check_timeline(room, held)
            if held.membership == "join":
                self._check_state(room, held)
                self._check_summary(room, held)

    def _is_unwanted(self, room: TrueRoom) -> bool:
        """Whether an invite is of somebody who is ignored."""
        own = room.membership_event(self.client.user_id)
        return own is not None and own.sender in self.ignored

    def _wants(self, event: TrueEvent) -> bool:
        return self.wishes.wants(event) and (event.key is not None or event.sender not in self.ignored)

    def _check_timeline(self, room: TrueRoom, held: HeldRoom) -> None:
        visible = [e.event_id for e in room.visible(self.client.user_id) if self._wants(e)]
        asides = room.asides(self.client.user_id) | room.open_afterwards(self.client.user_id)
        timeline = [event_id for event_id in held.timeline if event_id not in asides]
        if held.membership == "join":
            self.pool.check(room.room_id, visible, asides)
        if not timeline:
            assert held.prev_batch is not None or not visible
            return
        assert timeline[0] in visible, "an event that the user must not see"
        start = visible.index(timeline[0])
        assert timeline == visible[start:], self._difference(room, held, visible[start:])
        if held.prev_batch is None:
            assert start == 0, "paging back ended before the beginning"

    def _difference(self, room: TrueRoom, held: HeldRoom, visible: list[str]) -> str:
        """What the client holds (+ too much, - missing), for whoever reads of the failure."""
        lines = [f"{self.client.user_id} {self.client.device_id} {self.wishes} {room.room_id}"]
        memberships = room.memberships_at(self.client.user_id)
        for event, membership in zip(room.events, memberships, strict=True):
            mark = {(True, True): "=", (True, False): "+", (False, True): "-", (False, False): " "}[
                event.event_id in held.timeline, event.event_id in visible
            ]
            content = {name: event.content[name] for name in sorted(event.content)[:3]}
            lines.append(f"{mark} {event.position} {membership} {event.sender} {event.type} {content}")
        lines.append(f"held in this order: {[room.by_id[i].position for i in held.timeline]}")
        return "\n".join(lines)

    def _check_state(self, room: TrueRoom, held: HeldRoom) -> None:
        true = {key: event.event_id for key, event in room.state.items()}
        if not self.wishes.lazy:
            assert held.state == true
            return
        known = {key: true.get(key) for key in held.state}
        assert held.state == known, "what is held of the state is not true"
        needed = {key for key in true if key[0] != "m.room.member"}
        needed |= {
            ("m.room.member", room.by_id[event_id].sender) for event_id in held.timeline[-self.wishes.limit :]
        }
        if not room.is_named():
            needed |= {("m.room.member", hero) for hero in held.summary["m.heroes"]}
        needed.add(("m.room.member", self.client.user_id))
        assert (needed & true.keys()) <= held.state.keys(), "members are missing"

    def _check_summary(self, room: TrueRoom, held: HeldRoom) -> None:
        assert held.summary["m.joined_member_count"] == len(room.members("join"))
        assert held.summary["m.invited_member_count"] == len(room.members("invite"))
        if room.is_named():
            return
        others = set(room.members("join", "invite")) - {self.client.user_id}
        if not others:
            others = set(room.members("leave", "ban")) - {self.client.user_id}
        heroes = held.summary["m.heroes"]
        assert set(heroes) <= others
        assert len(heroes) == len(set(heroes)) == min(HEROES, len(others))

    def check_receipts(self, room: TrueRoom, receipts: dict[tuple[str, str, str], str]) -> None:
        """Whether the client holds the receipts that it may see."""
        assert self.rooms[room.room_id].receipts == receipts

    def check_typing(self, room_id: str, typing: frozenset[str]) -> None:
        """Whether the client knows who is typing."""
        held = self.rooms[room_id]
        assert held.typing in (None, typing - self.ignored), f"{held.typing} are typing, really {typing}"

    def check_unread(self, room: TrueRoom, receipts: dict[str, str]) -> None:
        held = self.rooms[room.room_id]
        counts = room.unread(self.client.user_id, receipts, self.ignored)
        main = counts.pop(None, [0, 0])
        threads = {root: _form(count) for root, count in counts.items() if any(count)}
        if self.wishes.by_thread:
            assert (held.counts, held.thread_counts) == (_form(main), threads)
        else:
            total = [sum(pair) for pair in zip(main, *counts.values(), strict=True)]
            assert held.counts == _form(total)


def _form(count: list[int]) -> dict[str, int]:
    return {"notification_count": count[0], "highlight_count": count[1]}
