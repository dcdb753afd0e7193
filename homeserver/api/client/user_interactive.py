"""User-interactive authentication: by password for signed-in users, and the pages for people (CS "Fallback")."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from homeserver.errors import InvalidParam, NotFound
from homeserver.http.response import html_response
from homeserver.http.routing import Route, client
from homeserver.services.user_interactive import PASSWORD, TERMS

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.api.context import ApiContext
    from homeserver.http.request import Request
    from homeserver.services.requester import Requester
    from homeserver.services.user_interactive import Proof

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:3rem auto;padding:0 1rem}}
button{{font:inherit;padding:.5rem 1.5rem}}</style></head>
<body><h1>{title}</h1>{body}</body></html>"""
_DONE = """<p>You can close this window now.</p><script>
if (window.onAuthDone) { window.onAuthDone(); }
else if (window.opener && window.opener.postMessage) { window.opener.postMessage("authDone", "*"); }
</script>"""


async def prove_by_password(
    context: ApiContext, requester: Requester, operation: str, body: dict[str, Any]
) -> Proof:
    """The proof by password that the requester may do an operation; raises the 401 that asks for it."""
    return await context.user_interactive.require(
        operation=operation, user_id=requester.user_id, body=body, flows=[(PASSWORD,)]
    )


class UserInteractiveEndpoints:
    """Fallback pages."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """All routes of this module."""
        path = "/auth/{stage}/fallback/web"
        return [*client("GET", path, self.show), *client("POST", path, self.accept)]

    async def show(self, request: Request) -> Response:
        """`GET /auth/{stage}/fallback/web`."""
        session = request.query.require("session")
        terms = self._context.settings.registration.terms
        if request.path_parameters["stage"] != TERMS or terms is None:
            raise NotFound("There is no page for this stage")
        if not await self._context.user_interactive.exists(session):
            raise InvalidParam("Unknown session")
        links = "".join(
            f'<li><a href="{escape(document.url)}" target="_blank" rel="noopener">{escape(document.name)}</a></li>'
            for languages in terms.documents.values()
            for document in list(languages.values())[:1]
        )
        form = (
            f"<p>To make an account, please accept:</p><ul>{links}</ul>"
            f'<form method="post"><input type="hidden" name="session" value="{escape(session)}">'
            '<button type="submit">I accept</button></form>'
        )
        return html_response(_PAGE.format(title="Terms of this server", body=form))

    async def accept(self, request: Request) -> Response:
        """`POST /auth/{stage}/fallback/web`."""
        if request.path_parameters["stage"] != TERMS:
            raise NotFound("There is no page for this stage")
        try:
            fields = parse_qs((await request.body()).decode("utf-8"), max_num_fields=20)
        except ValueError as error:
            raise InvalidParam("This is not a form") from error
        session = fields.get("session") or request.query.get_all("session")
        if not session:
            raise InvalidParam("`session` is missing", errcode="M_MISSING_PARAM")
        await self._context.user_interactive.accept_terms(session[0])
        return html_response(_PAGE.format(title="Thank you", body=_DONE))
