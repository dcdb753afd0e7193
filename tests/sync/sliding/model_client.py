"""A client that only applies what sliding sync gives it, while it looks now at these rooms, now at those."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tests.sync.model_client import HeldRoom, ModelClient
from tests.sync.sliding.client import ACCEPTED, DEPLOYED

if TYPE_CHECKING:
    from tests.client import Client
    from tests.sync.model_client import Wishes
    from tests.sync.truth import TrueRoom

SCOPED = ("account_data", "receipts")


@dataclass
class SlidingRoom(HeldRoom):
    """What the client holds of a room."""

    name: str | None = None
    heroes: dict[str, dict[str, str]] = field(default_factory=dict)
    began_with: str | None = None
    """The first event of the timeline with which the room began."""
    rendered: int = 0
    """So many of the newest events came in answers, with those who sent them."""


class SlidingModelClient(ModelClient):
    """One connection of a device."""

    def __init__(self, client: Client, wishes: Wishes, *, deployed: bool, seed: int) -> None:
        # Sliding sync filters no timelines, and counts no threads.
        super().__init__(client, replace(wishes, without=(), by_thread=False))
        self.deployed = deployed
        self.dice = random.Random(seed)
        self.pos: str | None = None
        self.request: dict[str, Any] = {}
        self.limit = 0
        self.draw()

    # -- asking ----------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Choose what to look at next."""
        dice = self.dice
        ranges = dice.choice([[0, 0], [0, 1], [1, 2], [0, 3], None, None])
        self._compose(ranges, min(dice.choice([1, 2, 5]), self.wishes.limit), dice.random() < 0.8)

    def look_at_everything(self) -> None:
        self._compose(None, self.wishes.limit, extensions=True)

    def _compose(self, window: list[int] | None, limit: int, extensions: bool) -> None:
        self.limit = limit
        subscribed = self.dice.sample(sorted(self.rooms), min(len(self.rooms), self.dice.randrange(2)))
        one: dict[str, Any] = {"timeline_limit": limit, "required_state": self._required_state()}
        config = dict(one)
        if window is not None:
            one["ranges" if self.deployed else "range"] = [window] if self.deployed else window
        self.request = {
            "conn_id": "model",
            "lists": {"rooms": one},
            "room_subscriptions": dict.fromkeys(subscribed, config),
            "extensions": {name: {"enabled": extensions} for name in SCOPED},
        }

    def _required_state(self) -> Any:
        if self.deployed:
            lazy = [["m.room.member", "$LAZY"], ["m.room.member", "$ME"]]
            return [["*", "*"], *(lazy if self.wishes.lazy else ())]
        include: list[dict[str, str]] = [{}]
        if self.wishes.lazy:
            include.append({"type": "m.room.member", "state_key": self.client.user_id})
        return {"include": include, "lazy_members": self.wishes.lazy}

    async def ask(self) -> dict[str, Any]:
        path = DEPLOYED if self.deployed else ACCEPTED
        if self.deployed:
            return await self.client.post(path, self.request, pos=self.pos)
        return await self.client.post(path, {**self.request, **({"pos": self.pos} if self.pos else {})})

    async def sync_until_quiet(self) -> None:
        self.look_at_everything()
        while True:
            answer = await self.ask()
            await self.apply(answer)
            self.look_at_everything()
            if not answer["rooms"] and not answer["extensions"]:
                return

    # -- applying --------------------------------------------------------------------------------------

    async def apply(self, answer: dict[str, Any]) -> None:
        for room_id, result in answer["rooms"].items():
            await self._apply_result(room_id, result)
        extensions = answer["extensions"]
        for event in extensions.get("account_data", {}).get("global", []):
            self.account_data[event["type"]] = event["content"]
        for room_id, events in extensions.get("account_data", {}).get("rooms", {}).items():
            self.rooms[room_id].account_data |= {event["type"]: event["content"] for event in events}
        for room_id, event in extensions.get("receipts", {}).get("rooms", {}).items():
            self.rooms[room_id].take_receipts(event["content"])
        self.pos = answer["pos"]
        self.draw()

    async def _apply_result(self, room_id: str, result: dict[str, Any]) -> None:
        membership = self._membership(result)
        if membership in ("invite", "knock"):
            assert result["initial"]
            self._move_out(room_id)
            (self.invites if membership == "invite" else self.knocks).add(room_id)
            if room_id in self.rooms:
                self.rooms[room_id].membership = "leave"
            return
        if result.get("initial"):
            held = SlidingRoom(account_data=self.rooms.get(room_id, HeldRoom()).account_data)
            held.receipts = self.rooms.get(room_id, HeldRoom()).receipts
            self.rooms[room_id] = held
        held = self.rooms[room_id]
        assert isinstance(held, SlidingRoom)
        if membership is not None:
            self._move_out(room_id)
            held.membership = "join" if membership == "join" else "leave"
        await self._apply_events(room_id, held, result)
        self._apply_required_state(held, result)
        if "name" in result or result.get("initial"):
            held.name = result.get("name")
        elif self.deployed and held.state.get(("m.room.name", "")) is not None and "heroes" in result:
            held.name = None
        if "joined_count" in result:
            held.summary["m.joined_member_count"] = result["joined_count"]
            held.summary["m.invited_member_count"] = result["invited_count"]
        if "heroes" in result:
            held.heroes = {hero["user_id"]: hero for hero in result["heroes"]}
            held.summary["m.heroes"] = list(held.heroes)
        if "notification_count" in result:
            held.counts = {name: result[name] for name in ("notification_count", "highlight_count")}

    def _membership(self, result: dict[str, Any]) -> str | None:
        if not self.deployed:
            return result.get("membership")
        own = [
            event["content"]["membership"]
            for event in (
                *result.get("invite_state", ()),
                *result.get("required_state", ()),
                *result.get("timeline", ()),
            )
            if event["type"] == "m.room.member" and event["state_key"] == self.client.user_id
        ]
        return own[-1] if own else None

    async def _apply_events(self, room_id: str, held: SlidingRoom, result: dict[str, Any]) -> None:
        new = [event["event_id"] for event in result.get("timeline", ())]
        limited = result.get("limited", False)
        assert len(new) <= max(self.limit, self.wishes.limit), "more events than asked for"
        if result.get("initial"):
            held.timeline, held.prev_batch = new, result["prev_batch"]
            with_receipts = self.request["extensions"]["receipts"]["enabled"]
            held.began_with, held.rendered = new[0] if new and with_receipts else None, len(new)
        elif result.get("expanded_timeline") or result.get("unstable_expanded_timeline"):
            assert new, "an expanded timeline is not empty"
            if new[0] in held.timeline:
                begin = held.timeline.index(new[0])
                known = held.timeline[begin:]
                held.timeline = held.timeline[:begin] + new
            else:
                known, held.prev_batch = held.timeline, result["prev_batch"]
                held.timeline = new
                assert not known or known[0] in new, (
                    f"a gap in an expanded timeline: {known} -> {new} {self.limit} {result}"
                )
                begin = new.index(known[0]) if known else 0
                new = new[begin:]
            assert new[: len(known)] == known, "an expanded timeline goes on from what was told"
            held.rendered = len(result["timeline"])
        elif "timeline" in result:
            timeline = {"events": result["timeline"], "limited": limited, "prev_batch": result["prev_batch"]}
            await self._apply_timeline(room_id, held, timeline)
            held.rendered = len(new) if limited else held.rendered + len(new)

    def _apply_required_state(self, held: SlidingRoom, result: dict[str, Any]) -> None:
        if self.wishes.lazy and (result.get("limited") or result.get("initial")):
            own = ("m.room.member", self.client.user_id)
            held.state = {
                key: event_id
                for key, event_id in held.state.items()
                if key[0] != "m.room.member" or key == own or "unstable_expanded_timeline" in result
            }
        for event in result.get("required_state", ()):
            if "content" in event:
                held.state[event["type"], event["state_key"]] = event["event_id"]
            else:
                held.state.pop((event["type"], event["state_key"]), None)

    # -- being asked -----------------------------------------------------------------------------------

    def _check_state(self, room: TrueRoom, held: HeldRoom) -> None:
        assert isinstance(held, SlidingRoom)
        true = {key: event.event_id for key, event in room.state.items()}
        name = room.state.get(("m.room.name", ""))
        assert (held.name or None) == ((name.content.get("name") or None) if name is not None else None)
        if not self.wishes.lazy:
            assert held.state == true
            return
        assert held.state == {key: true.get(key) for key in held.state}, (
            "what is held of the state is not true"
        )
        needed = {key for key in true if key[0] != "m.room.member"}
        shown = held.timeline[len(held.timeline) - held.rendered :]
        needed |= {("m.room.member", room.by_id[event_id].sender) for event_id in shown}
        needed.add(("m.room.member", self.client.user_id))
        assert (needed & true.keys()) <= held.state.keys(), "members are missing"

    def _check_summary(self, room: TrueRoom, held: HeldRoom) -> None:
        super()._check_summary(room, held)
        assert isinstance(held, SlidingRoom)
        if not room.is_named():
            for user_id, hero in held.heroes.items():
                content = room.state["m.room.member", user_id].content
                assert hero.get("displayname") == content.get("displayname")

    def check_receipts(self, room: TrueRoom, receipts: dict[tuple[str, str, str], str]) -> None:
        """Of others, those at older events than the first that was told may be missing; none is out of date."""
        held = self.rooms[room.room_id]
        assert isinstance(held, SlidingRoom)
        assert held.receipts.items() <= receipts.items()
        first = room.by_id[held.began_with].position if held.began_with is not None else 2**62
        for key, event_id in receipts.items():
            if key[0] == self.client.user_id or room.by_id[event_id].position >= first:
                assert held.receipts.get(key) == event_id, (
                    f"{key} of {self.client.user_id} at {room.by_id[event_id].position}, begun at {first}"
                )

    def check_unread(self, room: TrueRoom, receipts: dict[str, str]) -> None:
        if self.deployed:
            counts = room.unread(self.client.user_id, receipts, frozenset())
            total = [sum(pair) for pair in zip([0, 0], *counts.values(), strict=True)]
            assert self.rooms[room.room_id].counts == {
                "notification_count": total[0],
                "highlight_count": total[1],
            }
