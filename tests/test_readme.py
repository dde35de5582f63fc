"""What the README shows runs, and the tree it draws is the tree there is."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LISTINGS = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.parametrize("listing", LISTINGS, ids=["text", "images"])
def test_both_listings_run_and_leave_a_gradient(listing: str) -> None:
    scale = torch.ones((), requires_grad=True)
    names: dict[str, object] = {"net": lambda x_t, logsnr: scale * x_t}
    exec(listing, names)
    assert scale.grad is not None
    assert torch.isfinite(scale.grad)
    assert names["draft"].shape[0] == 8  # type: ignore[attr-defined]


def test_the_listings_differ_only_in_how_x0_is_made_and_read() -> None:
    text, images = ([line.strip() for line in listing.splitlines()] for listing in LISTINGS)
    assert {line.split(" =")[0] for line in set(text) ^ set(images)} == {"embedding", "pixels", "x0", "draft"}


def test_the_tree_names_every_module() -> None:
    tree = README[README.index("## The tree") :]
    for path in [*ROOT.glob("textdiff/**/*.py"), *ROOT.glob("image/*.py"), *ROOT.glob("scripts/*.py")]:
        assert path.stem.startswith("__") or path.name in tree, path
