"""Image models on the hub: the same images after uploading and loading, and the model card."""

import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from local_hub import LocalHub

from image import ImageDiffusion
from image.config import ImageConfig, ModelConfig
from image.train import train
from textdiff.config import TrainConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of two steps."""
    options = {"steps": 2, "batch_size": 8, "precision": "no", "optimizer": "adamw"}
    small = ModelConfig(width=8, channel_multipliers=[1, 2], res_blocks=1)
    folder = tmp_path_factory.mktemp("private") / "numerals"
    return train(ImageConfig(run=str(folder), model=small, train=TrainConfig(**options)))


def test_pushed_model_draws_the_same_images(hub: LocalHub, run: Path) -> None:
    pipe = ImageDiffusion.from_pretrained(str(run))
    pipe.push_to_hub("user/numerals", private=True)
    again = ImageDiffusion.from_pretrained("user/numerals")
    assert again.sample(2, steps=3).pixels.equal(pipe.sample(2, steps=3).pixels)


def test_card_goes_with_the_model(hub: LocalHub, run: Path, tmp_path: Path) -> None:
    ImageDiffusion.from_pretrained(str(run)).push_to_hub("user/numerals")
    ImageDiffusion.from_pretrained("user/numerals").save_pretrained(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert names == {"README.md", "samples.png", "config.json", "model.safetensors"}
    text = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert 'ImageDiffusion.from_pretrained("user/numerals")' in text
    assert "private" not in text


def test_code_on_the_card_runs(run: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    card = ModelCard.load(run / "model" / "README.md")
    (code,) = re.findall(r"^```python\n(.*?)\n```$", card.text, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(run.parent)
    exec(code.replace('"numerals"', '"./numerals"'), {})
    assert len(eval(capsys.readouterr().out)) == 16


def test_card_shows_samples_of_the_model(run: Path) -> None:
    card = ModelCard.load(run / "model" / "README.md")
    picture = (run / "model" / "samples.png").read_bytes()
    assert picture == (run / "samples" / "step-000002.png").read_bytes()
    assert card.data.widget[0]["output"] == {"url": "samples.png"}
    assert "- Training: digits: 1,617 images; classes: 0, 1, 2" in card.text
