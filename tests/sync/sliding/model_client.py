"""A client that only applies what sliding sync gives it, while it looks now at these rooms, now at those."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tests.client import Refused
from tests.sync.model_client import HeldRoom, ModelClient
from tests.sync.sliding.client import ACCEPTED, DEPLOYED

if TYPE_CHECKING:
    from tests.client import Client
    from tests.sync.inbox import Inbox
    from tests.sync.model_client import Wishes
    from tests.sync.pool import Pool
    from tests.sync.truth import TrueRoom

SCOPED = ("account_data", "receipts", "typing")
SCOPES: tuple[dict[str, Any], ...] = ({"lists": ["some"]}, {"lists": []}, {"rooms": []}, {"lists": ["rooms"]})
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"is_dm": True},
    {"is_dm": False},
    {"tags": ["m.favourite"]},
    {"not_tags": ["m.favourite"]},
)


@dataclass
class SlidingRoom(HeldRoom):
    """What the client holds of a room."""

    name: str | None = None
    heroes: dict[str, dict[str, str]] = field(default_factory=dict)
    began_with: str | None = None
    """The first event of the timeline with which the room began."""
    is_dm: bool = False
    rendered: int = 0
    """So many of the newest events came in answers, with those who sent them."""


class SlidingModelClient(ModelClient):
    """One connection of a device."""

    STORE = ("pos", "rooms", "invites", "knocks", "account_data", "request", "limit", "_to_device")

    def __init__(
        self,
        client: Client,
        wishes: Wishes,
        *,
        deployed: bool,
        seed: int,
        conn_id: str = "model",
        inbox: Inbox | None = None,
        pool: Pool | None = None,
    ) -> None:
        # Sliding sync filters no timelines, and counts no threads.
        super().__init__(client, replace(wishes, without=(), by_thread=False), inbox, pool)
        self.deployed = deployed
        self.conn_id = conn_id
        self.may_be_unknown = False
        """Whether something was done by which the server may have forgotten the connection; it may notice late."""
        self._to_device: str | None = None
        self.dice = random.Random(seed)
        self.pos: str | None = None
        self.request: dict[str, Any] = {}
        self.limit = 0
        self.draw()

    # -- asking ----------------------------------------------------------------------------------------

    @property
    def way(self) -> str:
        return f"sliding {self.conn_id}"

    def draw(self) -> None:
        """Choose what to look at next."""
        dice = self.dice
        ranges = dice.choice([[0, 0], [0, 1], [1, 2], [0, 3], None, None])
        self._compose(ranges, min(dice.choice([1, 2, 5]), self.wishes.limit))
        if dice.random() < 0.3:
            self.request["lists"]["some"] = {
                "timeline_limit": min(dice.choice([1, 2, 5]), self.wishes.limit),
                "required_state": self._little_state(),
                "filters": dice.choice(FILTERS),
            }
        for name in SCOPED:
            extension: dict[str, Any] = {"enabled": dice.random() < 0.8}
            if dice.random() < 0.3:
                extension |= dice.choice(SCOPES)
            self.request["extensions"][name] = extension
        self.request["extensions"]["to_device"] = {
            "enabled": dice.random() < 0.5,
            "limit": dice.choice([1, 2, 100]),
        }

    def look_at_everything(self) -> None:
        self._compose(None, self.wishes.limit)

    def _compose(self, window: list[int] | None, limit: int) -> None:
        self.limit = limit
        subscribed = self.dice.sample(sorted(self.rooms), min(len(self.rooms), self.dice.randrange(2)))
        one: dict[str, Any] = {"timeline_limit": limit, "required_state": self._required_state()}
        config = dict(one)
        if window is not None:
            one["ranges" if self.deployed else "range"] = [window] if self.deployed else window
        self.request = {
            "conn_id": self.conn_id,
            "lists": {"rooms": one},
            "room_subscriptions": dict.fromkeys(subscribed, config),
            "extensions": {name: {"enabled": True} for name in (*SCOPED, "to_device")},
        }

    def _little_state(self) -> Any:
        own = {"type": "m.room.member", "state_key": self.client.user_id}
        if self.deployed:
            lazy = [["m.room.member", "$LAZY"]] if self.wishes.lazy else []
            return [["m.room.topic", ""], ["m.room.name", ""], ["m.room.member", "$ME"], *lazy]
        return {"include": [{"type": "m.room.topic"}, own], "lazy_members": self.wishes.lazy}

    def _required_state(self) -> Any:
        if self.deployed:
            lazy = [["m.room.member", "$LAZY"], ["m.room.member", "$ME"]]
            return [["*", "*"], *(lazy if self.wishes.lazy else ())]
        include: list[dict[str, str]] = [{}]
        if self.wishes.lazy:
            include.append({"type": "m.room.member", "state_key": self.client.user_id})
        return {"include": include, "lazy_members": self.wishes.lazy}

    async def ask(self) -> dict[str, Any]:
        try:
            return await self._post()
        except Refused as error:
            if error.errcode != "M_UNKNOWN_POS" or not self.may_be_unknown:
                raise
            self.begin_anew()
            return await self._post()

    async def _post(self) -> dict[str, Any]:
        body = copy.deepcopy(self.request)
        if body["extensions"]["to_device"]["enabled"] and self._to_device is not None:
            body["extensions"]["to_device"]["since"] = self._to_device
            self.inbox.acknowledge(self.way)
        if self.deployed:
            return await self.client.post(DEPLOYED, body, pos=self.pos)
        return await self.client.post(ACCEPTED, {**body, **({"pos": self.pos} if self.pos else {})})

    def begin_anew(self) -> None:
        """Go on without a `pos`: what the client has had is told again."""
        self.pos, self.may_be_unknown = None, False
        self.rooms.clear()
        self.account_data.clear()
        self.invites.clear()
        self.knocks.clear()

    def restore(self) -> None:
        if self._backup is not None:
            super().restore()
            self.may_be_unknown = self.pos is not None

    async def sync_until_quiet(self) -> None:
        self.look_at_everything()
        while True:
            answer = await self.ask()
            await self.apply(answer)
            self.look_at_everything()
            extensions = answer["extensions"]
            told = {*answer["rooms"], *(extensions.keys() - {"to_device"})}
            if not told and not extensions["to_device"].get("events"):
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
        for room_id, event in extensions.get("typing", {}).get("rooms", {}).items():
            self.rooms[room_id].typing = frozenset(event["content"]["user_ids"])
        if "to_device" in extensions:
            self.inbox.take(self.way, extensions["to_device"].get("events", []))
            self._to_device = extensions["to_device"]["next_batch"]
        self.pos = answer["pos"]
        self.pool.take(self.rooms)
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
        if membership is None and room_id in self.invites | self.knocks:
            assert result.keys() <= {"is_dm", "lists"}, "this is not told of a room that the user is not in"
            return
        if result.get("initial"):
            held = SlidingRoom(account_data=self.rooms.get(room_id, HeldRoom()).account_data)
            held.receipts = self.rooms.get(room_id, HeldRoom()).receipts
            held.typing = self.rooms.get(room_id, HeldRoom()).typing
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
        if result.get("initial") or "is_dm" in result:
            held.is_dm = result.get("is_dm", False)
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
            with_receipts = self.request["extensions"]["receipts"] == {"enabled": True}
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

    def check_rooms(self, truth: dict[str, TrueRoom], forgotten: set[str]) -> None:
        super().check_rooms(truth, forgotten)
        direct = {room_id for rooms in self.account_data.get("m.direct", {}).values() for room_id in rooms}
        joined = {room_id: held for room_id, held in self.rooms.items() if held.membership == "join"}
        shown = {room_id for room_id, held in joined.items() if isinstance(held, SlidingRoom) and held.is_dm}
        assert shown == direct & joined.keys(), "direct chats"

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
        shown = {
            e.event_id for e in room.visible(self.client.user_id) if e.position >= first and self._wants(e)
        }
        for key, event_id in receipts.items():
            if key[0] == self.client.user_id or event_id in shown:
                assert held.receipts.get(key) == event_id, (
                    f"{key} of {self.client.user_id} at {event_id}, begun at {first}"
                )

    def check_unread(self, room: TrueRoom, receipts: dict[str, str]) -> None:
        if self.deployed:
            counts = room.unread(self.client.user_id, receipts, self.ignored)
            total = [sum(pair) for pair in zip([0, 0], *counts.values(), strict=True)]
            true = {"notification_count": total[0], "highlight_count": total[1]}
            held = self.rooms[room.room_id]
            assert held.counts == true, f"{held.counts} {true} " + self._difference(room, held, [])
