"""Tests of the report: one page without external files, and a file with every number."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def homework(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/homework.py", "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT, check=False)


def test_sections_are_made_one_by_one(tmp_path):
    """The page needs no other file and keeps the sections that were made before."""
    for name in ("moments", "bound"):
        done = homework(tmp_path, "--only", name)
        assert done.returncode == 0, done.stderr
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    numbers = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [*numbers] == ["moments", "bound"]
    assert numbers["moments"]["largest_mean_deviation"] < 4.5
    assert all(bound > numbers["bound"]["truth"] for bound in numbers["bound"]["bound"].values())
    sources = re.findall(r'src="([^"]*)"', page)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert '<h2 id="moments">' in page
    assert "http" not in page


def test_unknown_section_is_refused_by_name(tmp_path):
    done = homework(tmp_path, "--only", "nothing")
    assert done.returncode == 2
    assert "--only must be of forward, moments" in done.stderr.splitlines()[-1]
