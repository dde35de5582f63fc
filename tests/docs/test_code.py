"""The Python code of the documentation runs."""

import os
import subprocess
import sys

from pages import ROOT, blocks

PAGES = ["api", "extending"]


PROGRAM = """
import sys
from pathlib import Path

for page in sys.argv[1:]:
    code = Path(page).read_text(encoding="utf-8")
    exec(compile(code, page, "exec"), {"__name__": "__main__"})
"""


def test_code_of_pages_runs(tmp_path):
    """The blocks of a page are one program. Pages share a process, which imports torch once."""
    for page in PAGES:
        code = "\n".join(blocks(ROOT / "docs" / f"{page}.md", "python"))
        (tmp_path / f"{page}.py").write_text(code, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "ACCELERATE_USE_CPU": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *(f"{page}.py" for page in PAGES)],
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
