"""An identity server on this machine: it knows whose some addresses are, keeps invites, and signs their tokens."""

from __future__ import annotations

import hashlib
import socket
import ssl
from typing import Any

import trustme
from aiohttp import web

from crypto import base64
from crypto.keys import key_from_seed
from crypto.signatures import sign_json

_PEPPER = "pepper"


class IdentityServer:
    """It listens as `127.0.0.1:PORT`, with a certificate that nobody knows."""

    def __init__(self) -> None:
        self.key = key_from_seed("0", b"i" * 32)
        self.public_key = base64.encode_unpadded(bytes(self.key.private.verify_key))
        self.users: dict[str, str] = {}
        """Who has which address of email."""
        self.algorithms = ["none", "sha256"]
        self.stored: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []
        self.valid: Any = {"valid": True}
        self.validity_asked = 0
        self.refusal: tuple[int, Any] | None = None
        self.changed: dict[str, Any] = {}
        """What it says otherwise of an invite that it keeps."""

    async def start(self) -> None:
        application = web.Application()
        base = "/_matrix/identity/v2"
        application.add_routes(
            [
                web.get(f"{base}/hash_details", self._hash_details),
                web.post(f"{base}/lookup", self._lookup),
                web.post(f"{base}/store-invite", self._store),
                web.get(f"{base}/pubkey/isvalid", self._is_valid),
            ]
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        self._runner = web.AppRunner(application, shutdown_timeout=0.01)
        await self._runner.setup()
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        self.name = f"127.0.0.1:{bound.getsockname()[1]}"
        await web.SockSite(self._runner, bound, ssl_context=context).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    def signed(self, mxid: str, token: str = "token1", **more: Any) -> dict[str, Any]:
        """What it tells the server of whoever has the address."""
        return sign_json({"mxid": mxid, "token": token, **more}, "identity.example", self.key)

    def invite(self, token: str = "token1") -> dict[str, Any]:
        """The answer of `store-invite`."""
        url = f"https://{self.name}/_matrix/identity/v2/pubkey/isvalid"
        keys = [{"public_key": self.public_key, "key_validity_url": url}]
        return {"token": token, "public_keys": keys, "display_name": "b...@e...", **self.changed}

    def _refused(self, request: web.Request) -> web.Response | None:
        self.tokens.append(request.headers.get("Authorization"))
        if self.refusal is None:
            return None
        return web.json_response(self.refusal[1], status=self.refusal[0])

    async def _hash_details(self, request: web.Request) -> web.Response:
        details = {"lookup_pepper": _PEPPER, "algorithms": self.algorithms}
        return self._refused(request) or web.json_response(details)

    async def _lookup(self, request: web.Request) -> web.Response:
        asked = await request.json()
        (text,) = asked["addresses"]
        known = {self._hashed(address, asked["algorithm"]): user for address, user in self.users.items()}
        return web.json_response({"mappings": {text: known[text]} if text in known else {}})

    def _hashed(self, address: str, algorithm: str) -> str:
        if algorithm == "none":
            return f"{address} email"
        digest = hashlib.sha256(f"{address} email {_PEPPER}".encode()).digest()
        return base64.encode_unpadded_urlsafe(digest)

    async def _store(self, request: web.Request) -> web.Response:
        self.stored.append(await request.json())
        return web.json_response(self.invite(f"token{len(self.stored)}"))

    async def _is_valid(self, request: web.Request) -> web.Response:
        assert request.query["public_key"] == self.public_key
        self.validity_asked += 1
        return web.json_response(self.valid)
