"""Imports point one way, heavy libraries are loaded where they are used, names are our own."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PACKAGES = ("flows", "tasks", "specs", "warehouse", "infra")
FILES = sorted(file for package in PACKAGES for file in (PROJECT / package).rglob("*.py"))
MAY_IMPORT = {
    "specs": {"specs"},
    "warehouse": {"warehouse"},
    "tasks": {"tasks", "specs", "warehouse"},
    "infra": {"infra", "tasks", "specs", "warehouse"},
    "flows": set(PACKAGES),
}
FLOORS = {
    "tasks": 0,
    "tasks.paths": 0,
    "tasks.meters": 0,
    "tasks.provenance": 1,
    "tasks.engine": 1,
    "tasks.refine": 2,
    "tasks.stage": 2,
    "tasks.data": 3,
    "tasks.training": 3,
    "tasks.evaluation": 3,
}
"""Rooms of `tasks`, each by its floor: a module imports its own room and the floors below it."""
ACROSS = {
    "tasks.training": {
        "tasks.data.candidates",
        "tasks.data.chats",
        "tasks.data.documents",
        "tasks.data.duplicates",
        "tasks.data.formats",
        "tasks.data.judge",
        "tasks.data.sources",
        "tasks.evaluation.graders",
    },
    "tasks.evaluation": {
        "tasks.data.candidates",
        "tasks.data.categories",
        "tasks.data.sources",
    },
}
"""What a wing may import of another one."""
SQL = re.compile(r"\b(?:SELECT|FROM|JOIN|WHERE|CREATE|INSERT)\b|\bselect\b.*\bfrom\b")
HEAVY = {
    "vllm",
    "torch",
    "trl",
    "ray",
    "transformers",
    "datasets",
    "datasketch",
    "matplotlib",
    "inspect_ai",
    "marimo",
    "altair",
    "uvicorn",
}
PAGE = "warehouse/app/page.py"
"""The page, which marimo alone loads."""
LIGHT_FLOWS = (
    "flows/recipe.py",
    "flows/__main__.py",
    "flows/command.py",
    "flows/making.py",
    "flows/policies.py",
    "flows/interchange.py",
    "flows/looking.py",
    "flows/reviewing.py",
    "flows/inspecting.py",
    "flows/publishing.py",
    "flows/handover.py",
)


def name_of(file: Path) -> str:
    return file.relative_to(PROJECT).as_posix()


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Modules that import statements name: `from tasks import stage` names both."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def everywhere(tree: ast.AST) -> Iterator[ast.AST]:
    return ast.walk(tree)


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """What runs when the module is imported: all but the bodies of functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from at_import(node)


def module_of(file: Path) -> str:
    return name_of(file).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_of(file) for file in FILES}


def modules(names: set[str]) -> set[str]:
    """Those of the names that are our modules, not what stands in them."""
    return names & MODULES


def imports_of(file: Path) -> set[str]:
    """Our modules that a file imports, anywhere."""
    return modules(imported(everywhere(parsed(file)))) - {module_of(file)}


def room_of(module: str) -> str:
    """The room of `tasks` that a module stands in."""
    return max((room for room in FLOORS if f"{module}.".startswith(f"{room}.")), key=len)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_point_one_way(file: Path) -> None:
    package = name_of(file).split("/")[0]
    names = imported(everywhere(parsed(file)))
    assert {name.split(".")[0] for name in names} & {*PACKAGES, "tests"} <= MAY_IMPORT[package]


@pytest.mark.parametrize("file", [f for f in FILES if name_of(f).startswith("tasks")], ids=name_of)
def test_tasks_import_their_own_room_and_floors_below(file: Path) -> None:
    room = room_of(module_of(file))
    upward = {
        module
        for module in imports_of(file)
        if module.startswith("tasks")
        and room_of(module) != room
        and FLOORS[room_of(module)] >= FLOORS[room]
    }
    assert upward <= ACROSS.get(room, set())


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module_of(file): imports_of(file) - {"tasks"} for file in FILES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_flows_hold_no_sql() -> None:
    for file in (PROJECT / "flows").glob("*.py"):
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = SQL.search(node.value)
                assert not found, f"{name_of(file)}:{node.lineno}: {found and found[0]!r}"


@pytest.mark.parametrize(
    "file", [file for file in FILES if not name_of(file).startswith("infra")], ids=name_of
)
def test_heavy_libraries_are_loaded_where_they_are_used(file: Path) -> None:
    found = imported(at_import(parsed(file)))
    top = {name.split(".")[0] for name in found}
    assert not top & HEAVY or name_of(file) == PAGE
    if not name_of(file).startswith("flows") or name_of(file) in LIGHT_FLOWS:
        assert "prefect" not in top


def test_warehouse_knows_neither_models_nor_orchestration() -> None:
    for file in (PROJECT / "warehouse").rglob("*.py"):
        found = imported(everywhere(parsed(file)))
        rooms = {"reports": {"matplotlib", "inspect_ai"}, "app": {"marimo", "altair", "uvicorn"}}
        banned = HEAVY - rooms.get(file.parent.name, set()) | {"prefect", "pydantic"}
        assert not {name.split(".")[0] for name in found} & banned, name_of(file)


def test_no_file_bears_a_name_of_the_standard_library() -> None:
    for file in [*FILES, *(PROJECT / package for package in PACKAGES)]:
        assert file.stem not in sys.stdlib_module_names - {"__main__"}, name_of(file)


def test_no_file_is_a_drawer() -> None:
    drawers = {"utils", "util", "common", "helpers", "manager", "misc"}
    assert not [name_of(file) for file in FILES if file.stem in drawers]


def test_an_import_that_points_up_or_is_heavy_would_be_found() -> None:
    tree = ast.parse(
        "from tasks.data import judge\n"
        "import specs.policy\n"
        "class A:\n    import torch.nn\n"
        "def f():\n    import ray\n"
    )
    assert modules(imported(everywhere(tree))) == {"tasks.data", "tasks.data.judge", "specs.policy"}
    assert "torch.nn" in imported(at_import(tree))
    assert "ray" not in imported(at_import(tree))
