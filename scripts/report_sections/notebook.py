"""The report as a Jupyter notebook without outputs, made from the same sections."""

from collections.abc import Iterable
from types import ModuleType

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from report_sections.page import INTRODUCTION, NOTATION, QUESTION, SOURCES, TITLE
from report_sections.section import Section

TRAIN_A_MODEL = ("images", "rewrite", "text")  # they take minutes; their cells have a tag
TAG = "trains-a-model"
HOW_TO_RUN = (
    "Run the cells from top to bottom. This needs the repository and\n"
    "`pip install -e '.[report]' jupyterlab -c constraints.txt`. The last three sections train two "
    "models, which takes some minutes. The others take seconds."
)
SETUP = """\
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
repository = next(folder for folder in folders if (folder / "scripts/homework.py").exists())
sys.path[:0] = [str(repository), str(repository / "scripts")]
report = repository / "report"  # trained models are kept here"""


def as_notebook(modules: Iterable[ModuleType]) -> str:
    """The notebook as JSON."""
    cells = [new_markdown_cell(_head()), new_code_cell(SETUP)]
    for number, module in enumerate(modules, 1):
        section = module.TEXT()
        tags = {"tags": [TAG]} if section.name in TRAIN_A_MODEL else {}
        code = f"from report_sections import {section.name}\n\n{section.name}.experiment(report)"
        cells += [
            new_markdown_cell(_before(number, section)),
            new_code_cell(code, metadata=tags),
            new_markdown_cell(_after(section)),
        ]
    return str(nbformat.writes(_numbered(new_notebook(cells=cells)))) + "\n"


def _numbered(book: NotebookNode) -> NotebookNode:
    """Replaces random names of cells by numbers, so that the same source makes the same file."""
    for number, cell in enumerate(book.cells):
        cell.id = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return book


def _head() -> str:
    answer = "We say true. The last section tests the answer, and can refute it."
    question = f"**{QUESTION}** {answer}"
    return "\n\n".join([f"# {TITLE}", question, INTRODUCTION, NOTATION, SOURCES, HOW_TO_RUN])


def _before(number: int, section: Section) -> str:
    lines = [f"{line.sentence}\n\n$${line.latex}$$" for line in section.derivation]
    return "\n\n".join(
        [f"## {number}. {section.title}", f"**Problem.** {section.problem}", *lines, section.idea]
    )


def _after(section: Section) -> str:
    command, look_for = section.try_next
    return f"**Try next.**\n\n```\n{command}\n```\n\n{look_for}"
