"""The extension that tells to which threads the user has subscribed, and to which no more (MSC4308)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.storage.announcements import Topic
from homeserver.views.subscribed_threads import told_by_room

if TYPE_CHECKING:
    from homeserver.storage.thread_subscriptions import ThreadSubscriptionStore
    from homeserver.sync.sliding.draft import Draft
    from homeserver.views.tokens import Tokens

THREAD_SUBSCRIPTIONS = "io.element.msc4308.thread_subscriptions"
MAX_CHANGES = 100


class ThreadSubscriptionNews:
    """Reads it. A client that begins is told of ended subscriptions too: it may know them from another connection."""

    def __init__(self, store: ThreadSubscriptionStore, tokens: Tokens) -> None:
        self._store = store
        self._tokens = tokens

    async def add(self, draft: Draft, limit: int | None) -> None:
        """Put the newest `limit` changes into a draft, and how to come at the others; None where they are not wanted."""
        told = draft.extension_told(THREAD_SUBSCRIPTIONS, wanted=limit is not None)
        if limit is None or (told == draft.since and not draft.announced.has(Topic.THREAD_SUBSCRIPTIONS)):
            return
        after = told or 0
        found = await self._store.load_changes(
            draft.requester.user_id, after=after, upto=draft.upto, limit=limit + 1
        )
        if not found:
            return
        changes = found[:limit]
        draft.extensions[THREAD_SUBSCRIPTIONS] = told_by_room(changes)
        if len(found) > limit:
            prev_batch = self._tokens.changes_token(changes[-1].stream_id - 1, after)
            draft.extensions[THREAD_SUBSCRIPTIONS]["prev_batch"] = prev_batch
        draft.has_news = True
