"""Accounts: made, found, given a new password; whether a password is right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from homeserver.errors import Forbidden, MatrixError, NotFound
from homeserver.ids import MAX_ID_BYTES, UserId, is_localpart, is_user_id, localpart_of, server_name_of
from homeserver.storage.accounts import Account

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.ids import DeviceId, ServerName
    from homeserver.services.devices import Devices
    from homeserver.services.passwords import Passwords
    from homeserver.storage.access_tokens import AccessTokenStore
    from homeserver.storage.accounts import AccountStore
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.profiles import ProfileStore

_ATTEMPTS = "login_account"


class AttemptLimit(Protocol):
    """Bounds how often somebody may try."""

    def check(self, name: str, key: str) -> None:
        """Count an attempt; `LimitExceeded` where there were too many."""

    def give_back(self, name: str, key: str) -> None:
        """The attempt was a good one, and does not count."""


class Accounts:
    """The accounts of this server."""

    def __init__(
        self,
        server_name: ServerName,
        database: Database,
        clock: Clock,
        store: AccountStore,
        tokens: AccessTokenStore,
        profiles: ProfileStore,
        devices: Devices,
        passwords: Passwords,
        attempts: AttemptLimit,
    ) -> None:
        self._server_name = server_name
        self._database = database
        self._clock = clock
        self._store = store
        self._tokens = tokens
        self._profiles = profiles
        self._devices = devices
        self._passwords = passwords
        self._attempts = attempts

    def user_id(self, localpart: str) -> UserId:
        """The id of a user of this server."""
        return UserId(f"@{localpart}:{self._server_name}")

    def is_local(self, user_id: str) -> bool:
        """Whether a user is one of this server."""
        return is_user_id(user_id) and server_name_of(user_id) == self._server_name

    def local_user_id(self, identifier: str) -> UserId | None:
        """The id of a user of this server from a localpart or a whole id; None for another server's."""
        if identifier.startswith("@"):
            if not self.is_local(identifier):
                return None
            identifier = localpart_of(identifier)
        user_id = self.user_id(identifier.lower())
        return user_id if is_user_id(user_id) else None

    async def check_available(self, localpart: str) -> UserId:
        """The id that a new user would have; raises what `/register` says for a name that cannot be had."""
        user_id = self.user_id(localpart)
        if not is_localpart(localpart) or len(user_id.encode()) > MAX_ID_BYTES or localpart.startswith("_"):
            raise MatrixError(
                "A user name holds only lower-case letters, digits and . _ = - / +, and begins with no _",
                errcode="M_INVALID_USERNAME",
            )
        if await self._store.exists(user_id):
            raise name_taken()
        return user_id

    async def create(
        self, localpart: str, password: str | None, *, is_admin: bool = False, display_name: str | None = None
    ) -> UserId:
        """Make an account; raises what `check_available` and `Passwords.hash` do."""
        user_id = await self.check_available(localpart)
        password_hash = None if password is None else await self._passwords.hash(password)
        created = await self._database.write(
            lambda t: self.create_in(t, user_id, password_hash, is_admin=is_admin, display_name=display_name)
        )
        if not created:
            raise name_taken()
        return user_id

    async def create_in(
        self,
        transaction: Transaction,
        user_id: UserId,
        password_hash: str | None,
        *,
        is_admin: bool = False,
        is_guest: bool = False,
        display_name: str | None = None,
    ) -> bool:
        """Make an account inside a larger write; False where the name was taken meanwhile."""
        account = Account(
            user_id=user_id,
            password_hash=password_hash,
            created_ts=self._clock.now_ms(),
            is_admin=is_admin,
            is_guest=is_guest,
            is_locked=False,
            is_suspended=False,
            deactivated_ts=None,
        )
        if not await self._store.insert(transaction, account):
            return False
        name = display_name or localpart_of(user_id)
        await self._profiles.set_text(transaction, user_id, "displayname", name)
        return True

    async def promote_guest_in(self, transaction: Transaction, user_id: UserId, password_hash: str) -> bool:
        """Make a guest a user inside a larger write, and end their session; False where there is no such guest."""
        if not await self._store.promote_guest(transaction, user_id, password_hash):
            return False
        await self._devices.delete_all_in(transaction, user_id)
        return True

    async def get(self, user_id: UserId) -> Account:
        """An account; `NotFound` where there is none."""
        account = await self._store.get(user_id)
        if account is None:
            raise NotFound(f"There is no account {user_id}")
        return account

    async def load_all(self) -> list[Account]:
        """All accounts, oldest first."""
        return await self._store.load_all()

    async def verify_password(self, user_id: UserId | None, password: str) -> Account:
        """The account, if the password is theirs; `Forbidden` otherwise, whatever the reason.

        `LimitExceeded` after too many wrong ones, whether or not there is such an account.
        """
        self._attempts.check(_ATTEMPTS, user_id or "")
        account = await self._store.get(user_id) if user_id is not None else None
        hashed = account.password_hash if account is not None else None
        right = await self._passwords.verify(password, hashed)
        if account is not None and account.deactivated_ts is not None:
            raise deactivated()
        if account is None or not right:
            raise Forbidden("Wrong user name or password")
        self._attempts.give_back(_ATTEMPTS, account.user_id)
        return account

    async def set_password(
        self, user_id: UserId, password: str, *, logout_devices: bool, but: DeviceId | None = None
    ) -> None:
        """Set a new password and, if so wished, log out every device but one: both or neither."""
        if (await self.get(user_id)).deactivated_ts is not None:
            raise deactivated()
        password_hash = await self._passwords.hash(password)

        async def work(transaction: Transaction) -> None:
            await self._store.set_password(transaction, user_id, password_hash)
            await self._tokens.delete_logins(transaction, user_id)
            if logout_devices:
                await self._devices.delete_all_in(transaction, user_id, but=but)

        await self._database.write(work)

    async def set_admin(self, user_id: UserId, *, is_admin: bool) -> None:
        """Make a user an administrator, or no longer one."""
        await self.get(user_id)
        await self._database.write(lambda t: self._store.set_admin(t, user_id, is_admin=is_admin))


def name_taken() -> MatrixError:
    """The error for a user name that somebody has, or had."""
    return MatrixError("This user name is taken", errcode="M_USER_IN_USE")


def deactivated() -> MatrixError:
    """The error for an account that was closed for good."""
    return Forbidden("This account has been deactivated", errcode="M_USER_DEACTIVATED")
