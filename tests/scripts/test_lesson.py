"""Tests of the notebook, which is made from the same sections as the report."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from homework import SECTIONS, write_notebook
from nbclient import NotebookClient
from report_sections.notebook import TAG

ROOT = Path(__file__).parents[2]
LESSON = ROOT / "docs" / "lesson.ipynb"


def test_committed_notebook_is_made_from_sections(tmp_path):
    """If it is not: python scripts/homework.py --notebook docs/lesson.ipynb."""
    write_notebook(tmp_path / "lesson.ipynb")
    made = (tmp_path / "lesson.ipynb").read_text(encoding="utf-8")
    assert LESSON.read_text(encoding="utf-8") == made


def test_notebook_is_valid_and_has_no_outputs():
    notebook = nbformat.read(LESSON, as_version=4)
    nbformat.validate(notebook)
    assert not [cell for cell in notebook.cells if cell.get("outputs")]
    text = "".join(cell.source for cell in notebook.cells)
    assert all(f"{name}.experiment(report)" in text for name in SECTIONS)


@pytest.mark.slow
def test_notebook_runs_and_shows_figures():
    """The cells that train a model take minutes; the sections are tested by the report's run."""
    notebook = nbformat.read(LESSON, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if TAG not in cell.metadata.get("tags", ())]
    folder = {"metadata": {"path": str(ROOT / "docs")}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=folder).execute()
    shown = json.dumps(notebook)
    assert len(re.findall("data:image/png;base64", shown)) >= 9
