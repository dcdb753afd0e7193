"""Who may see which event, by what held at the event (CS "Room History Visibility"), at every endpoint that shows events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.client import Client, found, refused

if TYPE_CHECKING:
    from tests.server import Server

V1 = "/_matrix/client/v1"
SETTINGS = ("shared", "invited", "joined", "world_readable")
MOMENTS = ("before", "invited", "joined", "left", "back")


class Story:
    """A room in which Alice speaks at every stage of Bob's stay."""

    def __init__(self, alice: Client, room_id: str) -> None:
        self.alice = alice
        self.room_id = room_id
        self.said: dict[str, str] = {}

    async def say(self, moment: str) -> None:
        self.said[moment] = await self.alice.send(self.room_id, moment)

    async def seen_by(self, reader: Client) -> set[str]:
        """The moments that a reader sees; every endpoint must agree."""
        for direction in ("b", "f"):
            pages = [
                event["event_id"] for event in await everything(reader, self.room_id, direction, limit=3)
            ]
            assert len(pages) == len(set(pages))
            seen = {moment for moment, event_id in self.said.items() if event_id in pages}
            for moment, event_id in self.said.items():
                assert await self.shows(reader, event_id) == (moment in seen), moment
        return seen

    async def shows(self, reader: Client, event_id: str) -> bool:
        """Whether a reader is shown an event by its id."""
        room, event = f"/rooms/{self.room_id}", quote(event_id)
        paths = (f"{room}/event/{event}", f"{room}/context/{event}", f"{V1}{room}/relations/{event}")
        shown = {await found(reader.get(path)) is not None for path in paths}
        assert len(shown) == 1
        return shown.pop()


async def everything(reader: Client, room_id: str, direction: str, limit: int) -> list[dict[str, Any]]:
    """The pages of a room from one end to the other."""
    events: list[dict[str, Any]] = []
    token = None
    while True:
        page = await reader.messages(
            room_id, dir=direction, limit=limit, **({"from": token} if token else {})
        )
        assert len(page["chunk"]) <= limit
        events += page["chunk"]
        token = page.get("end")
        if token is None:
            return events


async def story_of(alice: Client, bob: Client, setting: str, upto: str) -> Story:
    visibility = {"type": "m.room.history_visibility", "content": {"history_visibility": setting}}
    room_id = await alice.create_room(preset="public_chat", initial_state=[visibility])
    story = Story(alice, room_id)
    for moment in MOMENTS:
        if moment == "invited":
            await alice.invite(room_id, bob.user_id)
        elif moment in ("joined", "back"):
            await bob.join(room_id)
        elif moment == "left":
            await bob.leave(room_id)
        await story.say(moment)
        if moment == upto:
            break
    return story


@pytest.mark.parametrize(
    ("setting", "hidden"),
    [
        ("shared", set()),
        ("invited", {"before", "left"}),
        ("joined", {"before", "invited", "left"}),
        ("world_readable", set()),
    ],
)
async def test_a_member_sees_what_the_setting_allowed(
    alice: Client, bob: Client, setting: str, hidden: set[str]
) -> None:
    story = await story_of(alice, bob, setting, "back")
    assert await story.seen_by(bob) == set(MOMENTS) - hidden
    assert await story.seen_by(alice) == set(MOMENTS)


@pytest.mark.parametrize("way", ["left", "banned", "invited again"])
@pytest.mark.parametrize(
    ("setting", "seen"),
    [
        ("shared", {"before", "invited", "joined"}),
        ("invited", {"invited", "joined"}),
        ("joined", {"joined"}),
        ("world_readable", {"before", "invited", "joined", "left"}),
    ],
)
async def test_who_has_gone_sees_what_they_saw_before(
    alice: Client, bob: Client, setting: str, seen: set[str], way: str
) -> None:
    story = await story_of(alice, bob, setting, "left")
    if way == "banned":
        await alice.ban(story.room_id, bob.user_id)
    elif way == "invited again":
        await alice.invite(story.room_id, bob.user_id)
    assert await story.seen_by(bob) == seen


