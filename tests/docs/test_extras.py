"""The extras of the package are those of the documentation, and `all` has all but one."""

import re
import tomllib

from pages import ROOT, read

EXTRAS = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]


def test_documentation_lists_every_extra() -> None:
    rows = re.findall(r"^\| (`[^|]+) \|", read(ROOT / "docs" / "index.md"), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == EXTRAS.keys()


def test_all_has_every_extra_but_fidelity() -> None:
    """Beside the CPU build of torch, pip would install torchvision for CUDA, which cannot load."""
    (everything,) = EXTRAS["all"]
    assert set(re.findall(r"\w+", everything)) == {"textdiff", *EXTRAS} - {"all", "fidelity"}
