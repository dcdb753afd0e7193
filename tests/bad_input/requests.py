"""Requests as no honest client sends them: plans that a `World` fills with ids that really exist.

A plan begins with a request that schemathesis made from the specification's description of the endpoint, right or
wrong in some place, or with the names alone that the description has. Then ids that exist are put where ids belong,
and strange things here and there. What is made depends on nothing but the seed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core import NOT_SET

from tests import openapi
from tests.bad_input.vocabulary import (
    BAD_BODIES,
    BAD_NUMBERS,
    BAD_TEXTS,
    KEYS,
    KIND_OF,
    KINDS,
    SENSIBLE,
    WHO,
    WORDS,
    Pairs,
    Ref,
)

if TYPE_CHECKING:
    import random


@dataclass(frozen=True)
class Plan:
    """A request to be."""

    method: str
    path: str
    """That of the route, with `{parameters}`."""
    parameters: dict[str, Any]
    query: list[tuple[str, Any]]
    body: Any
    """Bytes are sent as they are, anything else as JSON."""
    who: str
    headers: dict[str, str]


def plan(chance: random.Random, method: str, path: str) -> Plan:
    """A request to one route."""
    examples = examples_of(method, path)
    spoilt = chance.choice((0.0, 0.0, 0.03, 0.2, 0.5))
    sensible = [body for pattern, body in SENSIBLE if re.search(pattern, path)]
    if examples and chance.random() < 0.6:
        example = chance.choice(examples)
        parameters = {
            name: filled(chance, name, value, path, spoilt) for name, value in example.parameters.items()
        }
        query = [(name, filled(chance, name, value, path, spoilt)) for name, value in example.query]
        body = filled(chance, "", example.body, path, spoilt)
    else:
        parameters = {name: value_for(chance, name, path, spoilt) for name in names_in(path)}
        names = [*describe(method, path).query, "dir", "x"]
        query = [
            (name, value_for(chance, name, path, spoilt))
            for name in chance.sample(names, min(len(names), chance.randrange(5)))
        ]
        body = made_up(chance, method, path, spoilt)
    if sensible and method != "GET" and chance.random() < 0.4:
        body = filled(chance, "", chance.choice(sensible), path, spoilt)
    if "stateKey" in parameters and method == "GET" and chance.random() < 0.5:
        parameters |= {"eventType": "m.room.member", "stateKey": Ref("me", 0)}
    if "ruleId" in parameters and chance.random() < 0.5:
        parameters |= {"kind": "override", "ruleId": ".m.rule.master"}
    if "keyName" in parameters and isinstance(body, Pairs) and chance.random() < 0.7:
        body.append((parameters["keyName"], of_type(chance, "string", spoilt)))
    headers = {}
    if chance.random() < 0.1:
        headers["Content-Type"] = chance.choice(("application/json", "text/plain", "x" * 300))
    return Plan(method, path, parameters, query, body, chance.choice(WHO), headers)


def made_up(chance: random.Random, method: str, path: str, spoilt: float) -> Any:
    """A body with the names that belong there, or any."""
    if method == "GET":
        return b""
    if chance.random() < spoilt / 2:
        return chance.choice(BAD_BODIES) if chance.random() < 0.7 else json_value(chance)
    fields = describe(method, path).fields
    body = Pairs(
        (
            name,
            value_for(chance, name, path, spoilt) if kind_of(name, path) else of_type(chance, kind, spoilt),
        )
        for name, kind in chance.sample(fields, min(len(fields), chance.randrange(8)))
    )
    if not body or chance.random() < 0.3:
        body += [(name, value_for(chance, name, path, spoilt)) for name in chance.sample(KEYS, 2)]
    return body


def of_type(chance: random.Random, kind: str, spoilt: float) -> Any:
    """A value of a type, or else anything."""
    if chance.random() < spoilt:
        return json_value(chance)
    if kind == "boolean":
        return chance.choice((True, False))
    if kind in ("integer", "number"):
        return chance.choice((0, 1, 50, 30_000))
    if kind == "string":
        return ref(chance, chance.choice((*KINDS, *WORDS)))
    if kind == "array":
        return [json_value(chance) for _ in range(chance.randrange(3))]
    return Pairs((key(chance), json_value(chance, 1)) for _ in range(chance.randrange(5)))


def filled(chance: random.Random, name: str, value: Any, path: str, spoilt: float) -> Any:
    """The value with ids that exist where ids belong, and strange things here and there."""
    if value is NOT_SET or isinstance(value, bytes):
        return b""
    if chance.random() < spoilt:
        return json_value(chance)
    if isinstance(value, Ref):
        return value
    if name in ("auth", "identifier") and chance.random() < 0.9:
        return value_for(chance, name, path, 0)
    if isinstance(value, Pairs):
        return Pairs((key, filled(chance, str(key), item, path, spoilt)) for key, item in value)
    if isinstance(value, dict):
        return Pairs((key, filled(chance, key, item, path, spoilt)) for key, item in value.items())
    if isinstance(value, list):
        return [filled(chance, name, item, path, spoilt) for item in value]
    if (
        isinstance(value, str | int)
        and value is not True
        and kind_of(name, path) is not None
        and chance.random() < 0.95
    ):
        return value_for(chance, name, path, 0)
    return value


def value_for(chance: random.Random, name: str, path: str, spoilt: float) -> Any:
    """What usually stands under a name, or else anything."""
    if chance.random() < spoilt:
        return json_value(chance)
    if name == "auth":
        stage = "m.login.dummy" if path.endswith("/register") else "m.login.password"
        session = [("session", ref(chance, "session"))] if chance.random() < 0.3 else []
        user = value_for(chance, "identifier", path, 0)
        return Pairs([("type", stage), ("identifier", user), ("password", ref(chance, "password")), *session])
    if name == "identifier":
        return Pairs([("type", "m.id.user"), ("user", ref(chance, chance.choice(("me", "user", "people"))))])
    if name == "userId" and chance.random() < 0.7:
        return Ref("me", 0)
    kind = kind_of(name, path)
    if kind is not None:
        return ref(chance, kind)
    return json_value(chance)


def kind_of(name: str, path: str) -> str | None:
    """The kind of what stands under a name."""
    if name == "userId" and "/profile/" not in path and "/presence/" not in path:
        return "me"
    if name == "type" and path.endswith("/login"):
        return "login"
    if name == "serverName" and "/media/" in path:
        return "media_server"
    if name == "mediaId" and "/thumbnail/" in path:
        return "image"
    if name in ("from", "to") and (path.endswith("/keys/changes") or "/dev.restante.missed/" in path):
        return "since"
    if name == "type" and "/account_data/" in path:
        return "account_data"
    if name == "version" and "/room_keys/" in path:
        return "backup"
    if name == "kind" and "/pushrules/" not in path:
        return "account_kind"
    return KIND_OF.get(name)


def ref(chance: random.Random, kind: str) -> Ref:
    """Some id of a kind."""
    return Ref(kind, chance.randrange(1000))


def json_value(chance: random.Random, depth: int = 0) -> Any:
    """Anything, with the names and ids in it that rooms and events are made of."""
    kind = chance.randrange(10 if depth < 4 else 6)
    if kind == 0:
        return chance.choice((None, True, False, 1.5, -0.0, 1e300))
    if kind == 1:
        return chance.choice(BAD_NUMBERS)
    if kind == 2:
        return chance.choice(BAD_TEXTS)
    if kind < 6:
        return ref(chance, chance.choice((*KINDS, *WORDS)))
    if kind == 6:
        return [json_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return Pairs((key(chance), json_value(chance, depth + 1)) for _ in range(chance.randrange(5)))


def key(chance: random.Random) -> Any:
    """A key of an object."""
    if chance.random() < 0.2:
        return ref(chance, chance.choice(("user", "type", "room", "event")))
    return chance.choice(KEYS) if chance.random() < 0.9 else chance.choice(BAD_TEXTS)


# -- from the descriptions -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Description:
    """The names of an endpoint's parameters and fields."""

    query: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]
    """Their names and types."""


