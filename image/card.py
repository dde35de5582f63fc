"""Facts about an image model for its model card, and its picture of samples."""

import shutil
from pathlib import Path

from image.config import ImageConfig
from image.model import ImageDiffusionModel
from textdiff.training.card import CardFacts
from textdiff.training.provenance import hub_datasets, public_name

TASK = "unconditional-image-generation"
PICTURE = "samples.png"  # in the model/ folder
USAGE = f"""from image import ImageDiffusion

pipe = ImageDiffusion.from_pretrained("{{name}}")
sampled = pipe.sample(16, seed=0)
sampled.images[0].save("{PICTURE}")
print(pipe.log_likelihood(sampled.images).bits_per_dimension)"""
LIMITS = (
    "The training images alone decide what it draws. Their biases, and persons in them, may come "
    "back in its images: nothing was filtered out.",
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
    data, shape = config.data, "x".join(map(str, model.config.shape))
    weights = sum(weight.numel() for weight in model.parameters())
    size = f"{weights:,} weights and draws images of {shape} (channels, height, width)"
    classes = ", ".join(model.config.classes) or "none"
    share = f"{data.valid_share:.0%} of {public_name(data.train)}, drawn at random"
    has_picture = _copy_samples(Path(config.run))
    picture = f"\n\n![Samples of the last validation, not selected]({PICTURE})"
    widget = [{"text": "no prompt", "output": {"url": PICTURE}}]
    return CardFacts(
        model=f"A Gaussian diffusion model of images. It has {size}.{picture * has_picture}",
        task=TASK,
        command="python scripts/train_image.py",
        data=(
            f"{public_name(data.train)}: {training:,} images; classes: {classes}",
            f"{public_name(data.valid) if data.valid else share}: {held_out:,} images",
        ),
        datasets=hub_datasets(data.train, data.valid),
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
