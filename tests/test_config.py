from __future__ import annotations

import re
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from homeserver.config import (
    ConfigError,
    ListenerSettings,
    Secret,
    Section,
    Settings,
    TlsSettings,
    environment_name,
    keys_of,
    secret_keys,
)
from homeserver.config_file import load
from homeserver.eventgraph.room_versions import ROOM_VERSIONS

LISTENS = "List of client, federation, admin, metrics"
EXAMPLE = Path(__file__).parent.parent / "config.example.yaml"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def read(config: Path, text: str) -> Settings:
    config.write_text(text)
    return load(config)


def test_a_server_name_is_enough(config: Path) -> None:
    settings = read(config, "server_name: example.org\n")
    assert settings.registration.mode == "closed"
    assert settings.listeners == (ListenerSettings(),)
    assert settings.listeners[0].resources == ("client", "federation", "admin")


def test_what_is_not_placed_elsewhere_lives_in_the_data_directory_beside_the_file(config: Path) -> None:
    settings = read(config, "server_name: example.org\n")
    data = config.parent / "data"
    assert settings.data_dir == data
    assert settings.database_url == f"sqlite:///{data}/restante.db"
    assert settings.signing_key_path == data / "signing.key"
    assert settings.media_path == data / "media"
    assert settings.control_socket_path == data / "restante.sock"


def test_relative_paths_are_relative_to_the_file_and_absolute_ones_stay(config: Path) -> None:
    settings = read(
        config,
        """
        server_name: example.org
        data_dir: /var/lib/restante
        signing_key: keys/mine
        database: {url: "sqlite:///db/events.db"}
        appservices: [bridge.yaml]
        listeners: [{tls: {certificate: c.pem, private_key: /k.pem}}]
        """,
    )
    here = config.parent
    assert settings.data_dir == Path("/var/lib/restante")
    assert settings.signing_key_path == here / "keys/mine"
    assert settings.database_url == f"sqlite:///{here}/db/events.db"
    assert settings.appservices == (here / "bridge.yaml",)
    tls = settings.listeners[0].tls
    assert tls is not None
    assert (tls.certificate, tls.private_key) == (here / "c.pem", Path("/k.pem"))


def test_an_absolute_database_path_stays(config: Path) -> None:
    settings = read(config, 'server_name: a\ndatabase: {url: "sqlite:////srv/events.db"}')
    assert settings.database_url == "sqlite:////srv/events.db"


def test_an_empty_section_is_all_defaults(config: Path) -> None:
    assert read(config, "server_name: a\nfederation:\n").federation.enabled


@pytest.mark.parametrize(
    ("text", "names", "cure"),
    [
        ("", "server_name", "server_name: example.org"),
        ("server_name: 5", "server_name", 'put it in quotes, "5"'),
        ("server_name: a b", "server_name", "write a domain name"),
        ("server_name: a\nserver_nme: b", "server_nme", '"server_name"'),
        ("server_name: a\nregistration: {mod: open}", "registration.mod", '"registration.mode"'),
        ("server_name: a\nhash_cost: minimum", "hash_cost", '"passwords.hash_cost"'),
        ("server_name: a\nemail: {sender: x}", "email.sender", "nearest"),
        ("server_name: a\n_env_file: x", "_env_file", "nearest"),
        ("server_name: a\n7: x", '"7"', "nearest"),
        ("server_name: a\nlisteners: [{prt: 1}]", "listeners[0].prt", '"listeners[0].port"'),
        ("server_name: a\nlisteners: [{port: many}]", "listeners[0].port", "a whole number"),
        ("server_name: a\nlisteners: [{port: true}]", "listeners[0].port", "a whole number"),
        ("server_name: a\nlisteners: [{port: 70000}]", "listeners[0].port", "at most 65535"),
        ("server_name: a\nlisteners: [{resources: [clients]}]", "listeners[0].resources[0]", "'client'"),
        (
            "server_name: a\nlisteners: [{tls: {certificate: c}}]",
            "listeners[0].tls.private_key",
            "add a line",
        ),
        ("server_name: a\nlisteners: {port: 1}", "listeners", "a list"),
        ("server_name: a\nlisteners: []", "listeners", "at least one"),
        ("server_name: a\nregistration: {mode: opn}", "registration.mode", "'open'"),
        ("server_name: a\nrooms: {default_version: 12}", "rooms.default_version", 'put it in quotes, "12"'),
        ("server_name: a\nfederation: {enabled: maybe}", "federation.enabled", "true or false"),
        ("server_name: a\nfederation: true", "federation", "a section"),
        ("server_name: a\nmemory_budget_bytes: lots", "memory_budget_bytes", "a whole number"),
        ("server_name: a\ntrusted_proxies: [proxy]", "trusted_proxies[0]", "192.0.2.1"),
        ("server_name: a\npublic_base_url: a.org", "public_base_url", "https://"),
        ("server_name: a\npublic_base_url: https://", "public_base_url", "https://matrix.example.org"),
        ("server_name: a\npublic_base_url: https://a b.org", "public_base_url", "https://"),
        ("server_name: a\npublic_base_url: https://a.org:port", "public_base_url", "https://"),
        ("server_name: a\npublic_base_url: https://a.org/?x=1", "public_base_url", "https://"),
        ("server_name: a\ndatabase: {url: mysql://a}", "database.url", "postgresql://"),
        ('server_name: a\ndatabase: {url: "sqlite:///"}', "database.url", "sqlite:///relative/path"),
        ('server_name: a\ndatabase: {url: "postgresql://"}', "database.url", "postgresql://user"),
        (
            'server_name: a\ndatabase: {url: "postgresql://host:port/name"}',
            "database.url",
            "postgresql://user",
        ),
        ('server_name: a\ndata_dir: "a\\0b"', "data_dir", "U+0000"),
        ("server_name: a\nserver_name: b", "server_name", "keep one"),
        ("server_name: [", "line 1", "YAML"),
        ("- server_name: a", "a list", "server_name: example.org"),
    ],
)
def test_an_error_is_one_line_with_the_file_the_key_and_the_cure(
    config: Path, text: str, names: str, cure: str
) -> None:
    with pytest.raises(ConfigError) as error:
        read(config, text)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{config}: ")
    assert names in message
    assert cure in message


