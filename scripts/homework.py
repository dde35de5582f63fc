"""Answers to the questions of the course notes, by experiment: `python scripts/homework.py`.

Writes report/index.html, a page without external files, and report/results.json with every number
that it quotes. `--only score` makes one section again and keeps the others. Every section is
written as soon as it is finished.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from html import escape
from pathlib import Path

from report_sections import bound, collapse, dots, forward, losses, runs, samplers, score, text, vae
from report_sections.section import Section
from tqdm import tqdm

from textdiff.cli.parser import fail, quiet_libraries, run_script

STYLE = """
body { font: 17px/1.5 system-ui, sans-serif; max-width: 56em; margin: 0 auto; padding: 1em }
body { color: #222 } h1, h2 { line-height: 1.2 } figure { margin: 1.5em 0 }
img { max-width: 100%; height: auto; image-rendering: auto }
figcaption { color: #555; font-size: 0.9em }
pre { background: #f4f4f4; padding: 0.5em; overflow-x: auto; font-size: 0.85em }
.question { font-style: italic } nav { columns: 2 } details { font-size: 0.85em }
"""
HEAD = (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width">'
)


def homework(out: str = "report", only: str = "") -> None:
    """Make the report.

    Args:
        out: Folder of the report.
        only: Sections to make, separated by commas. If empty, all of them: forward, moments, bound,
            losses, samplers, score, paths, collapse, vae, images, rewrite, text.
    """
    quiet_libraries()
    folder = Path(out)
    (folder / "sections").mkdir(parents=True, exist_ok=True)
    chosen = only.strip("[] ").replace(" ", "").split(",") if only else list(SECTIONS)
    for name in chosen:
        if name not in SECTIONS:
            fail(f"--only must be of {', '.join(SECTIONS)}, got {name}")
    for name in (bar := tqdm(chosen, unit="section")):
        bar.set_description(name)
        began = time.perf_counter()
        section = SECTIONS[name](folder.absolute())
        section.numbers["seconds"] = time.perf_counter() - began
        content = json.dumps(asdict(section))
        (folder / "sections" / f"{name}.json").write_text(content, encoding="utf-8")
        assemble(folder)
    print(folder / "index.html")


def assemble(folder: Path) -> None:
    """Writes the page and the numbers of all sections that exist."""
    paths = [folder / "sections" / f"{name}.json" for name in SECTIONS]
    contents = [path.read_text(encoding="utf-8") for path in paths if path.exists()]
    sections = [Section(**json.loads(content)) for content in contents]
    numbers = json.dumps({section.name: section.numbers for section in sections}, indent=2)
    (folder / "results.json").write_text(numbers + "\n", encoding="utf-8")
    (folder / "index.html").write_text(page(sections, str(folder)), encoding="utf-8")


def page(sections: list[Section], out: str) -> str:
    """The page as HTML."""
    links = (f'<a href="#{section.name}">{escape(section.title)}</a><br>' for section in sections)
    title, proofs = "Diffusion, by experiment", "Proofs are in docs/theory.md; all numbers are in"
    return (
        f"{HEAD}<title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
        f"<p>The questions of the course notes, answered with textdiff. {proofs} results.json.</p>"
        f"<nav>{''.join(links)}</nav>{''.join(html(section, out) for section in sections)}</html>\n"
    )


def html(section: Section, out: str) -> str:
    """A section as HTML."""
    captions = ((escape(caption), source) for caption, source in section.figures)
    figures = "".join(
        f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
        for caption, source in captions
    )
    lines = f"<pre>{escape(chr(10).join(section.lines))}</pre>" if section.lines else ""
    numbers = escape(json.dumps(section.numbers, indent=2))
    return (
        f'<h2 id="{section.name}">{escape(section.title)}</h2>'
        f'<p class="question">{escape(section.question)}</p>'
        f"<pre>python scripts/homework.py --out {escape(out)} --only {section.name}</pre>"
        f"{figures}{lines}<p>{escape(section.answer)}</p>"
        f"<details><summary>Numbers</summary><pre>{numbers}</pre></details>"
    )


SECTIONS: dict[str, Callable[[Path], Section]] = {
    "forward": lambda _: forward.forward(),
    "moments": lambda _: forward.moments(),
    "bound": lambda _: bound.bound(),
    "losses": lambda _: losses.losses(),
    "samplers": lambda _: samplers.samplers(),
    "score": lambda _: score.score(),
    "paths": lambda _: score.paths(),
    "collapse": lambda _: collapse.collapse(),
    "vae": lambda _: vae.vae(),
    "images": lambda folder: dots.images(runs.dots_run(folder)),
    "rewrite": lambda folder: text.rewrites(runs.text_run(folder)),
    "text": lambda folder: text.verdict(runs.text_run(folder)),
}

if __name__ == "__main__":
    run_script(homework)
