"""`GET /sync` (CS "Syncing"): everything that concerns a device between two positions of the log, exactly once.

An answer covers the interval from the token that the client brings to the newest position that this process has
heard of; `homeserver.sync.answers` says what it holds. Where that is nothing, the request waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from homeserver.sync.answers import Reading
from homeserver.sync.budget import Budget, with_short_timelines
from homeserver.sync.interval import UNKNOWN, Concern, Interval
from homeserver.sync.lazy_members import NOTHING
from homeserver.sync.moves import Moves
from homeserver.views.invite_permission import HiddenInvites

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from homeserver.clock import Clock
    from homeserver.ids import RoomId
    from homeserver.notifier.notifier import Notifier
    from homeserver.rooms.memberships import Memberships
    from homeserver.services.requester import Requester
    from homeserver.storage.one_time_keys import KeysLeft
    from homeserver.storage.owed_rooms import Owed, OwedRoomStore
    from homeserver.storage.room_stretch import RoomStretch
    from homeserver.sync.answers import AnswerBuilder
    from homeserver.sync.delivered import Delivered
    from homeserver.sync.lazy_members import LazyMembers
    from homeserver.sync.left_out import LeftOut
    from homeserver.sync.rooms import RoomSection
    from homeserver.sync.to_device import Inboxes
    from homeserver.views.filters import SyncFilter
    from homeserver.views.ignored import IgnoredUsers
    from homeserver.views.invite_permission import InvitesBlocked
    from homeserver.views.keys_left import KeysLeftNow
    from homeserver.views.tokens import SyncToken, Tokens


MAX_TIMEOUT_MS = 600_000


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """The parameters of `GET /sync`."""

    since: str | None
    timeout_ms: int
    filter: SyncFilter
    full_state: bool
    budget_bytes: int | None = None
    """How much the sections of joined rooms may take, about; None for as much as there is."""
    state_name: str = "state"
    """Under which name the state comes: `state` is that before the timeline, any other that after it."""


class ClassicSync:
    """Answers syncs."""

    def __init__(
        self,
        notifier: Notifier,
        clock: Clock,
        tokens: Tokens,
        memberships: Memberships,
        builder: AnswerBuilder,
        ignored: IgnoredUsers,
        invites_blocked: InvitesBlocked,
        lazy_members: LazyMembers,
        inboxes: Inboxes,
        keys_left: KeysLeftNow,
        delivered: Delivered,
        left_out: LeftOut,
        owed_rooms: OwedRoomStore,
    ) -> None:
        self._notifier = notifier
        self._clock = clock
        self._tokens = tokens
        self._memberships = memberships
        self._builder = builder
        self._ignored = ignored
        self._invites_blocked = invites_blocked
        self._lazy_members = lazy_members
        self._inboxes = inboxes
        self._keys_left = keys_left
        self._delivered = delivered
        self._left_out = left_out
        self._owed_rooms = owed_rooms

    async def answer(
        self, requester: Requester, request: SyncRequest, check_access: Callable[[], Awaitable[None]]
    ) -> dict[str, Any]:
        """The answer to a sync; waits for something to tell, for as long as the client allows.

        Raises `InvalidParam` for a token that this server did not make, and what `check_access` raises once the
        device may read no more: it is asked whenever the wait ends.
        """
        token = None
        if request.since is not None:
            token = await self._tokens.read_sync_token(request.since, requester.user_id, requester.device_id)
        since, told = (None, 0) if token is None else (token.position, token.told)
        owed: Mapping[int, Owed] = {}
        mark = None if token is None else (token.position, token.owed)
        if token is not None and token.owed:
            known = await self._owed_rooms.get(requester.user_id, requester.device_id, token.owed)
            if known is None:
                # An old token, of which it is no longer known what it says: everything is told from there on.
                since = token.base or None
                told = 0 if since is None else told
            owed = known or {}
        if token is not None and token.own:
            self._delivered.acknowledge(requester, max(token.position, token.told), token.owed)
        acknowledged = await self._inboxes.acknowledge(requester, token)
        reader = (requester.user_id, requester.device_id, request.filter.fingerprint)
        redundant = request.filter.room.state.include_redundant_members
        known_members = NOTHING if redundant else self._lazy_members.known(reader, mark)
        deadline = self._clock.monotonic() + min(request.timeout_ms, MAX_TIMEOUT_MS) / 1000
        while True:
            rooms = await self._memberships.of_user(requester.user_id)
            # Not awaited in between: whoever is in `rooms` at this position, or later, is there.
            upto = self._notifier.position
            interval = Interval(since, upto, request.full_state, request.state_name, told)
            sent_members: dict[int, set[int]] = {}
            sections: dict[RoomId, RoomSection] = {}
            unwanted: list[RoomStretch] = []
            budget = None if request.budget_bytes is None else Budget(request.budget_bytes)
            ignored = await self._ignored.of(requester.user_id)
            hidden_invites = HiddenInvites(await self._invites_blocked.of(requester.user_id), ignored)
            reading = Reading(
                requester,
                rooms,
                interval,
                request.filter if budget is None else with_short_timelines(request.filter),
                UNKNOWN,
                Moves(),
                ignored,
                hidden_invites,
                known_members,
                sent_members,
                sections,
                unwanted,
                budget,
            )
            answer = await self._builder.build(reading, owed)
            messages, last_message = await self._inboxes.read(requester, after=acknowledged, upto=upto)
            if messages:
                answer["to_device"] = {"events": messages}
            keys = await self._keys_left.of(requester.user_id, requester.device_id)
            answer.update(_key_fields(keys))
            remaining = deadline - self._clock.monotonic()
            if since is None or request.full_state or remaining <= 0:
                break
            # What is newer than `upto` is still to be announced here, and then wakes.
            if since < keys.changed_at <= upto or _has_news(answer):
                break
            woken = await self._notifier.wait(
                requester.user_id,
                requester.device_id,
                rooms,
                after=upto,
                seconds=remaining,
                concerns=Concern(requester.user_id, requester.device_id, rooms),
            )
            await check_access()
            if not woken:
                break
        number = await self._note_owed(requester, budget, token)
        if request.filter.room.state.lazy_load_members:
            self._lazy_members.note(reader, known_members, sent_members, (upto, number))
        await self._note_delivery(requester, sections, unwanted)
        answer["next_batch"] = self._tokens.sync_token(
            requester.user_id,
            requester.device_id,
            upto,
            last_message,
            owed=number,
            base=min(one.since for one in budget.put_off.values()) if budget is not None and number else 0,
        )
        return answer

    async def _note_owed(self, requester: Requester, budget: Budget | None, token: SyncToken | None) -> int:
        """Keep which rooms were put off, and under which number; 0 where none were."""
        if budget is None or not budget.put_off:
            return 0
        return await self._owed_rooms.insert(
            requester.user_id,
            requester.device_id,
            budget.put_off,
            in_use=token.owed if token is not None else 0,
            now_ms=self._clock.now_ms(),
        )

    async def _note_delivery(
        self, requester: Requester, sections: Mapping[RoomId, RoomSection], unwanted: Sequence[RoomStretch]
    ) -> None:
        """Keep what the answer leaves out of the timelines, and that it brings the rest."""
        await self._left_out.close(requester, [room.brought for room in sections.values()], is_news=True)
        await self._left_out.note(
            requester, [*unwanted, *(stretch for room in sections.values() for stretch in room.left_out)]
        )


def _has_news(answer: Mapping[str, Any]) -> bool:
    has_sections = answer.keys() & {"rooms", "account_data", "presence", "to_device"}
    return bool(has_sections) or any(answer.get("device_lists", {}).values())


def _key_fields(keys: KeysLeft) -> dict[str, Any]:
    """What every answer says, even where it says nothing else (CS "Extensions to /sync")."""
    return {
        # Absent, the usual algorithm is zero to clients in one place and unchanged in another.
        "device_one_time_keys_count": {"signed_curve25519": 0, **keys.counts},
        "device_unused_fallback_key_types": keys.unused_fallback,
        "org.matrix.msc2732.device_unused_fallback_key_types": keys.unused_fallback,
    }
