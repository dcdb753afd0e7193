"""User-interactive authentication (CS "User-Interactive Authentication API").

A session belongs to one operation: to the method and path, the user, and the body of its first request. Only a
registration may change its body on the way: clients ask for the flows with an empty one, and nobody has agreed to
anything yet.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from homeserver.errors import (
    BadJson,
    Forbidden,
    InvalidParam,
    LimitExceeded,
    MatrixError,
    MissingParam,
)
from homeserver.ids import is_opaque_identifier, random_string
from homeserver.services.user_identifiers import UnknownIdentifier, user_name
from homeserver.storage.user_interactive import UserInteractiveSession

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homeserver.clock import Clock
    from homeserver.config import TermsSettings
    from homeserver.ids import UserId
    from homeserver.services.accounts import Accounts
    from homeserver.storage.database import Database
    from homeserver.storage.registration_tokens import RegistrationTokenStore
    from homeserver.storage.user_interactive import UserInteractiveStore

DUMMY = "m.login.dummy"
PASSWORD = "m.login.password"  # noqa: S105 - the name of a stage
TERMS = "m.login.terms"
REGISTRATION_TOKEN = "m.login.registration_token"  # noqa: S105 - the name of a stage
MAX_TOKEN_LENGTH = 64
_LIFETIME_MS = 60 * 60 * 1000

Flow = tuple[str, ...]


class Proof:
    """A finished authentication: the body of the first request, what each stage proved, the session, if any."""

    def __init__(self, body: dict[str, Any], completed: dict[str, Any], session_id: str | None) -> None:
        self.body = body
        self.completed = completed
        self.session_id = session_id


class UserInteractive:
    """Leads clients through the stages of a flow."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        store: UserInteractiveStore,
        registration_tokens: RegistrationTokenStore,
        accounts: Accounts,
        terms: TermsSettings | None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._store = store
        self._registration_tokens = registration_tokens
        self._accounts = accounts
        self._terms = terms

    async def require(
        self,
        *,
        operation: str,
        user_id: UserId | None,
        body: dict[str, Any],
        flows: Sequence[Flow],
        body_may_change: bool = False,
    ) -> Proof:
        """The proof that somebody may do the operation; raises the 401 that says what is still to be shown.

        `operation` is the method and path, `body` the request's body with `auth` in it. A later request may leave
        out what the first one said; it may say something else only where `body_may_change`.
        """
        auth = body.get("auth")
        request = {name: value for name, value in body.items() if name != "auth"}
        if auth is not None and not isinstance(auth, dict):
            raise BadJson("`auth` is not an object")
        purpose = _purpose(operation, user_id)
        known = await self._session(auth, purpose)
        session = self._new_session(purpose, request) if known is None else known
        first = orjson.loads(session.body)
        merged = {**first, **request}
        if merged != first:
            if not body_may_change:
                raise Forbidden("This session is for another operation")
            changed = session = replace(session, body=orjson.dumps(merged))
            await self._database.write(lambda t: self._store.set_body(t, changed))
        proved: dict[str, Any] = {}
        error = None
        try:
            proved = await self._prove_stage(auth or {}, session.completed, flows, user_id)
        except (LimitExceeded, UnknownIdentifier):
            raise
        except MatrixError as failure:
            error = failure
        if known is None:
            session = replace(session, completed=proved)
        elif proved:
            session = await self._complete(session, proved)
        if any(all(stage in session.completed for stage in flow) for flow in flows):
            # On its page anybody can show a password, but that of another user is no proof.
            if user_id is not None and session.completed.get(PASSWORD, user_id) != user_id:
                raise Forbidden("This is another user's session")
            return Proof(merged, session.completed, None if known is None else session.session_id)
        if known is None:
            # Who shows everything at once needs no session.
            new = session
            await self._database.write(lambda t: self._store.insert(t, new))
        raise self._challenge(session, flows, error)

    async def claim(self, proof: Proof) -> None:
        """The operation begins, and the session can begin no other; `InvalidParam` where it was claimed before."""
        session_id = proof.session_id
        if session_id is not None and not await self._database.write(
            lambda t: self._store.delete(t, session_id)
        ):
            raise InvalidParam("Unknown session")

    async def finish(self, proof: Proof) -> None:
        """The operation was done: the session can do no other."""
        session_id = proof.session_id
        if session_id is not None:
            await self._database.write(lambda t: self._store.delete(t, session_id))

    async def prove_on_page(self, session_id: str, stage: str, fields: Mapping[str, Any]) -> None:
        """Finish a stage by what was filled in on its page.

        Raises `InvalidParam` for an unknown session, `Forbidden` where the fields prove nothing.
        """
        session = await self._store.get(session_id, self._clock.now_ms())
        if session is None:
            raise InvalidParam("Unknown session")
        await self._complete(session, {stage: await self._prove(stage, fields, None)})

    async def exists(self, session_id: str) -> bool:
        """Whether there is such a session."""
        return await self._store.get(session_id, self._clock.now_ms()) is not None

    # -- sessions --------------------------------------------------------------------------------------

    async def _session(self, auth: dict[str, Any] | None, purpose: bytes) -> UserInteractiveSession | None:
        session_id = auth.get("session") if auth else None
        if session_id is None:
            return None
        session = None
        if isinstance(session_id, str):
            session = await self._store.get(session_id, self._clock.now_ms())
        if session is None:
            raise InvalidParam("Unknown session")
        if session.purpose != purpose:
            raise Forbidden("This session is for another operation")
        return session

    def _new_session(self, purpose: bytes, request: dict[str, Any]) -> UserInteractiveSession:
        return UserInteractiveSession(
            session_id=random_string(24),
            purpose=purpose,
            body=orjson.dumps(request),
            completed={},
            expires_ts=self._clock.now_ms() + _LIFETIME_MS,
        )

    async def _complete(
        self, session: UserInteractiveSession, proved: dict[str, Any]
    ) -> UserInteractiveSession:
        completed = await self._database.write(
            lambda t: self._store.add_completed(t, session.session_id, proved)
        )
        if completed is None:
            raise InvalidParam("Unknown session")
        return replace(session, completed=completed)

    def _challenge(
        self, session: UserInteractiveSession, flows: Sequence[Flow], error: MatrixError | None = None
    ) -> MatrixError:
        params: dict[str, Any] = {}
        if self._terms is not None and any(TERMS in flow for flow in flows):
            params[TERMS] = {"policies": terms_policies(self._terms)}
        challenge = MatrixError(
            error.message if error else "",
            status=401,
            flows=[{"stages": list(flow)} for flow in flows],
            params=params,
            session=session.session_id,
            completed=list(session.completed),
        )
        challenge.errcode = error.errcode if error else ""
        return challenge

    # -- stages ----------------------------------------------------------------------------------------

    async def _prove_stage(
        self,
        auth: dict[str, Any],
        completed: Mapping[str, Any],
        flows: Sequence[Flow],
        user_id: UserId | None,
    ) -> dict[str, Any]:
        """The stage that a request shows, with what it proves; empty where it shows none that is new.

        Raises `MatrixError` where it proves nothing.
        """
        stage = auth.get("type")
        if not stage:
            return {}
        if not isinstance(stage, str) or not any(stage in flow for flow in flows):
            raise MatrixError("This stage is in none of the flows", errcode="M_UNRECOGNIZED")
        if stage in completed:
            return {}
        if not any(_is_next(stage, flow, completed) for flow in flows):
            # "the flow's stages must be completed in order"
            raise Forbidden("Another stage comes before this one")
        return {stage: await self._prove(stage, auth, user_id)}

    async def _prove(self, stage: str, auth: Mapping[str, Any], user_id: UserId | None) -> Any:
        if stage == PASSWORD:
            return await self._prove_password(auth, user_id)
        if stage == REGISTRATION_TOKEN:
            token = auth.get("token")
            if not isinstance(token, str):
                raise MissingParam("`token` is missing")
            if not is_opaque_identifier(token, MAX_TOKEN_LENGTH):
                raise Forbidden("This registration token is not good")
            row = await self._registration_tokens.get(token)
            if row is None or not row.is_good(self._clock.now_ms()):
                raise Forbidden("This registration token is not good")
            return token
        return True

    async def _prove_password(self, auth: Mapping[str, Any], user_id: UserId | None) -> Any:
        name = user_name(auth) or user_id
        password = auth.get("password")
        if name is None or not isinstance(password, str):
            raise MissingParam("`identifier` or `password` is missing")
        claimed = self._accounts.local_user_id(name)
        if user_id is not None and claimed != user_id:
            raise Forbidden("This is another user's name")
        return (await self._accounts.verify_password(claimed, password)).user_id


def terms_policies(terms: TermsSettings) -> dict[str, Any]:
    """The parameters of the stage `m.login.terms` (CS "Terms of service at registration")."""
    return {
        name: {
            "version": terms.version,
            **{language: {"name": one.name, "url": one.url} for language, one in languages.items()},
        }
        for name, languages in terms.documents.items()
    }


def _is_next(stage: str, flow: Flow, completed: Mapping[str, Any]) -> bool:
    return stage in flow and all(before in completed for before in flow[: flow.index(stage)])


def _purpose(operation: str, user_id: UserId | None) -> bytes:
    return hashlib.blake2b(
        f"{operation}\x00{user_id or ''}".encode("utf-8", "surrogatepass"), digest_size=16
    ).digest()
