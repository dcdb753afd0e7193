"""What a commit tells the rest of the program: that something with this key has changed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Topic(StrEnum):
    """Kinds of facts, with what their key is."""

    ROOM_EVENTS = "room_events"
    """A room id: events came into the room."""
    REDACTED = "redacted"
    """An event id: what is held in memory of the event is out of date."""
    RECEIPTS = "receipts"
    """A room id."""
    DELIVERY = "delivery"
    """The user id of a sender, who is told how their events are doing."""
    READ = "read"
    """`user_id|room_id`: the user has read on in the room."""
    THREAD_SUBSCRIPTIONS = "thread_subscriptions"
    """A user id."""
    TYPING = "typing"
    """A room id."""
    ACCOUNT_DATA = "account_data"
    """A user id: account data of theirs, global or of a room."""
    MEMBERSHIP = "membership"
    """A user id: a membership of theirs, in any room."""
    MANY_MEMBERS = "many_members"
    """A room id: so many memberships changed there at once that each is not told of."""
    PRESENCE = "presence"
    """The user id of the one whose presence changed."""
    PUSH_RULES = "push_rules"
    """A user id."""
    TO_DEVICE = "to_device"
    """`user_id|device_id`."""
    DEVICE_LISTS = "device_lists"
    """The user id of the one whose devices changed."""
    SHARED_ROOM = "shared_room"
    """A room id: somebody came into the encrypted room or went out, or it has become encrypted."""
    USER_SIGNATURES = "user_signatures"
    """The user id of one who has signed the master keys of others."""
    ONE_TIME_KEYS = "one_time_keys"
    """`user_id|device_id`."""
    CREDENTIALS = "credentials"
    """A user id: tokens, devices or the account itself."""
    ERASED = "erased"
    """The user id of one whose content is shown redacted from now on."""
    MEDIA = "media"
    """The id of a media of this server: its content has come."""
    PROFILE = "profile"
    """A user id."""
    ROOM_SERVERS = "room_servers"
    """The number of a room: members of other servers came into it, or went out."""
    OUTGOING_EVENTS = "outgoing_events"
    """The number of a room: events came that go to the servers in it."""
    DESTINATIONS = "destinations"
    """The name of another server: something waits for it alone."""
    DESTINATION_ALIVE = "destination_alive"
    """The name of another server: it may be tried at once."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """One changed fact. `local` tells whether this process made the change, and has already taken it over."""

    position: int
    topic: Topic
    key: str
    local: bool
