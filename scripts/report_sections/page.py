"""The report as one HTML page that loads nothing: not from the network, and no other file."""

import json
from html import escape

from report_sections.formulas import mathml, prose
from report_sections.section import Formula, Picture, Section, Table

TITLE = "Diffusion, by experiment"
QUESTION = (
    "True or false: can a diffusion model generate text by adding noise to the embeddings of words "
    "and conditionally resampling?"
)
INTRODUCTION = (
    "Each section takes a problem of the course notes. It gives the key lines of the answer and an "
    "experiment that can fail. The full proofs are in `docs/theory.md`. Commands run in the folder "
    "of the repository; those with `report/` use the models that this lesson trains. What they "
    "need is installed by `pip install -e '.[test]'`."
)
SOURCES = (
    "Sources: [HW7] Deep Learning, homework 7; [L15] Deep Generative Models, lecture 15; [TTIC] "
    "TTIC 31230, quiz 3; [DDD] Diffusion, Denoising, and Deep Networks; [CMSC] CMSC 25025, final "
    "project."
)
NOTATION = (
    r"Notation: $x_0$ is clean data and $x_t$ is noisy data. $\epsilon$ is standard normal noise. "
    r"$\beta_t$ is the variance of the noise that step $t$ adds, $\alpha_t=1-\beta_t$, and "
    r"$\bar{\alpha}_t=\alpha_1\cdots\alpha_t$. Without an index, $\alpha=\sqrt{\bar{\alpha}_t}$ "
    r"and $\sigma=\sqrt{1-\bar{\alpha}_t}$. A hat marks an estimate by the network. $\mathbb{E}$ "
    r"is a mean over random numbers."
)
STYLE = """
body { font: 17px/1.55 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 44rem; margin: 0 auto; padding: 1rem; overflow-wrap: break-word }
h1, h2, h3 { line-height: 1.2 } h2 { margin-top: 3rem; border-top: 1px solid #ddd;
  padding-top: 1rem } h3 { font-size: 1rem; margin: 1.5rem 0 0.3rem }
figure { margin: 1.5rem 0; text-align: center }
img { width: 100%; max-width: 34rem; height: auto }
figcaption, caption, .small { color: #555; font-size: 0.9rem; text-align: left }
caption { padding-bottom: 0.3rem }
.formula, .scroll { overflow: auto hidden; max-width: 100% }
pre { background: #f4f4f4; padding: 0.6rem; font-size: 0.85rem; white-space: pre-wrap }
math { font-family: "STIX Two Math", "Cambria Math", "Latin Modern Math", "Libertinus Math",
  "DejaVu Math TeX Gyre", math }  /* some default fonts put subscripts on the line */
code { font-size: 0.9em; background: #f4f4f4 } pre code { font-size: inherit }
.formula { margin: 0.5rem 0 1rem; padding: 0.3rem 0; font-size: 1.1rem }
.problem, .answer { background: #eef4fa; border-left: 4px solid #4a7fb5; padding: 0.6rem 1rem }
table { border-collapse: collapse; font-size: 0.85rem; margin: 1rem 0 }
th, td { border-bottom: 1px solid #ddd; padding: 0.25rem 0.6rem; text-align: left;
  vertical-align: top } td:first-child { min-width: 6.5rem }
nav ol { columns: 2; padding-left: 1.5rem } details { font-size: 0.85rem }
@media (max-width: 36rem) { nav ol { columns: 1 } .formula { font-size: 0.8rem } }
@media print { nav, details { display: none } body { font-size: 11pt; max-width: none }
  figure, table, pre, .formula, .problem, .answer { break-inside: avoid }
  h2, h3, .says { break-after: avoid } img { max-width: 22rem }
  .formula, .scroll { overflow: visible } pre { font-size: 8pt } }
"""
HEAD = (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
)


def page(sections: dict[int, Section]) -> str:
    """The page of all sections that were made, by their number in the lesson."""
    links = "".join(
        f'<li value="{number}"><a href="#{section.name}">{escape(section.title)}</a></li>'
        for number, section in sections.items()
    )
    answer = _answer([*sections.values()])
    text = "".join(f"<p>{prose(each)}</p>" for each in (INTRODUCTION, NOTATION))
    return (
        f"{HEAD}<title>{TITLE}</title><style>{STYLE}</style><h1>{TITLE}</h1>"
        f'<div class="answer"><p><b>{QUESTION}</b></p><p>{answer}</p></div>{text}'
        f'<p class="small">{SOURCES}</p><nav><h3>Contents</h3><ol>{links}</ol></nav>'
        f"{''.join(_section(*each) for each in sections.items())}</html>\n"
    )


def command(section: Section) -> str:
    """The command that makes a section."""
    return f"python scripts/homework.py --only {section.name}"


def results_html(section: Section) -> str:
    """Figures, tables and the finding of a section."""
    figures = "".join(map(_figure, section.figures))
    tables = "".join(map(_table, section.tables))
    return f"{figures}{tables}<p>{prose(section.finding)}</p>"


def _answer(sections: list[Section]) -> str:
    """The answer to the one question, if its section was made."""
    numbers = next((s.numbers for s in sections if s.name == "text"), None)
    if not numbers:
        return "The section <code>text</code> tests it. It was not made yet."
    return (
        f"<b>{str(numbers['verdict']).capitalize()}.</b> A small model wrote "
        f"{numbers['sentences']} sentences from pure noise. {numbers['grammatical']:.1%} of them "
        f"are grammatical, and {numbers['table']['model']['novelty']:.0%} are not in its training "
        'text. <a href="#text">The last section</a> is the test, which can also end with false. '
        '<a href="#rewrite">The section before it</a> resamples given sentences.'
    )


def _section(number: int, section: Section) -> str:
    numbers = escape(json.dumps(section.numbers, indent=2))
    return (
        f'<section id="{section.name}"><h2>{number}. {escape(section.title)}</h2>'
        f'<p class="problem"><b>Problem.</b> {prose(section.problem)}</p>'
        f"<h3>Key lines</h3>{''.join(map(_formula, section.derivation))}"
        f"<h3>Why</h3><p>{prose(section.idea)}</p>"
        f"<h3>Experiment</h3><pre>{command(section)}</pre>{results_html(section)}"
        f"<h3>Try next</h3><pre>{escape(section.try_next.command)}</pre>"
        f"<p>{prose(section.try_next.look_for)}</p>"
        f"<details><summary>All numbers</summary><pre>{numbers}</pre></details></section>"
    )


def _formula(line: Formula) -> str:
    converted = mathml(line.latex, "block")
    return f'<p class="says">{prose(line.sentence)}</p><div class="formula">{converted}</div>'


def _figure(picture: Picture) -> str:
    caption = prose(picture.caption)
    alt = escape(picture.caption.replace("$", ""), quote=True)
    return (
        f'<figure><img src="{picture.source}" alt="{alt}"><figcaption>{caption}</figcaption>'
        "</figure>"
    )


def _table(table: Table) -> str:
    head, *rows = table.rows
    columns = "".join(f"<th>{prose(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{prose(c)}</td>' for c in row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><caption>{prose(table.caption)}</caption>'
        f"<tr>{columns}</tr>{body}</table></div>"
    )
