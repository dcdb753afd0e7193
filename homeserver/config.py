"""The settings of a server, typed. `homeserver.config_file` reads them from YAML and the environment."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from federation.server_names import is_server_name
from homeserver.errors import StartupError

ENVIRONMENT_PREFIX = "RESTANTE_"
ENVIRONMENT_DELIMITER = "__"
_FILE_SUFFIX = "_file"

MEBIBYTE = 1024 * 1024


class ConfigError(StartupError):
    """A setting cannot be used; the text names the key and the cure."""


class Secret:
    """Marks a setting that is never shown, and that may stand in a file of its own (`..._FILE`)."""


def _server_name(text: str) -> str:
    if not is_server_name(text):
        raise ValueError(
            "is not a server name: write a domain name, such as example.org, with a port only if it is needed"
        )
    return text


def _base_url(text: str) -> str:
    parts = _split(text)
    if (
        parts is None
        or not parts.hostname
        or parts.scheme not in ("https", "http")
        or "?" in text
        or "#" in text
    ):
        raise ValueError("is not a URL: write it with its scheme, such as https://matrix.example.org")
    return text.rstrip("/")


def _split(url: str) -> SplitResult | None:
    """The parts of a URL; None where it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return None if " " in url else parts


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError(
            "is not an address or network: write one such as 192.0.2.1 or 192.0.2.0/24"
        ) from None


def _database_url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    is_file = scheme == "sqlite" and rest.startswith("/") and rest != "/"
    if not is_file and (scheme not in ("postgresql", "postgres") or not rest or _split(text) is None):
        raise ValueError(
            "is not the URL of a database: write sqlite:///relative/path, sqlite:////absolute/path or "
            "postgresql://user:password@host/name"
        )
    return text


def _path(path: Path) -> Path:
    if "\x00" in str(path):
        raise ValueError("holds the character U+0000: write the name of a file")
    return path


def _not_a_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a whole number: write it so")  # noqa: TRY004 - pydantic wants this kind
    return value


FileName = Annotated[Path, AfterValidator(_path)]
ServerNameText = Annotated[str, AfterValidator(_server_name)]
WholeNumber = Annotated[int, BeforeValidator(_not_a_truth)]
Port = Annotated[WholeNumber, Field(ge=0, le=65535)]
Resource = Literal["client", "federation", "admin", "metrics"]


