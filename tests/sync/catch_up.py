"""One way through all that a device has missed, page by page, with whatever happens between the pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.client import Client

MISSED = "/_matrix/client/unstable/dev.restante.missed"
PARTS = (None, "direct", "mentions", "favourites", "rest")


class CatchUp:
    """Puts the pages together; the client makes it its own once the last one is there."""

    def __init__(
        self, client: Client, since: str, order: str, limit: int, *, to: str | None = None, lazy: bool = True
    ) -> None:
        self.rooms: dict[str, list[str]] = {}
        """The ids of the events of each room, in order."""
        self.types: dict[str, str] = {}
        self.prev_batches: dict[str, str] = {}
        self.next_batch: str | None = None
        self._client = client
        self._limit = limit
        self._lazy = lazy
        self._query: dict[str, Any] = {"from": since, "order": order, "to": to}
        self._early: set[str] = set()
        self._part: str | None = None

    async def ask(self) -> dict[str, Any]:
        """The next page; it may be lost, and asked for again."""
        query = {**self._query, "limit": self._limit, "lazy_load_members": self._lazy}
        return await self._client.call("GET", f"{MISSED}/messages", **query)

    def take(self, page: dict[str, Any]) -> None:
        """A page is there. With the last one there is a `next_batch`."""
        self._check_form(page)
        self.prev_batches.update(page.get("prev_batches", {}))
        types = {event["event_id"]: event["type"] for event in page["chunk"]}
        assert not types.keys() & self.types.keys(), "an event was told twice"
        self.types |= types
        if page.get("part") == "mentions":
            self._early |= types.keys()
        else:
            in_order: dict[str, list[str]] = {}
            for event in page["chunk"]:
                in_order.setdefault(event["room_id"], []).append(event["event_id"])
            in_order.update(page.get("placed", {}))
            for room_id, event_ids in in_order.items():
                assert set(event_ids) <= self._early | types.keys(), "an event is placed that never came"
                self._early.difference_update(event_ids)
                self.rooms.setdefault(room_id, []).extend(event_ids)
        if "next_batch" in page:
            assert not self._early, "events were told early and never placed"
            self.next_batch = page["next_batch"]
        else:
            assert page["chunk"] or page.get("placed") or page["end"] != self._query["from"]
            self._query = {"from": page["end"]}

    def _check_form(self, page: dict[str, Any]) -> None:
        assert len(page["chunk"]) <= self._limit, "more events than asked for"
        ids = [event["event_id"] for event in page["chunk"]]
        assert len(set(ids)) == len(ids), "an event twice in one page"
        if page["chunk"]:
            part = page.get("part")
            assert PARTS.index(part) >= PARTS.index(self._part), f"{part} comes after {self._part}"
            self._part = part
        if self._lazy:
            members = {
                (event["room_id"], event["state_key"])
                for event in (*page["chunk"], *page["state"])
                if event["type"] == "m.room.member"
            }
            # Who has created a room is no member yet.
            senders = {
                (event["room_id"], event["sender"])
                for event in page["chunk"]
                if event["type"] != "m.room.create"
            }
            assert senders <= members, f"the members {senders - members} are missing: {page}"
