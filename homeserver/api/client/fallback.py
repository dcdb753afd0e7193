"""The pages on which people finish a stage of user-interactive authentication (CS "Fallback")."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from homeserver.errors import InvalidParam, LimitExceeded, MatrixError, MissingParam, NotFound
from homeserver.http.response import html_response
from homeserver.http.routing import Route, client
from homeserver.services.user_interactive import DUMMY, PASSWORD, REGISTRATION_TOKEN, TERMS

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.config import TermsSettings
    from homeserver.http.request import Request

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:3rem auto;padding:0 1rem}}
button,input{{font:inherit;padding:.5rem;margin:.25rem 0}}label{{display:block}}</style></head>
<body><h1>{title}</h1>{body}</body></html>"""
_FORM = """{problem}<form method="post"><input type="hidden" name="session" value="{session}">{inputs}
<button type="submit">{button}</button></form>"""
_DONE = """<p>You can close this window now.</p><script>
if (window.onAuthDone) { window.onAuthDone(); }
else if (window.opener && window.opener.postMessage) { window.opener.postMessage("authDone", "*"); }
</script>"""
_CODE_INPUT = '<label>Token <input name="token" required></label>'
_LOGIN_INPUTS = """<label>User name <input name="user" autocomplete="username" required></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>"""
# Stage -> title, what is asked for, button.
_FORMS = {
    DUMMY: ("One more step", "", "Go on"),
    REGISTRATION_TOKEN: ("Registration token", _CODE_INPUT, "Go on"),
    PASSWORD: ("Who are you?", _LOGIN_INPUTS, "Go on"),
}
_MAX_BODY_BYTES = 16_384


class FallbackEndpoints:
    """One page for each stage that this server knows."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        path = "/auth/{stage}/fallback/web"
        return [
            *client("GET", path, self.show),
            *client("POST", path, self.finish, max_body_bytes=_MAX_BODY_BYTES),
        ]

    async def show(self, request: Request) -> Response:
        """`GET /auth/{stage}/fallback/web`."""
        self._context.authenticator.anyone(request)
        session = request.query.require("session")
        page = self._page(request.path_parameters["stage"], session)
        if not await self._context.user_interactive.exists(session):
            raise InvalidParam("Unknown session")
        return html_response(page)

    async def finish(self, request: Request) -> Response:
        """`POST /auth/{stage}/fallback/web`."""
        self._context.rate_limits.check_address("login_address", request.client_address)
        stage = request.path_parameters["stage"]
        try:
            fields = dict(parse_qsl((await request.body()).decode("utf-8"), max_num_fields=20))
        except ValueError as error:
            raise InvalidParam("This is not a form") from error
        session = fields.get("session") or request.query.get("session")
        if not session:
            raise MissingParam("`session` is missing")
        # `NotFound` where there is no such page.
        self._page(stage, session)
        try:
            await self._context.user_interactive.prove_on_page(session, stage, fields)
        except LimitExceeded:
            raise
        except MatrixError as error:
            if error.status == 400:
                raise
            return html_response(self._page(stage, session, error.message), error.status)
        return html_response(_PAGE.format(title="Thank you", body=_DONE))

    def _page(self, stage: str, session: str, problem: str | None = None) -> str:
        terms = self._context.settings.registration.terms
        if stage == TERMS and terms is not None:
            title, inputs, button = "Terms of this server", _links(terms), "I accept"
        elif stage in _FORMS:
            title, inputs, button = _FORMS[stage]
        else:
            raise NotFound("There is no page for this stage")
        shown = f"<p><strong>{escape(problem)}</strong></p>" if problem else ""
        body = _FORM.format(problem=shown, session=escape(session), inputs=inputs, button=button)
        return _PAGE.format(title=title, body=body)


def _links(terms: TermsSettings) -> str:
    links = "".join(
        f'<li><a href="{escape(document.url)}" target="_blank" rel="noopener">{escape(document.name)}</a></li>'
        for languages in terms.documents.values()
        for document in list(languages.values())[:1]
    )
    return f"<p>To make an account, please accept:</p><ul>{links}</ul>"
