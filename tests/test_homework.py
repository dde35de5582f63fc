"""The report is one page that needs nothing else, and a file with every number; a section can be made alone."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def homework(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/homework.py", "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT, check=False)


def test_a_section_is_a_page_of_its_own_with_its_numbers(tmp_path):
    done = homework(tmp_path, "--only", "moments")
    assert done.returncode == 0, done.stderr
    done = homework(tmp_path, "--only", "bound")  # keeps the other
    assert done.returncode == 0, done.stderr
    page, numbers = (tmp_path / "index.html").read_text(encoding="utf-8"), json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [*numbers] == ["moments", "bound"]
    assert numbers["moments"]["largest_mean_deviation"] < 4.5
    assert all(bound > numbers["bound"]["truth"] for bound in numbers["bound"]["bound"].values())
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)"', page))
    assert '<h2 id="moments">' in page
    assert "http" not in page


def test_a_section_that_does_not_exist_is_refused_by_name(tmp_path):
    done = homework(tmp_path, "--only", "nothing")
    assert done.returncode == 2
    assert "--only must be of forward, moments" in done.stderr.splitlines()[-1]
