"""Whose certificates are believed when this server calls others."""

from __future__ import annotations

import functools
import ssl
from typing import TYPE_CHECKING

from federation.transport import client_tls
from homeserver.errors import StartupError

if TYPE_CHECKING:
    from homeserver.config import FederationSettings, HttpClientSettings


def federation_tls(settings: FederationSettings) -> ssl.SSLContext:
    """How other servers prove who they are; `StartupError` where a file cannot be used."""
    for number, path in enumerate(settings.trusted_ca):
        try:
            client_tls(verify=True, trusted_ca=[path])
        except (OSError, ssl.SSLError) as error:
            raise StartupError(
                f"federation.trusted_ca[{number}]: {path} cannot be used ({error.strerror or error}): "
                "name a PEM file with certificates that this user may read"
            ) from None
    if settings.verify_tls and not settings.trusted_ca:
        return _system_tls()
    return client_tls(verify=settings.verify_tls, trusted_ca=settings.trusted_ca)


def http_client_tls(settings: HttpClientSettings) -> ssl.SSLContext:
    """How everybody else proves who they are."""
    return _system_tls() if settings.verify_tls else client_tls(verify=False)


@functools.cache
def _system_tls() -> ssl.SSLContext:
    """The system's authorities, read once: that takes longer than all else at the start of a server."""
    return client_tls(verify=True)