@pytest.mark.parametrize("reader", ["stranger", "invited", "banned"])
@pytest.mark.parametrize("setting", SETTINGS)
async def test_who_was_never_in_the_room_sees_it_only_where_all_the_world_may(
    server: Server, alice: Client, bob: Client, setting: str, reader: str
) -> None:
    story = await story_of(alice, bob, setting, "joined")
    carol = await server.register("carol")
    if reader == "invited":
        await alice.invite(story.room_id, carol.user_id)
    elif reader == "banned":
        await alice.ban(story.room_id, carol.user_id)
    if setting == "world_readable":
        assert await story.seen_by(carol) == {"before", "invited", "joined"}
        return
    room, event_id = f"/rooms/{story.room_id}", quote(story.said["joined"])
    for path in (
        f"{room}/event/{event_id}",
        f"{room}/context/{event_id}",
        f"{V1}{room}/relations/{event_id}",
    ):
        with refused(404, "M_NOT_FOUND"):
            await carol.get(path)
    for path in (
        f"{room}/messages?dir=b",
        f"{room}/state",
        f"{room}/state/m.room.create",
        f"{room}/members",
        f"{room}/joined_members",
        f"{room}/aliases",
        f"{V1}{room}/threads",
        f"{V1}{room}/timestamp_to_event?ts=0&dir=f",
    ):
        with refused(403, "M_FORBIDDEN"):
            await carol.get(path)


