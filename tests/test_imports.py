"""Imports point one way: a package imports itself and what stands in a lower row, never what stands beside it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("crypto", "federation", "homeserver")

# Lowest first. What is in one row knows nothing of its neighbours.
ROWS: tuple[tuple[str, ...], ...] = (
    ("crypto",),
    ("federation",),
    ("homeserver.ids", "homeserver.errors", "homeserver.clock"),
    # Who asks is a value without behaviour, of which views and sync know as well.
    ("homeserver.config", "homeserver.logs", "homeserver.metrics", "homeserver.services.requester"),
    ("homeserver.eventgraph",),
    ("homeserver.storage",),
    ("homeserver.notifier",),
    ("homeserver.rooms",),
    ("homeserver.views",),
    ("homeserver.services", "homeserver.sync", "homeserver.delivery"),
    ("homeserver.http",),
    ("homeserver.api", "homeserver.web"),
    ("homeserver.composition",),
    ("homeserver.app",),
    ("homeserver.serving",),
    ("homeserver.cli",),
    ("homeserver.__main__",),
)
# Modules that belong to a package of one of the rows.
BELONGS_TO = {"homeserver.config_file": "homeserver.config"}
# Without a row of its own: only the version.
EVERYBODYS = "homeserver"

# The room core and crypto are pure: no clock, socket, file, database, logger or asyncio, no chance.
PURE = ("crypto", "homeserver.eventgraph")
IMPURE = {
    "aiohttp", "aiosqlite", "asyncio", "asyncpg", "datetime", "io", "logging", "os", "pathlib", "random", "secrets",
    "socket", "sqlite3", "structlog", "subprocess", "tempfile", "threading", "time", "uuid",
}  # fmt: skip
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def package_of(module: str) -> str | None:
    """The entry of the rows that a module belongs to."""
    module = BELONGS_TO.get(module, module)
    names = [name for row in ROWS for name in row if module == name or module.startswith(f"{name}.")]
    return max(names, key=len) if names else None


def row_of(package: str) -> int:
    return next(number for number, row in enumerate(ROWS) if package in row)


def imports_of(path: Path, *, when_run: bool = False) -> list[tuple[int, str]]:
    """Line and full name of every import, of modules rather than of what is in them where that can be told.

    `when_run`: without those that are there for the type checker only.
    """
    found = []
    tree = ast.parse(path.read_text())
    for node in tree.body if when_run else ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            assert node.module is not None
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(node.lineno, name if name in MODULES else node.module) for name in names]
    return found


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_every_module_has_a_row_and_imports_lower_rows_only(path: Path) -> None:
    module = module_of(path)
    if module == EVERYBODYS:
        return
    package = package_of(module)
    assert package is not None, f"{module} has no row: give it one first"
    for line, name in imports_of(path):
        if name.split(".")[0] not in PACKAGES or name == EVERYBODYS:
            continue
        other = package_of(name)
        assert other is not None, f"{path}:{line} imports {name}, which has no row"
        assert other == package or row_of(other) < row_of(package), (
            f"{path}:{line}: {package} imports {other}"
        )


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_module_imports_inside_a_function_or_block(path: Path) -> None:
    tree = ast.parse(path.read_text())
    allowed = set(tree.body)
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            allowed |= set(node.body)
    inside = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and node not in allowed
    ]
    assert not inside, f"{path}: imports inside a block in the lines {inside}"


@pytest.mark.parametrize(
    "path", [path for path in FILES if package_of(module_of(path)) in PURE], ids=module_of
)
def test_the_pure_packages_import_nothing_that_acts(path: Path) -> None:
    for line, name in imports_of(path):
        assert name.split(".")[0] not in IMPURE, f"{path}:{line} imports {name}"


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    graph = {
        module: {name for _, name in imports_of(path, when_run=True) if name in MODULES and name != module}
        for module, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in done:
            for imported in sorted(graph[module]):
                visit(imported, (*way, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())
