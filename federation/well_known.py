"""`/.well-known/matrix/server`: where a server's name is delegated to (Server-Server API, "Resolving server names", 3).

Answers and errors are kept: answers as long as their headers say, within limits, and errors shorter, longer each
time. An answer is asked for anew before its time is over, and holds until then where that fails.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import orjson
from yarl import URL

from federation.errors import BadAnswer, FederationError, Refused
from federation.server_names import is_server_name
from federation.transport import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from federation.transport import HttpAnswer, Transport

_LIMITS = Limits(max_bytes=50 << 10, seconds=15, connect_seconds=7, idle_seconds=10)
_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_CACHED = 20_000

_HOUR = 3600.0
_DEFAULT_SECONDS = 24 * _HOUR
_LEAST_SECONDS = 300.0
_MOST_SECONDS = 48 * _HOUR
_REFRESH_AFTER = 0.8
_FIRST_ERROR_SECONDS = 60.0
_MOST_ERROR_SECONDS = _HOUR

_MAX_AGE = re.compile(r'max-age\s*=\s*"?(\d{1,10})')
_NOT_KEPT = re.compile(r"\b(no-store|no-cache)\b")


@dataclass(frozen=True, slots=True)
class WellKnown:
    """What a host says: `delegated` is a server name; None, with the reason in `error`, where it says nothing usable."""

    delegated: str | None
    error: str | None = None


@dataclass(slots=True)
class _Entry:
    result: WellKnown
    refresh_at: float
    expires_at: float
    failures: int


class WellKnownLookup:
    """Asks hosts for their delegation, and remembers."""

    def __init__(self, transport: Transport, monotonic: Callable[[], float]) -> None:
        self._transport = transport
        self._monotonic = monotonic
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._asking: dict[str, asyncio.Task[WellKnown]] = {}

    async def find(self, host: str) -> WellKnown:
        """What a host (a DNS name) says; never fails."""
        host = host.lower()
        entry = self._entries.get(host)
        if entry is not None and self._monotonic() < entry.refresh_at:
            self._entries.move_to_end(host)
            return entry.result
        task = self._asking.get(host)
        if task is None:
            task = self._asking[host] = asyncio.create_task(self._renew(host))
            task.add_done_callback(lambda _: self._asking.pop(host, None))
        # Whoever waits may give up; the others go on waiting.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End what is under way."""
        for task in list(self._asking.values()):
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def _renew(self, host: str) -> WellKnown:
        before = self._entries.pop(host, None)
        try:
            delegated, seconds = await self._ask(host)
        except FederationError as error:
            failures = before.failures + 1 if before is not None else 1
            wait = min(_FIRST_ERROR_SECONDS * 2 ** min(failures - 1, 10), _MOST_ERROR_SECONDS)
            now = self._monotonic()
            if before is not None and before.result.delegated is not None and now < before.expires_at:
                entry = _Entry(before.result, min(now + wait, before.expires_at), before.expires_at, failures)
            else:
                entry = _Entry(WellKnown(None, error.why), now + wait, now + wait, failures)
        else:
            now = self._monotonic()
            entry = _Entry(WellKnown(delegated), now + seconds * _REFRESH_AFTER, now + seconds, 0)
        self._entries[host] = entry
        if len(self._entries) > _MAX_CACHED:
            self._entries.popitem(last=False)
        return entry.result

    async def _ask(self, host: str) -> tuple[str, float]:
        """The delegated server name and how long it holds, in seconds."""
        url = URL(f"https://{host}/.well-known/matrix/server", encoded=True)
        for _ in range(_MAX_REDIRECTS + 1):
            answer = await self._transport.request("GET", url, _LIMITS, destination=host)
            if answer.status not in _REDIRECTS:
                return _delegated_name(host, answer), seconds_to_keep(answer.headers)
            url = _redirected(host, url, answer.headers.get("Location"))
        raise BadAnswer(host, f"more than {_MAX_REDIRECTS} redirects")


def _redirected(host: str, url: URL, location: str | None) -> URL:
    try:
        target = url.join(URL(location or ""))
    except ValueError:
        raise BadAnswer(host, "a redirect to what is no URL") from None
    # Over anything but HTTPS whoever is in between could delegate the server to themselves.
    if location is None or target.scheme != "https" or not target.raw_host or target.user or target.password:
        raise BadAnswer(host, "a redirect to what is no HTTPS URL")
    return target


def _delegated_name(host: str, answer: HttpAnswer) -> str:
    if answer.status != 200:
        raise Refused(host, answer.status, None, "no well-known file")
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        raise BadAnswer(host, "the well-known file is not JSON") from None
    name = body.get("m.server") if isinstance(body, dict) else None
    if not isinstance(name, str) or not is_server_name(name):
        raise BadAnswer(host, "`m.server` of the well-known file is not a server name")
    return name


def seconds_to_keep(headers: Mapping[str, str]) -> float:
    """How long an answer with these headers holds: what they say, between five minutes and two days, or a day."""
    return min(max(_said_seconds(headers), _LEAST_SECONDS), _MOST_SECONDS)


def _said_seconds(headers: Mapping[str, str]) -> float:
    control = headers.get("Cache-Control", "").lower()
    if _NOT_KEPT.search(control):
        return 0
    max_age = _MAX_AGE.search(control)
    if max_age is not None:
        return float(max_age[1])
    if "Expires" not in headers:
        return _DEFAULT_SECONDS
    try:
        expires = parsedate_to_datetime(headers["Expires"])
        date = parsedate_to_datetime(headers["Date"])
        return (expires - date).total_seconds()
    except (KeyError, ValueError, TypeError, OverflowError):
        # RFC 9111, 5.3: an invalid date means that it is over already.
        return 0
