"""The structure of the package: its layers, and how large its pieces may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "rmiseg"
TESTS = Path(__file__).parent

LAYERS = (
    *("functional", "config", "runtime", "kernels", "losses", "compat", "data", "models", "inference", "evaluation"),
    *("planning", "training", "exports", "reports", "app", "experiment", "benchmarks", "cli"),
)
"""Each imports only from those before it."""
DOORS = ("__init__", "__main__")
"""Of the whole package: they hand names on, late."""

LONGEST_FILE, LONGEST_FUNCTION, LONGEST_KERNEL, MOST_PARAMETERS = 400, 60, 100, 12


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def layer(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """The layers that a module imports from, those inside of functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "rmiseg":
            names = [f"rmiseg.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [node.module or ""]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("rmiseg."))


def test_every_folder_is_a_layer():
    assert {layer(path) for path in modules(SOURCE)} - set(DOORS) == set(LAYERS)


@pytest.mark.parametrize("path", modules(SOURCE), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_imports_only_from_below(path):
    """So there are no circles of packages either."""
    own = layer(path)
    if own in DOORS:
        return
    tree = ast.parse(path.read_text())
    upward = [each for each in imported(tree) if each in LAYERS and LAYERS.index(each) > LAYERS.index(own)]
    assert not upward, f"{own} imports from {', '.join(upward)}, which is above it"


def test_modules_import_each_other_in_no_circle():
    """Not even by imports inside of functions; packages' own files only hand names on."""
    files = {f"rmiseg.{'.'.join(path.relative_to(SOURCE).with_suffix('').parts)}": path for path in modules(SOURCE)}
    imports: dict[str, set[str]] = {}
    for module, path in files.items():
        if path.stem in DOORS:
            continue
        imports[module] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                imports[module] |= {
                    node.module,
                    *(f"{node.module}.{alias.name}" for alias in node.names),
                } & files.keys()
    list(TopologicalSorter(imports).static_order())  # raises a CycleError that names them


@pytest.mark.parametrize("path", modules(SOURCE), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_module_is_named_like_a_package_that_it_imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert path.stem not in [name.split(".")[0] for name in names]


@pytest.mark.parametrize("path", [*modules(SOURCE), *modules(TESTS)], ids=lambda path: path.name)
def test_sizes(path):
    text = path.read_text()
    assert text.count("\n") <= LONGEST_FILE, "a file this long has several subjects"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef):
            continue
        kernel = any("jit" in ast.unparse(decorator) for decorator in node.decorator_list)
        body = node.body[1:] if ast.get_docstring(node) else node.body
        lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
        assert lines <= (LONGEST_KERNEL if kernel else LONGEST_FUNCTION), f"{node.name} has {lines} lines"
        if SOURCE in path.parents:  # a test's parameters may be drawn at random, in any number
            arguments = node.args
            count = len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs)
            count -= bool(arguments.args) and arguments.args[0].arg in ("self", "cls")
            assert count <= MOST_PARAMETERS, f"{node.name} has {count} parameters"


@pytest.mark.parametrize("path", modules(SOURCE), ids=lambda path: str(path.relative_to(SOURCE)))
def test_docstrings_begin_with_a_noun_or_a_verb(path):
    first = re.findall(r'^ *r?"""(\w+)', path.read_text(), re.M)
    assert not {"What", "Whether", "Of", "How", "Where", "Which", "Why", "When", "Who"} & set(first)
