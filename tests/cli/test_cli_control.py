"""Control of texts from the command line: forbidden and required phrases, and classifiers."""

import json
from pathlib import Path

import pytest
from cli_runs import printed, refusal

from textdiff.text import grammar

FEW_STEPS = ["--steps", "3", "--n", "6"]


def test_forbidden_and_required_phrases_are_obeyed(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    phrases = ["--forbid", "king, boys", "--forbid=small girl", "--require", "queens"]
    lines = printed(capsys, "sample", run, *FEW_STEPS, *phrases)
    text = ["--text", "the king sees a small girl ."]
    lines += printed(capsys, "rewrite", run, *FEW_STEPS, *phrases, *text)
    assert len(lines) == 12
    for line in lines:
        words = line.rstrip(".").split()
        assert "queens" in words
        assert not {"king", "boys"} & {*words}
        assert "small girl" not in line


def test_contradictory_phrases_are_one_line(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "sample", run, "--forbid", "king", "--require", "king")
    assert "'king' is in --forbid and in --require: take it out of one of them" in line
    assert "is not in the model's vocabulary" in refusal(capsys, "sample", run, "--require", "xyz")


def test_unknown_forbidden_words_are_a_warning(
    run: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A stop list may have words that the model cannot write."""
    found = printed(capsys, "sample", run, *FEW_STEPS, "--forbid", "a unicorn, king")
    assert "words that are not in the model's vocabulary: 'a unicorn'" in caplog.text
    assert found == printed(capsys, "sample", run, *FEW_STEPS, "--forbid", "king")


def test_classifier_is_trained_and_guides(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": text, "king": "king" in text} for text in grammar.corpus(60, seed=3)]
    data, folder = tmp_path / "data.jsonl", str(tmp_path / "classifier")
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    options = ["--data.train", str(data), "--data.label", "king", "--out", folder, "--steps", "5"]
    printed(capsys, "train-classifier", run, *options)
    assert {path.name for path in Path(folder).iterdir()} == {"config.json", "model.safetensors"}
    guidance = ["--classifier", folder, "--label", "True", "--classifier_scale", "2"]
    assert len(printed(capsys, "sample", run, *FEW_STEPS, *guidance)) == 6
    missing = refusal(capsys, "sample", run, "--classifier", folder)
    assert "--classifier and --label belong together: --label is missing" in missing
