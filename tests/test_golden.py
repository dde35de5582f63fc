"""What an earlier version saved is still loaded, sampled from and trained on: tests/golden holds a run of each format, tiny, of 4 steps."""

import shutil
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from image import generate as image
from image.config import Sampling as ImageSampling
from image.sources import digits
from textdiff import checkpoint
from textdiff import generate as text
from textdiff.batches import MicroBatch
from textdiff.config import Sampling, Train
from textdiff.trainer import Trainer

GOLDEN = Path(__file__).parent / "golden"
every_kind = pytest.mark.parametrize("kind", ["text", "images"])


def loaded(kind: str):
    return text.load(str(GOLDEN / kind))[0] if kind == "text" else image.load(str(GOLDEN / kind))


def example(kind: str) -> dict[str, torch.Tensor]:
    index = torch.arange(4)
    if kind == "images":
        return {"pixels": digits().pixels[:4], "index": index, "label": digits().labels[:4]}
    return {"ids": torch.full((4, 6), 5), "mask": torch.ones(4, 6, dtype=torch.bool), "index": index}


@every_kind
def test_its_checkpoint_is_whole_and_holds_the_model_that_was_saved_beside_it(kind):
    (path,) = checkpoint.steps(GOLDEN / kind / "state")
    assert checkpoint.damage(path) is None
    state = loaded(kind).state_dict()
    assert_close(checkpoint.load(path).tensors["ema"], {name: state[name] for name in checkpoint.load(path).tensors["ema"]})


@pytest.mark.parametrize(("kind", "loss"), [("text", 1.3523248), ("images", 1.0655715)])
def test_it_computes_what_it_computed_when_it_was_recorded(kind, loss):
    """Weights that load into another computation, say into other groups of a group norm, would go unnoticed."""
    with torch.no_grad():
        (now,) = loaded(kind).eval()(**example(kind)).values()
    assert now.item() == pytest.approx(loss, abs=2e-5)


@every_kind
def test_its_training_goes_on(kind, tmp_path, accelerator):
    shutil.copytree(GOLDEN / kind / "state", tmp_path / "state")
    trainer = Trainer(loaded(kind).train(), Train(steps=6, precision="no"), tmp_path / "state", accelerator)
    assert trainer.resume()
    assert trainer.step == 4
    steps = list(trainer.train([[MicroBatch(example(kind), 1.0, 4)]] * 2))
    assert [step.step for step in steps] == [5, 6]
    assert all(loss.isfinite() for step in steps for loss in step.losses.values())


def test_its_text_model_writes_words():
    model, tokenizer = text.load(str(GOLDEN / "text"))
    sentences = list(text.finished(text.generate(model, tokenizer, text.from_noise(model, 3, seed=0), Sampling(steps=4))))
    assert len(sentences) == 3
    assert all(tokenizer.decode(sentence).split() for sentence in sentences)


def test_its_image_model_draws_images_of_its_classes():
    model = image.load(str(GOLDEN / "images"))
    assert model.config.classes == [str(i) for i in range(10)]
    assert image.finished(image.generate(model, image.from_noise(model, 3, seed=0), ImageSampling(steps=4))).shape == (3, 1, 8, 8)
