"""The Python code of the documentation runs."""

import os
import subprocess
import sys

import pytest
from pages import ROOT, blocks

PAGES = ["api", "extending"]


@pytest.mark.parametrize("page", PAGES)
def test_code_of_a_page_runs(page, tmp_path):
    """The blocks of a page are one program."""
    program = tmp_path / "page.py"
    program.write_text("\n".join(blocks(ROOT / "docs" / f"{page}.md", "python")), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "ACCELERATE_USE_CPU": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(
        [sys.executable, program.name],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_no_other_page_has_python():
    """Code that no test runs becomes wrong."""
    tested = {f"{page}.md" for page in PAGES}
    others = [page for page in (ROOT / "docs").glob("*.md") if page.name not in tested]
    assert not [page for page in others if blocks(page, "python")]