@dataclass(frozen=True)
class Example:
    """A request that schemathesis made."""

    parameters: dict[str, Any]
    query: list[tuple[str, Any]]
    body: Any


@functools.cache
def _schema(file: str) -> Any:
    return schemathesis.openapi.from_path(file)


def _find(method: str, path: str) -> Any:
    segments = tuple(
        "{}" if segment.startswith("{") else segment
        for segment in path.replace("/client/r0/", "/client/v3/").strip("/").split("/")
    )
    place = openapi.endpoints().get((method, segments))
    return None if place is None else _schema(str(place[0]))[place[1]][method]


@functools.cache
def describe(method: str, path: str) -> Description:
    """What the specification calls the parameters and fields of an endpoint."""
    operation = _find(method, path)
    if operation is None:
        return Description((), ())
    query = tuple(parameter.name for parameter in operation.query)
    fields: set[tuple[str, str]] = set()
    for body in operation.body:
        fields |= _properties(body.definition.get("schema", {}))
    return Description(query, tuple(sorted(fields)))


def _properties(schema: Any) -> set[tuple[str, str]]:
    if isinstance(schema, list):
        return set().union(*map(_properties, schema))
    if not isinstance(schema, dict):
        return set()
    properties = schema.get("properties")
    found = {
        (name, str(item.get("type", "object")))
        for name, item in (properties.items() if isinstance(properties, dict) else ())
        if isinstance(item, dict)
    }
    for value in schema.values():
        found |= _properties(value)
    return found


@functools.cache
def examples_of(method: str, path: str) -> list[Example]:
    """Requests that are right by the description, and some that are wrong by it."""
    operation = _find(method, path)
    found: list[Example] = []
    if operation is None:
        return found

    def keep(case: Any) -> None:
        # The route may call its parameters otherwise, but has them in the same order.
        given_parameters = case.path_parameters or {}
        names = zip(names_in(path), names_in(operation.path), strict=True)
        parameters = {name: given_parameters.get(described, "") for name, described in names}
        query = [
            (name, one)
            for name, value in (case.query or {}).items()
            for one in (value if isinstance(value, list) else [value])
        ]
        found.append(Example(parameters, query, case.body))

    for mode, count in ((GenerationMode.POSITIVE, 12), (GenerationMode.NEGATIVE, 8)):
        strategy = operation.as_strategy(generation_mode=mode)
        generate = settings(
            max_examples=count,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        # Where there is nothing that could be wrong, there is no wrong request.
        with contextlib.suppress(Unsatisfiable):
            generate(given(strategy)(keep))()
    return found


def dump(value: Any) -> bytes:
    """JSON, as it stands; a body of bytes stays as it is."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def names_in(path: str) -> list[str]:
    """The names of the parameters of a path."""
    return re.findall(r"\{([^}]*)\}", path)
