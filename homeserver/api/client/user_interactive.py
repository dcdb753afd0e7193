"""User-interactive authentication of signed-in users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.services.user_interactive import PASSWORD

if TYPE_CHECKING:
    from homeserver.api.context import ApiContext
    from homeserver.services.requester import Requester
    from homeserver.services.user_interactive import Proof


async def prove_by_password(
    context: ApiContext, requester: Requester, operation: str, body: dict[str, Any]
) -> Proof:
    """The proof by password that the requester may do an operation; raises the 401 that asks for it."""
    return await context.user_interactive.require(
        operation=operation, user_id=requester.user_id, body=body, flows=[(PASSWORD,)]
    )
