"""Tests of the report: one page without external files, and a file with every number."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from homework import SECTIONS, homework
from report_sections.formulas import mathml, on_page_content, prose
from report_sections.page import command, page
from report_sections.section import Section

ROOT = Path(__file__).parents[2]


def test_sections_are_made_one_by_one(tmp_path):
    """The page needs no other file and keeps the sections that were made before."""
    for name in ("moments", "bound"):
        homework(str(tmp_path), name)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    numbers = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [*numbers] == ["moments", "bound"]
    assert numbers["moments"]["largest_mean_deviation"] < 4.5
    assert all(bound > numbers["bound"]["truth"] for bound in numbers["bound"]["bound"].values())
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert '<section id="moments">' in page
    assert "http" not in page
    assert str(tmp_path) not in page


def test_unknown_section_is_refused_by_name(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        homework(str(tmp_path), "nothing")
    assert exit_.value.code == 2
    assert "--only must be of forward, moments" in capsys.readouterr().err.splitlines()[-1]


def test_missing_library_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", None)
    for name in [name for name in sys.modules if name.startswith("report_sections")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "scripts/homework.py"))
    error = capsys.readouterr().err
    assert "latex2mathml" in error
    assert "pip install -e '.[report]'" in error


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_is_a_whole_lesson(name):
    """It has a problem of the notes, formulas that convert, both paragraphs and a next step."""
    section: Section = SECTIONS[name].TEXT()
    assert re.match(r"\[(HW7|DDD|CMSC|TTIC|L15)\] ", section.problem)
    assert 2 <= len(section.derivation) <= 4
    for sentence, latex in section.derivation:
        assert sentence.endswith(".") or sentence.endswith(".)")
        assert mathml(latex, "block").startswith("<math")
    for text in (section.problem, section.idea, section.try_next.look_for):
        assert len(text.split()) > 15
        assert "$" not in prose(text)
    assert section.name == name
    assert "report_sections" not in section.try_next.command


def test_page_starts_with_question_and_contents():
    made = [module.TEXT() for module in SECTIONS.values()]
    html = page(dict(enumerate(made, 1)))
    positions = [html.index(part) for part in ("True or false: can", "<nav>", "<section")]
    assert positions == sorted(positions)
    assert html.count("<math") > 50
    assert all(f'href="#{section.name}"' in html for section in made)
    assert all(command(section) in html for section in made)


def test_answer_follows_the_verdict():
    section: Section = SECTIONS["text"].TEXT()
    for verdict in (True, False):
        section.numbers = {"verdict": verdict, "sentences": 5, "grammatical": 0.5}
        section.numbers["table"] = {"model": {"novelty": 0.5}}
        assert f"<b>{verdict}.</b>" in page({12: section})


def test_unknown_command_of_latex_is_refused():
    with pytest.raises(ValueError, match="arg"):
        mathml(r"\arg x")


def test_formulas_of_documentation_become_mathml():
    marked = r'<p>If <span class="arithmatex">\(a &lt; b\)</span></p><code>$a$</code>'
    html = on_page_content(marked)
    assert "<math" in html
    assert "<mo>&#x0003C;</mo>" in html
    assert html.endswith("<code>$a$</code>")
