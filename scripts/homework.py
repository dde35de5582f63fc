"""The course notes' questions, answered by experiment: `python scripts/homework.py --out report`.

Writes index.html, which needs nothing else, and results.json with every number it quotes. `--only score` makes one section anew and keeps the
others; every section is written as soon as it is there.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from html import escape
from pathlib import Path

from jsonargparse import auto_cli
from notes import bound, decoders, dots, forward, runs, scores, words
from notes.section import Section
from tqdm import tqdm

from textdiff.parser import fail, hush_libraries

STYLE = """
body { font: 17px/1.5 system-ui, sans-serif; max-width: 56em; margin: 0 auto; padding: 1em; color: #222 }
h1, h2 { line-height: 1.2 } figure { margin: 1.5em 0 } img { max-width: 100%; height: auto; image-rendering: auto }
figcaption { color: #555; font-size: 0.9em } pre { background: #f4f4f4; padding: 0.5em; overflow-x: auto; font-size: 0.85em }
.question { font-style: italic } nav { columns: 2 } details { font-size: 0.85em }
"""


def homework(out: str = "report", only: str = "") -> None:
    """Makes the report.

    Args:
        out: Its folder.
        only: Sections to make, with commas between, instead of all: forward, moments, bound, losses, samplers, score, paths, collapse, vae,
            images, rewrite, text.
    """
    hush_libraries()
    kept = Path(out, "sections")
    kept.mkdir(parents=True, exist_ok=True)
    chosen = only.strip("[] ").replace(" ", "").split(",") if only else list(SECTIONS)
    for name in chosen:
        if name not in SECTIONS:
            fail(f"--only must be of {', '.join(SECTIONS)}, got {name}")
    for name in (bar := tqdm(chosen, unit="section")):
        bar.set_description(name)
        began = time.perf_counter()
        section = SECTIONS[name](Path(out).absolute())
        section.numbers["seconds"] = time.perf_counter() - began
        (kept / f"{name}.json").write_text(json.dumps(asdict(section)), encoding="utf-8")
        assemble(Path(out))
    print(Path(out, "index.html"))


def assemble(out: Path) -> None:
    """The page and the numbers, of all sections there are."""
    found = [out / "sections" / f"{name}.json" for name in SECTIONS]
    sections = [Section(**json.loads(path.read_text(encoding="utf-8"))) for path in found if path.exists()]
    (out / "results.json").write_text(json.dumps({section.name: section.numbers for section in sections}, indent=2) + "\n", encoding="utf-8")
    (out / "index.html").write_text(page(sections, str(out)), encoding="utf-8")


def page(sections: list[Section], out: str) -> str:
    links = "".join(f'<a href="#{section.name}">{escape(section.title)}</a><br>' for section in sections)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Diffusion, by experiment</title><style>{STYLE}</style><h1>Diffusion, by experiment</h1>"
        f"<p>What the course notes ask, answered by textdiff. Proofs are in THEORY.md; every number here is in results.json.</p><nav>{links}</nav>"
        + "".join(html(section, out) for section in sections)
        + "</html>\n"
    )


def html(section: Section, out: str) -> str:
    figures = "".join(
        f'<figure><img src="{source}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
        for caption, source in section.figures
    )
    lines = f"<pre>{escape(chr(10).join(section.lines))}</pre>" if section.lines else ""
    return (
        f'<h2 id="{section.name}">{escape(section.title)}</h2><p class="question">{escape(section.question)}</p>'
        f"<pre>python scripts/homework.py --out {escape(out)} --only {section.name}</pre>{figures}{lines}<p>{escape(section.answer)}</p>"
        f"<details><summary>Numbers</summary><pre>{escape(json.dumps(section.numbers, indent=2))}</pre></details>"
    )


SECTIONS: dict[str, Callable[[Path], Section]] = {
    "forward": lambda _: forward.forward(),
    "moments": lambda _: forward.moments(),
    "bound": lambda _: bound.bound(),
    "losses": lambda _: bound.losses(),
    "samplers": lambda _: bound.samplers(),
    "score": lambda _: scores.score(),
    "paths": lambda _: scores.paths(),
    "collapse": lambda _: decoders.collapse(),
    "vae": lambda _: decoders.vae(),
    "images": lambda out: dots.images(runs.dots(out)),
    "rewrite": lambda out: words.rewrites(runs.text(out)),
    "text": lambda out: words.verdict(runs.text(out)),
}

if __name__ == "__main__":
    auto_cli(homework, as_positional=False)
