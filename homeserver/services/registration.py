"""Registration of new users, and the tokens that let people in (CS "Account registration")."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from homeserver.errors import Forbidden, InvalidParam, MatrixError, NotFound
from homeserver.ids import is_opaque_identifier, random_string
from homeserver.services.accounts import name_taken
from homeserver.services.logins import NewSession
from homeserver.services.passwords import check_new_password
from homeserver.services.user_interactive import DUMMY, MAX_TOKEN_LENGTH, REGISTRATION_TOKEN, TERMS
from homeserver.storage.registration_tokens import RegistrationToken

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.config import RegistrationSettings
    from homeserver.ids import UserId
    from homeserver.services.accounts import Accounts
    from homeserver.services.logins import Logins, OpenedSession
    from homeserver.services.passwords import Passwords
    from homeserver.services.requester import Requester
    from homeserver.services.user_interactive import Flow, Proof
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.registration_tokens import RegistrationTokenStore

_DIGITS = "0123456789"


class Registration:
    """Makes accounts for people who come to us."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        settings: RegistrationSettings,
        accounts: Accounts,
        logins: Logins,
        passwords: Passwords,
        tokens: RegistrationTokenStore,
    ) -> None:
        self._database = database
        self._clock = clock
        self._settings = settings
        self._accounts = accounts
        self._logins = logins
        self._passwords = passwords
        self._tokens = tokens

    @property
    def flows(self) -> list[Flow]:
        """What somebody has to go through; `Forbidden` where nobody may register."""
        if self._settings.mode == "closed":
            raise Forbidden("Registration is closed on this server")
        stages = [REGISTRATION_TOKEN] if self._settings.mode == "token" else []
        if self._settings.terms is not None:
            stages.append(TERMS)
        return [tuple(stages or [DUMMY])]

    async def check(
        self,
        username: str | None,
        password: str | None,
        wanted: NewSession,
        guest: Requester | None = None,
    ) -> None:
        """Refuse what would fail in the end, before the user goes through any stage.

        "Homeservers MUST perform the relevant checks and return these codes before performing User-Interactive
        Authentication."
        """
        if guest is not None:
            if not guest.is_guest or username is None or self._accounts.user_id(username) != guest.user_id:
                raise Forbidden("A guest registers by their own name and access token")
        elif username is not None:
            await self._accounts.check_available(username.lower())
        if password is not None:
            check_new_password(password)
        wanted.check()

    async def register(
        self,
        username: str | None,
        password: str,
        wanted: NewSession,
        proof: Proof,
        *,
        log_in: bool,
        guest: Requester | None = None,
    ) -> tuple[UserId, OpenedSession | None]:
        """Make an account, or a user of a guest; use up the registration token, and log in.

        Raises what `check` does.
        """
        await self.check(username, password, wanted, guest)
        if guest is not None:
            user_id = guest.user_id
        elif username is not None:
            user_id = self._accounts.user_id(username.lower())
        else:
            user_id = self._accounts.user_id(await self._free_localpart())
        password_hash = await self._passwords.hash(password)
        token = proof.completed.get(REGISTRATION_TOKEN)

        async def work(transaction: Transaction) -> OpenedSession | None:
            if isinstance(token, str) and not await self._tokens.use(
                transaction, token, self._clock.now_ms()
            ):
                raise Forbidden("This registration token is no longer good")
            if guest is not None:
                made = await self._accounts.promote_guest_in(transaction, user_id, password_hash)
            else:
                made = await self._accounts.create_in(transaction, user_id, password_hash)
            if not made:
                raise name_taken()
            return await self._logins.open_in(transaction, user_id, wanted) if log_in else None

        return user_id, await self._database.write(work)

    async def register_guest(self, display_name: str | None) -> OpenedSession:
        """Make a guest account; `Forbidden` where there are none."""
        if not self._settings.allow_guests:
            raise Forbidden("Guests are not allowed on this server", errcode="M_GUEST_ACCESS_FORBIDDEN")
        wanted = NewSession(display_name=display_name)
        wanted.check()
        user_id = self._accounts.user_id(await self._free_localpart())

        async def work(transaction: Transaction) -> OpenedSession:
            if not await self._accounts.create_in(transaction, user_id, None, is_guest=True):
                raise name_taken()
            return await self._logins.open_in(transaction, user_id, wanted)

        return await self._database.write(work)

    async def _free_localpart(self) -> str:
        while True:
            localpart = random_string(12, _DIGITS)
            try:
                await self._accounts.check_available(localpart)
            except MatrixError:
                continue
            return localpart

    # -- registration tokens ---------------------------------------------------------------------------

    async def is_good_token(self, token: str) -> bool:
        """Whether somebody could register with a token now."""
        if not is_opaque_identifier(token, MAX_TOKEN_LENGTH):
            return False
        row = await self._tokens.get(token)
        return row is not None and row.is_good(self._clock.now_ms())

    async def create_token(
        self, token: str | None = None, *, uses_allowed: int | None = None, expires_ts: int | None = None
    ) -> RegistrationToken:
        """Make a registration token."""
        text = token if token is not None else secrets.token_urlsafe(12)
        if not is_opaque_identifier(text, MAX_TOKEN_LENGTH):
            raise InvalidParam(f"A registration token is 1 to {MAX_TOKEN_LENGTH} letters, digits and . _ ~ -")
        if uses_allowed is not None and uses_allowed < 1:
            raise InvalidParam("A registration token must be good for at least one use")
        row = RegistrationToken(text, uses_allowed, 0, expires_ts, self._clock.now_ms())
        if not await self._database.write(lambda t: self._tokens.insert(t, row)):
            raise InvalidParam("There is such a token already")
        return row

    async def load_tokens(self) -> list[RegistrationToken]:
        """All registration tokens."""
        return await self._tokens.load_all()

    async def revoke_token(self, token: str) -> None:
        """Drop a registration token; `NotFound` where there is none."""
        if not await self._database.write(lambda t: self._tokens.delete(t, token)):
            raise NotFound("There is no such registration token")
