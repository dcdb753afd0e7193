"""Dehydrated devices (MSC3814, not yet in the specification)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from homeserver.http.request import Body
from homeserver.http.response import json_response
from homeserver.http.routing import Route
from homeserver.ids import DeviceId
from homeserver.services.dehydrated_devices import NewDehydratedDevice
from homeserver.storage.to_device import MAX_MESSAGES

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request
    from homeserver.services.dehydrated_devices import MessagesOfDehydratedDevice
    from homeserver.services.requester import Requester

_PATH = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"


class UploadBody(Body):
    """The body of `PUT /dehydrated_device`."""

    device_id: str
    device_data: dict[str, Any]
    initial_device_display_name: str | None = None
    device_keys: dict[str, Any]
    one_time_keys: dict[str, Any] | None = None
    fallback_keys: dict[str, Any] | None = None


class EventsBody(Body):
    """The body of `POST /dehydrated_device/{deviceId}/events`."""

    next_batch: str | None = None


class _Data(msgspec.Struct):
    """The same body; the data are not ours to read."""

    device_data: msgspec.Raw


class DehydratedDeviceEndpoints:
    """The device that waits for its user's next login."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            Route("PUT", _PATH, self.upload),
            Route("GET", _PATH, self.get),
            Route("DELETE", _PATH, self.delete),
            Route("GET", f"{_PATH}/{{deviceId}}/events", self.events),
            Route("POST", f"{_PATH}/{{deviceId}}/events", self.events_of_before),
        ]

    async def upload(self, request: Request) -> Response:
        """`PUT /dehydrated_device`."""
        requester = await self._context.authenticator.requester(request)
        body = await request.parse(UploadBody)
        data = bytes((await request.decode(_Data)).device_data)
        await self._context.dehydrated_devices.replace(
            requester,
            NewDehydratedDevice(
                device_id=DeviceId(body.device_id),
                device_data=data,
                display_name=body.initial_device_display_name,
                device_keys=body.device_keys,
                one_time_keys=body.one_time_keys or {},
                fallback_keys=body.fallback_keys or {},
            ),
        )
        return json_response({"device_id": body.device_id})

    async def get(self, request: Request) -> Response:
        """`GET /dehydrated_device`."""
        requester = await self._context.authenticator.requester(request)
        device = await self._context.dehydrated_devices.get(requester.user_id)
        return json_response(
            {"device_id": device.device_id, "device_data": orjson.Fragment(device.device_data)}
        )

    async def delete(self, request: Request) -> Response:
        """`DELETE /dehydrated_device`."""
        requester = await self._context.authenticator.requester(request)
        return json_response({"device_id": await self._context.dehydrated_devices.delete(requester.user_id)})

    async def events(self, request: Request) -> Response:
        """`GET /dehydrated_device/{deviceId}/events`: the last answer is the one without `next_batch`."""
        requester = await self._context.authenticator.requester(request)
        found = await self._messages(requester, request, request.query.get("from"))
        answer: dict[str, Any] = {"events": [orjson.Fragment(one) for one in found.messages]}
        if not found.is_last:
            answer["next_batch"] = found.next_batch
        return json_response(answer)

    async def events_of_before(self, request: Request) -> Response:
        """`POST /dehydrated_device/{deviceId}/events`, as clients did until 2026: the last answer has no events.

        They go on with whatever `next_batch` is, and where there is none they begin anew.
        """
        requester = await self._context.authenticator.requester(request)
        body = await request.parse(EventsBody, allow_empty=True)
        found = await self._messages(requester, request, body.next_batch)
        events = [orjson.Fragment(one) for one in found.messages]
        return json_response({"events": events, "next_batch": found.next_batch})

    async def _messages(
        self, requester: Requester, request: Request, token: str | None
    ) -> MessagesOfDehydratedDevice:
        limit = request.query.get_int("limit", MAX_MESSAGES, minimum=1, maximum=MAX_MESSAGES)
        device_id = request.path_parameters["deviceId"]
        return await self._context.dehydrated_devices.messages(requester.user_id, device_id, token, limit)
