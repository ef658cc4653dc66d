"""The shape of the house: imports have no circle, folders depend on each other one way, and names do not collide."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
    for package in ("primal_dual", "torch_impl")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.name != "__init__.py" and "tutorials" not in path.parts
}


def imported(tree):
    """The modules of ours that are imported when a module is loaded; those inside functions are loaded later."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                if name in MODULES:
                    yield name


GRAPH = {module: set(imported(tree)) for module, tree in MODULES.items()}


def test_imports_have_no_circle():
    assert len(GRAPH) > 80 and sum(map(len, GRAPH.values())) > 200
    assert len(list(TopologicalSorter(GRAPH).static_order())) == len(GRAPH)  # it raises CycleError


def test_folders_depend_on_each_other_one_way():
    """A folder may use the files beside it and those of other folders, but no two folders use each other."""
    arrows = {
        (module.rpartition(".")[0], other.rpartition(".")[0]) for module, others in GRAPH.items() for other in others
    }
    roots = {"primal_dual", "torch_impl"}
    pairs = {(a, b) for a, b in arrows if a != b and not {a, b} & roots}
    assert ("torch_impl.training.recipes", "torch_impl.models") in pairs
    assert [(a, b) for a, b in pairs if (b, a) in pairs] == []
    assert not any(a.startswith("primal_dual") and b.startswith("torch_impl") for a, b in arrows)
    above = {module for module in GRAPH if module.startswith("torch_impl.") and module.count(".") == 1}
    uses_fast = {module for module in above if any(other.startswith("torch_impl.fast") for other in GRAPH[module])}
    assert uses_fast == {"torch_impl.expansion", "torch_impl.certificate"}


@pytest.mark.parametrize("package", sorted({module.rpartition(".")[0] for module in MODULES}))
def test_no_module_has_the_name_of_a_function_beside_it(package):
    beside = {module: tree for module, tree in MODULES.items() if module.rpartition(".")[0] == package}
    functions = {node.name for tree in beside.values() for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {module.rpartition(".")[2] for module in beside} & functions == set()
