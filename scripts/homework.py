"""The course notes as a lesson, with an experiment for each problem: `python scripts/homework.py`.

Writes report/index.html, a page without external files, and report/results.json with every number
that it quotes. `--only score` makes one section again and keeps the others. Every section is
written as soon as it is finished. `--notebook docs/lesson.ipynb` writes the lesson as a notebook.
"""

import json
import time
from pathlib import Path
from types import ModuleType

from textdiff.cli.parser import fail, quiet_libraries, run_script
from textdiff.progress import ProgressBar

try:
    from report_sections import (
        bound,
        collapse,
        forward,
        images,
        losses,
        moments,
        paths,
        rewrite,
        samplers,
        score,
        text,
        vae,
    )
    from report_sections.notebook import as_notebook
    from report_sections.page import page
    from report_sections.section import Section
except ModuleNotFoundError as error:
    fail(f"the report needs {error.name}: pip install -e '.[report]' -c constraints.txt")

MODULES: tuple[ModuleType, ...] = (
    forward,
    moments,
    bound,
    losses,
    samplers,
    score,
    paths,
    collapse,
    vae,
    images,
    rewrite,
    text,
)
SECTIONS = {module.TEXT().name: module for module in MODULES}


def homework(out: str = "report", only: str = "", notebook: str = "") -> None:
    """Make the report.

    Args:
        out: Folder of the report.
        only: Sections to make, separated by commas. If empty, all of them: forward, moments, bound,
            losses, samplers, score, paths, collapse, vae, images, rewrite, text.
        notebook: Path of a notebook to write, without outputs, instead of the report.
    """
    quiet_libraries()
    if notebook:
        return write_notebook(Path(notebook))
    folder = Path(out)
    (folder / "sections").mkdir(parents=True, exist_ok=True)
    chosen = only.strip("[] ").replace(" ", "").split(",") if only else list(SECTIONS)
    for name in chosen:
        if name not in SECTIONS:
            fail(f"--only must be of {', '.join(SECTIONS)}, got {name}")
    for name in (bar := ProgressBar(chosen, unit="section")):
        bar.set_description(name)
        began = time.perf_counter()
        section: Section = SECTIONS[name].experiment(folder.absolute())
        section.numbers["seconds"] = time.perf_counter() - began
        content = json.dumps(section.results())
        (folder / "sections" / f"{name}.json").write_text(content, encoding="utf-8")
        assemble(folder)
    print(folder / "index.html")


def assemble(folder: Path) -> None:
    """Writes the page and the numbers of all sections that exist."""
    sections = {}
    for number, (name, module) in enumerate(SECTIONS.items(), 1):
        path = folder / "sections" / f"{name}.json"
        if path.exists():
            section: Section = module.TEXT()
            section.restore(json.loads(path.read_text(encoding="utf-8")))
            sections[number] = section
    numbers = json.dumps({s.name: s.numbers for s in sections.values()}, indent=2)
    (folder / "results.json").write_text(numbers + "\n", encoding="utf-8")
    (folder / "index.html").write_text(page(sections), encoding="utf-8")


def write_notebook(path: Path) -> None:
    """Writes the lesson as a notebook."""
    path.write_text(as_notebook(SECTIONS.values()), encoding="utf-8")
    print(path)


if __name__ == "__main__":
    run_script(homework)
