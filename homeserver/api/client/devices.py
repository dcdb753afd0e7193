"""Devices (CS "Device Management")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.api.client.user_interactive import prove_by_password
from homeserver.http.request import Body, parse
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.ids import DeviceId

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request
    from homeserver.storage.devices import Device


class RenameBody(Body):
    """The body of `PUT /devices/{deviceId}`."""

    display_name: str | None = None


class DeleteBody(Body):
    """The body of `POST /delete_devices`."""

    devices: list[str]


class DeviceEndpoints:
    """The devices of whoever asks."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            *client("GET", "/devices", self.devices),
            *client("GET", "/devices/{deviceId}", self.device),
            *client("PUT", "/devices/{deviceId}", self.rename),
            *client("DELETE", "/devices/{deviceId}", self.delete),
            *client("POST", "/delete_devices", self.delete_several),
        ]

    async def devices(self, request: Request) -> Response:
        """`GET /devices`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        await self._context.access_tokens.flush_seen()
        devices = await self._context.devices.load(requester.user_id)
        return json_response({"devices": [_form(device) for device in devices]})

    async def device(self, request: Request) -> Response:
        """`GET /devices/{deviceId}`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        await self._context.access_tokens.flush_seen()
        device_id = DeviceId(request.path_parameters["deviceId"])
        return json_response(_form(await self._context.devices.get(requester.user_id, device_id)))

    async def rename(self, request: Request) -> Response:
        """`PUT /devices/{deviceId}`."""
        requester = await self._context.authenticator.requester(request, allow_guest=True)
        body = await request.parse(RenameBody)
        device_id = DeviceId(request.path_parameters["deviceId"])
        if body.display_name is None:
            await self._context.devices.get(requester.user_id, device_id)
        else:
            await self._context.devices.rename(requester.user_id, device_id, body.display_name)
        return json_response({})

    async def delete(self, request: Request) -> Response:
        """`DELETE /devices/{deviceId}`."""
        device_id = request.path_parameters["deviceId"]
        body = await request.json(allow_empty=True)
        return await self._delete(request, f"DELETE /devices/{device_id}", body, [device_id])

    async def delete_several(self, request: Request) -> Response:
        """`POST /delete_devices`."""
        body = await request.json()
        if body.keys() - {"auth"}:
            parse(DeleteBody, body)
        return await self._delete(request, "POST /delete_devices", body, None)

    async def _delete(
        self, request: Request, operation: str, body: dict[str, Any], device_ids: list[str] | None
    ) -> Response:
        requester = await self._context.authenticator.requester(request)
        proof = await prove_by_password(self._context, requester, operation, body)
        wanted = parse(DeleteBody, proof.body).devices if device_ids is None else device_ids
        await self._context.devices.delete(requester.user_id, [DeviceId(one) for one in wanted])
        await self._context.user_interactive.finish(proof)
        return json_response({})


def _form(device: Device) -> dict[str, Any]:
    form: dict[str, Any] = {"device_id": device.device_id}
    if device.display_name is not None:
        form["display_name"] = device.display_name
    if device.last_seen_ts is not None:
        form["last_seen_ts"] = device.last_seen_ts
    if device.last_seen_ip is not None:
        form["last_seen_ip"] = device.last_seen_ip
    return form
