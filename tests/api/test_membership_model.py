"""Random changes of membership against the rules of the specification, written down a second time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.client import Client, refused

if TYPE_CHECKING:
    from tests.server import Server

LEVELS = {"alice": 100, "bob": 50, "carol": 0}
NEEDED = 50
"""The level for inviting, kicking and banning."""

NAMES = st.sampled_from(sorted(LEVELS))
DEEDS = st.lists(
    st.tuples(st.sampled_from(["join", "knock", "leave", "invite", "kick", "ban", "unban"]), NAMES, NAMES),
    min_size=8,
    max_size=25,
)


def outcome(deed: str, actor: str, target: str, members: dict[str, str], rule: str) -> str | None:
    """What becomes of the target's membership, or None where the deed is refused."""
    if deed in ("join", "knock", "leave"):
        return _own(deed, members.get(actor, "none"), rule)
    return _others(deed, actor, target, members)


def _own(deed: str, now: str, rule: str) -> str | None:
    if deed == "join":
        allowed = now in ("join", "invite") or (rule == "public" and now != "ban")
        return "join" if allowed else None
    if deed == "knock":
        return "knock" if rule == "knock" and now not in ("join", "invite", "ban") else None
    return "leave" if now in ("join", "invite", "knock", "leave") else None


def _others(deed: str, actor: str, target: str, members: dict[str, str]) -> str | None:
    now, level = members.get(target, "none"), LEVELS[actor]
    if members.get(actor) != "join":
        return None
    outranks = level >= NEEDED and level > LEVELS[target]
    if deed == "invite":
        if now == "invite":
            return "invite"
        return "invite" if now not in ("join", "ban") and level >= NEEDED else None
    if deed == "kick":
        # Whoever kicks themselves leaves.
        allowed = now in ("join", "invite", "knock") and (outranks or actor == target)
        return "leave" if allowed else None
    if deed == "ban":
        return "ban" if outranks else None
    return "leave" if now == "ban" and outranks else None


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(deeds=DEEDS, rule=st.sampled_from(["public", "invite", "knock"]))
async def test_memberships_change_as_the_rules_say(
    server: Server, alice: Client, bob: Client, deeds: list[tuple[str, str, str]], rule: str
) -> None:
    if not hasattr(server, "carol"):
        server.carol = await server.register("carol")  # type: ignore[attr-defined]
    clients: dict[str, Client] = {"alice": alice, "bob": bob, "carol": server.carol}  # type: ignore[attr-defined]
    room_id = await alice.create_room(
        room_version="11",
        initial_state=[{"type": "m.room.join_rules", "content": {"join_rule": rule}}],
        power_level_content_override={
            "invite": NEEDED,
            "users": {clients[name].user_id: level for name, level in LEVELS.items()},
        },
    )
    members = {"alice": "join"}
    for deed, actor, target in deeds:
        client, user_id = clients[actor], clients[target].user_id
        if deed in ("join", "knock"):
            call = client.post(f"/{deed}/{room_id}")
        elif deed == "leave":
            call = client.post(f"/rooms/{room_id}/leave")
        else:
            call = client.post(f"/rooms/{room_id}/{deed}", {"user_id": user_id})
        becomes = outcome(deed, actor, target, members, rule)
        if becomes is None:
            not_banned = deed == "unban" and members.get(actor) == "join" and members.get(target) != "ban"
            with refused(403, "M_BAD_STATE" if not_banned else "M_FORBIDDEN"):
                await call
        else:
            await call
            members[actor if deed in ("join", "knock", "leave") else target] = becomes
    for name, client in clients.items():
        joined = (await client.get("/joined_rooms"))["joined_rooms"]
        assert (room_id in joined) == (members.get(name) == "join")
    reader = next((name for name, membership in members.items() if membership == "join"), None)
    if reader is not None:
        events = (await clients[reader].get(f"/rooms/{room_id}/members"))["chunk"]
        told = {event["state_key"][1:].partition(":")[0]: event["content"]["membership"] for event in events}
        assert told == members
