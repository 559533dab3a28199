"""Imports point one way, heavy libraries are loaded where they are used, names are our own."""

import ast
import sys
from collections.abc import Iterator
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
SHARED_TASKS = {"tasks", "tasks.engine", "tasks.stage"}
SIBLINGS = {
    "tasks.collect": {"tasks.sources", "tasks.likeness"},
    "tasks.likeness": {"tasks.sources"},
    "tasks.engine": {"tasks.serving"},
    "tasks.stage": {"tasks.metrics", "tasks.replicas"},
    "tasks.reward": {"tasks.judge"},
    "tasks.train_sft": {"tasks.chats", "tasks.trainer"},
    "tasks.train_dpo": {"tasks.chats", "tasks.trainer"},
    "tasks.train_rl": {
        "tasks.chats",
        "tasks.trainer",
        "tasks.reward",
        "tasks.judge",
        "tasks.serving",
    },
    "tasks.serving": {"tasks.chats"},
    "tasks.suites": {"tasks.sources"},
    "tasks.graders": {"tasks.answer", "tasks.converse"},
    "tasks.evaluate": {"tasks.answer", "tasks.converse", "tasks.graders"},
}
"""What a task may import beyond what all of them share."""
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
}
LIGHT_FLOWS = ("flows/recipe.py", "flows/__main__.py")


def name_of(file: Path) -> str:
    return file.relative_to(PROJECT).as_posix()


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


def modules(names: set[str]) -> set[str]:
    """Those of the names that are our modules, not what stands in them."""
    files = {name_of(file).removesuffix(".py").replace("/", ".") for file in FILES}
    known = files | {name.removesuffix(".__init__") for name in files}
    return names & known


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_point_one_way(file: Path) -> None:
    package = name_of(file).split("/")[0]
    found = imported(everywhere(ast.parse(file.read_text())))
    ours = {name.split(".")[0] for name in found} & {*PACKAGES, "tests"}
    assert ours <= MAY_IMPORT[package]
    if package == "tasks":
        itself = name_of(file).removesuffix(".py").replace("/", ".")
        siblings = {name for name in modules(found) if name.startswith("tasks")}
        assert siblings <= SHARED_TASKS | {itself} | SIBLINGS.get(itself, set())


@pytest.mark.parametrize(
    "file", [file for file in FILES if not name_of(file).startswith("infra")], ids=name_of
)
def test_heavy_libraries_are_loaded_where_they_are_used(file: Path) -> None:
    found = imported(at_import(ast.parse(file.read_text())))
    top = {name.split(".")[0] for name in found}
    assert not top & HEAVY
    if not name_of(file).startswith("flows") or name_of(file) in LIGHT_FLOWS:
        assert "prefect" not in top


def test_warehouse_knows_neither_models_nor_orchestration() -> None:
    for file in (PROJECT / "warehouse").rglob("*.py"):
        found = imported(everywhere(ast.parse(file.read_text())))
        assert not {name.split(".")[0] for name in found} & (HEAVY | {"prefect", "pydantic"})


def test_no_file_bears_a_name_of_the_standard_library() -> None:
    for file in [*FILES, *(PROJECT / package for package in PACKAGES)]:
        assert file.stem not in sys.stdlib_module_names - {"__main__"}, name_of(file)


def test_no_file_is_a_drawer() -> None:
    drawers = {"utils", "util", "common", "helpers", "manager", "misc"}
    assert not [name_of(file) for file in FILES if file.stem in drawers]


def test_an_import_that_points_up_or_is_heavy_would_be_found() -> None:
    tree = ast.parse(
        "from tasks import judge\n"
        "import specs.policy\n"
        "class A:\n    import torch.nn\n"
        "def f():\n    import ray\n"
    )
    assert modules(imported(everywhere(tree))) == {"tasks", "tasks.judge", "specs.policy"}
    assert "torch.nn" in imported(at_import(tree))
    assert "ray" not in imported(at_import(tree))
