"""Addresses in the bodies of requests (CS "Third-party invites")."""

from __future__ import annotations

from pydantic import Field

from homeserver.http.request import Body
from homeserver.services.identity_servers import ThirdPartyAddress

_MAX_TEXT = 1_000


class ThirdPartyAddressBody(Body):
    """An address, and the identity server that may know whose it is."""

    id_server: str = Field(max_length=_MAX_TEXT)
    id_access_token: str = Field(max_length=_MAX_TEXT)
    medium: str = Field(max_length=_MAX_TEXT)
    address: str = Field(max_length=_MAX_TEXT)

    def read(self) -> ThirdPartyAddress:
        """The address."""
        return ThirdPartyAddress(self.id_server, self.id_access_token, self.medium, self.address)