def test_a_missing_file_is_an_error_that_says_how_to_make_one(config: Path) -> None:
    with pytest.raises(ConfigError, match="restante init"):
        load(config)


@pytest.mark.parametrize(
    "text",
    [
        "registration: {shared_secret: [hidden]}",
        'database: {url: "mysql://u:hidden@h"}',
        "email: {smtp: {password: [hidden]}}",
    ],
)
def test_a_secret_is_not_shown_in_an_error_or_in_the_settings(config: Path, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(config, f"server_name: a\n{text}")
    assert "hidden" not in str(error.value)


def test_the_secrets_are_not_in_the_text_form_of_the_settings() -> None:
    settings = Settings(
        server_name="a", registration={"shared_secret": "hidden"}, email={"smtp": {"password": "hidden"}}
    )
    assert "hidden" not in repr(settings)


def test_the_environment_goes_before_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTANTE_SERVER_NAME", "b.org")
    monkeypatch.setenv("RESTANTE_REGISTRATION__MODE", "open")
    monkeypatch.setenv("RESTANTE_TRUSTED_PROXIES", '["192.0.2.1"]')
    monkeypatch.setenv("RESTANTE_MEDIA__URL_PREVIEWS__ENABLED", "true")
    monkeypatch.setenv("RESTANTE_EMAIL__FROM", "post@b.org")
    monkeypatch.setenv("RESTANTE_DATABASE__URL", "")
    settings = read(config, "server_name: a.org\nregistration: {mode: token, allow_guests: true}\n")
    assert settings.server_name == "b.org"
    assert settings.registration.mode == "open"
    assert settings.registration.allow_guests
    assert settings.trusted_proxies == ("192.0.2.1/32",)
    assert settings.media.url_previews.enabled
    assert settings.email.sender == "post@b.org"
    assert settings.database.url is None


def test_a_secret_may_stand_in_a_file_of_its_own(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    for key in secret_keys():
        monkeypatch.setenv(f"{environment_name(key)}_FILE", str(secret))
    secret.write_text("postgresql://u:p@h/n\n")
    settings = read(config, "server_name: a\n")
    assert settings.database.url == settings.registration.shared_secret == "postgresql://u:p@h/n"
    assert settings.email.smtp.password == "postgresql://u:p@h/n"


@pytest.mark.parametrize(
    ("variable", "value", "cure"),
    [
        ("RESTANTE_DATABASE__URI", "x", "RESTANTE_DATABASE__URL"),
        ("RESTANTE_SEVER_NAME", "x", "RESTANTE_SERVER_NAME"),
        ("RESTANTE_TRUSTED_PROXIES", "192.0.2.1", '["one", "two"]'),
        ("RESTANTE_FEDERATION__KEY_SERVERS", "a.org", '["one", "two"]'),
        ("RESTANTE_MEMORY_BUDGET_BYTES", "lots", "a whole number"),
        ("RESTANTE_DATABASE__URL_FILE", "/nonexistent/secret", "/nonexistent/secret"),
    ],
)
def test_an_error_in_the_environment_names_the_variable(
    config: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, cure: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as error:
        read(config, "server_name: a\n")
    assert str(error.value).startswith(f"{variable}: ")
    assert cure in str(error.value)


def test_the_variables_that_container_platforms_set_are_left_alone(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RESTANTE_PORT", "RESTANTE_SERVICE_HOST", "RESTANTE_PORT_8008_TCP", "RESTANTE_CONFIG"):
        monkeypatch.setenv(name, "tcp://10.0.0.1:8008")
    assert read(config, "server_name: a\n").server_name == "a"


def test_the_room_versions_of_the_settings_are_those_of_the_room_core() -> None:
    version = typing.get_type_hints(type(Settings(server_name="a").rooms))["default_version"]
    assert set(typing.get_args(version)) == set(ROOM_VERSIONS)


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found.update(flat(value, f"{prefix}{name}."))
        else:
            found[prefix + name] = value
    return found


def test_the_example_shows_every_key_with_its_default() -> None:
    example = yaml.safe_load(EXAMPLE.read_text())
    defaults = Settings(server_name="example.org").model_dump(mode="json", by_alias=True)
    assert flat(example) == flat(defaults)
    assert list(example) == list(defaults)
    assert [list(entry) for entry in example["listeners"]] == [list(ListenerSettings.model_fields)]
    assert load(EXAMPLE).model_dump(exclude={"data_dir"}) == Settings(server_name="example.org").model_dump(
        exclude={"data_dir"}
    )


def test_the_example_says_of_every_key_its_meaning_type_and_default() -> None:
    lines = EXAMPLE.read_text().splitlines()
    described = 0
    for number, line in enumerate(lines):
        found = re.match(r"\s*(?:- )?([a-z_]+):( (?P<value>.+))?$", line)
        if found is None or found["value"] is None:
            continue
        above = lines[number - 1]
        assert above.lstrip().startswith("#"), f"line {number + 1} has no comment above it"
        default = re.search(r"(No default|Default: (.*))", above)
        assert default is not None, f"line {number + 1}: the comment does not name the default"
        if default[2] is not None:
            assert default[2].split(" (")[0] == found["value"], f"line {number + 1}"
        described += 1
    # `listeners` is described as a whole and by its keys.
    assert described == len(keys_of(Settings)) - 1 + len(ListenerSettings.model_fields)


def type_in_words(model: type[Any], name: str) -> set[str]:
    """What the example may call the type of a key."""
    field = model.model_fields[name]
    kinds = [
        kind for kind in (typing.get_args(field.annotation) or (field.annotation,)) if kind is not type(None)
    ]
    kind = kinds[0]
    secret = ", secret" if any(isinstance(mark, Secret) for mark in field.metadata) else ""
    if typing.get_origin(field.annotation) is typing.Literal:
        choices = [f'"{choice}"' if choice.isdigit() else choice for choice in kinds]
        return {f"{', '.join(choices[:-1])} or {choices[-1]}", f"{choices[0]} to {choices[-1]}"}
    if typing.get_origin(field.annotation) is tuple:
        return {"List", "List of addresses", "List of paths", "List of server names", LISTENS}
    if isinstance(kind, type) and issubclass(kind, Section):
        return {"Section"}
    named = typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind
    return {
        bool: {"true or false"},
        int: {"Number", "Number of bytes"},
        Path: {"Path"},
        str: {f"Text{secret}", f"URL{secret}"},
    }[named]


def test_the_example_tells_the_type_of_every_key() -> None:
    text = EXAMPLE.read_text()
    told: dict[str, list[str]] = {}
    for found in re.finditer(
        r"# (?P<type>[^\n]+?)\. (?:No default\.|Default: [^\n]*)\n\s*(?:- )?(?P<key>[a-z_]+):", text
    ):
        told.setdefault(found["key"], []).append(found["type"])
    places = [*keys_of(Settings).items(), *keys_of(ListenerSettings).items()]
    for key, (model, name) in places:
        if model is TlsSettings:
            continue
        leaf = key.rpartition(".")[2]
        assert set(told[leaf]) & type_in_words(model, name), (key, told[leaf])
        assert len(told[leaf]) == sum(other.rpartition(".")[2] == leaf for other, _ in places), key


def test_no_section_takes_unknown_keys() -> None:
    for model, _ in keys_of(Settings).values():
        assert model is Settings or issubclass(model, Section)
        assert model.model_config["extra"] == "forbid"
