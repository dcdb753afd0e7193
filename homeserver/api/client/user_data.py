"""What clients keep at the server: filters, account data, tags, push rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.errors import Forbidden, NotFound
from homeserver.http.response import json_response
from homeserver.http.routing import Route, client
from homeserver.ids import RoomId
from homeserver.storage.account_data import GLOBAL
from homeserver.views.push_rules import default_rules

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request
    from homeserver.services.requester import Requester

_MAX_BODY_BYTES = 131_072


class UserDataEndpoints:
    """Filters, account data, tags and push rules of whoever asks."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        user, size = "/user/{userId}", _MAX_BODY_BYTES
        in_room = f"{user}/rooms/{{roomId}}"
        rule = "/pushrules/global/{kind}/{ruleId}"
        return [
            *client("POST", f"{user}/filter", self.add_filter, max_body_bytes=size),
            *client("GET", f"{user}/filter/{{filterId}}", self.filter),
            *client("GET", f"{user}/account_data/{{type}}", self.account_data),
            *client("PUT", f"{user}/account_data/{{type}}", self.set_account_data, max_body_bytes=size),
            *client("GET", f"{in_room}/account_data/{{type}}", self.account_data),
            *client("PUT", f"{in_room}/account_data/{{type}}", self.set_account_data, max_body_bytes=size),
            *client("GET", f"{in_room}/tags", self.tags),
            *client("PUT", f"{in_room}/tags/{{tag}}", self.set_tag),
            *client("DELETE", f"{in_room}/tags/{{tag}}", self.delete_tag),
            *client("GET", "/pushrules", self.push_rules),
            *client("GET", "/pushrules/global", self.global_push_rules),
            *client("GET", rule, self.push_rule),
            *client("GET", f"{rule}/enabled", self.push_rule_enabled),
            *client("GET", f"{rule}/actions", self.push_rule_actions),
        ]

    async def add_filter(self, request: Request) -> Response:
        """`POST /user/{userId}/filter`."""
        requester = await self._own(request)
        return json_response(
            {"filter_id": await self._context.filters.add(requester.user_id, await request.json())}
        )

    async def filter(self, request: Request) -> Response:
        """`GET /user/{userId}/filter/{filterId}`."""
        requester = await self._own(request)
        return json_response(
            await self._context.filters.get(requester.user_id, request.path_parameters["filterId"])
        )

    async def account_data(self, request: Request) -> Response:
        """`GET /user/{userId}/account_data/{type}`, and of a room."""
        requester = await self._own(request)
        parameters = request.path_parameters
        room_id = RoomId(parameters.get("roomId", GLOBAL))
        return json_response(
            await self._context.account_data.get(requester.user_id, room_id, parameters["type"])
        )

    async def set_account_data(self, request: Request) -> Response:
        """`PUT /user/{userId}/account_data/{type}`, and of a room."""
        requester = await self._own(request)
        parameters = request.path_parameters
        room_id = RoomId(parameters.get("roomId", GLOBAL))
        content = await request.json()
        await self._context.account_data.set(requester.user_id, room_id, parameters["type"], content)
        return json_response({})

    async def tags(self, request: Request) -> Response:
        """`GET /user/{userId}/rooms/{roomId}/tags`."""
        requester = await self._own(request)
        room_id = RoomId(request.path_parameters["roomId"])
        return json_response({"tags": await self._context.account_data.tags(requester.user_id, room_id)})

    async def set_tag(self, request: Request) -> Response:
        """`PUT /user/{userId}/rooms/{roomId}/tags/{tag}`."""
        requester = await self._own(request)
        parameters = request.path_parameters
        await self._context.account_data.set_tag(
            requester.user_id,
            RoomId(parameters["roomId"]),
            parameters["tag"],
            await request.json(allow_empty=True),
        )
        return json_response({})

    async def delete_tag(self, request: Request) -> Response:
        """`DELETE /user/{userId}/rooms/{roomId}/tags/{tag}`."""
        requester = await self._own(request)
        parameters = request.path_parameters
        await self._context.account_data.delete_tag(
            requester.user_id, RoomId(parameters["roomId"]), parameters["tag"]
        )
        return json_response({})

    # -- push rules ------------------------------------------------------------------------------------

    async def push_rules(self, request: Request) -> Response:
        """`GET /pushrules/`."""
        requester = await self._context.authenticator.requester(request)
        return json_response({"global": default_rules(requester.user_id)})

    async def global_push_rules(self, request: Request) -> Response:
        """`GET /pushrules/global/`."""
        requester = await self._context.authenticator.requester(request)
        return json_response(default_rules(requester.user_id))

    async def push_rule(self, request: Request) -> Response:
        """`GET /pushrules/global/{kind}/{ruleId}`."""
        return json_response(await self._rule(request))

    async def push_rule_enabled(self, request: Request) -> Response:
        """`GET /pushrules/global/{kind}/{ruleId}/enabled`."""
        return json_response({"enabled": (await self._rule(request))["enabled"]})

    async def push_rule_actions(self, request: Request) -> Response:
        """`GET /pushrules/global/{kind}/{ruleId}/actions`."""
        return json_response({"actions": (await self._rule(request))["actions"]})

    async def _rule(self, request: Request) -> dict[str, Any]:
        requester = await self._context.authenticator.requester(request)
        # Clients write the kind of MSC4306 with and without its prefix.
        kind = request.path_parameters["kind"].removeprefix("io.element.msc4306.")
        rules = default_rules(requester.user_id).get(kind, [])
        for rule in rules:
            if rule["rule_id"] == request.path_parameters["ruleId"]:
                return rule
        raise NotFound("There is no such push rule")

    async def _own(self, request: Request) -> Requester:
        requester = await self._context.authenticator.requester(request)
        if request.path_parameters["userId"] != requester.user_id:
            raise Forbidden("This belongs to another user")
        return requester
