"""`POST /rooms/{roomId}/read_markers` sets all that it names, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.client import Refused

if TYPE_CHECKING:
    from tests.client import Client

MARKERS = ("m.fully_read", "m.read", "m.read.private")


def of_room(answer: dict[str, Any], room: str) -> tuple[list[Any], list[Any]]:
    """The account data and the receipts that a sync tells of a room."""
    joined = answer["rooms"]["join"].get(room) if "rooms" in answer else None
    if joined is None:
        return [], []
    return joined["account_data"]["events"], joined["ephemeral"]["events"]


async def test_all_three_markers_are_set_at_once(alice: Client) -> None:
    room = await alice.create_room()
    event_id = await alice.send(room, "hello")
    since = (await alice.sync())["next_batch"]
    await alice.post(f"/rooms/{room}/read_markers", dict.fromkeys(MARKERS, event_id))
    account_data, receipts = of_room(await alice.sync(since), room)
    assert account_data == [{"type": "m.fully_read", "content": {"event_id": event_id}}]
    assert set(receipts[0]["content"][event_id]) == {"m.read", "m.read.private"}


@pytest.mark.parametrize("wrong", MARKERS)
async def test_where_one_event_is_unknown_nothing_is_set(alice: Client, wrong: str) -> None:
    room = await alice.create_room()
    event_id = await alice.send(room, "hello")
    since = (await alice.sync())["next_batch"]
    with pytest.raises(Refused) as refused:
        await alice.post(
            f"/rooms/{room}/read_markers", {**dict.fromkeys(MARKERS, event_id), wrong: "$unknown:example.org"}
        )
    assert refused.value.errcode == "M_INVALID_PARAM"
    assert of_room(await alice.sync(since), room) == ([], [])
