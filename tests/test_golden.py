"""Laws of compatibility: a tiny recorded run of each kind is still loaded, sampled and resumed.

tests/golden holds the runs, of 4 steps each.
"""

import shutil
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from image import sampling as image
from image.sources import digits
from textdiff.config import SamplingConfig, TrainConfig
from textdiff.sampling import collect
from textdiff.text import hub, requests
from textdiff.text import sampling as text
from textdiff.training import checkpoint
from textdiff.training.batching import MicroBatch
from textdiff.training.trainer import Trainer

GOLDEN = Path(__file__).parent / "golden"
every_kind = pytest.mark.parametrize("kind", ["text", "images"])


def load(kind: str):
    path = str(GOLDEN / kind)
    return hub.load_model(path)[0] if kind == "text" else image.load_model(path)


def example(kind: str) -> dict[str, torch.Tensor]:
    index = torch.arange(4)
    if kind == "images":
        return {"pixels": digits().pixels[:4], "index": index, "label": digits().labels[:4]}
    mask = torch.ones(4, 6, dtype=torch.bool)
    return {"ids": torch.full((4, 6), 5), "mask": mask, "index": index}


@every_kind
def test_checkpoint_holds_the_saved_model(kind):
    (path,) = checkpoint.list_checkpoints(GOLDEN / kind / "state")
    assert checkpoint.verify(path) is None
    saved, state = checkpoint.load(path).tensors["ema"], load(kind).state_dict()
    assert_close(saved, {name: state[name] for name in saved})


@pytest.mark.parametrize(("kind", "loss"), [("text", 1.3523248), ("images", 1.0655715)])
def test_loss_equals_the_recorded_loss(kind, loss):
    """It would differ if the weights were loaded into another computation."""
    with torch.no_grad():
        (term,) = load(kind).eval()(**example(kind)).values()
    assert term.item() == pytest.approx(loss, abs=2e-5)


@every_kind
def test_training_resumes(kind, tmp_path, accelerator):
    shutil.copytree(GOLDEN / kind / "state", tmp_path / "state")
    config = TrainConfig(steps=6, precision="no")
    trainer = Trainer(load(kind).train(), config, tmp_path / "state", accelerator)
    trainer.resume()
    assert trainer.step == 4
    steps = list(trainer.train([[MicroBatch(example(kind), 1.0, 4)]] * 2))
    assert [step.step for step in steps] == [5, 6]
    assert all(loss.isfinite() for step in steps for loss in step.losses.values())


def test_text_model_generates_words():
    model, tokenizer = hub.load_model(str(GOLDEN / "text"))
    request = requests.sample_request(model, 3, seed=0)
    sentences = list(collect(text.generate(model, tokenizer, request, SamplingConfig(steps=4))))
    assert len(sentences) == 3
    assert all(tokenizer.decode(sentence).split() for sentence in sentences)


def test_image_model_generates_images():
    model = image.load_model(str(GOLDEN / "images"))
    assert model.config.classes == [str(i) for i in range(10)]
    request = image.sample_request(model, 3, seed=0)
    images = torch.stack([*collect(image.generate(model, request, SamplingConfig(steps=4)))])
    assert images.shape == (3, 1, 8, 8)
