"""Keys of other servers' users: those that are kept here, and those that their servers have to be asked for.

Kept are the lists of users with whom a reader shares a room, since of these every change is told (`updates`). One
that is in doubt, or was never asked for, is asked for before anybody is answered; all such of a server in one request
(SS `POST /user/keys/query`), and by one request at a time. If their server does not answer, what is kept is still
better than nothing: it is given beside the failure.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import structlog

from federation.errors import FederationError
from homeserver.services.remote_keys.answers import read_keys
from homeserver.storage.database import DatabaseClosed
from homeserver.storage.remote_device_lists import RemoteDeviceList, RemoteUserKeys

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from federation.client import FederationClient
    from homeserver.ids import ServerName, UserId
    from homeserver.services.server_calls import ServerCalls
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.device_lists import DeviceListStore
    from homeserver.storage.remote_device_lists import RemoteDeviceListStore

_USERS_PER_REQUEST = 500
_ROUNDS = 3
_LEFT_AT_ONCE = 100

_log = structlog.get_logger(__name__)

Keys = dict["UserId", RemoteUserKeys]


class RemoteKeys:
    """Knows the keys of other servers' users, or asks."""

    def __init__(
        self,
        database: Database,
        store: RemoteDeviceListStore,
        device_lists: DeviceListStore,
        client: FederationClient,
        calls: ServerCalls,
    ) -> None:
        self._database = database
        self._store = store
        self._device_lists = device_lists
        self._client = client
        self._calls = calls
        self._questions: dict[UserId, asyncio.Task[Keys]] = {}
        """Under way, by each user that they are about."""
        self._tasks: set[asyncio.Task[Keys]] = set()

    async def load(
        self, reader: UserId, wanted: Mapping[ServerName, Sequence[UserId]], seconds: float
    ) -> tuple[Keys, list[ServerName]]:
        """The keys of users, by server, for a reader, and the servers that did not answer in time.

        All are asked at the same time. Users whom their server does not know are left out.
        """
        found: Keys = {}
        answers = await asyncio.gather(
            *(self._load_of(reader, server_name, users, seconds) for server_name, users in wanted.items())
        )
        for keys, _ in answers:
            found.update(keys)
        return found, [name for name, (_, ok) in zip(wanted, answers, strict=True) if not ok]

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _load_of(
        self, reader: UserId, server_name: ServerName, user_ids: Sequence[UserId], seconds: float
    ) -> tuple[Keys, bool]:
        """The keys of users of one server, and whether it answered for all that it had to be asked for."""
        found: Keys = {}
        waiting = list(dict.fromkeys(user_ids))
        deadline = asyncio.get_running_loop().time() + seconds
        for _ in range(_ROUNDS):
            found.update(await self._store.load_keys(await self._whole(waiting)))
            waiting = [user_id for user_id in waiting if user_id not in found]
            if not waiting:
                return found, True
            try:
                async with asyncio.timeout_at(deadline):
                    asked, joined = await self._ask(reader, server_name, waiting)
            except (FederationError, TimeoutError):
                break
            found.update(asked)
            # What others had asked for may have changed since their question: look again.
            waiting = joined
        if not waiting:
            return found, True
        lists = await self._store.load(waiting)
        shared = [user_id for user_id, one in lists.items() if not one.may_be_unshared]
        if shared:
            # With nothing, where nothing is kept: whoever does not ask again is told when there is something.
            await self._database.write(lambda t: self._store.set_shown(t, shared))
        return {**await self._store.load_keys(shared), **found}, False

    async def _whole(self, user_ids: Collection[UserId]) -> list[UserId]:
        lists = await self._store.load(user_ids)
        return [user_id for user_id, one in lists.items() if one.is_whole(self._database.epoch)]

    # -- asking ----------------------------------------------------------------------------------------

    async def _ask(
        self, reader: UserId, server_name: ServerName, user_ids: Sequence[UserId]
    ) -> tuple[Keys, list[UserId]]:
        """Ask for users of a server; those who are being asked for already are waited for, and named.

        Raises `FederationError`. A question goes on although nobody waits for it any more: its answer is kept.
        """
        joined = [user_id for user_id in user_ids if user_id in self._questions]
        under_way = {self._questions[user_id] for user_id in joined}
        new = [user_id for user_id in user_ids if user_id not in self._questions]
        own = []
        for start in range(0, len(new), _USERS_PER_REQUEST):
            part = new[start : start + _USERS_PER_REQUEST]
            task = asyncio.create_task(self._question(reader, server_name, part))
            self._questions.update(dict.fromkeys(part, task))
            self._tasks.add(task)
            task.add_done_callback(self._done)
            own.append(task)
        await asyncio.wait([*under_way, *own])
        found: Keys = {}
        for task in own:
            found.update(task.result())
        return found, joined

    def _done(self, task: asyncio.Task[Keys]) -> None:
        self._tasks.discard(task)
        for user_id in [user_id for user_id, other in self._questions.items() if other is task]:
            del self._questions[user_id]
        if not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, FederationError | DatabaseClosed):
                _log.error("keys_not_asked_for", exc_info=error)

    async def _question(self, reader: UserId, server_name: ServerName, user_ids: Sequence[UserId]) -> Keys:
        """One request; what it brings of those who share a room with the reader is kept."""
        question: dict[str, tuple[str, ...]] = dict.fromkeys(user_ids, ())
        begun = await self._database.write(lambda t: self._begin(t, reader, user_ids))
        if len(await self._whole(user_ids)) == len(user_ids):
            # Another question ended between the look at what is kept and this one.
            return await self._store.load_keys(user_ids)
        answer = await self._calls.ask(
            server_name, lambda: self._client.query_user_keys(server_name, question)
        )
        found = await read_keys(answer, user_ids)
        if begun:
            await self._database.write(lambda t: self._keep(t, begun, found))
        return found

    async def _begin(
        self, transaction: Transaction, reader: UserId, user_ids: Collection[UserId]
    ) -> dict[UserId, int]:
        """Which lists are to be kept, each with the position of what was heard of the user last."""
        shared = await self._store.load_in_room_with(transaction, reader, user_ids)
        known = await self._store.load(shared, transaction)
        for user_id in shared - known.keys():
            # From here on it is noticed what is heard meanwhile.
            known[user_id] = RemoteDeviceList(
                user_id,
                epoch=None,
                in_doubt=True,
                is_shown=False,
                heard_position=await transaction.next_position(),
                heard={},
            )
            await self._store.set_standing(transaction, known[user_id])
        return {user_id: one.heard_position for user_id, one in known.items()}

    async def _keep(self, transaction: Transaction, begun: Mapping[UserId, int], found: Keys) -> None:
        """Keep what a server answered, and tell of what is news to those who were answered otherwise before."""
        lists = await self._store.load(begun.keys(), transaction)
        kept = await self._store.load_keys(begun.keys(), transaction)
        for user_id, one in lists.items():
            keys = found.get(user_id, RemoteUserKeys())
            is_news = one.is_shown and kept.get(user_id, RemoteUserKeys()) != keys
            # What was heard since the question may not be in the answer: then whoever has it is told so.
            one.in_doubt = one.heard_position != begun[user_id]
            one.epoch, one.is_shown = self._database.epoch, not one.in_doubt
            await self._store.set_standing(transaction, one)
            if kept.get(user_id) != keys:
                await self._store.set_keys(transaction, user_id, keys)
            if is_news or one.in_doubt:
                await self._device_lists.note_change(transaction, user_id)

    # -- rooms in common -------------------------------------------------------------------------------

    async def forget_unshared(self) -> None:
        """Drop the lists of users with whom nobody here shares a room any more."""
        left = await self._store.load_left(_LEFT_AT_ONCE)
        for user_id, position in left:
            shares = await self._store.shares_a_room(user_id)
            await self._database.write(partial(self._settle, user_id, position, shares))

    async def _settle(self, user_id: UserId, position: int, shares: bool, transaction: Transaction) -> None:
        await self._store.settle_left(transaction, user_id, position, shares_a_room=shares)
