"""How tests ask in each dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.client import Client

ACCEPTED = "/_matrix/client/v4/sync"
DEPLOYED = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
EVERYTHING: dict[str, Any] = {"include": [{}]}
NOTHING: dict[str, Any] = {}


def a_list(limit: int = 10, state: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A list of the accepted dialect; without a range, all rooms."""
    return {"timeline_limit": limit, "required_state": NOTHING if state is None else state, **fields}


class Sliding:
    """A connection of a device, in the accepted dialect."""

    def __init__(self, client: Client, conn_id: str | None = None, **body: Any) -> None:
        self.client = client
        self.pos: str | None = None
        self.body: dict[str, Any] = dict(body)
        if conn_id is not None:
            self.body["conn_id"] = conn_id

    async def ask(self, **body: Any) -> dict[str, Any]:
        """An answer that may yet be lost."""
        sent = {**self.body, **body}
        if self.pos is not None:
            sent.setdefault("pos", self.pos)
        return await self.client.post(ACCEPTED, sent)

    async def sync(self, **body: Any) -> dict[str, Any]:
        """An answer, taken."""
        answer = await self.ask(**body)
        self.pos = answer["pos"]
        return answer


def texts(room: dict[str, Any]) -> list[str]:
    """What was said in the timeline of a room."""
    return [e["content"]["body"] for e in room.get("timeline", ()) if e["type"] == "m.room.message"]


def state_of(room: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """The state in the answer, by key; None for what is gone."""
    return {(e["type"], e["state_key"]): e.get("content") for e in room.get("required_state", ())}