async def test_a_setting_counts_from_its_event_on(server: Server, alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    story = Story(alice, room_id)
    for setting in ("joined", "shared", "world_readable", "invited", "nonsense"):
        story.said[f"to {setting}"] = await alice.set_state(
            room_id, "m.room.history_visibility", {"history_visibility": setting}
        )
        await story.say(setting)
    await bob.join(room_id)
    # A change is seen where either side of it allows to.
    assert await story.seen_by(bob) == {
        "to joined",
        "to shared",
        "shared",
        "to world_readable",
        "world_readable",
        "to invited",
        "to nonsense",
        "nonsense",
    }
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    carol = await server.register("carol")
    assert await story.seen_by(carol) == {"to world_readable", "world_readable", "to invited"}


async def test_a_room_without_a_setting_is_shared(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    setting = (await alice.get_state(room_id, "m.room.history_visibility", format="event"))["event_id"]
    story = Story(alice, room_id)
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    current = (await alice.get_state(room_id, "m.room.history_visibility", format="event"))["event_id"]
    await story.say("hidden")
    await alice.set_state(room_id, "m.room.history_visibility", {})
    await story.say("shared")
    await bob.join(room_id)
    assert await story.seen_by(bob) == {"shared"}
    assert await story.shows(bob, setting)
    assert await story.shows(bob, current)


async def test_state_is_that_of_the_moment_one_went(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat", topic="then")
    await bob.join(room_id)
    since = (await bob.sync())["next_batch"]
    await bob.leave(room_id)
    await alice.set_state(room_id, "m.room.topic", {"topic": "now"})
    await alice.set_state(room_id, "m.room.avatar", {"url": "mxc://example.org/a"})
    later = (await alice.sync())["next_batch"]
    assert (await bob.get_state(room_id, "m.room.topic"))["topic"] == "then"
    with refused(404, "M_NOT_FOUND"):
        await bob.get_state(room_id, "m.room.avatar")
    state = {(event["type"], event["state_key"]): event for event in await bob.get(f"/rooms/{room_id}/state")}
    assert state["m.room.topic", ""]["content"]["topic"] == "then"
    assert state["m.room.member", bob.user_id]["content"]["membership"] == "leave"
    with refused(403, "M_FORBIDDEN"):
        await bob.get(f"/rooms/{room_id}/joined_members")
    for at, membership in ((None, "leave"), (since, "join"), (later, "leave")):
        members = (await bob.get(f"/rooms/{room_id}/members", at=at))["chunk"]
        memberships = {event["state_key"]: event["content"]["membership"] for event in members}
        assert memberships == {alice.user_id: "join", bob.user_id: membership}


async def test_members_who_came_later_are_not_shown_to_those_who_went(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    await bob.leave(room_id)
    carol = await server.register("carol")
    await carol.join(room_id)
    later = (await carol.sync())["next_batch"]
    for at in (None, later):
        members = (await bob.get(f"/rooms/{room_id}/members", at=at))["chunk"]
        assert {event["state_key"] for event in members} == {alice.user_id, bob.user_id}


async def test_events_say_whether_their_reader_was_there(alice: Client, bob: Client) -> None:
    story = await story_of(alice, bob, "shared", "back")
    events = await everything(bob, story.room_id, "f", limit=100)
    memberships = {event["event_id"]: event["unsigned"]["membership"] for event in events}
    assert {moment: memberships[event_id] for moment, event_id in story.said.items()} == {
        "before": "leave",
        "invited": "invite",
        "joined": "join",
        "left": "leave",
        "back": "join",
    }
    for moment in MOMENTS:
        event = await bob.event(story.room_id, story.said[moment])
        assert event["unsigned"]["membership"] == memberships[story.said[moment]]


async def test_the_time_leads_to_an_event_that_one_may_see(
    server: Server, alice: Client, bob: Client
) -> None:
    story = await story_of(alice, bob, "joined", "left")
    server.clock.offset_ms += 10_000
    await story.say("late")
    times = {
        moment: (await alice.event(story.room_id, event_id))["origin_server_ts"]
        for moment, event_id in story.said.items()
    }
    path = f"{V1}/rooms/{story.room_id}/timestamp_to_event"
    seen = [event["event_id"] for event in await everything(bob, story.room_id, "f", limit=100)]
    assert (await bob.get(path, ts=0, dir="f"))["event_id"] == seen[0]
    assert (await bob.get(path, ts=times["late"], dir="b"))["event_id"] == seen[-1]
    with refused(404, "M_NOT_FOUND"):
        await bob.get(path, ts=times["late"], dir="f")
    assert (await alice.get(path, ts=times["late"], dir="f"))["event_id"] == story.said["late"]


async def test_ignored_users_are_not_heard_but_their_state_is(
    server: Server, alice: Client, bob: Client
) -> None:
    carol = await server.register("carol")
    room_id = await alice.create_room(preset="public_chat", power_level_content_override={"state_default": 0})
    for client in (bob, carol):
        await client.join(room_id)
    root = await alice.send(room_id, "root")
    thread = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}, "msgtype": "m.text"}
    first = await bob.send(room_id, {**thread, "body": "first"})
    second = await carol.send(room_id, {**thread, "body": "second"})
    topic = await carol.set_state(room_id, "m.room.topic", {"topic": "by carol"})
    own = await carol.send(room_id, "root of carol's")
    await bob.send(
        room_id, {"m.relates_to": {"rel_type": "m.thread", "event_id": own}, "msgtype": "m.text", "body": "x"}
    )
    ignored = {"ignored_users": {carol.user_id: {}}}
    await alice.put(f"/user/{alice.user_id}/account_data/m.ignored_user_list", ignored)
    ids = [event["event_id"] for event in await everything(alice, room_id, "b", limit=4)]
    assert topic in ids
    assert second not in ids
    assert own not in ids
    event = await alice.event(room_id, root)
    assert event["unsigned"]["m.relations"]["m.thread"]["count"] == 1
    assert event["unsigned"]["m.relations"]["m.thread"]["latest_event"]["event_id"] == first
    related = (await alice.get(f"{V1}/rooms/{room_id}/relations/{quote(root)}"))["chunk"]
    assert [event["event_id"] for event in related] == [first]
    threads = (await alice.get(f"{V1}/rooms/{room_id}/threads"))["chunk"]
    # The root of an ignored user is shown redacted.
    assert [(event["event_id"], event["content"] == {}) for event in threads] == [(own, True), (root, False)]
    assert (await bob.get(f"{V1}/rooms/{room_id}/threads"))["chunk"][0]["content"][
        "body"
    ] == "root of carol's"
    context = await alice.get(f"/rooms/{room_id}/context/{quote(first)}")
    assert second not in [event["event_id"] for event in context["events_after"]]


# -- against the rules written down a second time ------------------------------------------------------

DEEDS = st.lists(
    st.sampled_from([*SETTINGS, "say", "say", "invite", "join", "leave", "ban", "unban"]),
    min_size=6,
    max_size=20,
)


class Rules:
    """What Bob may see, by the numbered rules of the specification."""

    def __init__(self) -> None:
        self.events: list[tuple[str, set[str], str, bool]] = []
        """Id, the settings before and after, Bob's membership after, and whether it is Bob's own membership."""
        self.setting = "shared"
        self.membership = "leave"

    def happened(self, event_id: str, deed: str) -> None:
        around = {self.setting}
        if deed in SETTINGS:
            self.setting = deed
            around.add(deed)
        elif deed != "say":
            self.membership = {"unban": "leave"}.get(deed, deed)
        self.events.append((event_id, around, self.membership, deed not in ("say", *SETTINGS)))

    def seen(self) -> list[str] | None:
        """The events that Bob sees; None where he may not read the room."""
        memberships = [membership for _, _, membership, _ in self.events]
        upto = len(self.events)
        if self.membership != "join" and self.setting != "world_readable":
            if "join" not in memberships:
                return None
            upto = max(index for index, membership in enumerate(memberships) if membership == "join") + 2
        return [
            event[0] for index, event in enumerate(self.events[:upto]) if self._allows(index, memberships)
        ]

    def _allows(self, index: int, memberships: list[str]) -> bool:
        _, around, membership, is_own = self.events[index]
        if "world_readable" in around or membership == "join" or is_own:
            return True
        # "... and the user joined the room at any point after the event was sent"
        if "shared" in around and "join" in memberships[index + 1 :]:
            return True
        return "invited" in around and membership == "invite"


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(deeds=DEEDS, limit=st.integers(1, 7))
async def test_any_story_is_seen_as_the_rules_say(
    alice: Client, bob: Client, deeds: list[str], limit: int
) -> None:
    room_id = await alice.create_room(preset="public_chat")
    rules = Rules()
    for event in (await alice.messages(room_id, dir="f"))["chunk"]:
        rules.happened(event["event_id"], "say")
    possible = {
        "invite": ("leave",),
        "join": ("leave", "invite"),
        "leave": ("invite", "join"),
        "ban": ("leave", "invite", "join"),
        "unban": ("ban",),
    }
    for number, deed in enumerate(deeds):
        if deed in possible and rules.membership not in possible[deed]:
            continue
        if deed in SETTINGS:
            content = {"history_visibility": deed, "number": number}
            event_id = await alice.set_state(room_id, "m.room.history_visibility", content)
        elif deed == "say":
            event_id = await alice.send(room_id, f"{number}")
        else:
            client = bob if deed in ("join", "leave") else alice
            membership = {"membership": {"unban": "leave"}.get(deed, deed), "number": number}
            event_id = await client.set_state(room_id, "m.room.member", membership, bob.user_id)
        rules.happened(event_id, deed)
    expected = rules.seen()
    if expected is None:
        with refused(403, "M_FORBIDDEN"):
            await bob.messages(room_id)
        return
    for direction in ("f", "b"):
        events = await everything(bob, room_id, direction, limit)
        assert [event["event_id"] for event in events] == (expected if direction == "f" else expected[::-1])
    told = {event["event_id"]: event["unsigned"]["membership"] for event in events}
    assert told == {event_id: membership for event_id, _, membership, _ in rules.events if event_id in told}
