"""Reads the configuration file and the environment into `Settings`; every error is one line with key and cure."""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from homeserver.config import (
    ENVIRONMENT_DELIMITER,
    ENVIRONMENT_PREFIX,
    ConfigError,
    Section,
    Settings,
    environment_name,
    keys_of,
    secret_keys,
)

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)

_SQLITE_RELATIVE = "sqlite:///"
_SQLITE_ABSOLUTE = "sqlite:////"
_MAX_SHOWN = 60

_EXPECTED = {
    "bool": "true or false",
    "int": "a whole number",
    "string": "text",
    "path": "a path",
    "tuple": "a list, such as [one, two]",
    "model": "a section with keys of its own",
    "dict": "a section with keys of its own",
}
_YAML_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a section",
    type(None): "empty",
}


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice in one section, where YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The section of a node."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f'the key "{key_node.value}" stands twice: keep one',
                    problem_mark=key_node.start_mark,
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def load(path: Path) -> Settings:
    """The settings of a file, overridden by the environment, relative paths made relative to the file.

    Raises `ConfigError`, whose text is one line.
    """
    values = _read(path)
    _refuse_unknown_variables()
    for key in values:
        if key not in _names(Settings):
            raise ConfigError(f"{path}: {_unknown(str(key), Settings, '')}")
    try:
        settings = Settings(**values)
    except SettingsError as error:
        raise ConfigError(
            f'{_variable_at_fault(str(error))}: not JSON: write a list as ["one", "two"]'
        ) from None
    except ValidationError as error:
        raise ConfigError(_explain(error.errors(include_url=False)[0], path)) from None
    return _anchored(settings, path.absolute().parent)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_bytes(), _UniqueKeys)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file: make one with `restante init`") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): let this user read it") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}:{where}: not YAML as it should be: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: holds {_kind(values)}, not keys and values: begin with `server_name: example.org`"
        )
    return values


def _refuse_unknown_variables() -> None:
    """A variable that only looks like one of ours is none of our business, a misspelt one is an error.

    Container platforms set variables of their own, such as `RESTANTE_PORT` for a service of that name.
    """
    known = {environment_name(key) for key in keys_of(Settings)}
    known |= {environment_name(key) + "_FILE" for key in secret_keys()}
    sections = {ENVIRONMENT_PREFIX + name.upper() for name in _names(Settings)}
    for variable in os.environ:
        name = variable.upper()
        if not name.startswith(ENVIRONMENT_PREFIX) or name in known or name in sections:
            continue
        near = difflib.get_close_matches(
            name, sorted(known), 1, 0.85 if ENVIRONMENT_DELIMITER not in name else 0.6
        )
        if near and not _inside_table(name):
            raise ConfigError(f"{variable}: unknown environment variable: did you mean {near[0]}?")


def _inside_table(name: str) -> bool:
    """Whether a variable names something below a key, such as one document of the terms."""
    return any(
        name.startswith(environment_name(key) + ENVIRONMENT_DELIMITER) for key in ("registration.terms",)
    )


def _explain(error: ErrorDetails, path: Path) -> str:
    location = error["loc"]
    key = _dotted(location)
    variable = environment_name(".".join(str(part) for part in location))
    from_environment = variable in {name.upper() for name in os.environ}
    source = f"{variable}: " if from_environment else f"{path}: "
    kind = error["type"]
    if kind == "extra_forbidden":
        section = _section_at(location[:-1])
        return source + _unknown(str(location[-1]), section, _dotted(location[:-1]))
    if kind == "missing":
        cure = "such as `server_name: example.org`" if key == "server_name" else f"for `{location[-1]}`"
        return f"{source}{key} is missing: add a line {cure}"
    value = error["input"]
    shown = "" if key in secret_keys() else f" {_shown(value)}"
    if kind == "value_error":
        return f"{source}{key}{shown} {error['ctx']['error']}"
    return f"{source}{key} is{shown} ({_kind(value)}), but must be {_expected(error)}"


def _expected(error: ErrorDetails) -> str:
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "literal_error":
        allowed = str(context["expected"])
        if not isinstance(value, str) and f"'{value}'" in allowed:
            return f'text: put it in quotes, "{value}"'
        return f"one of {allowed}: write one of these"
    bounds = {"greater_than_equal": ("at least", "ge"), "less_than_equal": ("at most", "le")}
    if kind in bounds:
        word, name = bounds[kind]
        return f"{word} {context[name]}: write such a number"
    if kind == "too_short":
        return "a list with at least one entry: add one, or leave the key out"
    if kind == "string_type" and isinstance(value, int | float):
        return f'text: put it in quotes, "{value}"'
    expected = _EXPECTED.get(kind.partition("_")[0])
    return f"{expected}: write it so" if expected else error["msg"]


def _unknown(name: str, section: type[BaseModel], inside: str) -> str:
    names = _names(section)
    prefix = f"{inside}." if inside else ""
    near = difflib.get_close_matches(name, names, 1, 0.5)
    if near:
        return f'unknown key "{prefix}{name}": did you mean "{prefix}{near[0]}"?'
    everywhere = [key for key in keys_of(Settings) if key.rpartition(".")[2] == name]
    if everywhere:
        return f'unknown key "{prefix}{name}": did you mean "{everywhere[0]}"?'
    closest = difflib.get_close_matches(name, names, 1, 0.0)
    nearest = f'the nearest known one is "{prefix}{closest[0]}"; ' if closest else ""
    return f'unknown key "{prefix}{name}": {nearest}remove it, or see config.example.yaml for all keys'


def _section_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    """The section that an error is in."""
    section: type[BaseModel] = Settings
    for part in location:
        field = next(
            (field for name, field in section.model_fields.items() if part in (name, field.alias)), None
        )
        inner = None if field is None else _section_in(field.annotation)
        section = inner or section
    return section


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)


def _names(section: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]


def _dotted(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _kind(value: Any) -> str:
    return _YAML_KINDS.get(type(value), "something else")


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


def _variable_at_fault(message: str) -> str:
    """The variable whose text could not be parsed; pydantic-settings names the field in quotes."""
    field = message.partition('"')[2].partition('"')[0]
    return next(
        (name for name in os.environ if name.upper().startswith(f"{ENVIRONMENT_PREFIX}{field.upper()}")),
        field,
    )


def _anchored(settings: Settings, directory: Path) -> Settings:
    anchored = _with_absolute_paths(settings, directory)
    url = anchored.database.url
    if url and url.startswith(_SQLITE_RELATIVE) and not url.startswith(_SQLITE_ABSOLUTE):
        file = directory / url.removeprefix(_SQLITE_RELATIVE)
        database = anchored.database.model_copy(update={"url": _SQLITE_RELATIVE + str(file)})
        return anchored.model_copy(update={"database": database})
    return anchored


def _with_absolute_paths(model: Model, directory: Path) -> Model:
    update = {name: _absolute(getattr(model, name), directory) for name in type(model).model_fields}
    return model.model_copy(update=update)


def _absolute(value: Any, directory: Path) -> Any:
    if isinstance(value, Path):
        return directory / value
    if isinstance(value, Section):
        return _with_absolute_paths(value, directory)
    if isinstance(value, tuple):
        return tuple(_absolute(entry, directory) for entry in value)
    return value
