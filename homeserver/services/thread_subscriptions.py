"""Subscribing to threads (MSC4306), and what changed of that, read backwards (MSC4308)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.errors import InvalidParam, MatrixError, NotFound
from homeserver.ids import is_event_id
from homeserver.views.subscribed_threads import told_by_room

if TYPE_CHECKING:
    from homeserver.ids import EventId, RoomId, UserId
    from homeserver.services.history import History
    from homeserver.services.requester import Requester
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.thread_subscriptions import ThreadSubscriptionStore
    from homeserver.views.tokens import Tokens

MAX_PAGE = 500


class NotInThread(MatrixError):
    """The event that is to be the cause of a subscription is none of the thread."""

    errcode = "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD"

    def __init__(self) -> None:
        super().__init__("The event that caused the subscription is not in this thread")


class ConflictingUnsubscription(MatrixError):
    """The user has ended the subscription after the event had come that is to be its cause."""

    status = 409
    errcode = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION"

    def __init__(self) -> None:
        super().__init__("You have ended the subscription to this thread since")


class ThreadSubscriptions:
    """Notes which threads users want to hear of."""

    def __init__(
        self, database: Database, store: ThreadSubscriptionStore, history: History, tokens: Tokens
    ) -> None:
        self._database = database
        self._store = store
        self._history = history
        self._tokens = tokens

    async def is_automatic(self, requester: Requester, room_id: RoomId, thread_root: str) -> bool:
        """Whether a client has subscribed to a thread by itself; `NotFound` where the user has not subscribed."""
        root = await self._root(requester, room_id, thread_root)
        subscription = await self._store.get(requester.user_id, room_id, root)
        if subscription is None or not subscription.is_subscribed:
            raise NotFound("You have not subscribed to this thread")
        return subscription.automatic

    async def subscribe(
        self, requester: Requester, room_id: RoomId, thread_root: str, cause: str | None
    ) -> None:
        """Subscribe to a thread; `cause` is the event because of which a client does so by itself.

        `NotFound` where there is no such thread for the user. A subscription made by hand stays one.
        """
        root = await self._root(requester, room_id, thread_root)
        came_at = None if cause is None else await self._came_at(requester, room_id, root, cause)
        user_id = requester.user_id

        async def work(transaction: Transaction) -> None:
            known = await self._store.get_in(transaction, user_id, room_id, root)
            if known is None:
                if not await self._store.make_room(transaction, user_id):
                    raise InvalidParam("You have subscribed to too many threads")
            elif known.is_subscribed and (came_at is not None or not known.automatic):
                return
            elif came_at is not None and known.stream_id > came_at:
                # "when an unsubscription occurred *after* receipt of the event causing a subscription"
                raise ConflictingUnsubscription
            await self._store.set(
                transaction, user_id, room_id, root, is_subscribed=True, automatic=came_at is not None
            )

        await self._database.write(work)

    async def unsubscribe(self, requester: Requester, room_id: RoomId, thread_root: str) -> None:
        """End the subscription to a thread, if there is one; `NotFound` where there is no such thread for the user."""
        root = await self._root(requester, room_id, thread_root)
        user_id = requester.user_id

        async def work(transaction: Transaction) -> None:
            known = await self._store.get_in(transaction, user_id, room_id, root)
            if known is not None and known.is_subscribed:
                await self._store.set(
                    transaction, user_id, room_id, root, is_subscribed=False, automatic=False
                )

        await self._database.write(work)

    async def changes(
        self, user_id: UserId, start: str | None, stop: str | None, limit: int
    ) -> dict[str, Any]:
        """A page of what changed, newest first; `InvalidParam` for tokens that are not this server's.

        A `prev_batch` knows where the device stood: `stop` is for those who begin at the end.
        """
        upto, after, origin = self._database.position, 0, None
        if stop is not None:
            after = (await self._tokens.read_page_token(stop)).ceiling
        if start is not None:
            place = await self._tokens.read_changes_token(start)
            upto, origin = place.upto, place.after
            after = after if origin is None else origin
        found = await self._store.load_changes(user_id, after=after, upto=upto, limit=limit + 1)
        told = found[:limit]
        answer: dict[str, Any] = {"subscribed": {}, "unsubscribed": {}, **told_by_room(told)}
        if len(found) > limit:
            answer["end"] = self._tokens.changes_token(told[-1].stream_id - 1, origin)
        return answer

    async def _root(self, requester: Requester, room_id: RoomId, thread_root: str) -> EventId:
        """The root of a thread that the user may read; a thread may begin at it without having any event yet."""
        _, stored = await self._history.visible_event(requester, room_id, thread_root)
        relates_to = stored.event.content.get("m.relates_to")
        if isinstance(relates_to, dict) and "rel_type" in relates_to:
            raise NotFound("No thread begins with this event")
        return stored.event.event_id

    async def _came_at(self, requester: Requester, room_id: RoomId, root: EventId, cause: str) -> int:
        """When an event of a thread came, by the log."""
        if not is_event_id(cause):
            raise NotInThread
        try:
            _, stored = await self._history.visible_event(requester, room_id, cause)
        except NotFound as error:
            raise NotInThread from error
        if stored.thread_root != root:
            raise NotInThread
        return stored.stream_id
