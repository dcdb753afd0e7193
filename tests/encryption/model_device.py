"""A device that does what clients do with encryption, and checks every answer against what the server has to say."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from homeserver.storage.device_lists import KEPT_CHANGES
from tests.keys import USUAL, Device, query

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.client import Client
    from tests.encryption.sharing import Sharing

ENCRYPTION_ONLY = {"room": {"rooms": []}, "presence": {"types": []}, "account_data": {"types": []}}
ONE_ANSWER = 5
"""So many messages come in one answer: the tests set the server's limit to this."""
Message = tuple[int, str, int]
"""The number of the deed that sent it, the device that sent it, and the how-manieth of that device it is.

Messages of one deed may have been sent at the same time, and come in any order, but those of one device.
"""
View = dict[str, tuple[dict[str, str], str | None]]
"""Device -> its identity keys and its name."""


@dataclass
class State:
    """What a client keeps on its disk."""

    user_id: str
    since: str | None = None
    received: list[Message] = field(default_factory=list)
    views: dict[str, View | None] = field(default_factory=dict)
    """Whose devices it follows, its own user's always: its idea of them, or None where that is out of date."""

    def apply(self, answer: dict[str, Any]) -> None:
        """Take an answer over."""
        self.received += messages_in(answer)
        if self.since is None:
            # Nothing tells what came before a first sync.
            self.views = {self.user_id: None}
        lists = answer.get("device_lists", {"changed": [], "left": []})
        for user_id in lists["left"]:
            self.views.pop(user_id, None)
        for user_id in lists["changed"]:
            if user_id in self.views:
                self.views[user_id] = None
        self.since = answer["next_batch"]

    def follow(self, user_ids: Iterable[str]) -> None:
        """Follow the devices of these from now on."""
        for user_id in user_ids:
            self.views.setdefault(user_id, None)

    async def refresh(self, client: Client) -> None:
        """Ask for all devices that are out of date."""
        outdated = [user_id for user_id, view in self.views.items() if view is None]
        if not outdated:
            return
        answer = await query(client, *outdated)
        for user_id in outdated:
            self.views[user_id] = {
                device_id: (keys["keys"], keys["unsigned"].get("device_display_name"))
                for device_id, keys in answer["device_keys"].get(user_id, {}).items()
            }

    def check_messages(self) -> None:
        """No message came twice, and those of each device came in order."""
        assert len(set(self.received)) == len(self.received), "a message came twice"
        last: dict[str, int] = {}
        for _, sender, number in self.received:
            assert last.get(sender, -1) < number, "the messages of a device came out of order"
            last[sender] = number


@dataclass(frozen=True)
class Place:
    """What a token stands for: the step up to which its answer told, and how many messages it acknowledges."""

    step: int
    received: int


