"""Facts about an image model for its model card, and its picture of samples."""

import shutil
from pathlib import Path

from image.config import ImageConfig
from image.model import ImageDiffusionModel
from textdiff.training.card import CardFacts

PICTURE = "samples.png"  # in the model/ folder
USAGE = f"""from image import ImageDiffusion

pipe = ImageDiffusion.from_pretrained("{{name}}")
sampled = pipe.sample(16, seed=0)
sampled.images[0].save("{PICTURE}")
print(pipe.log_likelihood(sampled.images).bits_per_dimension)"""
LIMITS = (
    "It draws images of this size only, and follows no descriptions.",
    "It may repeat training images. `scripts/evaluate_image.py` shows the most similar ones.",
)


def image_facts(
    config: ImageConfig, model: ImageDiffusionModel, training: int, held_out: int
) -> CardFacts:
    """Facts for the card of an image model. Copies its last samples into model/.

    Args:
        training: Number of training images.
        held_out: Number of held-out images.
    """
    weights, shape = model.num_parameters(), "x".join(map(str, model.config.shape))
    size = f"{weights:,} weights and draws images of {shape} (channels, height, width)"
    classes = ", ".join(model.config.classes) or "none"
    has_picture = _copy_samples(Path(config.run))
    picture = f"\n\n![Samples of the last validation, not selected]({PICTURE})"
    widget = [{"text": "no prompt", "output": {"url": PICTURE}}]
    return CardFacts(
        model=f"A Gaussian diffusion model of images. It has {size}.{picture * has_picture}",
        task="unconditional-image-generation",
        command="python scripts/train_image.py",
        training=f"{training:,} images; classes: {classes}",
        held_out=f"{held_out:,} images",
        split=f"{config.data.valid_share:.0%} of it, drawn at random",
        usage=USAGE,
        widget=lambda samples: widget * has_picture,
        limits=LIMITS,
    )


def _copy_samples(run: Path) -> bool:
    """Copies the samples of the last validation of a run, if there are any."""
    pictures = sorted((run / "samples").glob("step-*.png"))
    if pictures:
        shutil.copyfile(pictures[-1], run / "model" / PICTURE)
    return bool(pictures)
