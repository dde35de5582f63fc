"""Laws of checkpoints: complete or absent, verified, and pruned only after a success."""

import json
import shutil

import pytest
import torch
from torch.testing import assert_close

from textdiff.config import UserError
from textdiff.training import checkpoint
from textdiff.training.checkpoint import (
    MANIFEST,
    Checkpoint,
    list_checkpoints,
    load_latest,
    save,
    verify,
)


def state(step: int) -> Checkpoint:
    tensors = {
        "model": {"weight": torch.full((3, 4), step / 7), "count": torch.tensor(step)},
        "ema": {"weight": torch.ones(2).bfloat16()},
    }
    return Checkpoint(tensors, {"step": step})


def saved_steps(folder) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in list_checkpoints(folder)]


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "textdiff"]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = {
    "a flipped byte": lambda path: flip(path / "model.safetensors"),
    "a flipped fact": lambda path: flip(path / "facts.json"),
    "a flipped sum": lambda path: flip(path / MANIFEST),
    "a truncated file": lambda path: truncate(path / "ema.safetensors"),
    "an empty file": lambda path: (path / "model.safetensors").write_bytes(b""),
    "a missing file": lambda path: (path / "ema.safetensors").unlink(),
    "a missing manifest": lambda path: (path / MANIFEST).unlink(),
    "a truncated manifest": lambda path: truncate(path / MANIFEST),
    "a manifest of nothing": lambda path: (path / MANIFEST).write_text("{}", encoding="utf-8"),
    "a nested manifest": lambda path: (path / MANIFEST).write_text("[" * 10**5, encoding="utf-8"),
    "a file too many": lambda path: (path / "more.safetensors").write_bytes(b""),
    "an empty folder": lambda path: [file.unlink() for file in path.iterdir()],
}


@pytest.fixture
def folder(tmp_path):
    """Two intact checkpoints, of steps 100 and 200."""
    for step in (100, 200):
        save(tmp_path / "state", step, state(step))
    return tmp_path / "state"


def test_latest_is_what_was_saved_last(folder):
    tensors, facts = load_latest(folder)
    assert facts["step"] == 200
    assert_close(tensors, state(200).tensors, atol=0, rtol=0)


def test_checkpoints_are_ordered_by_step(tmp_path):
    for step in (9, 10_000, 100):
        save(tmp_path, step, state(step), keep=3)
    assert saved_steps(tmp_path) == [9, 100, 10_000]


def test_empty_folder_has_no_latest_checkpoint(tmp_path):
    assert load_latest(tmp_path / "never") is None


def test_views_are_saved_with_their_own_values(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    save(tmp_path, 1, Checkpoint({"model": {"turned": whole.T}}, {}))
    assert_close(load_latest(tmp_path).tensors["model"]["turned"], whole.T, atol=0, rtol=0)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_checkpoint_is_named_and_not_used(folder, damage, caplog):
    damage(folder / "step-00000200")
    assert load_latest(folder).facts["step"] == 100
    damaged, instead = warnings(caplog)
    assert str(folder / "step-00000200") in damaged
    assert str(folder / "step-00000100") in instead


def test_intact_checkpoint_passes_verification(folder, caplog):
    assert [verify(path) for path in list_checkpoints(folder)] == [None, None]
    load_latest(folder)
    assert not warnings(caplog)


def test_error_if_all_checkpoints_are_damaged(folder):
    for path in list_checkpoints(folder):
        flip(path / "model.safetensors")
    with pytest.raises(UserError, match="--overwrite"):
        load_latest(folder)


def test_another_format_is_refused(folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    with pytest.raises(UserError, match="step-00000200 has format 1"):
        load_latest(folder)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_are_kept(tmp_path, keep):
    for step in (100, 200, 300, 400):
        save(tmp_path, step, state(step), keep)
    assert saved_steps(tmp_path) == [100, 200, 300, 400][-keep:]


def test_manifest_lists_every_file(folder):
    names = {path.name for path in (folder / "step-00000200").iterdir()} - {MANIFEST}
    manifest = (folder / "step-00000200" / MANIFEST).read_text(encoding="utf-8")
    assert json.loads(manifest).keys() == names


@pytest.mark.parametrize("call", ["save_file", "_flush", "_sha256"])
@pytest.mark.parametrize("step", [200, 300])
def test_failed_save_leaves_other_checkpoints_unchanged(folder, call, step, monkeypatch):
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, call, full)
    with pytest.raises(UserError, match=r"step .* could not be written .*No space"):
        save(folder, step, state(0))
    monkeypatch.undo()
    assert [path.name for path in list_checkpoints(folder)] == ["step-00000100", "step-00000200"]
    assert_close(load_latest(folder).tensors, state(200).tensors, atol=0, rtol=0)


def test_save_after_a_failed_one_succeeds(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_sha256", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            save(folder, 300, state(300))
    save(folder, 300, state(300))
    assert load_latest(folder).facts["step"] == 300


def test_saving_a_step_again_replaces_it(folder):
    flip(folder / "step-00000200" / "model.safetensors")
    save(folder, 200, state(200))
    assert verify(folder / "step-00000200") is None


def test_saved_checkpoint_survives_newer_damaged_ones(folder):
    flip(folder / "step-00000200" / "model.safetensors")
    save(folder, 150, state(150), keep=1)
    assert load_latest(folder).facts["step"] == 150


def test_partial_checkpoint_is_not_listed(folder):
    shutil.copytree(folder / "step-00000200", folder / ".step-00000300.partial")
    assert saved_steps(folder) == [100, 200]
