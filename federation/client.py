"""The server-server API as calls: a method for each endpoint, in the order of the specification.

`destination` is the name of the server to call. Every method raises `Refused`, `Unreachable` or `BadAnswer` (see
`federation.errors`). What comes back has the right form (`federation.answers`); whether it is true, or harmless, is
for the caller to find out: the other server is hostile until proven otherwise.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Literal

from crypto import exact_json
from federation.answers import (
    ClaimedKeys,
    DeviceKeys,
    DirectoryAnswer,
    EventAtTimestamp,
    Hierarchy,
    Invited,
    KnockAnswer,
    MissingEvents,
    NotaryAnswer,
    OpenIdUser,
    PduTransaction,
    PublicRooms,
    StateIds,
    Template,
    TransactionAnswer,
    UserDevices,
    Version,
    parse,
    parse_object,
)
from federation.errors import BadAnswer
from federation.media import plain_media, read_media
from federation.server_keys import MAX_DOCUMENT_BYTES
from federation.signed_requests import EVENTS, MEBIBYTE, path_of
from federation.transport import Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from federation.answers import Json, Pdu
    from federation.media import RemoteMedia
    from federation.signed_requests import Query, SignedRequests

_V1 = "/_matrix/federation/v1"
_V2 = "/_matrix/federation/v2"
_KEY_DOCUMENT = Limits(max_bytes=MAX_DOCUMENT_BYTES, seconds=20)
_NOTARY = Limits(max_bytes=8 * MEBIBYTE, seconds=60)
_TRANSACTION = Limits(max_bytes=4 * MEBIBYTE, seconds=120, idle_seconds=90)
_MAKE_OR_SEND = Limits(max_bytes=4 * MEBIBYTE, seconds=60, idle_seconds=50)
_PUBLIC_ROOMS = Limits(max_bytes=16 * MEBIBYTE, seconds=60)
_MEDIA_OVERHEAD_BYTES = MEBIBYTE
_MEDIA_SECONDS = 600
_MEDIA_IDLE_SECONDS = 30


class FederationClient:
    """Calls other servers."""

    def __init__(self, requests: SignedRequests) -> None:
        self._requests = requests

    # -- server, keys ----------------------------------------------------------------------------------

    async def version(self, destination: str) -> Version:
        """`GET /_matrix/federation/v1/version`."""
        answer = await self._requests.json(destination, "GET", f"{_V1}/version", signed=False)
        return parse(Version, destination, answer)

    async def server_keys(self, destination: str) -> Json:
        """`GET /_matrix/key/v2/server`: a document to be judged by `server_keys.parse_document`."""
        answer = await self._requests.json(
            destination, "GET", "/_matrix/key/v2/server", limits=_KEY_DOCUMENT, signed=False
        )
        return parse_object(destination, answer)

    async def query_server_keys_of(
        self, notary: str, server_name: str, minimum_valid_until_ts: int | None = None
    ) -> Sequence[Any]:
        """`GET /_matrix/key/v2/query/{serverName}`: documents to be judged by `server_keys.parse_notary_answer`."""
        query = (
            () if minimum_valid_until_ts is None else (("minimum_valid_until_ts", minimum_valid_until_ts),)
        )
        path = path_of("/_matrix/key/v2/query", server_name)
        answer = await self._requests.json(notary, "GET", path, query=query, limits=_NOTARY, signed=False)
        return parse(NotaryAnswer, notary, answer).server_keys

    async def query_server_keys(
        self, notary: str, criteria: Mapping[str, Mapping[str, Mapping[str, int]]]
    ) -> Sequence[Any]:
        """`POST /_matrix/key/v2/query`, by server and key id: documents to be judged by `parse_notary_answer`.

        Synapse wants a `minimum_valid_until_ts` for every key, and tells only what it knows already where no key is named.
        """
        answer = await self._requests.json(
            notary,
            "POST",
            "/_matrix/key/v2/query",
            content={"server_keys": criteria},
            limits=_NOTARY,
            signed=False,
        )
        return parse(NotaryAnswer, notary, answer).server_keys

    # -- transactions ----------------------------------------------------------------------------------

    async def send_transaction(
        self,
        destination: str,
        transaction_id: str,
        *,
        origin: str,
        origin_server_ts: int,
        pdus: Sequence[Pdu],
        edus: Sequence[Json],
    ) -> TransactionAnswer:
        """`PUT /send/{txnId}`: at most 50 events and 100 EDUs. An error of one event is in the answer, and final."""
        content = {"origin": origin, "origin_server_ts": origin_server_ts, "pdus": pdus, "edus": edus}
        answer = await self._requests.json(
            destination, "PUT", path_of(f"{_V1}/send", transaction_id), content=content, limits=_TRANSACTION
        )
        return parse(TransactionAnswer, destination, answer)

    # -- events and state ------------------------------------------------------------------------------

    async def event(self, destination: str, event_id: str) -> PduTransaction:
        """`GET /event/{eventId}`: one event."""
        path = path_of(f"{_V1}/event", event_id)
        answer = await self._requests.json(destination, "GET", path, loads=exact_json.loads)
        found = parse(PduTransaction, destination, answer)
        if len(found.pdus) != 1:
            raise BadAnswer(destination, f"{len(found.pdus)} events in place of one")
        return found

    @contextlib.asynccontextmanager
    async def state(
        self, destination: str, room_id: str, event_id: str
    ) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
        """`GET /state/{roomId}`: members `pdus` and `auth_chain`, once for each event, inside the `with`."""
        async with self._requests.members(
            destination,
            "GET",
            path_of(f"{_V1}/state", room_id),
            ("pdus", "auth_chain"),
            query=(("event_id", event_id),),
        ) as members:
            yield members

    async def state_ids(self, destination: str, room_id: str, event_id: str) -> StateIds:
        """`GET /state_ids/{roomId}`: the state before an event."""
        path = path_of(f"{_V1}/state_ids", room_id)
        answer = await self._requests.json(
            destination, "GET", path, query=(("event_id", event_id),), limits=EVENTS
        )
        return parse(StateIds, destination, answer)

    @contextlib.asynccontextmanager
    async def event_auth(
        self, destination: str, room_id: str, event_id: str
    ) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
        """`GET /event_auth/{roomId}/{eventId}`: member `auth_chain`, once for each event, inside the `with`."""
        path = path_of(f"{_V1}/event_auth", room_id, event_id)
        async with self._requests.members(destination, "GET", path, ("auth_chain",)) as members:
            yield members

    async def backfill(
        self, destination: str, room_id: str, event_ids: Collection[str], limit: int
    ) -> PduTransaction:
        """`GET /backfill/{roomId}`: events before these, and these."""
        query: list[tuple[str, str | int | bool]] = [("v", event_id) for event_id in event_ids]
        query.append(("limit", limit))
        path = path_of(f"{_V1}/backfill", room_id)
        answer = await self._requests.json(
            destination, "GET", path, query=query, limits=EVENTS, loads=exact_json.loads
        )
        return parse(PduTransaction, destination, answer)

    async def get_missing_events(
        self,
        destination: str,
        room_id: str,
        *,
        earliest_events: Collection[str],
        latest_events: Collection[str],
        limit: int = 10,
        min_depth: int = 0,
    ) -> MissingEvents:
        """`POST /get_missing_events/{roomId}`: events between."""
        content = {
            "earliest_events": list(earliest_events),
            "latest_events": list(latest_events),
            "limit": limit,
            "min_depth": min_depth,
        }
        path = path_of(f"{_V1}/get_missing_events", room_id)
        answer = await self._requests.json(
            destination, "POST", path, content=content, limits=EVENTS, loads=exact_json.loads
        )
        return parse(MissingEvents, destination, answer)

    async def timestamp_to_event(
        self, destination: str, room_id: str, ts: int, direction: Literal["f", "b"]
    ) -> EventAtTimestamp:
        """`GET /timestamp_to_event/{roomId}`."""
        path = path_of(f"{_V1}/timestamp_to_event", room_id)
        answer = await self._requests.json(destination, "GET", path, query=(("ts", ts), ("dir", direction)))
        return parse(EventAtTimestamp, destination, answer)

    # -- joining, knocking, leaving, inviting -------------------------------------------------------------

    async def make_join(
        self, destination: str, room_id: str, user_id: str, room_versions: Collection[str]
    ) -> Template:
        """`GET /make_join/{roomId}/{userId}`."""
        return await self._make("make_join", destination, room_id, user_id, room_versions)

    async def make_knock(
        self, destination: str, room_id: str, user_id: str, room_versions: Collection[str]
    ) -> Template:
        """`GET /make_knock/{roomId}/{userId}`."""
        return await self._make("make_knock", destination, room_id, user_id, room_versions)

    async def make_leave(self, destination: str, room_id: str, user_id: str) -> Template:
        """`GET /make_leave/{roomId}/{userId}`."""
        return await self._make("make_leave", destination, room_id, user_id, ())

    async def _make(
        self, name: str, destination: str, room_id: str, user_id: str, room_versions: Collection[str]
    ) -> Template:
        path = path_of(f"{_V1}/{name}", room_id, user_id)
        query = tuple(("ver", version) for version in room_versions)
        answer = await self._requests.json(destination, "GET", path, query=query, limits=_MAKE_OR_SEND)
        return parse(Template, destination, answer)

    @contextlib.asynccontextmanager
    async def send_join(
        self, destination: str, room_id: str, event_id: str, event: Pdu, *, omit_members: bool = False
    ) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
        """`PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}`, to be read inside the `with`.

        Members `state` and `auth_chain`, once for each event; `event`, `members_omitted`, `servers_in_room` and others,
        once each, in any order and of any type.
        """
        async with self._requests.members(
            destination,
            "PUT",
            path_of(f"{_V2}/send_join", room_id, event_id),
            ("state", "auth_chain"),
            query=(("omit_members", omit_members),),
            content=event,
        ) as members:
            yield members

    async def send_knock(self, destination: str, room_id: str, event_id: str, event: Pdu) -> KnockAnswer:
        """`PUT /send_knock/{roomId}/{eventId}`."""
        path = path_of(f"{_V1}/send_knock", room_id, event_id)
        answer = await self._requests.json(destination, "PUT", path, content=event, limits=_MAKE_OR_SEND)
        return parse(KnockAnswer, destination, answer)

    async def send_leave(self, destination: str, room_id: str, event_id: str, event: Pdu) -> None:
        """`PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}`."""
        path = path_of(f"{_V2}/send_leave", room_id, event_id)
        await self._requests.json(destination, "PUT", path, content=event, limits=_MAKE_OR_SEND)

    async def invite(
        self,
        destination: str,
        room_id: str,
        event_id: str,
        *,
        room_version: str,
        event: Pdu,
        invite_room_state: Sequence[Json],
    ) -> Invited:
        """`PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`."""
        content = {"room_version": room_version, "event": event, "invite_room_state": invite_room_state}
        path = path_of(f"{_V2}/invite", room_id, event_id)
        answer = await self._requests.json(destination, "PUT", path, content=content, limits=_MAKE_OR_SEND)
        return parse(Invited, destination, answer)

    async def invite_v1(self, destination: str, room_id: str, event_id: str, event: Pdu) -> Invited:
        """`PUT /_matrix/federation/v1/invite/{roomId}/{eventId}`, for servers that have no v2; versions 1 and 2 only.

        The state for the invited user stands in the event's `unsigned`. The answer is `[200, {...}]`.
        """
        path = path_of(f"{_V1}/invite", room_id, event_id)
        answer = await self._requests.json(destination, "PUT", path, content=event, limits=_MAKE_OR_SEND)
        if not isinstance(answer, list) or len(answer) != 2:
            raise BadAnswer(destination, "the answer is not a list of two")
        return parse(Invited, destination, answer[1])

    async def exchange_third_party_invite(self, destination: str, room_id: str, event: Json) -> None:
        """`PUT /exchange_third_party_invite/{roomId}`."""
        path = path_of(f"{_V1}/exchange_third_party_invite", room_id)
        await self._requests.json(destination, "PUT", path, content=event, limits=_MAKE_OR_SEND)

    async def on_bind(self, destination: str, content: Json) -> None:
        """`PUT /3pid/onbind`: what an identity server tells when an address is bound to a user."""
        await self._requests.json(destination, "PUT", f"{_V1}/3pid/onbind", content=content, signed=False)

    # -- public rooms and spaces -----------------------------------------------------------------------

    async def public_rooms(
        self, destination: str, *, limit: int | None = None, since: str | None = None, **options: str | bool
    ) -> PublicRooms:
        """`GET /publicRooms`; options are `include_all_networks` and `third_party_instance_id`."""
        query: list[tuple[str, str | int | bool]] = list(options.items())
        if limit is not None:
            query.append(("limit", limit))
        if since is not None:
            query.append(("since", since))
        answer = await self._requests.json(
            destination, "GET", f"{_V1}/publicRooms", query=query, limits=_PUBLIC_ROOMS
        )
        return parse(PublicRooms, destination, answer)

    async def search_public_rooms(self, destination: str, content: Json) -> PublicRooms:
        """`POST /publicRooms`: with a `filter`."""
        answer = await self._requests.json(
            destination, "POST", f"{_V1}/publicRooms", content=content, limits=_PUBLIC_ROOMS
        )
        return parse(PublicRooms, destination, answer)

    async def hierarchy(self, destination: str, room_id: str, *, suggested_only: bool = False) -> Hierarchy:
        """`GET /hierarchy/{roomId}`: a room and its children."""
        path = path_of(f"{_V1}/hierarchy", room_id)
        query = (("suggested_only", suggested_only),)
        answer = await self._requests.json(destination, "GET", path, query=query, limits=_PUBLIC_ROOMS)
        return parse(Hierarchy, destination, answer)

    # -- queries ---------------------------------------------------------------------------------------

    async def query(self, destination: str, query_type: str, query: Query = ()) -> Json:
        """`GET /query/{queryType}`: of a kind that has no method of its own here."""
        path = path_of(f"{_V1}/query", query_type)
        return parse_object(destination, await self._requests.json(destination, "GET", path, query=query))

    async def query_directory(self, destination: str, room_alias: str) -> DirectoryAnswer:
        """`GET /query/directory`: the room of an alias of that server."""
        answer = await self.query(destination, "directory", (("room_alias", room_alias),))
        return parse(DirectoryAnswer, destination, answer)

    async def query_profile(self, destination: str, user_id: str, field: str | None = None) -> Json:
        """`GET /query/profile`: the profile of a user of that server, or one field of it; the values may be anything."""
        query: list[tuple[str, str]] = [("user_id", user_id)]
        if field is not None:
            query.append(("field", field))
        return await self.query(destination, "profile", query)

    # -- devices and keys of users -----------------------------------------------------------------------

    async def user_devices(self, destination: str, user_id: str) -> UserDevices:
        """`GET /user/devices/{userId}`."""
        path = path_of(f"{_V1}/user/devices", user_id)
        answer = await self._requests.json(destination, "GET", path, limits=EVENTS)
        found = parse(UserDevices, destination, answer)
        if found.user_id != user_id:
            raise BadAnswer(destination, "`user_id` is another user")
        return found

    async def query_user_keys(self, destination: str, device_keys: Mapping[str, Sequence[str]]) -> DeviceKeys:
        """`POST /user/keys/query`: of devices by user; no devices mean all. Other users' keys may be among them."""
        answer = await self._requests.json(
            destination,
            "POST",
            f"{_V1}/user/keys/query",
            content={"device_keys": device_keys},
            limits=EVENTS,
        )
        return parse(DeviceKeys, destination, answer)

    async def claim_user_keys(
        self, destination: str, one_time_keys: Mapping[str, Mapping[str, str]]
    ) -> ClaimedKeys:
        """`POST /user/keys/claim`: an algorithm by user and device. Never repeated by itself: each call takes keys."""
        answer = await self._requests.json(
            destination,
            "POST",
            f"{_V1}/user/keys/claim",
            content={"one_time_keys": one_time_keys},
            limits=EVENTS,
        )
        return parse(ClaimedKeys, destination, answer)

    # -- OpenID, media, policy servers -----------------------------------------------------------------------

    async def openid_userinfo(self, destination: str, access_token: str) -> OpenIdUser:
        """`GET /openid/userinfo`: whose token it is."""
        query = (("access_token", access_token),)
        answer = await self._requests.json(
            destination, "GET", f"{_V1}/openid/userinfo", query=query, signed=False
        )
        user = parse(OpenIdUser, destination, answer)
        # The caller must: "validate that the returned user ID is on the server they called".
        if user.sub.partition(":")[2] != destination:
            raise BadAnswer(destination, "`sub` is a user of another server")
        return user

    @contextlib.asynccontextmanager
    async def download_media(
        self, destination: str, media_id: str, *, max_bytes: int, timeout_ms: int = 20_000
    ) -> AsyncIterator[RemoteMedia]:
        """`GET /media/download/{mediaId}`, to be read inside the `with`."""
        path = path_of(f"{_V1}/media/download", media_id)
        query = (("timeout_ms", timeout_ms),)
        async with self._media(destination, path, query, max_bytes, timeout_ms) as media:
            yield media

    @contextlib.asynccontextmanager
    async def thumbnail(
        self,
        destination: str,
        media_id: str,
        *,
        width: int,
        height: int,
        method: Literal["crop", "scale"] = "scale",
        animated: bool = False,
        max_bytes: int,
        timeout_ms: int = 20_000,
    ) -> AsyncIterator[RemoteMedia]:
        """`GET /media/thumbnail/{mediaId}`, to be read inside the `with`."""
        path = path_of(f"{_V1}/media/thumbnail", media_id)
        query = (
            ("width", width),
            ("height", height),
            ("method", method),
            ("animated", animated),
            ("timeout_ms", timeout_ms),
        )
        async with self._media(destination, path, query, max_bytes, timeout_ms) as media:
            yield media

    @contextlib.asynccontextmanager
    async def _media(
        self, destination: str, path: str, query: Query, max_bytes: int, timeout_ms: int
    ) -> AsyncIterator[RemoteMedia]:
        limits = _media_limits(max_bytes + _MEDIA_OVERHEAD_BYTES, timeout_ms)
        async with self._requests.stream(destination, "GET", path, query=query, limits=limits) as answer:
            yield await read_media(destination, answer, max_bytes)

    @contextlib.asynccontextmanager
    async def download_media_unsigned(
        self, destination: str, media_id: str, *, max_bytes: int, timeout_ms: int = 20_000
    ) -> AsyncIterator[RemoteMedia]:
        """`GET /_matrix/media/v3/download/{serverName}/{mediaId}`, to be read inside the `with`.

        For servers that do not know `download_media`. "When falling back, servers MUST be sure to set `allow_remote`
        to `false`."
        """
        path = path_of("/_matrix/media/v3/download", destination, media_id)
        query = (("allow_remote", False), ("timeout_ms", timeout_ms))
        limits = _media_limits(max_bytes, timeout_ms)
        async with self._requests.stream(
            destination, "GET", path, query=query, limits=limits, signed=False
        ) as answer:
            yield plain_media(answer)

    async def ask_policy_server(self, destination: str, event: Pdu) -> Json:
        """`POST /_matrix/policy/v1/sign`: the policy server's signature of an event, by server and key id."""
        answer = await self._requests.json(destination, "POST", "/_matrix/policy/v1/sign", content=event)
        return parse_object(destination, answer)


def _media_limits(max_bytes: int, timeout_ms: int) -> Limits:
    """The other server may be silent until the content is uploaded."""
    waiting = timeout_ms / 1000
    return Limits(max_bytes, seconds=_MEDIA_SECONDS + waiting, idle_seconds=_MEDIA_IDLE_SECONDS + waiting)