class ModelDevice:
    """A device, what it keeps, and what the server has for it."""

    def __init__(self, client: Client, sharing: Sharing, first_number: int = 0) -> None:
        self.client = client
        self.keys = Device(client)
        self.sharing = sharing
        self.state = State(client.user_id)
        self.before: State | None = None
        """The state before the last answer: a crash may throw the device back to it."""
        self.places: dict[str, Place] = {}
        self.name: str | None = None
        self.has_identity = False
        self.sent: list[Message] = []
        """All that was ever sent to it, in order."""
        self.ordered = 0
        """So many of these were seen: what was sent at the same time has its order from then on."""
        self.number = first_number
        """The number of the next message that it sends itself."""
        self.acknowledged = 0
        self.one_time_keys: list[tuple[str, Any]] = []
        """Those that are on the server, the oldest first."""
        self.claimed: list[tuple[str, Any]] = []
        self.fallback: tuple[str, Any] | None = None
        self.fallback_used = False

    @property
    def id(self) -> str:
        return f"{self.client.user_id}|{self.client.device_id}"

    # -- keys ------------------------------------------------------------------------------------------

    def next_key(self) -> tuple[str, Any] | None:
        """What a claim gives out, as the server has to count it from then on."""
        if self.one_time_keys:
            self.claimed.append(self.one_time_keys.pop(0))
            return self.claimed[-1]
        self.fallback_used = self.fallback is not None
        return self.fallback

    @property
    def unused_fallback_keys(self) -> list[str]:
        return [USUAL] if self.fallback is not None and not self.fallback_used else []

    def identity(self) -> tuple[dict[str, str], str | None]:
        """What others are to know of the device."""
        return self.keys.device_keys()["keys"], self.name

    # -- sync ------------------------------------------------------------------------------------------

    async def ask(self, since: str | None) -> dict[str, Any]:
        """An answer for a token, which must hold what it has to hold; nothing is done with it yet."""
        answer = await self.request(since)
        self.check(since, answer)
        return answer

    async def request(self, since: str | None, timeout: int = 0) -> dict[str, Any]:
        """An answer for a token."""
        if since is not None:
            self.acknowledged = max(self.acknowledged, self.places[since].received)
        return await self.client.sync(since, filter=ENCRYPTION_ONLY, timeout=timeout)

    def check(self, since: str | None, answer: dict[str, Any]) -> None:
        """An answer for a token must tell all that was true when it was given, which is that of now."""
        place = self.places[since] if since is not None else None
        now = self.sharing.now
        assert answer["device_one_time_keys_count"] == {USUAL: len(self.one_time_keys)}
        assert answer["device_unused_fallback_key_types"] == self.unused_fallback_keys
        if place is None:
            assert "device_lists" not in answer
        else:
            told = self.sharing.told(self.client.user_id, place.step, now)
            assert answer["device_lists"] == told, (place.step, now)
        messages = messages_in(answer)
        # Exactly what was not acknowledged, the oldest first, and no more than go into an answer.
        expected = self.sent[self.acknowledged :][:ONE_ANSWER]
        assert [deed for deed, *_ in messages] == [deed for deed, *_ in expected]
        known = max(0, self.ordered - self.acknowledged)
        assert messages[:known] == expected[:known]
        waiting = self.sent[self.acknowledged :]
        rest = [message for message in waiting if message not in messages]
        assert len(rest) + len(messages) == len(waiting), "a message came twice, or comes from nowhere"
        self.sent[self.acknowledged :] = messages + rest
        self.ordered = max(self.ordered, self.acknowledged + len(messages))
        token, reached = answer["next_batch"], self.acknowledged + len(messages)
        self.places[token] = Place(now, max(reached, self.places.get(token, Place(0, 0)).received))

    def apply(self, answer: dict[str, Any]) -> None:
        """Take an answer over."""
        self.before = copy.deepcopy(self.state)
        self.state.apply(answer)
        self.state.check_messages()
        received = self.state.received
        assert received == self.sent[: len(received)]

    async def sync(self) -> dict[str, Any]:
        """Ask and take over."""
        answer = await self.ask(self.state.since)
        self.apply(answer)
        return answer

    async def sync_until_quiet(self) -> None:
        """Sync until there is nothing new."""
        while has_news(await self.sync()):
            pass

    async def lose_an_answer(self) -> None:
        """An answer that does not arrive."""
        await self.ask(self.state.since)

    def crash(self) -> None:
        """Go on from the state before the last answer, if the device did not return with what that gave it."""
        if self.before is not None and len(self.before.received) >= self.acknowledged:
            self.state, self.before = self.before, None
            if self.state.since is None:
                self.start_over()

    def start_over(self) -> None:
        """Begin with a first sync, as a client does that lost its store. What it acknowledged is gone."""
        received = self.sent[: self.acknowledged]
        self.state = State(self.client.user_id, received=received)
        self.before = None

    async def changes(self, start: str, end: str) -> None:
        """`/keys/changes` says the same as a sync would; of users who changed very often since, it may tell too much."""
        answer = await self.client.get("/keys/changes", **{"from": start, "to": end})
        first, last = self.places[start].step, self.places[end].step
        expected = self.sharing.told(self.client.user_id, first, last)
        more = set(answer["changed"]) - set(expected["changed"])
        assert all(self.sharing.changes_since(first, user_id) >= KEPT_CHANGES for user_id in more), (
            first,
            last,
        )
        told = {**answer, "changed": [user_id for user_id in answer["changed"] if user_id not in more]}
        assert told == expected, (first, last)

    # -- devices of others -----------------------------------------------------------------------------

    async def prepare(self, members: set[str]) -> None:
        """Make ready to send to an encrypted room: know the devices of everybody in it."""
        self.state.follow(members)
        await self.state.refresh(self.client)

    # -- the judgement ---------------------------------------------------------------------------------

    async def check_at_rest(self, truth: Mapping[str, View]) -> None:
        """After everything was told: all messages are there, once, and what is followed is as it is."""
        await self.sync_until_quiet()
        assert Counter(self.state.received) == Counter(self.sent)
        await self.state.refresh(self.client)
        shares = self.sharing.neighbours(self.client.user_id, self.sharing.now)
        assert self.state.views.keys() <= shares | {self.client.user_id}
        assert self.state.views == {user_id: truth.get(user_id, {}) for user_id in self.state.views}


def messages_in(answer: dict[str, Any]) -> list[Message]:
    """The messages that an answer brings."""
    return [
        (event["content"]["deed"], event["content"]["from"], event["content"]["number"])
        for event in answer.get("to_device", {}).get("events", [])
    ]


def has_news(answer: dict[str, Any]) -> bool:
    """Whether a sync told anything of messages or devices, or was the first one."""
    return bool(messages_in(answer)) or any(answer.get("device_lists", {"first": [True]}).values())