class Section(BaseModel):
    """A group of settings. A section that is there but empty is all defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, value: Any) -> Any:
        return {} if value is None else value


class TlsSettings(Section):
    """A certificate for a listener, as PEM files."""

    certificate: FileName
    private_key: FileName


class ListenerSettings(Section):
    """An address to listen on and what is answered there; port 0 takes any free port."""

    host: str = "127.0.0.1"
    port: Port = 8008
    resources: tuple[Resource, ...] = ("client", "federation", "admin")
    tls: TlsSettings | None = None


class DatabaseSettings(Section):
    """Where the database is; without a URL it is SQLite in `data_dir`."""

    url: Annotated[str | None, Secret(), AfterValidator(lambda url: url and _database_url(url))] = Field(
        default=None, repr=False
    )


class TermsDocument(Section):
    """A document in one language."""

    name: str
    url: str


class TermsSettings(Section):
    """Terms that new users accept: documents by name, then by language, as in `m.login.terms`."""

    version: str
    documents: dict[str, dict[str, TermsDocument]]


class RegistrationSettings(Section):
    """Who may make an account."""

    mode: Literal["closed", "token", "open"] = "closed"
    shared_secret: Annotated[str | None, Secret()] = Field(default=None, repr=False)
    allow_guests: bool = False
    terms: TermsSettings | None = None


class PasswordSettings(Section):
    """How dear it is to guess a password."""

    hash_cost: Literal["minimum", "interactive", "moderate", "sensitive"] = "interactive"


class RoomSettings(Section):
    """New rooms."""

    default_version: Literal["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"] = "12"


class RoomDirectorySettings(Section):
    """The list of public rooms, and aliases."""

    public_without_login: bool = False
    public_over_federation: bool = True
    aliases_need_membership: bool = True


class FederationSettings(Section):
    """Other servers."""

    enabled: bool = True
    verify_tls: bool = True
    trusted_ca: tuple[FileName, ...] = ()
    allow_private_addresses: bool = False
    key_servers: tuple[ServerNameText, ...] = ()


class HttpClientSettings(Section):
    """Every outgoing request that is not federation."""

    verify_tls: bool = True
    allow_private_addresses: bool = False


class RateLimitSettings(Section):
    """How often somebody may do something."""

    enabled: bool = True


class UrlPreviewSettings(Section):
    """Previews of links."""

    enabled: bool = False


class RemoteMediaSettings(Section):
    """Files of other servers, kept until nobody wants them any more."""

    days: WholeNumber = Field(default=30, ge=1)
    max_bytes: WholeNumber = Field(default=10 * 1024 * MEBIBYTE, ge=0)


class S3Settings(Section):
    """A bucket for files, in the place of a directory."""

    bucket: str | None = None
    prefix: str = ""
    endpoint: Annotated[str | None, AfterValidator(lambda url: url and _base_url(url))] = None
    region: str = "us-east-1"
    access_key_id: str | None = None
    secret_access_key: Annotated[str | None, Secret()] = Field(default=None, repr=False)


class MediaSettings(Section):
    """Uploaded files."""

    path: FileName | None = None
    max_upload_bytes: WholeNumber = Field(default=50 * MEBIBYTE, ge=1)
    max_bytes_per_user: WholeNumber | None = Field(default=None, ge=0)
    remote: RemoteMediaSettings = RemoteMediaSettings()
    s3: S3Settings = S3Settings()
    url_previews: UrlPreviewSettings = UrlPreviewSettings()


class SyncSettings(Section):
    """Answers to clients that come back after a while."""

    adaptive: bool = True


class DeliveryStatusSettings(Section):
    """How far a message has come."""

    enabled: bool = True
    max_members: WholeNumber = Field(default=100, ge=1)


class SmtpSettings(Section):
    """The server that takes our mail."""

    host: str | None = None
    port: Port = 587
    tls: Literal["none", "starttls", "implicit"] = "starttls"
    username: str | None = None
    password: Annotated[str | None, Secret()] = Field(default=None, repr=False)


class EmailSettings(Section):
    """Mail to users."""

    smtp: SmtpSettings = SmtpSettings()
    sender: str | None = Field(default=None, alias="from")


class PresenceSettings(Section):
    """Who is there."""

    enabled: bool = True


class LoggingSettings(Section):
    """What is logged, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Settings(BaseSettings):
    """All settings of a server. The environment goes before the arguments."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter=ENVIRONMENT_DELIMITER,
        env_ignore_empty=True,
    )

    server_name: ServerNameText
    public_base_url: Annotated[str | None, AfterValidator(lambda url: url and _base_url(url))] = None
    data_dir: FileName = Path("data")
    listeners: tuple[ListenerSettings, ...] = Field(default=(ListenerSettings(),), min_length=1)
    trusted_proxies: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    database: DatabaseSettings = DatabaseSettings()
    signing_key: FileName | None = None
    memory_budget_bytes: WholeNumber = Field(default=256 * MEBIBYTE, ge=MEBIBYTE)
    registration: RegistrationSettings = RegistrationSettings()
    passwords: PasswordSettings = PasswordSettings()
    rooms: RoomSettings = RoomSettings()
    room_directory: RoomDirectorySettings = RoomDirectorySettings()
    federation: FederationSettings = FederationSettings()
    http_client: HttpClientSettings = HttpClientSettings()
    rate_limits: RateLimitSettings = RateLimitSettings()
    media: MediaSettings = MediaSettings()
    sync: SyncSettings = SyncSettings()
    delivery_status: DeliveryStatusSettings = DeliveryStatusSettings()
    email: EmailSettings = EmailSettings()
    appservices: tuple[FileName, ...] = ()
    presence: PresenceSettings = PresenceSettings()
    logging: LoggingSettings = LoggingSettings()

    @property
    def database_url(self) -> str:
        """The URL of the database, `sqlite:///path` where none is set."""
        return self.database.url or f"sqlite:///{self.data_dir / 'restante.db'}"

    @property
    def signing_key_path(self) -> Path:
        """The file of the key that signs our events and requests."""
        return self.signing_key or self.data_dir / "signing.key"

    @property
    def media_path(self) -> Path:
        """The directory of uploaded files."""
        return self.media.path or self.data_dir / "media"

    @property
    def control_socket_path(self) -> Path:
        """The Unix socket by which the command line talks to the running server."""
        return self.data_dir / "restante.sock"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - replaced by ours
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not used
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not used
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then what was read from the file."""
        return _Environment(settings_cls), init_settings


class _Environment(EnvSettingsSource):
    """The environment, with what stands in the files that `RESTANTE_..._FILE` name for secrets."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls)
        variables = dict(self.env_vars)
        for key in secret_keys():
            name = environment_name(key)
            path = variables.pop(name.lower() + _FILE_SUFFIX, None)
            if path:
                variables[name.lower()] = _secret_in(Path(path), name + _FILE_SUFFIX.upper())
        self.env_vars = variables


def environment_name(key: str) -> str:
    """The environment variable that overrides a key: `RESTANTE_DATABASE__URL` for `database.url`."""
    return ENVIRONMENT_PREFIX + key.replace(".", ENVIRONMENT_DELIMITER).upper()


def keys_of(model: type[BaseModel]) -> dict[str, tuple[type[BaseModel], str]]:
    """Every key of a model and of its sections, with dots, and the class and field that hold it.

    Entries of `listeners` are not keys of their own; those of their sections are found by `keys_of(ListenerSettings)`.
    """
    keys: dict[str, tuple[type[BaseModel], str]] = {}
    for name, field in model.model_fields.items():
        key = field.alias or name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys.update({f"{key}.{inner}": place for inner, place in keys_of(field.annotation).items()})
        else:
            keys[key] = (model, name)
    return keys


def secret_keys() -> list[str]:
    """The keys whose values are never shown."""
    return [
        key
        for key, (model, name) in keys_of(Settings).items()
        if any(isinstance(mark, Secret) for mark in model.model_fields[name].metadata)
    ]


def _secret_in(path: Path, variable: str) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(
            f"{variable}: cannot read {path} ({reason}): name a file that this user may read"
        ) from None
