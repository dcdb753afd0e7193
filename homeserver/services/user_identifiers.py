"""How a client says whose password it sends (CS "Identifier types")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.errors import BadJson, Forbidden, InvalidParam, MissingParam

if TYPE_CHECKING:
    from collections.abc import Mapping


class UnknownIdentifier(Forbidden):
    """A third-party identifier that belongs to nobody here.

    "In the case that the homeserver does not know about the supplied 3PID, the homeserver must respond with 403
    Forbidden."
    """


def user_name(fields: Mapping[str, Any]) -> str | None:
    """The user id or localpart that a request names by `identifier` or, deprecated, by `user`; None for nobody.

    Raises `UnknownIdentifier` for third-party identifiers, of which this server keeps none, `BadJson`,
    `MissingParam` and `InvalidParam` for what is no identifier.
    """
    identifier = fields.get("identifier")
    if identifier is None:
        if fields.get("medium") is not None or fields.get("address") is not None:
            raise UnknownIdentifier("Nobody has this third-party identifier")
        return _text(fields.get("user"), "user")
    if not isinstance(identifier, dict):
        raise BadJson("`identifier` is not an object")
    kind = identifier.get("type")
    if kind == "m.id.user" or (kind is None and "user" in identifier):
        name = _text(identifier.get("user"), "identifier.user")
        if name is None:
            raise MissingParam("`identifier.user` is missing")
        return name
    # The specification has an example without a type.
    if kind in ("m.id.thirdparty", "m.id.phone") or (kind is None and "medium" in identifier):
        raise UnknownIdentifier("Nobody has this third-party identifier")
    raise InvalidParam("Unknown type of identifier")


def _text(value: Any, field: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise BadJson(f"`{field}` is not text")
