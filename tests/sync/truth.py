"""What is true of a server, worked out the plain way from all that is stored: the judge of what clients hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from homeserver.storage.database import Database

StateKey = tuple[str, str]


@dataclass(frozen=True)
class TrueEvent:
    """An event in its place, as it stands in the database."""

    event_id: str
    position: int
    pdu: dict[str, Any]
    redacted_by: str | None

    @property
    def type(self) -> str:
        return self.pdu["type"]

    @property
    def sender(self) -> str:
        return self.pdu["sender"]

    @property
    def content(self) -> dict[str, Any]:
        return self.pdu["content"]

    @property
    def key(self) -> StateKey | None:
        return (self.type, self.pdu["state_key"]) if "state_key" in self.pdu else None


class TrueRoom:
    """A room in the order of arrival. Nobody forks it: the state is whatever was set last."""

    def __init__(
        self, room_id: str, events: list[TrueEvent], subscribed: dict[str, set[str]] | None = None
    ) -> None:
        self.room_id = room_id
        self.events = events
        self.subscribed = subscribed or {}
        """The threads of the room that people have subscribed to, of those who ever did so anywhere."""
        self.by_id = {event.event_id: event for event in events}
        self.state: dict[StateKey, TrueEvent] = {}
        for event in events:
            if event.key is not None:
                self.state[event.key] = event

    @classmethod
    async def load(cls, database: Database, room_id: str) -> TrueRoom:
        rows = await database.fetch_all(
            "SELECT e.event_id, e.stream_id, e.json, e.redacted_by FROM events e"
            " JOIN rooms r ON r.room_nid = e.room_nid WHERE r.room_id = $1 AND e.status = 0 ORDER BY e.stream_id",
            room_id,
        )
        subscribed: dict[str, set[str]] = {}
        for user_id, room, root, is_subscribed in await database.fetch_all(
            "SELECT user_id, room_id, thread_root, is_subscribed FROM thread_subscriptions"
        ):
            subscribed.setdefault(user_id, set())
            if room == room_id and is_subscribed:
                subscribed[user_id].add(root)
        events = [TrueEvent(row[0], row[1], json.loads(row[2]), row[3]) for row in rows]
        return cls(room_id, events, subscribed)

    def is_named(self) -> bool:
        name = self.state.get(("m.room.name", ""))
        return name is not None and bool(name.content.get("name"))

    # -- who is in it ----------------------------------------------------------------------------------

    def membership(self, user_id: str) -> str:
        event = self.state.get(("m.room.member", user_id))
        return event.content["membership"] if event is not None else "leave"

    def membership_event(self, user_id: str) -> TrueEvent | None:
        return self.state.get(("m.room.member", user_id))

    def members(self, *memberships: str) -> list[str]:
        return [
            key[1]
            for key, event in self.state.items()
            if key[0] == "m.room.member" and event.content["membership"] in memberships
        ]

    def memberships_at(self, user_id: str) -> list[str]:
        """The membership of a user just after each event."""
        current, found = "leave", []
        for event in self.events:
            if event.key == ("m.room.member", user_id):
                current = event.content["membership"]
            found.append(current)
        return found

    def joined_since(self, user_id: str) -> int:
        """The position at which a user came in last and has stayed; 0 for somebody who is not in the room."""
        since = 0
        for event, membership in zip(self.events, self.memberships_at(user_id), strict=True):
            if membership != "join":
                since = 0
            elif since == 0:
                since = event.position
        return since

    def went_out(self, user_id: str) -> int:
        """The position at which a user last went out of the room; 0 for somebody who never was in it."""
        memberships = self.memberships_at(user_id)
        last_in = max((index for index, one in enumerate(memberships) if one == "join"), default=-1)
        return self.events[last_in + 1].position if 0 <= last_in < len(self.events) - 1 else 0

    def asides(self, user_id: str) -> set[str]:
        """What became of somebody after they went out, before what became of them last.

        Each is told alone, and only where it was the last of an answer's interval.
        """
        end = self.went_out(user_id)
        own = [e for e in self.events if e.key == ("m.room.member", user_id) and e.position > end]
        return {event.event_id for event in own[:-1]} if self.membership(user_id) != "join" else set()

    # -- who sees what ---------------------------------------------------------------------------------

    def visible(self, user_id: str) -> list[TrueEvent]:
        """What a user is told of the room: for one who is out, up to where they went, and what became of them."""
        memberships = self.memberships_at(user_id)
        visible = []
        visibility = "shared"
        last_in = max((index for index, one in enumerate(memberships) if one == "join"), default=-1)
        for index, event in enumerate(self.events):
            before, after = memberships[index - 1] if index else "leave", memberships[index]
            settings = {visibility}
            if event.key == ("m.room.history_visibility", ""):
                visibility = event.content.get("history_visibility", "shared")
                settings.add(visibility)
            if (
                "join" in (before, after)
                or event.key == ("m.room.member", user_id)
                or "world_readable" in settings
                or ("shared" in settings and index < last_in)
                or ("invited" in settings and after == "invite")
            ):
                visible.append(event)
        if memberships and memberships[-1] != "join":
            end = self.went_out(user_id)
            own = self.membership_event(user_id)
            visible = [event for event in visible if event.position <= end or event is own]
        return visible

    def open_afterwards(self, user_id: str) -> set[str]:
        """What all the world could read after somebody went out: told to nobody, but found by who pages back over it."""
        if self.membership(user_id) == "join":
            return set()
        end, visibility, found = self.went_out(user_id), "shared", set()
        for event in self.events:
            settings = {visibility}
            if event.key == ("m.room.history_visibility", ""):
                visibility = event.content.get("history_visibility", "shared")
                settings.add(visibility)
            if event.position > end and "world_readable" in settings:
                found.add(event.event_id)
        own = self.membership_event(user_id)
        return found - {own.event_id} if own is not None else found

    # -- what is unread --------------------------------------------------------------------------------

    def unread(
        self, user_id: str, receipts: dict[str, str], ignored: frozenset[str]
    ) -> dict[str | None, list[int]]:
        """[notifications, highlights] by thread. `receipts`: the furthest event read by thread id, "" for all."""
        read = {thread: self.by_id[event_id].position for thread, event_id in receipts.items()}
        everywhere = max(read.get("", 0), self.joined_since(user_id))
        counts: dict[str | None, list[int]] = {}
        for event in self.events:
            thread = self.thread_of(event)
            after = max(everywhere, read.get(thread or "main", 0))
            if event.redacted_by is not None or event.position <= after:
                continue
            notifies = event.type == "m.room.message" and not _is_edit(event)
            if event.sender == user_id:
                if notifies:
                    counts.pop(thread, None)
                continue
            if event.sender in ignored:
                continue
            mentioned = user_id in event.content.get("m.mentions", {}).get("user_ids", [])
            if event.key is None and (notifies or mentioned):
                count = counts.setdefault(thread, [0, 0])
                count[0] += mentioned or self._is_wanted(user_id, thread)
                count[1] += mentioned
        return counts

    def _is_wanted(self, user_id: str, thread: str | None) -> bool:
        """Whether what stands in a thread notifies a user without mentioning them (MSC4306)."""
        return thread is None or user_id not in self.subscribed or thread in self.subscribed[user_id]

    def thread_of(self, event: TrueEvent) -> str | None:
        relation = event.content.get("m.relates_to", {})
        if relation.get("rel_type") == "m.thread":
            return relation["event_id"]
        return None


def _is_edit(event: TrueEvent) -> bool:
    return event.content.get("m.relates_to", {}).get("rel_type") == "m.replace"
