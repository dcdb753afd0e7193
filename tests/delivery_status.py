"""How tests ask how an event is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.client import Client

PREFIX = "/_matrix/client/unstable/dev.restante.delivery"


async def status(sender: Client, room_id: str, event_id: str) -> dict[str, Any]:
    return await sender.call("GET", f"{PREFIX}/rooms/{room_id}/events/{event_id}")


async def delivered(sender: Client, room_id: str, event_id: str, recipient: Client) -> tuple[int, int]:
    """To how many of how many devices."""
    delivery = (await status(sender, room_id, event_id))["users"][recipient.user_id]["delivery"]
    assert ("first_ts" in delivery) == ("last_ts" in delivery) == (delivery["delivered"] > 0)
    return delivery["delivered"], delivery["devices"]


async def all_delivered(
    sender: Client, room_id: str, event_ids: Sequence[str], recipient: Client
) -> list[int]:
    """To how many devices each of some events."""
    return [(await delivered(sender, room_id, event_id, recipient))[0] for event_id in event_ids]


async def room_of(host: Client, *others: Client) -> str:
    room_id = await host.create_room(preset="public_chat")
    for other in others:
        await other.join(room_id)
    return room_id
