"""Images from images: a trained model and its tasks in Python, as results or step by step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from PIL.Image import Image
from torch import Tensor

from image.config import ImageSamplingConfig
from image.decoding import to_pillow
from image.inputs import Given, classes_of, pixels_of
from image.likelihood import negative_elbo, to_bits
from image.sampling import Request, generate, load_model
from image.tasks import ImageTasks
from textdiff.arguments import checked_arguments
from textdiff.config import check
from textdiff.hub import HubMixin
from textdiff.prng import sample_keys
from textdiff.sampling import SampleBatch, collect

ROWS = 64  # images whose likelihood is computed together


@dataclass(frozen=True)
class ImageOutput:
    """Images of a task.

    Args:
        images: The images, as pictures of Pillow.
        pixels: Their bytes.
        rows: Number of each image in the task.
        step: Number of steps of the sampler so far, and `steps` in all. They are 0 for results.
    """

    images: list[Image]
    pixels: UInt8[Tensor, "n c h w"]
    rows: list[int]
    step: int = 0
    steps: int = 0


@dataclass(frozen=True)
class ImageLikelihood:
    """Upper bounds of -log p of each image.

    Args:
        nats: An unbiased estimate of the bound for each image.
        bits_per_dimension: The same in bits per pixel and channel.
    """

    nats: list[float]
    bits_per_dimension: list[float]


class ImageStream(ImageTasks[Iterator[ImageOutput]]):
    """The tasks as iterators over the steps of the sampler, batch after batch."""

    def _run(self, request: Request, config: ImageSamplingConfig) -> Iterator[ImageOutput]:
        return map(_after_step, generate(self.model, request, config))


class ImageDiffusion(HubMixin, ImageTasks[ImageOutput]):
    """A trained image model: sample, edit, inpaint, interpolate.

    In float32 the same seed gives the same images, whatever the batch size is.

    Examples:
        >>> from PIL import Image
        >>> pipe = ImageDiffusion.from_pretrained("runs/digits")
        >>> sampled = pipe.sample(3, steps=8, seed=1, label="7", guidance_scale=2.0)
        >>> picture = sampled.images[0]
        >>> picture.mode, picture.size, tuple(sampled.pixels.shape)
        ('L', (8, 8), (3, 1, 8, 8))
        >>> pipe.edit(picture, strength=0.0).images == [picture]
        True
        >>> mask = Image.new("1", picture.size)
        >>> mask.paste(1, (4, 0, 8, 8))  # white where the picture is filled
        >>> filled = pipe.inpaint(picture, mask, n=2, steps=8)
        >>> bool((filled.pixels == sampled.pixels[0])[:, :, :, :4].all())
        True
        >>> len(pipe.interpolate(picture, sampled.images[1], n=5, steps=8).images)
        5
        >>> [step.step for step in pipe.stream.sample(1, steps=4)]
        [1, 2, 3, 4]
    """

    @classmethod
    @checked_arguments()
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, token: str | None = None
    ) -> "ImageDiffusion":
        """Loads a model to this process's device.

        Args:
            name: A run folder, its model/ folder, or a model on the Hugging Face hub.
            revision: Branch, tag or commit of a model on the hub. If None, the main branch.
            token: Access token of the hub. If None, that of `hf auth login` or HF_TOKEN.
        """
        return cls(load_model(str(name), revision, token))

    @property
    def stream(self) -> ImageStream:
        """The same tasks, which yield the images after every step."""
        return ImageStream(self.model)

    def _run(self, request: Request, config: ImageSamplingConfig) -> ImageOutput:
        pixels = torch.stack([*collect(generate(self.model, request, config))])
        return ImageOutput([*to_pillow(pixels)], pixels, [*range(len(pixels))])

    @checked_arguments()
    def log_likelihood(
        self,
        images: Given | Sequence[Given],
        *,
        label: str | int | None = None,
        draws: int = 16,
        seed: int = 0,
    ) -> ImageLikelihood:
        """Upper bound of -log p of each image: the variational bound (DDPM, eq. 5) of 1,000 steps.

        It is estimated without bias from random draws, in float32.

        Args:
            images: One image or several, in a list or in an array of shape (n, ...).
            label: Class of the images. If None, p is that of a model without classes.
            draws: Steps drawn for each image.
            seed: Seed of the draws.

        Raises:
            UserError: If an image does not have the shape of the model's, or a label is unknown.

        Examples:
            >>> pipe = ImageDiffusion.from_pretrained("runs/digits")
            >>> len(pipe.log_likelihood(pipe.sample(2, label="7").images, label="7").nats)
            2
        """
        check(draws >= 1, "draws", "at least 1", draws)
        batch: Any = images
        one = not isinstance(batch, Sequence) and getattr(batch, "ndim", 3) < 4
        several = [batch] if one else [*batch]
        check(len(several) >= 1, "images", "at least one image", several)
        pixels = torch.stack([pixels_of(self.model, image) for image in several])
        labels, keys = classes_of(self.model, label, len(pixels)), sample_keys(seed, len(pixels))

        def nats_of(rows: Tensor) -> Tensor:
            own = None if labels is None else labels[rows]
            return negative_elbo(self.model, pixels[rows], own, keys[rows], draws=draws)

        nats = torch.cat([nats_of(rows) for rows in torch.arange(len(pixels)).split(ROWS)])
        return ImageLikelihood(nats.tolist(), to_bits(nats, pixels).tolist())


def _after_step(batch: SampleBatch[Tensor]) -> ImageOutput:
    """The images of a batch after a step."""
    pixels = torch.stack([*batch.samples])
    return ImageOutput([*to_pillow(pixels)], pixels, batch.rows, batch.step, batch.steps)
