"""Tests of the benchmark of inpainting: both ways keep given pixels, and a complete run."""

import json
from functools import partial

import pytest
import torch
from benchmarks.inpainting import conditioned, hidden_half, inpainting, replaced, seam

from image import metrics
from textdiff.config import SamplingConfig
from textdiff.diffusion.samplers import SAMPLERS


def test_halves_are_left_and_lower():
    left, lower = (hidden_half(half, torch.Size((4, 2))) for half in ("left", "lower"))
    assert torch.equal(left, torch.tensor([[True, False]]).expand(4, 2))
    assert torch.equal(lower, torch.tensor([False, False, True, True])[:, None].expand(4, 2))


@pytest.mark.parametrize("fill", [conditioned, replaced])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("half", ["left", "lower"])
def test_given_pixels_are_kept(new_image_model, pixels, fill, sampler, half):
    hidden = hidden_half(half, torch.Size((8, 8)))
    config = SamplingConfig(4, sampler, batch_size=4)
    filled = fill(new_image_model(), pixels, hidden, None, config)
    assert torch.equal(filled[..., ~hidden], pixels[..., ~hidden])
    assert (filled[..., hidden] != pixels[..., hidden]).float().mean() > 0.5


def test_seam_is_the_step_at_boundaries():
    pixels = torch.zeros(2, 1, 4, 6).byte()
    pixels[..., 3:] = 9
    assert (seam(pixels, "left"), seam(pixels, "lower")) == (9, 0)


def test_benchmark_prints_and_writes_every_row(run, tmp_path, capsys, monkeypatch):
    quick = partial(metrics.train_classifier, examples=3_000)
    monkeypatch.setattr(metrics, "train_classifier", quick)
    monkeypatch.setattr("benchmarks.inpainting.SETTINGS", (("ddpm", 2), ("dpm_solver", 2)))
    inpainting(run, run, n=12, out=str(tmp_path / "out.json"))
    rows = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    keys = {tuple([*row.values()][:4]) for row in rows}
    assert len(keys) == len(rows) == 16
    assert len(capsys.readouterr().out.splitlines()) == 17
    assert all(0 <= row["agreement"] <= 1 and row["error"] > 0 for row in rows)
