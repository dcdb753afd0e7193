"""The signing keys of other servers: from memory, from the store, from the servers themselves, from notaries.

What is believed is said in `federation.server_keys`; here is how keys are got, with bounds: one question to a server
at a time, not again within a minute, more and more seldom where it does not answer, and so many at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from federation.errors import FederationError
from federation.server_keys import (
    MAX_VALIDITY_MS,
    BadKeyDocument,
    countersign,
    is_key_id,
    merge,
    own_document,
    parse_document,
    parse_notary_answer,
)
from federation.server_names import is_server_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import nacl.signing

    from crypto.keys import SigningKey
    from federation.server_keys import KeyDocument, ServerKey

_MAX_SERVERS = 20_000
_MAX_KEYS = 60_000
_AT_ONCE = 250
_MAX_UNDER_WAY = 5_000
_BATCH = 1_000
_NOT_AGAIN_SECONDS = 60.0
_FIRST_WAIT_SECONDS = 30.0
_MOST_WAIT_SECONDS = 3600.0
# With so many servers to ask, the notaries are quicker, and dead servers hold nobody up.
_MANY = 10
_NOTARY_BATCH = 100
_SLICE = 20

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WantedKey:
    """A key that a signature was made with.

    For an event `signed_ts` is its `origin_server_ts`, or None where the room version does not enforce validity.
    For a request, where the key must hold now, `for_request` is set.
    """

    server_name: str
    key_id: str
    signed_ts: int | None = None
    for_request: bool = False


class KeyFetcher(Protocol):
    """Asks other servers."""

    async def server_keys(self, server_name: str) -> dict[str, Any]:
        """`GET /_matrix/key/v2/server`; raises `FederationError`."""

    async def query_server_keys(
        self, notary: str, criteria: Mapping[str, Mapping[str, Mapping[str, int]]]
    ) -> Sequence[Any]:
        """`POST /_matrix/key/v2/query`; raises `FederationError`."""


class KeyStore(Protocol):
    """Keeps what was fetched."""

    async def load_keys(self, server_names: Collection[str]) -> list[ServerKey]:
        """All known keys of some servers."""

    async def load_documents(self, server_names: Collection[str]) -> list[KeyDocument]:
        """The last document that each of some servers gave itself; their `keys` may be left out."""

    async def save(self, keys: Sequence[ServerKey], document: KeyDocument | None, fetched_ts: int) -> None:
        """Keep keys, in place of those with the same server and id, and the document, in place of the last."""


@dataclass(slots=True)
class _Attempts:
    """When a server was asked last, and how often in vain since it answered."""

    at: float
    failures: int


class Keyring:
    """Finds keys, and answers for our own."""

    def __init__(
        self,
        server_name: str,
        own_keys: Sequence[SigningKey],
        fetcher: KeyFetcher,
        store: KeyStore,
        clock: KeyClock,
        notaries: Sequence[str] = (),
    ) -> None:
        self._server_name = server_name
        self._own_keys = own_keys
        self._fetcher = fetcher
        self._store = store
        self._clock = clock
        self._notaries = [name for name in notaries if name != server_name]
        self._known: OrderedDict[str, dict[str, ServerKey]] = OrderedDict()
        self._known_keys = 0
        self._attempts: OrderedDict[str, _Attempts] = OrderedDict()
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._unsaved: Counter[str] = Counter()
        # Events name whatever servers somebody likes: those who call must not wait behind these.
        self._slots = {for_request: asyncio.Semaphore(_AT_ONCE) for for_request in (False, True)}
        self._waiting: set[str] = set()
        """Servers that are to be asked for the sake of events, and are not asked yet."""

    async def close(self) -> None:
        """End what is under way."""
        tasks = list(self._fetching.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def has(self, wanted: WantedKey) -> bool:
        """Whether a key is there at once."""
        return self._in_memory(wanted) is not None

    async def find(
        self, wanted: Collection[WantedKey], *, seconds: float = 30.0
    ) -> dict[WantedKey, nacl.signing.VerifyKey]:
        """The keys that there are, of those that are wanted, within a time; what comes later is there the next time."""
        missing = {one for one in wanted if self._in_memory(one) is None and self._may_be_found(one)}
        if missing:
            await self._load({one.server_name for one in missing})
            missing = {one for one in missing if self._in_memory(one) is None}
        if missing:
            try:
                async with asyncio.timeout(seconds):
                    await self._fetch(missing)
            except TimeoutError:
                _log.info("keys_took_too_long", servers=len({one.server_name for one in missing}))
        found = {one: self._in_memory(one) for one in wanted}
        return {one: key for one, key in found.items() if key is not None}

    def own_document(self) -> dict[str, Any]:
        """The answer of `GET /_matrix/key/v2/server`."""
        return own_document(self._server_name, self._own_keys, self._clock.now_ms())

    async def notarised(
        self, criteria: Mapping[str, Mapping[str, int | None]], *, seconds: float = 15.0
    ) -> list[dict[str, Any]]:
        """The answer of a notary: documents of servers, signed by us.

        `criteria` has, by server and key id, until when the keys should hold (now, where that is None). No key ids, or
        an empty one, mean all keys. A server that does not answer is answered for with the last document that it gave.
        """
        documents = []
        names = {name for name in criteria if is_server_name(name) and name != self._server_name}
        stored = {document.server_name: document for document in await self._store.load_documents(names)}
        stale = {name for name in names if self._is_stale(stored.get(name), criteria[name])}
        if stale:
            tasks = [task for name in stale if (task := self._ask_directly(name, for_request=False))]
            if tasks:
                await asyncio.wait(tasks, timeout=seconds)
            stored |= {document.server_name: document for document in await self._store.load_documents(stale)}
        documents = [document.content for document in stored.values()]
        if self._server_name in criteria:
            documents.append(self.own_document())
        return [countersign(document, self._server_name, self._own_keys) for document in documents]

    def _is_stale(self, document: KeyDocument | None, wanted: Mapping[str, int | None]) -> bool:
        if document is None:
            return True
        now_ms = self._clock.now_ms()
        # "Intermediate notary servers should cache a response for half of its lifetime".
        if now_ms > (document.fetched_ts + document.valid_until_ts) // 2:
            return True
        listed = {**document.content.get("old_verify_keys", {}), **document.content.get("verify_keys", {})}
        return any(
            (key_id and key_id not in listed)
            or document.valid_until_ts < (now_ms if least is None else least)
            for key_id, least in wanted.items()
        )

    # -- what is known ---------------------------------------------------------------------------------

    def _in_memory(self, wanted: WantedKey) -> nacl.signing.VerifyKey | None:
        if wanted.server_name == self._server_name:
            own = next((key for key in self._own_keys if key.key_id == wanted.key_id), None)
            if own is None or (own.retired_ts is not None and (wanted.signed_ts or 0) > own.retired_ts):
                return None
            return own.private.verify_key
        key = self._known.get(wanted.server_name, {}).get(wanted.key_id)
        if key is None:
            return None
        if wanted.for_request:
            return key.verify_key() if key.signs_requests_at(self._clock.now_ms()) else None
        return key.verify_key() if key.signs_events_at(wanted.signed_ts) else None

    def _may_be_found(self, wanted: WantedKey) -> bool:
        """Not where no answer of anybody could help."""
        return (
            wanted.server_name != self._server_name
            and is_server_name(wanted.server_name)
            and is_key_id(wanted.key_id)
            and (wanted.signed_ts or 0) <= self._clock.now_ms() + MAX_VALIDITY_MS
        )

    async def _load(self, server_names: set[str]) -> None:
        loaded: defaultdict[str, dict[str, ServerKey]] = defaultdict(dict)
        for key in await self._store.load_keys(server_names):
            loaded[key.server_name][key.key_id] = key
        for server_name, keys in loaded.items():
            # Of what is not saved yet memory knows more.
            if server_name not in self._unsaved:
                self._remember(server_name, keys)

    def _remember(self, server_name: str, keys: dict[str, ServerKey]) -> None:
        self._known_keys += len(keys) - len(self._known.pop(server_name, ()))
        self._known[server_name] = keys
        while len(self._known) > _MAX_SERVERS or self._known_keys > _MAX_KEYS:
            _, forgotten = self._known.popitem(last=False)
            self._known_keys -= len(forgotten)

    # -- fetching --------------------------------------------------------------------------------------

    async def _fetch(self, missing: set[WantedKey]) -> None:
        many = len({one.server_name for one in missing}) > _MANY
        if many:
            missing = await self._fetch_from_notaries(missing)
        for_requests = {one.server_name for one in missing if one.for_request}
        names = sorted({one.server_name for one in missing})
        for first in range(0, len(names), _BATCH):
            asked = [
                self._ask_directly(name, for_request=name in for_requests)
                for name in names[first : first + _BATCH]
            ]
            if tasks := [task for task in asked if task is not None]:
                # Whoever waits may give up; what was begun is ended for the others.
                await asyncio.wait(tasks)
        if not many:
            await self._fetch_from_notaries({one for one in missing if self._in_memory(one) is None})

    def _ask_directly(self, server_name: str, *, for_request: bool) -> asyncio.Task[None] | None:
        """The one task that asks a server; None where it was asked lately, or too much is under way."""
        task = self._fetching.get(server_name)
        if task is not None and not (for_request and server_name in self._waiting):
            return task
        most = 2 * _MAX_UNDER_WAY if for_request else _MAX_UNDER_WAY
        if not self._may_ask(server_name, for_request=for_request) or len(self._fetching) >= most:
            return None
        asking = self._fetching[server_name] = asyncio.create_task(
            self._fetch_directly(server_name, for_request=for_request)
        )
        asking.add_done_callback(lambda _: self._asked_directly(server_name, asking))
        return asking

    def _asked_directly(self, server_name: str, task: asyncio.Task[None]) -> None:
        if self._fetching.get(server_name) is task:
            del self._fetching[server_name]

    async def _fetch_directly(self, server_name: str, *, for_request: bool) -> None:
        if not for_request:
            self._waiting.add(server_name)
        async with self._slots[for_request]:
            self._waiting.discard(server_name)
            other = self._fetching.get(server_name)
            if other is not None and other is not asyncio.current_task():
                # Somebody who could not wait asks already.
                await asyncio.wait([other])
                return
            if not self._may_ask(server_name, for_request=for_request):
                return
            try:
                answer = await self._fetcher.server_keys(server_name)
                document = parse_document(answer, server_name, self._clock.now_ms(), direct=True)
            except (FederationError, BadKeyDocument) as error:
                self._asked(server_name, answered=False)
                _log.debug("keys_not_fetched", server=server_name, why=str(error))
                return
        try:
            await self._take([document])
        except Exception:  # noqa: BLE001 - of the store; the next who wants the keys asks again
            _log.exception("keys_not_taken", server=server_name)
        else:
            self._asked(server_name, answered=True)

    async def _fetch_from_notaries(self, missing: set[WantedKey]) -> set[WantedKey]:
        """Ask the notaries in turn; what is still missing then."""
        for notary in self._notaries:
            if not missing:
                break
            names = sorted({one.server_name for one in missing} - {notary})
            batches = [names[first : first + _NOTARY_BATCH] for first in range(0, len(names), _NOTARY_BATCH)]
            if not batches or not (notary_keys := await self._keys_of_notary(notary)):
                continue
            for batch in batches:
                wanted = [one for one in missing if one.server_name in batch]
                if not self._may_ask_notary(notary) or not await self._ask_notary(
                    notary, notary_keys, wanted
                ):
                    break
            missing = {one for one in missing if self._in_memory(one) is None}
        return missing

    async def _keys_of_notary(self, notary: str) -> dict[str, nacl.signing.VerifyKey]:
        """Only what the notary itself gave: one notary does not vouch for another."""

        def valid() -> dict[str, nacl.signing.VerifyKey]:
            now_ms = self._clock.now_ms()
            known = self._known.get(notary, {}).values()
            return {
                key.key_id: key.verify_key() for key in known if key.direct and key.signs_requests_at(now_ms)
            }

        if not valid():
            await self._load({notary})
        if not valid() and (task := self._ask_directly(notary, for_request=True)):
            await asyncio.wait([task])
        return valid()

    async def _ask_notary(
        self, notary: str, notary_keys: Mapping[str, nacl.signing.VerifyKey], wanted: Iterable[WantedKey]
    ) -> bool:
        now_ms = self._clock.now_ms()
        criteria: defaultdict[str, dict[str, dict[str, int]]] = defaultdict(dict)
        for one in wanted:
            least = now_ms if one.for_request else one.signed_ts or 0
            before = criteria[one.server_name].get(one.key_id, {}).get("minimum_valid_until_ts", 0)
            criteria[one.server_name][one.key_id] = {"minimum_valid_until_ts": max(least, before)}
        try:
            answer = await self._fetcher.query_server_keys(notary, dict(criteria))
        except FederationError as error:
            self._asked(f"notary {notary}", answered=False)
            _log.warning("notary_failed", notary=notary, why=str(error))
            return False
        for first in range(0, len(answer), _SLICE):
            # Signatures take their time; others get their turn in between.
            part = answer[first : first + _SLICE]
            await self._take(parse_notary_answer(part, criteria, notary, notary_keys, now_ms))
            await asyncio.sleep(0)
        return True

    async def _take(self, documents: Sequence[KeyDocument]) -> None:
        """Remember the keys of documents, and keep them."""
        await self._load({document.server_name for document in documents})
        saves = []
        for document in documents:
            # Nobody comes in between reading and remembering: of two documents the second is merged into the first.
            known = self._known.get(document.server_name, {})
            merged = merge(known, document)
            self._remember(document.server_name, merged)
            changed = [key for key in merged.values() if known.get(key.key_id) != key]
            if changed or document.direct:
                saves.append(self._save(document.server_name, changed, document if document.direct else None))
        await asyncio.gather(*saves)

    async def _save(self, server_name: str, keys: list[ServerKey], document: KeyDocument | None) -> None:
        self._unsaved[server_name] += 1
        try:
            await self._store.save(keys, document, self._clock.now_ms())
        except Exception:  # noqa: BLE001 - the keys hold without it, and are fetched again after a restart
            _log.exception("keys_not_saved", server=server_name)
        finally:
            self._unsaved[server_name] -= 1
            if not self._unsaved[server_name]:
                del self._unsaved[server_name]

    # -- how often -------------------------------------------------------------------------------------

    def _may_ask(self, server_name: str, *, for_request: bool) -> bool:
        attempts = self._attempts.get(server_name)
        if attempts is None:
            return True
        wait = _NOT_AGAIN_SECONDS
        if attempts.failures:
            wait = min(_FIRST_WAIT_SECONDS * 2 ** min(attempts.failures - 1, 10), _MOST_WAIT_SECONDS)
        if for_request:
            # A server that calls is about to be reachable again.
            wait = min(wait, _NOT_AGAIN_SECONDS)
        return self._clock.monotonic() - attempts.at >= wait

    def _may_ask_notary(self, notary: str) -> bool:
        attempts = self._attempts.get(f"notary {notary}")
        return attempts is None or self._clock.monotonic() - attempts.at >= _FIRST_WAIT_SECONDS

    def _asked(self, server_name: str, *, answered: bool) -> None:
        before = self._attempts.pop(server_name, None)
        failures = 0 if answered else 1 + (before.failures if before is not None else 0)
        self._attempts[server_name] = _Attempts(self._clock.monotonic(), failures)
        if len(self._attempts) > _MAX_SERVERS:
            self._attempts.popitem(last=False)


class KeyClock(Protocol):
    """The time."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back."""
