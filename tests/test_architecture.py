"""Architecture: imports between folders, sizes of files and functions, and docstrings."""

import ast
import re
import sys
from collections.abc import Collection, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("textdiff", "image")
    for path in sorted((ROOT / package).rglob("*.py"))
}
PACKAGES = {name.rpartition(".")[0] for name in MODULES}
CORE = "textdiff.diffusion"
ABOVE_SHARED = ("textdiff.text", "textdiff.evaluation", "textdiff.demo", "textdiff.cli", "image")
# what the modules of a folder may not import
FORBIDDEN = {
    "textdiff.training": ABOVE_SHARED,
    "textdiff.text": ("textdiff.evaluation", "textdiff.demo", "textdiff.cli", "image"),
    "textdiff.evaluation": ("textdiff.demo", "textdiff.cli", "image"),
    "textdiff.demo": ("textdiff.evaluation", "textdiff.cli", "image"),
    "textdiff": ("image",),
}
PLAIN = re.compile(r"(?!(What|Whose|Of|By|As|How)\b).+\.")
Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def within(module: str, packages: Collection[str]) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


@cache
def imports(path: Path) -> set[str]:
    """All modules that a file imports, at its top or in a function."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            ours = MODULES.keys() | PACKAGES
            found |= {name if name in ours else str(node.module) for name in names}
    return found


def parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def reachable(start: str) -> set[str]:
    """All modules of this project that are imported with `start`, its packages included."""
    found, waiting = set[str](), [start]
    while waiting:
        module = waiting.pop()
        if module not in MODULES or module in found:
            continue
        found.add(module)
        waiting += [*imports(MODULES[module]), *parents(module)]
    return found


def violations(importers: Collection[str], forbidden: Collection[str]) -> list[str]:
    pairs = [(module, name) for module in importers for name in imports(MODULES[module])]
    return [f"{module} imports {name}" for module, name in pairs if within(name, forbidden)]


def test_core_imports_torch_and_jaxtyping_only() -> None:
    allowed = (CORE, "torch", "jaxtyping", *sys.stdlib_module_names)
    core = [module for module in MODULES if within(module, [CORE])]
    pairs = [(module, name) for module in core for name in imports(MODULES[module])]
    assert pairs
    assert not [pair for pair in pairs if not within(pair[1], allowed)]


def test_shared_modules_import_no_text_or_images() -> None:
    paths = {path for path in (ROOT / "textdiff").glob("*.py") if path.stem != "__main__"}
    shared = [module for module, path in MODULES.items() if path in paths]
    assert shared
    assert not violations(shared, ABOVE_SHARED)


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_folders_import_nothing_above_them(folder: str) -> None:
    importers = [module for module in MODULES if within(module, [folder])]
    assert importers
    assert not violations(importers, FORBIDDEN[folder])


def test_images_reach_no_text() -> None:
    images = [module for module in MODULES if within(module, ["image"])]
    reached = {name: reachable(name) for name in [*images, "textdiff.cli.parser"]}
    forbidden = ("textdiff.text", "textdiff.evaluation")
    assert any(within(name, forbidden) for name in reachable("textdiff.cli.main"))
    found = [(name, other) for name, others in reached.items() for other in others]
    assert not [pair for pair in found if within(pair[1], forbidden)]


def test_nobody_imports_scripts_or_tests() -> None:
    """Only tests import scripts, and scripts import each other."""
    tests = {"tests", *(path.stem for path in files("tests"))}
    parts = {path.relative_to(ROOT / "scripts").parts[0] for path in files("scripts")}
    scripts = {"scripts", *(part.removesuffix(".py") for part in parts)}
    assert not violations([*MODULES], scripts | tests)
    pairs = [(path, name) for path in files("scripts") for name in imports(path)]
    assert not [pair for pair in pairs if within(pair[1], tests)]


def test_imports_have_no_cycle() -> None:
    graph = {module: imports(path) & MODULES.keys() for module, path in MODULES.items()}
    TopologicalSorter(graph).prepare()


def test_files_have_at_most_250_lines() -> None:
    paths = files("textdiff", "image", "scripts", "tests")
    lengths = [(path, len(path.read_text(encoding="utf-8").splitlines())) for path in paths]
    long = [f"{path.relative_to(ROOT)}: {length}" for path, length in lengths if length > 250]
    assert not long, "\n".join(long)


def test_functions_have_at_most_40_lines() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {node.name}, {length} lines"
        for path in files("textdiff", "image", "scripts")
        for node in ast.walk(tree(path))
        if isinstance(node, Function) and (length := lines_of(node)) > 40
    ]
    assert not long, "\n".join(long)


def lines_of(node: Function) -> int:
    assert node.end_lineno
    return node.end_lineno - node.lineno + 1


def public(module: str, path: Path) -> Iterator[tuple[str, Documented]]:
    """A module and its public classes, functions and methods, with their names."""
    yield module, tree(path)
    for node in tree(path).body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield f"{module}.{node.name}", node
            methods = node.body if isinstance(node, ast.ClassDef) else []
            for method in methods:
                documented = isinstance(method, Function) and ast.get_docstring(method)
                if documented and not method.name.startswith("_"):
                    yield f"{module}.{node.name}.{method.name}", method


def test_public_names_have_plain_docstrings() -> None:
    """The first line is a sentence, which does not open with a word such as What or Whose."""
    found = [pair for module, path in MODULES.items() for pair in public(module, path)]
    first = {name: (ast.get_docstring(node) or "").partition("\n")[0] for name, node in found}
    bad = [f"{name}: {line}" for name, line in first.items() if not PLAIN.fullmatch(line)]
    assert not bad, "\n".join(bad)
