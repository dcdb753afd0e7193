"""What is asked of identity servers (Identity Service API): who has an address, to keep an invite, whether a key holds.

Which one it is, users say. So they are called by a transport that leads nowhere private, and nothing that they answer
is believed further than it must be.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import pydantic
from yarl import URL

from crypto import base64
from federation.errors import FederationError
from federation.server_names import is_server_name
from federation.transport import Limits
from homeserver.errors import Forbidden, InvalidParam, MatrixError
from homeserver.ids import UserId, is_user_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeVar

    from federation.transport import Transport

    A = TypeVar("A", bound="Answer")

_LIMITS = Limits(max_bytes=64 << 10, seconds=20)
_MAX_KEYS = 10
_MAX_TEXT = 2_000
_TOKEN = re.compile(r"[0-9a-zA-Z.=_-]{1,255}")
# Of the identity server's own tokens: to a client of ours these codes would mean its own.
_OF_TOKENS = ("M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "M_UNAUTHORIZED")


class Answer(pydantic.BaseModel):
    """An answer of an identity server."""

    model_config = pydantic.ConfigDict(strict=True, extra="ignore", frozen=True)


class _HashDetails(Answer):
    lookup_pepper: str
    algorithms: list[str]


class _Lookup(Answer):
    mappings: dict[str, str]


class _Validity(Answer):
    valid: bool


class _PublicKey(Answer):
    public_key: str = pydantic.Field(max_length=_MAX_TEXT)
    key_validity_url: str = pydantic.Field(max_length=_MAX_TEXT)


class StoredInvite(Answer):
    """An invite that an identity server keeps for whoever turns out to have the address."""

    token: str
    public_keys: list[_PublicKey] = pydantic.Field(min_length=1, max_length=_MAX_KEYS)
    display_name: str = pydantic.Field(max_length=_MAX_TEXT)

    @property
    def content(self) -> dict[str, Any]:
        """The content of the `m.room.third_party_invite` event whose state key is the token."""
        first = self.public_keys[0]
        return {
            "display_name": self.display_name,
            "key_validity_url": first.key_validity_url,
            "public_key": first.public_key,
            "public_keys": [key.model_dump() for key in self.public_keys],
        }


@dataclass(frozen=True, slots=True)
class ThirdPartyAddress:
    """Somebody's address, and the identity server that may know who it belongs to."""

    id_server: str
    id_access_token: str
    medium: str
    address: str


class IdentityServers:
    """Calls identity servers. Raises `MatrixError`: what they say where they refuse, 502 where they do not answer."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def look_up(self, who: ThirdPartyAddress) -> UserId | None:
        """The user who has bound the address; None where nobody has."""
        answer = await self._call(who, "GET", "hash_details")
        details = _parse(_HashDetails, who.id_server, answer)
        text = f"{_canonical(who)} {who.medium}"
        if "sha256" in details.algorithms:
            algorithm = "sha256"
            digest = hashlib.sha256(
                f"{text} {details.lookup_pepper}".encode("utf-8", "surrogatepass")
            ).digest()
            text = base64.encode_unpadded_urlsafe(digest)
        elif "none" in details.algorithms:
            algorithm = "none"
        else:
            return None
        content = {"addresses": [text], "algorithm": algorithm, "pepper": details.lookup_pepper}
        found = _parse(_Lookup, who.id_server, await self._call(who, "POST", "lookup", content))
        user_id = found.mappings.get(text)
        return UserId(user_id) if user_id is not None and is_user_id(user_id) else None

    async def store_invite(self, who: ThirdPartyAddress, details: Mapping[str, Any]) -> StoredInvite:
        """Have an invite kept; `details` say who invites, and into which room."""
        content = {**details, "medium": who.medium, "address": _canonical(who)}
        stored = _parse(StoredInvite, who.id_server, await self._call(who, "POST", "store-invite", content))
        if not _TOKEN.fullmatch(stored.token):
            raise _absurd(who.id_server)
        return stored

    async def is_key_valid(self, key_validity_url: str, public_key: str) -> bool:
        """Whether the one who gave out a key still stands by it, asked at the address that came with the key."""
        try:
            url = URL(key_validity_url)
        except ValueError:
            return False
        if url.scheme != "https" or not url.raw_host or url.user is not None:
            return False
        try:
            # "Using the provided URL rather than constructing a new one."
            answer = await self._transport.request("GET", url.update_query(public_key=public_key), _LIMITS)
            return answer.status == 200 and _Validity.model_validate_json(answer.body).valid
        except pydantic.ValidationError:
            return False
        except (FederationError, ValueError) as error:
            raise _unreachable(url.raw_host) from error

    async def _call(self, who: ThirdPartyAddress, method: str, path: str, content: Any = None) -> Any:
        if not is_server_name(who.id_server):
            raise InvalidParam("`id_server` is not the name of a server")
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if not who.id_access_token.isascii() or not who.id_access_token.isprintable():
            raise InvalidParam("`id_access_token` is not a token")
        headers["Authorization"] = f"Bearer {who.id_access_token}"
        url = URL(f"https://{who.id_server}/_matrix/identity/v2/{path}", encoded=True)
        body = None if content is None else orjson.dumps(content)
        try:
            answer = await self._transport.request(method, url, _LIMITS, headers=headers, body=body)
            said = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            raise _absurd(who.id_server) from None
        except (FederationError, ValueError) as error:
            raise _unreachable(who.id_server) from error
        if answer.status == 200:
            return said
        raise _refusal(who.id_server, answer.status, said)


def _canonical(who: ThirdPartyAddress) -> str:
    """The address as it is hashed and stored (Appendices, "3PID Types")."""
    return who.address.lower() if who.medium == "email" else who.address


def _parse(model: type[A], server: str, value: Any) -> A:
    try:
        return model.model_validate(value)
    except pydantic.ValidationError:
        raise _absurd(server) from None


def _absurd(server: str) -> MatrixError:
    return MatrixError(f"The identity server {server} gave an answer that cannot be used", status=502)


def _unreachable(server: str) -> MatrixError:
    return MatrixError(f"The identity server {server} could not be asked", status=502)


def _refusal(server: str, status: int, said: Any) -> MatrixError:
    if status >= 500 or not isinstance(said, dict) or not isinstance(said.get("errcode"), str):
        return _absurd(server)
    errcode = said["errcode"][:100]
    message = f"The identity server {server} refuses"
    if isinstance(said.get("error"), str):
        message += f": {said['error'][:_MAX_TEXT]}"
    if status == 401 or errcode in _OF_TOKENS:
        return Forbidden(message)
    return MatrixError(message, status=status if 400 <= status < 500 else 502, errcode=errcode)
