"""The layers of design.md, section 3: imports point downwards only, and nothing heavy is imported before it is used."""

from __future__ import annotations

import ast
import graphlib
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import eventflow

PACKAGE = Path(eventflow.__file__).parent
PLUGINS = Path(__file__).parents[1] / "plugins" / "eventflow_plugins"

LAYERS = (  # lowest first; a module imports from lower ones only. A package is one module here.
    {"printable"},
    {"errors", "forks", "logs", "plain", "waiting"},
    {"signals"},
    {"discovery", "events", "json_array", "limits", "partial_json", "pieces", "sequence", "sse", "timers"},
    {"http", "jobs", "open_item", "outcome", "routing", "sdks", "wires"},
    {"snapshot"},
    {"marks", "providers", "schema", "sources"},
    {"plugin", "request", "rewriting"},
    {"background", "pipeline", "plan"},
    {"chain"},
    {"engine"},
    {"reading"},
    {"exchange", "run"},
    {"conversation", "driving", "streams"},
    {"dispatcher"},
    {"answer"},
    {"client"},
    {"agent"},
    {"testing"},
    {"eventflow"},  # the face: what `import eventflow` gives
    {"cli"},
    {"__main__"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

LATE = {  # imported within a function, because the design has them know what stands above them
    ("plugin", "pipeline"),  # a | b
    ("pipeline", "dispatcher"),  # pipeline.run(source)
}
SANS_IO = {"errors", "events", "limits", "partial_json", "sequence", "sse", "outcome", "routing", "snapshot", "wires"}
SANS_IO |= {"rewriting", "plan", "chain", "engine", "timers", "schema", "json_array", "plain", "providers", "marks"}
SANS_IO |= {"open_item", "pieces", "sdks"}
PURE = {"eventflow.testing.frames", "eventflow.testing.order"}  # in a package of faces
LOCK = ("threading", "RLock")
FACES_ONLY = {"anyio", "asyncio", "httpx", "io", "os", "pathlib", "select", "socket", "ssl", "threading", "time"}


def sources(folder: Path) -> Iterator[tuple[str, Path]]:
    """The modules under *folder*, with their dotted names."""
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


class _Imports(ast.NodeVisitor):
    """Collects what is imported: ``(module, name or None, within a function)``; nothing for type checkers alone."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str | None, bool]] = []
        self._depth = 0

    def visit_If(self, node: ast.If) -> None:  # ast's name
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for statement in node.orelse:
                self.visit(statement)
        else:
            self.generic_visit(node)

    def _visit_function(self, node: ast.AST) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    visit_FunctionDef = visit_AsyncFunctionDef = _visit_function  # noqa: N815  # ast's names

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [(alias.name, None, self._depth > 0) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0
        self.found += [(node.module or "", alias.name, self._depth > 0) for alias in node.names]


def imports(path: Path) -> list[tuple[str, str | None, bool]]:
    """What the module at *path* imports."""
    visitor = _Imports()
    visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
    return visitor.found


def imported_module(module: str, name: str | None) -> str:
    """The module that an import means: ``from eventflow import signals`` means ``eventflow.signals``."""
    if name is not None and f"{module}.{name}" in MODULES:
        return f"{module}.{name}"
    return module


def layer_of(module: str) -> str:
    """The name in `LAYERS` of a dotted module name."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


MODULES = dict(sources(PACKAGE))


def test_modules_when_listed_have_a_layer() -> None:
    """Every module has its place in the layers; a new one says where it belongs."""
    assert {layer_of(module) for module in MODULES} <= set(RANK)


@pytest.mark.parametrize("module", MODULES)
def test_imports_when_walked_point_downwards(module: str) -> None:
    """A module imports from lower layers only; the two late exceptions are named."""
    here = layer_of(module)
    for target, name, late in imports(MODULES[module]):
        if target.split(".")[0] != "eventflow":
            continue
        there = layer_of(imported_module(target, name))
        if there == here or (late and (here, there) in LATE):
            continue
        assert RANK[there] < RANK[here], f"{module} imports {target} ({name})"


def test_imports_when_walked_have_no_cycle() -> None:
    """Module-level imports have no cycle, within packages either."""
    graph = {
        module: {imported_module(target, name) for target, name, late in imports(path) if not late}
        & set(MODULES) - {module}
        for module, path in MODULES.items()
    }
    for module in list(graph):  # importing a submodule runs its package, which may name its own submodules
        graph[module].discard(module.rpartition(".")[0])
    assert set(graphlib.TopologicalSorter(graph).static_order()) >= set(MODULES)


@pytest.mark.parametrize(
    "module", sorted(module for module in MODULES if layer_of(module) in SANS_IO or module in PURE)
)
def test_sans_io_modules_when_walked_reach_for_nothing(module: str) -> None:
    """The core takes data and returns data: it imports nothing that waits, reads clocks or files, or starts threads.

    A lock it may have, for what a library below it cannot do in two threads.
    """
    found = {target.split(".")[0] for target, name, _ in imports(MODULES[module]) if (target, name) != LOCK}
    assert not found & FACES_ONLY


@pytest.mark.parametrize("module", MODULES)
def test_library_when_walked_does_not_know_the_bundled_plugins(module: str) -> None:
    """``eventflow`` never imports ``eventflow_plugins``."""
    assert not any(target.split(".")[0] == "eventflow_plugins" for target, _, _ in imports(MODULES[module]))


@pytest.mark.parametrize(
    ("module", "path"), list(sources(PLUGINS)), ids=lambda value: value if isinstance(value, str) else ""
)
def test_bundled_plugins_when_walked_use_public_names(module: str, path: Path) -> None:
    """A bundled plugin imports what is in a module's ``__all__``, and no module with an underscore."""
    for target, name, _ in imports(path):
        if target.split(".")[0] != "eventflow":
            continue
        assert name is not None, f"{module} imports {target} as a whole"
        assert not any(part.startswith("_") for part in target.split(".")), f"{module} imports {target}"
        assert name in importlib.import_module(target).__all__, f"{module} imports {name} of {target}"


def run_python(code: str) -> str:
    """What *code* prints in a Python of its own."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


HEAVY = ("httpx", "anyio", "trio", "click", "rich", "eventflow_plugins")
LOADED = f"import sys; print([module for module in {HEAVY} if module in sys.modules])"


@pytest.mark.parametrize(
    "code",
    [
        "import eventflow",
        "import eventflow.cli",
        "import eventflow; eventflow.Dispatcher().run([b''], check=False)",
        "import eventflow, asyncio; asyncio.run(eventflow.Dispatcher().arun([b''], check=False))",
    ],
)
def test_import_when_nothing_needs_them_loads_no_heavy_modules(code: str) -> None:
    """httpx, anyio and the command's libraries load when first used; the bundled plugins only by name or import."""
    assert run_python(f"{code}\n{LOADED}") == "[]"


@pytest.mark.parametrize("module", [module for module in MODULES if "cli" not in module and "__main__" not in module])
def test_modules_when_imported_alone(module: str) -> None:
    """Every module's ``__all__`` names what it has."""
    loaded = importlib.import_module(module)
    assert all(hasattr(loaded, name) for name in getattr(loaded, "__all__", ()))


def test_public_face_when_looked_at_has_the_fixed_names() -> None:
    """The names of the design that this version has are there, and ``__all__`` is in order."""
    fixed = "Dispatcher Plugin Pipeline Run on transform rewrite state iter_events aiter_events collect acollect Event "
    fixed += "TextDelta TextDone errors events signals sse wires Limits"
    assert set(fixed.split()) <= set(eventflow.__all__)
    assert len(eventflow.__all__) == len(set(eventflow.__all__))
