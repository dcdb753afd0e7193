"""The answers of other servers, by endpoint: what must be there is there, of the right type, and not too many of it.

Events, keys of devices and whatever else is judged elsewhere stay opaque JSON.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import pydantic
from pydantic import Field

from federation.errors import BadAnswer

Json = dict[str, Any]
"""Any JSON object."""
Pdu = dict[str, Any]
"""An event as servers exchange it; nothing in it has been checked."""

_MAX_TEXT = 65_536
_MAX_ID = 1_024

Id = Annotated[str, Field(max_length=_MAX_ID)]
Text = Annotated[str, Field(max_length=_MAX_TEXT)]
Events = Annotated[list[Pdu], Field(max_length=10_000)]
Ids = Annotated[list[Id], Field(max_length=500_000)]
Servers = Annotated[list[Id], Field(max_length=50_000)]


class Answer(pydantic.BaseModel):
    """The base of all: unknown fields are ignored, types are not guessed."""

    model_config = pydantic.ConfigDict(strict=True, extra="ignore", frozen=True, populate_by_name=True)


class Version(Answer):
    """`GET /version`."""

    class Server(Answer):
        """What runs there."""

        name: Text = ""
        version: Text = ""

    server: Server = Server()


class NotaryAnswer(Answer):
    """`POST /_matrix/key/v2/query`: documents of servers, to be judged by `server_keys`."""

    server_keys: Annotated[list[Any], Field(max_length=10_000)] = []


class TransactionAnswer(Answer):
    """`PUT /send`: what became of each event; an empty object, or one with the reason in `error`."""

    class Outcome(Answer):
        """Of one event."""

        error: Any = None

    pdus: Annotated[dict[str, Outcome], Field(max_length=1_000)] = {}


class PduTransaction(Answer):
    """`GET /event` and `GET /backfill`."""

    pdus: Events


class MissingEvents(Answer):
    """`POST /get_missing_events`."""

    events: Events


class StateIds(Answer):
    """`GET /state_ids`."""

    pdu_ids: Ids
    auth_chain_ids: Ids


class EventAtTimestamp(Answer):
    """`GET /timestamp_to_event`."""

    event_id: Id
    origin_server_ts: int


class Template(Answer):
    """`GET /make_join`, `/make_leave`, `/make_knock`: an event to be completed; without a version it is 1."""

    event: Pdu
    room_version: Id = "1"


class Invited(Answer):
    """`PUT /invite`: the event with the signature of the invited user's server."""

    event: Pdu


class KnockAnswer(Answer):
    """`PUT /send_knock`; the state was called otherwise before version 1.11."""

    knock_room_state: Annotated[list[Json], Field(max_length=1_000)]


class DirectoryAnswer(Answer):
    """`GET /query/directory`."""

    room_id: Id
    servers: Servers


class PublicRooms(Answer):
    """`GET` and `POST /publicRooms`."""

    chunk: Annotated[list[Json], Field(max_length=10_000)]
    next_batch: Text | None = None
    prev_batch: Text | None = None
    total_room_count_estimate: Annotated[int, Field(ge=0, lt=2**53)] | None = None


class Hierarchy(Answer):
    """`GET /hierarchy`."""

    room: Json
    children: Annotated[list[Json], Field(max_length=10_000)]
    inaccessible_children: Annotated[list[Id], Field(max_length=10_000)] = []


class UserDevices(Answer):
    """`GET /user/devices`; the keys are opaque."""

    class Device(Answer):
        """A device."""

        device_id: Text
        keys: Json
        device_display_name: Text | None = None

    user_id: Id
    stream_id: int
    devices: Annotated[list[Device], Field(max_length=10_000)]
    master_key: Json | None = None
    self_signing_key: Json | None = None


class DeviceKeys(Answer):
    """`POST /user/keys/query`: by user; the keys are opaque."""

    device_keys: dict[str, dict[str, Json]]
    master_keys: dict[str, Json] = {}
    self_signing_keys: dict[str, Json] = {}


class ClaimedKeys(Answer):
    """`POST /user/keys/claim`: by user, device and key id; the keys are opaque."""

    one_time_keys: dict[str, dict[str, Json]]


class OpenIdUser(Answer):
    """`GET /openid/userinfo`."""

    sub: Id


A = TypeVar("A", bound=Answer)


def parse(model: type[A], destination: str, value: Any) -> A:
    """An answer as its model; raises `BadAnswer`, which names the field but not what stands there."""
    try:
        return model.model_validate(value)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the answer"
        raise BadAnswer(destination, f"`{field}`: {first['msg']}") from None


def parse_object(destination: str, value: Any) -> Json:
    """An answer that may be any object."""
    if not isinstance(value, dict):
        raise BadAnswer(destination, "the answer is not an object")
    return value
