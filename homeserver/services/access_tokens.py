"""Access tokens: given out, looked up from memory, refreshed, taken back (CS "Using access tokens")."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.errors import MatrixError, UnknownToken
from homeserver.services.requester import Requester
from homeserver.storage.access_tokens import token_hash

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.ids import DeviceId, UserId
    from homeserver.storage.access_tokens import AccessTokenRow, AccessTokenStore
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.devices import DeviceStore

_CACHED_TOKENS = 20_000
_LIFETIME_MS = 60 * 60 * 1000
"""How long an access token is good that came with a refresh token."""
_LOGIN_TOKEN_MS = 2 * 60 * 1000
_SEEN_EVERY_MS = 60_000


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a client gets at a login; the last two fields only where it can refresh."""

    access_token: str
    refresh_token: str | None = None
    expires_in_ms: int | None = None


@dataclass(slots=True)
class _Known:
    requester: Requester
    expires_ts: int | None
    is_locked: bool


class AccessTokens:
    """Knows the tokens."""

    def __init__(
        self, database: Database, clock: Clock, store: AccessTokenStore, devices: DeviceStore
    ) -> None:
        self._database = database
        self._clock = clock
        self._store = store
        self._devices = devices
        # Hash of the token -> whose it is. Never the token itself.
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._keys_of: dict[UserId, set[bytes]] = {}
        self._changes = 0
        self._seen: dict[tuple[UserId, DeviceId], tuple[int, str, str | None]] = {}
        self._seen_written: OrderedDict[tuple[UserId, DeviceId], int] = OrderedDict()

    async def lookup(self, token: str, *, allow_locked: bool = False) -> Requester:
        """Who holds an access token; `UnknownToken` where nobody does, or no longer."""
        key = token_hash(token)
        known = self._known.get(key)
        if known is None:
            known = await self._load(token, key)
        if known.is_locked and not allow_locked:
            raise locked()
        if known.expires_ts is not None and known.expires_ts <= self._clock.now_ms():
            raise UnknownToken("The access token has expired", soft_logout=True)
        return known.requester

    async def _load(self, token: str, key: bytes) -> _Known:
        changes = self._changes
        row = await self._store.get(token)
        if row is None:
            raise UnknownToken("Unknown access token", soft_logout=False)
        await self._settle(row)
        known = _Known(
            Requester(
                user_id=row.user_id,
                device_id=row.device_id,
                access_token_id=row.token_nid,
                is_guest=row.is_guest,
                is_admin=row.is_admin,
                is_suspended=row.is_suspended,
            ),
            row.expires_ts,
            row.is_locked,
        )
        if changes == self._changes:
            self._known[key] = known
            self._keys_of.setdefault(row.user_id, set()).add(key)
            while len(self._known) > _CACHED_TOKENS:
                self._forget(next(iter(self._known)))
        return known

    def _forget(self, key: bytes) -> None:
        user_id = self._known.pop(key).requester.user_id
        self._keys_of[user_id].discard(key)
        if not self._keys_of[user_id]:
            del self._keys_of[user_id]

    async def _settle(self, row: AccessTokenRow) -> None:
        """The first use of a new pair ends the one before."""
        refresh_nid = row.refresh_nid
        if refresh_nid is not None and await self._store.has_unsettled(refresh_nid):
            await self._database.write(lambda t: self._store.settle_refresh(t, row.user_id, refresh_nid))

    def invalidate(self, user_id: UserId) -> None:
        """Something about the tokens, devices or account of a user has changed."""
        self._changes += 1
        for key in list(self._keys_of.get(user_id, ())):
            self._forget(key)

    async def issue(
        self, transaction: Transaction, user_id: UserId, device_id: DeviceId, *, refreshable: bool
    ) -> TokenPair:
        """New tokens for a device."""
        access_token = _new_token("rsa")
        if not refreshable:
            await self._store.insert(transaction, access_token, user_id, device_id)
            return TokenPair(access_token)
        refresh_token = _new_token("rsr")
        refresh_nid = await self._store.insert_refresh(transaction, refresh_token, user_id, device_id)
        await self._insert_expiring(transaction, access_token, user_id, device_id, refresh_nid)
        return TokenPair(access_token, refresh_token, _LIFETIME_MS)

    async def refresh(self, refresh_token: str) -> TokenPair:
        """A new pair for a refresh token; the old one stays good until the new one is first used."""

        async def work(transaction: Transaction) -> TokenPair | None:
            row = await self._store.get_refresh(transaction, refresh_token)
            if row is None:
                return None
            if row.is_locked:
                raise locked()
            await self._store.settle_refresh(transaction, row.user_id, row.refresh_nid)
            new_token, access_token = _new_token("rsr"), _new_token("rsa")
            new_nid = await self._store.insert_refresh(transaction, new_token, row.user_id, row.device_id)
            await self._store.set_next(transaction, row.refresh_nid, new_nid)
            await self._insert_expiring(transaction, access_token, row.user_id, row.device_id, new_nid)
            return TokenPair(access_token, new_token, _LIFETIME_MS)

        pair = await self._database.write(work)
        if pair is None:
            raise UnknownToken("Unknown refresh token", soft_logout=False)
        return pair

    async def _insert_expiring(
        self, transaction: Transaction, token: str, user_id: UserId, device_id: DeviceId, refresh_nid: int
    ) -> None:
        await self._store.insert(
            transaction,
            token,
            user_id,
            device_id,
            expires_ts=self._clock.now_ms() + _LIFETIME_MS,
            refresh_nid=refresh_nid,
        )

    async def issue_login_token(self, user_id: UserId) -> tuple[str, int]:
        """A token by which another device logs in once, and for how many milliseconds it is good."""
        token = _new_token("rsl")
        now = self._clock.now_ms()
        await self._database.write(
            lambda t: self._store.insert_login(t, token, user_id, now + _LOGIN_TOKEN_MS, now)
        )
        return token, _LOGIN_TOKEN_MS

    # -- where devices were seen -----------------------------------------------------------------------

    def seen(self, requester: Requester, address: str, user_agent: str | None) -> None:
        """Note that a device was here; written by `flush_seen`."""
        if requester.device_id is None:
            return
        key = (requester.user_id, requester.device_id)
        now = self._clock.now_ms()
        if now - self._seen_written.get(key, 0) < _SEEN_EVERY_MS:
            return
        self._seen_written[key] = now
        while len(self._seen_written) > _CACHED_TOKENS:
            self._seen_written.popitem(last=False)
        self._seen[key] = (now, address, user_agent and user_agent[:500])

    async def flush_seen(self) -> None:
        """Write down where devices were seen."""
        if not self._seen:
            return
        seen, self._seen = self._seen, {}
        rows = [(user_id, device_id, *where) for (user_id, device_id), where in seen.items()]
        await self._database.write(lambda t: self._devices.set_last_seen(t, rows))


def locked() -> MatrixError:
    """The error for an account that an administrator has locked (CS "Account locking")."""
    return MatrixError("This account is locked", errcode="M_USER_LOCKED", status=401, soft_logout=True)


def _new_token(kind: str) -> str:
    # The kind in front lets people and secret scanners recognise what they found.
    return f"{kind}_{secrets.token_urlsafe(32)}"
