"""Who may import whom, read from the sources: the core knows nothing, what is shared knows neither text nor images, nobody knows the scripts."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("textdiff", "image")
    for path in (ROOT / package).rglob("*.py")
}
CORE = "textdiff.diffusion"
# the rest of textdiff is text's
SHARED_NAMES = (
    "batches checkpoint config counter device doctor folder journal layers levels loop muon parser pretrained processes sharding state table trainer"
)
SHARED = (CORE, *(f"textdiff.{name}" for name in SHARED_NAMES.split()))
OURS = ("textdiff", "image", "scripts", "tests")


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


def imports(module: str) -> set[str]:
    """Every module that `module` names in an import, at its head or in a function."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names if alias.name != "__version__"]
            found |= {name if name in FILES else str(node.module) for name in names}
    return found


def ours_but(allowed: tuple[str, ...], *importers: str) -> list[str]:
    """What `importers` import of this repository beyond `allowed`."""
    pairs = [(module, name) for module in FILES if within(module, importers) for name in imports(module)]
    return [f"{module} imports {name}" for module, name in pairs if within(name, OURS) and not within(name, allowed)]


def test_the_core_imports_torch_the_standard_library_and_jaxtyping_only():
    allowed = (CORE, "torch", "jaxtyping", *sys.stdlib_module_names)
    assert not [(module, name) for module in FILES if within(module, (CORE,)) for name in imports(module) if not within(name, allowed)]


def test_what_is_shared_knows_no_text_and_no_images():
    assert not ours_but(SHARED, *SHARED)


def test_images_know_no_text():
    assert not ours_but(("image", *SHARED), "image")


def test_text_knows_no_images_and_nobody_knows_the_scripts():
    assert not ours_but(("textdiff",), "textdiff")


def test_no_module_imports_itself_in_a_circle():
    TopologicalSorter({module: imports(module) & FILES.keys() for module in FILES}).prepare()
