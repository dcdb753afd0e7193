"""Whatever stands in the file or in the environment, an error is one line that names the key or the place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeserver.config import ConfigError, ListenerSettings, Settings, TlsSettings, environment_name, keys_of
from homeserver.config_file import load

if TYPE_CHECKING:
    from pathlib import Path

KEYS = [*keys_of(Settings), *(f"listeners.{key}" for key in keys_of(ListenerSettings)), "media.pth", "x.y"]
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.dates(),
        st.binary(max_size=4),
        st.text(max_size=8),
        st.sampled_from(
            ("example.org", "12", "open", "https://", "sqlite:///", "postgresql://", "/", "0", "\x00", ".")
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                st.text(max_size=5),
                st.integers(),
                st.none(),
                st.sampled_from([*ListenerSettings.model_fields]),
            ),
            inner,
            max_size=3,
        ),
        st.fixed_dictionaries(dict.fromkeys(TlsSettings.model_fields, inner)),
    ),
    max_leaves=6,
)


def in_sections(flat: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"server_name": "example.org"}
    for key, value in flat.items():
        section = found
        *sections, name = key.split(".")
        for part in sections:
            inner = section.setdefault(part, {})
            if not isinstance(inner, dict):
                inner = section[part] = {}
            section = inner
        section[name] = value
    return found


def one_line_or_settings(path: Path) -> None:
    try:
        load(path)
    except ConfigError as error:
        text = str(error)
        assert text
        assert "\n" not in text
        assert len(text) < 1000
        assert ": " in text


@settings(
    deadline=None,
    max_examples=300,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=4))
def test_any_values(tmp_path: Path, flat: dict[str, Any]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(in_sections(flat), allow_unicode=True))
    one_line_or_settings(path)


@settings(
    deadline=None,
    max_examples=300,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text("[]{}:-#&*!|>'\"%@`, \nab\t?<=", max_size=40).map(str.encode),
        st.text(max_size=20).map(lambda text: b"server_name: " + text.encode("utf-8", "surrogatepass")),
    )
)
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    one_line_or_settings(path)


@settings(
    deadline=None,
    max_examples=200,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from([*keys_of(Settings), *(key.partition(".")[0] for key in keys_of(Settings))]),
    st.one_of(
        st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=20),
        st.sampled_from(("[]", "{}", '{"a": 1}', "[", "null", "1e5", '["a", 7]', "{'a': 1}", "true")),
    ),
)
def test_any_variables(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("server_name: example.org\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(environment_name(key), value)
        one_line_or_settings(path)
