"""Real traffic between two of our servers, of which one is not to be trusted: what it asks and what it answers is
changed on the way, and signed again where it could do that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from crypto.errors import CanonicalJsonError
from federation.errors import TimedOut
from federation.request_auth import sign_request
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from tests.hostile.mallory import Mallory
from tests.hostile.mutations import mutated, nested
from tests.hostile.wire import Answered, Asked, endpoint_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from tests.hostile.wire import Site
    from tests.server import Server

_BODIES = (
    b"",
    b"null",
    b"[]",
    b"{",
    b'{"a":NaN}',
    b'{"a":1e999}',
    b'"\\ud800"',
    b"\xff\xfe",
    b'{"pdus":[]',
    b"{}" * 5,
    b'{"state":[],"state":[]}',
    b'{"state":' * 300,
    orjson.dumps(nested(200)),
    b"[" * 5_000 + b"]" * 5_000,
    b" " * 100_000,
    b'{"state":[' + b'{"a":1},' * 10_000 + b"{}]}",
)
_STATUSES = (100, 201, 204, 301, 304, 400, 401, 403, 404, 405, 413, 418, 429, 500, 502, 599)


class Meddler:
    """Stands between `evil` and `victim`."""

    chance: Random

    def __init__(self, evil: Server, victim: Server, version: str) -> None:
        self.version = ROOM_VERSIONS[version]
        self.evil = evil.settings.server_name
        self.victim = victim.settings.server_name
        (key, *_) = evil.application.remote.servers.keyring._own_keys
        self.mallory = Mallory(evil, self.evil, key)
        self.words: list[Any] = [self.evil, self.victim]
        self.share = 0.0
        """How much of it is changed."""
        self.changed: dict[str, int] = {}

    async def tap(self, asked: Asked, on: Site) -> Answered:
        """Let something pass, changed or not."""
        endpoint = endpoint_of(asked.path)
        if asked.origin == self.evil and asked.destination == self.victim:
            if self.chance.random() < self.share:
                self._count(f"> {endpoint}")
                asked = self._changed_request(asked)
            answered = await on(asked)
            assert answered.status < 500, (asked, answered)
            if endpoint == "send":
                # So that it goes on to send.
                return Answered.json({"pdus": {}})
            return answered
        answered = await on(asked)
        if asked.destination == self.evil and self.chance.random() < self.share:
            self._count(f"< {endpoint}")
            return self._changed_answer(answered)
        return answered

    def _count(self, what: str) -> None:
        self.changed[what] = self.changed.get(what, 0) + 1

    def _changed_request(self, asked: Asked) -> Asked:
        chance = self.chance
        target, content = asked.target, asked.content
        if asked.body is None or chance.random() < 0.1:
            parts = target.split("/")
            where = chance.randrange(5, len(parts)) if len(parts) > 5 else len(parts) - 1
            parts[where] = chance.choice(
                ("", "x", "%00", "!x", "%F0%9F%92%A9", parts[-1], "a" * 300, *_quoted(self.words))
            )
            target = "/".join(parts)
        else:
            content = self._changed(content)
        options = {} if asked.body is None else {"content": content}
        try:
            header = sign_request(
                self.mallory.key, self.evil, self.victim, asked.method, target, *options.values()
            )
            body = None if asked.body is None else orjson.dumps(content)
        except (CanonicalJsonError, TypeError):
            return asked
        return Asked(
            asked.origin,
            asked.destination,
            asked.method,
            target,
            {**asked.headers, "Authorization": header},
            body,
        )

    def _changed_answer(self, answered: Answered) -> Answered:
        chance = self.chance
        kind = chance.random()
        if kind < 0.05:
            raise TimedOut(self.evil, "no answer within the time", connected=True)
        if kind < 0.12:
            return Answered(chance.choice(_STATUSES), answered.body, answered.headers)
        if kind < 0.22:
            return Answered(200, chance.choice(_BODIES))
        assert isinstance(answered.body, bytes)
        if kind < 0.27:
            return Answered(answered.status, answered.body[: chance.randrange(len(answered.body) + 1)])
        try:
            return Answered.json(self._changed(orjson.loads(answered.body)), answered.status)
        except (orjson.JSONDecodeError, TypeError):
            return answered

    def _changed(self, content: Any) -> Any:
        for _ in range(self.chance.choice((1, 1, 2, 4))):
            content = mutated(self.chance, content, self.words)
        if self.chance.random() < 0.7:
            content = self._signed_again(content)
        return content

    def _signed_again(self, value: Any) -> Any:
        """The same with the events in it signed anew, as far as they are those of this server."""
        if isinstance(value, list):
            return [self._signed_again(one) for one in value]
        if not isinstance(value, dict):
            return value
        if {"signatures", "hashes"} <= value.keys() and str(value.get("sender")).endswith(f":{self.evil}"):
            try:
                return self.mallory.signed(self.version, value)
            except (CanonicalJsonError, KeyError, TypeError, AttributeError, ValueError):
                return value
        return {name: self._signed_again(one) for name, one in value.items()}


def _quoted(words: list[Any]) -> Iterator[str]:
    return (quote(str(word), safe="") for word in words)
