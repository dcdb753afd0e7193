"""Checks answers against the descriptions of the specification, where these are at hand."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema_rs
import yaml

DATA = Path(__file__).parent.parent.parent / "shared" / "spec" / "data"
"""`data/` of the specification's repository. The project keeps no copy; without it answers are not checked."""
METHODS = ("get", "put", "post", "delete")
_TOKEN_ERRORS = ("M_MISSING_TOKEN", "M_UNKNOWN_TOKEN")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

if os.environ.get("CI") and not DATA.is_dir():
    message = f"{DATA} is missing: the descriptions of the specification"
    raise RuntimeError(message)


@functools.cache
def _load(path: Path) -> dict[str, Any]:
    return _as_json(yaml.load(path.read_text(), _LOADER))


def _as_json(value: Any) -> Any:
    """YAML has keys and dates that JSON has not."""
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)


@functools.cache
def _registry() -> jsonschema_rs.Registry:
    paths = [
        path
        for folder in ("api/client-server", "api/server-server", "event-schemas/schema")
        for path in (DATA / folder).rglob("*.yaml")
    ]
    resources = [(f"file://{path}", _load(path)) for path in paths]
    # What these refer to is read as it is met; JSON is YAML.
    return jsonschema_rs.Registry(resources, retriever=lambda uri: _load(Path(uri.removeprefix("file://"))))


@functools.cache
def endpoints() -> dict[tuple[str, tuple[str, ...]], tuple[Path, str]]:
    """(method, segments of the path, `{}` for parameters) -> (file, the path as it stands there)."""
    found = {}
    for path in sorted(
        path
        for folder in ("client-server", "server-server")
        for path in (DATA / "api" / folder).glob("*.yaml")
    ):
        description = _load(path)
        base = description["servers"][0]["variables"].get("basePath", {}).get("default", "")
        for name, item in description["paths"].items():
            segments = tuple(
                "{}" if segment.startswith("{") else segment
                for segment in (base.rstrip("/") + name).strip("/").split("/")
            )
            for method in METHODS:
                if method in item:
                    found[method.upper(), segments] = (path, name)
    return found


@functools.cache
def _find(method: str, path: str) -> tuple[Path, str] | None:
    segments = path.strip("/").split("/")
    best = None
    for (candidate, pattern), place in endpoints().items():
        if candidate != method or len(pattern) != len(segments):
            continue
        if all(wanted in ("{}", segment) for wanted, segment in zip(pattern, segments, strict=True)):
            fixed = sum(wanted != "{}" for wanted in pattern)
            if best is None or fixed > best[0]:
                best = (fixed, place)
    return best[1] if best else None


@functools.cache
def _validator(
    path: Path, name: str, method: str, status: int, *, is_challenge: bool
) -> jsonschema_rs.Validator | None:
    responses = _load(path)["paths"][name][method.lower()]["responses"]
    response = responses.get(str(status))
    if response is None:
        if status < 400:
            message = f"{method} {name} answers {status}, which the specification does not know"
            raise AssertionError(message)
        # The description of cross-signing has its user-interactive authentication in prose only.
        file = "auth_response.yaml" if is_challenge else "errors/error.yaml"
        return jsonschema_rs.validator_for(
            {"$ref": f"file://{DATA}/api/client-server/definitions/{file}"}, registry=_registry()
        )
    content = response.get("content", {}).get("application/json")
    if content is None or "schema" not in content:
        return None
    escaped = quote(name.replace("~", "~0").replace("/", "~1"))
    pointer = f"paths/{escaped}/{method.lower()}/responses/{status}"
    return jsonschema_rs.validator_for(
        {"$ref": f"file://{path}#/{pointer}/content/application~1json/schema"}, registry=_registry()
    )


def check(method: str, path: str, status: int, body: Any) -> None:
    """Raise `AssertionError` where an answer is not as the specification describes it."""
    if not DATA.is_dir() or method not in ("GET", "PUT", "POST", "DELETE"):
        return
    place = _find(method, path.replace("/client/r0/", "/client/v3/"))
    if place is None or status in (404, 405, 429, 500):
        return
    if status == 401 and body.get("errcode") in _TOKEN_ERRORS:
        # "When credentials are required but missing or invalid": so at every endpoint, described there or not.
        return
    validator = _validator(*place, method, status, is_challenge=status == 401 and "flows" in body)
    if validator is None:
        return
    for error in validator.iter_errors(body):
        if error.message.endswith("listed in the 'oneOf' keyword") and "more than one" in error.message:
            # The specification's own alternatives overlap.
            continue
        if error.message == '"origin" is a required property' and "/invite/" in path:
            # That of an event of room versions 1 and 2, by the rules of the room versions themselves.
            continue
        where = "/".join(str(part) for part in error.instance_path)
        message = f"{method} {path} {status}: {where or 'the answer'}: {error.message[:500]}"
        raise AssertionError(message)


def check_request(operation: str, method: str, target: str, body: Any) -> None:
    """Raise `AssertionError` where a request to another server is not as the specification describes it."""
    raw_path, _, query = target.partition("?")
    path, name = _find(method, raw_path) or (None, "")
    assert path is not None, f"{method} {raw_path} is no endpoint"
    described = _load(path)["paths"][name][method.lower()]
    assert described["operationId"] == operation
    parameters = [one for one in described.get("parameters", ()) if one.get("in") == "query"]
    given = {pair.partition("=")[0] for pair in query.split("&") if pair}
    assert {one["name"] for one in parameters if one.get("required")} <= given
    wanted = described.get("requestBody", {}).get("content", {}).get("application/json")
    assert (wanted is not None) == (body is not None)
    if wanted is not None:
        escaped = quote(name.replace("~", "~0").replace("/", "~1"))
        pointer = f"paths/{escaped}/{method.lower()}/requestBody/content/application~1json/schema"
        validator = jsonschema_rs.validator_for({"$ref": f"file://{path}#/{pointer}"}, registry=_registry())
        assert [error.message for error in validator.iter_errors(body)] == []
