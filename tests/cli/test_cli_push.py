"""Pushing from the command line, and loading by the name on the hub."""

from pathlib import Path

import pytest
from cli_runs import printed, refusal
from local_hub import LocalHub


def test_pushed_run_is_sampled_by_name(
    hub: LocalHub, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--n", "2", "--steps", "3", "--precision", "no"]
    wanted = printed(capsys, "sample", run, *options)
    assert printed(capsys, "push", run, "user/tiny", "--private") == [f"{hub.url}/user/tiny"]
    assert hub.repositories["user/tiny"].private
    assert printed(capsys, "sample", "user/tiny", *options) == wanted


def test_card_has_the_name_on_the_hub(
    hub: LocalHub, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    printed(capsys, "push", f"{run}/model", "user/tiny")
    files = hub.repositories["user/tiny"].commits[-1].files
    assert {path.name for path in Path(run, "model").iterdir()} == files.keys()
    assert 'TextDiffusion.from_pretrained("user/tiny")' in files["README.md"].decode()


def test_push_of_no_model_is_refused(
    hub: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "holds no model" in refusal(capsys, "push", str(tmp_path), "user/tiny")
    line = refusal(capsys, "push", "user/other", "user/tiny")
    assert "a run folder or its model/ folder, got 'user/other'" in line


def test_impossible_name_is_refused_first(capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "push", "/nowhere/at/all", "a name/with spaces")
    assert "a name/with spaces is no name on the hub" in line


def test_push_with_wrong_token_is_refused(
    hub: LocalHub, run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    line = refusal(capsys, "push", run, "user/tiny")
    assert "user/tiny: the hub does not accept the token" in line
