"""What cannot be a request of sliding sync is refused, with an error that names what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.client import refused
from tests.sync.sliding.client import ACCEPTED, DEPLOYED, Sliding, a_list

if TYPE_CHECKING:
    from tests.client import Client

pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)

CONFIG = {"timeline_limit": 1, "required_state": {}}
OLD_CONFIG = {"timeline_limit": 1, "required_state": []}


def one_list(**fields: Any) -> dict[str, Any]:
    return {"lists": {"one": a_list(1, **fields)}}


def old_list(**fields: Any) -> dict[str, Any]:
    return {"lists": {"one": {**OLD_CONFIG, **fields}}}


ACCEPTED_AND_WRONG: list[tuple[str, dict[str, Any]]] = [
    ("M_BAD_JSON", {"lists": []}),
    ("M_BAD_JSON", {"lists": {"one": None}}),
    ("M_MISSING_PARAM", {"lists": {"one": {"required_state": {}}}}),
    ("M_MISSING_PARAM", {"lists": {"one": {"timeline_limit": 1}}}),
    ("M_BAD_JSON", {"lists": {"one": {"timeline_limit": -1, "required_state": {}}}}),
    ("M_BAD_JSON", {"lists": {"one": {"timeline_limit": "1", "required_state": {}}}}),
    ("M_BAD_JSON", {"lists": {"one": {"timeline_limit": 1.5, "required_state": {}}}}),
    ("M_BAD_JSON", {"lists": {"one": {"timeline_limit": 1, "required_state": [["*", "*"]]}}}),
    ("M_BAD_JSON", {"lists": {"one": {"timeline_limit": 1, "required_state": {"include": [{"type": 1}]}}}}),
    ("M_MISSING_PARAM", one_list(range=[0])),
    ("M_BAD_JSON", one_list(range=[0, 1, 2])),
    ("M_BAD_JSON", one_list(range=[-1, 1])),
    ("M_BAD_JSON", one_list(range=["0", "1"])),
    ("M_BAD_JSON", one_list(range="01")),
    ("M_INVALID_PARAM", one_list(range=[5, 4])),
    ("M_BAD_JSON", one_list(filters=[])),
    ("M_BAD_JSON", one_list(filters={"is_dm": "yes"})),
    ("M_BAD_JSON", one_list(filters={"spaces": "!a:b"})),
    ("M_BAD_JSON", one_list(filters={"tags": ["x"] * 501})),
    ("M_INVALID_PARAM", {"lists": {f"l{number}": a_list() for number in range(101)}}),
    ("M_INVALID_PARAM", {"lists": {"no spaces": a_list()}}),
    ("M_INVALID_PARAM", {"lists": {"x" * 256: a_list()}}),
    ("M_INVALID_PARAM", {"room_subscriptions": {f"!{number}:b": CONFIG for number in range(101)}}),
    ("M_BAD_JSON", {"room_subscriptions": [CONFIG]}),
    ("M_INVALID_PARAM", one_list(state={"include": [{"type": f"t{number}"} for number in range(2_001)]})),
    ("M_INVALID_PARAM", {"conn_id": "x" * 256}),
    ("M_INVALID_PARAM", {"conn_id": "a\x00b"}),
    ("M_BAD_JSON", {"conn_id": 5}),
    ("M_BAD_JSON", {"pos": 5}),
    ("M_BAD_JSON", {"timeout": "soon"}),
    ("M_BAD_JSON", {"timeout": -1}),
    ("M_INVALID_PARAM", {"set_presence": "dancing"}),
    ("M_BAD_JSON", {"extensions": []}),
    ("M_BAD_JSON", {"extensions": {"to_device": {"enabled": "yes"}}}),
    ("M_BAD_JSON", {"extensions": {"to_device": {"enabled": True, "limit": -1}}}),
    ("M_INVALID_PARAM", {"extensions": {"to_device": {"enabled": True, "since": "s1"}}}),
    ("M_BAD_JSON", {"extensions": {"typing": {"enabled": True, "lists": "all"}}}),
]
DEPLOYED_AND_WRONG: list[tuple[str, dict[str, Any]]] = [
    ("M_BAD_JSON", old_list(ranges=[0, 1])),
    ("M_BAD_JSON", old_list(ranges=[[0, 1]] * 101)),
    ("M_INVALID_PARAM", old_list(ranges=[[0, 1], [3, 2]])),
    ("M_BAD_JSON", old_list(required_state={"include": []})),
    ("M_MISSING_PARAM", old_list(required_state=[["m.room.name"]])),
    ("M_BAD_JSON", old_list(filters={"room_name_like": "x" * 501})),
    ("M_INVALID_PARAM", {"lists": {f"l{number}": OLD_CONFIG for number in range(101)}}),
    ("M_INVALID_PARAM", old_list(required_state=[[f"t{number}", ""] for number in range(2_001)])),
]


async def test_wrong_requests_are_refused(alice: Client) -> None:
    for path, wrong in ((ACCEPTED, ACCEPTED_AND_WRONG), (DEPLOYED, DEPLOYED_AND_WRONG)):
        for errcode, body in wrong:
            with refused(400, errcode):
                await alice.post(path, body)
    for path in (ACCEPTED, DEPLOYED):
        with refused(400, "M_NOT_JSON"):
            await alice.call("POST", path, content=b"{")
        with refused(413, "M_TOO_LARGE"):
            await alice.post(path, {"conn_id": "x" * (1 << 18)})
        with refused(400, "M_INVALID_PARAM"):
            await alice.post(path, {}, timeout="soon")
        with refused(401, "M_MISSING_TOKEN"):
            await type(alice)(alice.http).post(path, {})


async def test_absurd_numbers_are_bounded(alice: Client) -> None:
    room_id = await alice.create_room()
    for number in (2**53, 10**6):
        answer = await Sliding(alice).sync(lists={"all": a_list(number, range=[0, number])})
        assert set(answer["rooms"]) == {room_id}
        answer = await Sliding(alice).sync(lists={"all": a_list(range=[number, number])})
        assert (answer["rooms"], answer["lists"]["all"]["count"]) == ({}, 1)
        old = {
            "lists": {"all": {**OLD_CONFIG, "timeline_limit": number, "ranges": [[0, number], [5, number]]}}
        }
        assert set((await alice.post(DEPLOYED, old))["rooms"]) == {room_id}
        device = Sliding(alice, extensions={"to_device": {"enabled": True, "limit": number}})
        await device.sync()
    await alice.post(ACCEPTED, {"timeout": 2**53})


async def test_who_asks_for_other_state_each_time_begins_anew_now_and_then(alice: Client) -> None:
    """What a client was told is remembered in bounds."""
    rooms = [await alice.create_room() for _ in range(110)]
    device = Sliding(alice)
    with refused(400, "M_UNKNOWN_POS"):
        for number, room_id in enumerate(rooms):
            state = {"include": [{"type": f"org.example.{number}"}]}
            await device.sync(room_subscriptions={room_id: {"timeline_limit": 1, "required_state": state}})
    answer = await Sliding(alice, lists={"all": a_list()}).sync()
    assert len(answer["rooms"]) == len(rooms)


async def test_a_long_answer_leaves_rooms_for_the_next_one(
    alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homeserver.sync.sliding.engine._MAX_EVENTS", 30)
    rooms = [await alice.create_room() for _ in range(20)]
    device = Sliding(alice, lists={"all": a_list(5)})
    told: list[str] = []
    while len(told) < len(rooms):
        answer = await device.sync(timeout=10_000)
        assert 0 < len(answer["rooms"]) < len(rooms)
        told += answer["rooms"]
    assert sorted(told) == sorted(rooms)
    for room_id in rooms:
        await alice.send(room_id, "x")
    for room_id in rooms:
        await alice.send(room_id, "y")
    heard: dict[str, int] = {}
    while len(heard) < len(rooms):
        answer = await device.sync(timeout=10_000)
        heard |= {room_id: len(room["timeline"]) for room_id, room in answer["rooms"].items()}
    assert set(heard.values()) == {2}
