"""`restante check-config`: whether a server would take this configuration."""

from __future__ import annotations

import ssl

import typer

from homeserver.cli.options import DEFAULT_CONFIG, ConfigOption
from homeserver.config import ConfigError, ListenerSettings
from homeserver.config_file import load
from homeserver.http.trust import federation_tls
from homeserver.storage import key_file


def check_config(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Check a configuration file and the files that it names."""
    settings = load(config)
    if settings.signing_key_path.exists():
        key_file.load_or_make(settings.signing_key_path)
    federation_tls(settings.federation)
    for number, listener in enumerate(settings.listeners):
        _check_certificate(number, listener)
    addresses = ", ".join(f"{listener.host}:{listener.port}" for listener in settings.listeners)
    typer.echo(f"{config} is fine: server {settings.server_name}, listening on {addresses}.")


def _check_certificate(number: int, listener: ListenerSettings) -> None:
    if listener.tls is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            listener.tls.certificate, listener.tls.private_key
        )
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"listeners[{number}].tls: the certificate and private key cannot be used ({error}): "
            "name PEM files that belong together and that this user may read"
        ) from None
