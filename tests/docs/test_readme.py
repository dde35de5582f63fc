"""The README fits on a page, its listings run, and its tree is the tree there is."""

import re

import pytest
import torch
from pages import ROOT, blocks, read

README = ROOT / "README.md"
LISTINGS = blocks(README, "python")
MOST_WORDS = 900


@pytest.mark.parametrize("listing", LISTINGS, ids=["text", "images"])
def test_both_listings_run_and_leave_a_gradient(listing: str) -> None:
    scale = torch.ones((), requires_grad=True)
    names: dict[str, object] = {"net": lambda x_t, logsnr: scale * x_t}
    exec(listing, names)
    assert scale.grad is not None
    assert torch.isfinite(scale.grad)
    assert names["sample"].shape[0] == 8  # type: ignore[attr-defined]


def test_listings_differ_only_around_x0() -> None:
    """They differ in how x0 is made and read."""
    text, images = ([line.strip() for line in listing.splitlines()] for listing in LISTINGS)
    names = {line.split(" =")[0] for line in set(text) ^ set(images)}
    assert names == {"words", "pixels", "x0", "sample"}


def test_readme_has_at_most_900_words() -> None:
    assert len(read(README).split()) <= MOST_WORDS


def test_tree_names_every_folder() -> None:
    tree = read(README)[read(README).index("## The tree") :]
    rooms = {path.parent for path in (ROOT / "textdiff").rglob("*.py")}
    for room in [*rooms, *(ROOT / name for name in ("image", "scripts", "configs", "docs"))]:
        assert f"\n{room.relative_to(ROOT).as_posix()}/ " in tree, room


def test_reference_names_every_module() -> None:
    """A module is listed itself, or its package is listed with its modules."""
    reference = read(ROOT / "docs" / "api.md")
    listed = re.findall(r"^::: (\S+)$", reference, re.MULTILINE)
    whole = re.findall(r"^::: (\S+)\n +options: {show_submodules: true}$", reference, re.MULTILINE)
    for path in [*(ROOT / "textdiff").rglob("*.py"), *(ROOT / "image").rglob("*.py")]:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        included = name in listed or name.rpartition(".")[0] in whole
        assert path.stem.startswith("__") or included, name


def test_contributing_names_every_script() -> None:
    contributing = read(ROOT / "CONTRIBUTING.md")
    for path in (ROOT / "scripts").glob("*.py"):
        assert path.name in contributing, path
