"""Texts from standard input, one per line, and the formats of the results."""

import io
import json
import sys

import pytest
from cli_runs import printed, refusal

OPTIONS = ["--steps", "3", "--precision", "no"]
LINES = "the king sees a dog .\n\n  \nThe  queen [MASK] .\n"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch):
    """`typed(text)`: puts text, or bytes, on standard input."""

    def put(text: str | bytes, terminal: bool = False) -> None:
        data = text if isinstance(text, bytes) else text.encode()
        stream = io.TextIOWrapper(io.BytesIO(data), encoding="ascii")
        stream.isatty = lambda: terminal  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stdin", stream)

    return put


@pytest.mark.parametrize("command", ["rewrite", "continue"])
def test_lines_give_the_texts_of_one_call(run, capsys, typed, command):
    """Each line has n results, and the order is that of the lines."""
    typed("the king sees a dog .\r\nthe café")
    found = printed(capsys, command, run, "--n", "2", *OPTIONS)
    assert len(found) == 4
    alone = printed(capsys, command, run, "--n", "2", "--text", "the king sees a dog .", *OPTIONS)
    assert alone == found[:2]
    assert command == "rewrite" or all(text.startswith("the café") for text in found[2:])


def test_lines_are_filled(run, capsys, typed):
    typed("The  queen [MASK*] .\n[MASK] dog\n")
    found = printed(capsys, "infill", run, "--n", "1", *OPTIONS)
    assert found[0].startswith("The  queen ")
    assert found[1].endswith(" dog")


def test_empty_lines_are_counted_once(run, capsys, typed):
    typed("the king sings .\n\n  \nthe dog .\n")
    capsys.readouterr()
    from textdiff.cli.main import main

    main(["rewrite", run, "--n", "1", *OPTIONS])
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err.count("left out 2 empty lines") == 1


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("the dog .\n\n" + "the dog " * 30 + "\n", "line 3: the text must have 1 to 24 tokens"),
        (LINES, "line 4: --text must be without [MASK]"),
        ("", "standard input has no text in 0 lines"),
        (" \n\n", "standard input has no text in 2 lines"),
        (b"the dog .\n\xff\xfe\n", "line 2 of standard input is not UTF-8"),
    ],
)
def test_bad_line_is_refused_by_number(run, capsys, typed, text, part):
    """Nothing is printed before."""
    typed(text)
    assert part in refusal(capsys, "rewrite", run, "--n", "1", *OPTIONS)
    assert capsys.readouterr().out == ""


def test_line_without_allowed_text_is_named(run, capsys, typed):
    typed("the king sees a dog .\n\nthe dog .\n")
    line = refusal(capsys, "rewrite", run, "--n", "2", "--require", "the king sees a", *OPTIONS)
    assert "line 3: no text of length 3 has all required phrases" in line


def test_terminal_without_text_is_refused(run, capsys, typed):
    typed("the dog .\n", terminal=True)
    for command in ("rewrite", "infill", "continue"):
        line = refusal(capsys, command, run)
        assert "missing: text; give --text, or one text per line on standard input" in line


def test_jsonl_has_source_strength_and_score(run, capsys, typed):
    typed("the king sees a dog .\nthe dog .\n")
    options = ["--strength", "0,0.9", "--n", "2", "--rank", "2", "--format", "jsonl", *OPTIONS]
    found = [json.loads(line) for line in printed(capsys, "rewrite", run, *options)]
    assert [each["index"] for each in found] == [*range(8)]
    assert [each["source"] for each in found] == ["the king sees a dog ."] * 4 + ["the dog ."] * 4
    assert [each["strength"] for each in found] == [0, 0, 0.9, 0.9] * 2
    assert all(each["similarity"] == 1 for each in found if each["strength"] == 0)
    assert found[2]["score"] <= found[3]["score"]
    assert [*found[0]] == ["index", "seed", "text", "source", "strength", "similarity", "score"]


def test_table_has_a_line_per_text(run, capsys):
    command = ["rewrite", run, "--text", "the dog .", "--strength", "[0.5, 1]", "--n", "1"]
    head, *rows = printed(capsys, *command, "--format", "table", *OPTIONS)
    assert head.split() == ["strength", "similarity", "text"]
    texts = printed(capsys, *command, *OPTIONS)
    assert [row.split(maxsplit=2)[2] for row in rows] == texts
    assert [float(row.split()[0]) for row in rows] == [0.5, 1.0]


def test_ranked_sentences_come_best_first(run, capsys):
    command = ["sample", run, "--n", "3", "--rank", "2", *OPTIONS]
    found = [json.loads(line) for line in printed(capsys, *command, "--format", "jsonl")]
    assert [each["score"] for each in found] == sorted(each["score"] for each in found)
    assert printed(capsys, *command) == [each["text"] for each in found]
