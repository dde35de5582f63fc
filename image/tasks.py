"""The tasks of a trained image model, from the arguments of the user to requests."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from image.config import ImageSamplingConfig, check_count
from image.inputs import Given, classes_of, pixels_of, unknown_of
from image.model import ImageDiffusionModel
from image.sampling import (
    Request,
    edit_request,
    in_order,
    inpaint_request,
    interpolate_request,
    sample_request,
)
from textdiff.arguments import checked_arguments, from_arguments
from textdiff.config import UserError

R = TypeVar("R")


class ImageTasks(ABC, Generic[R]):
    """Tasks of a trained model. Subclasses say what becomes of a task.

    Further arguments of each task are the fields of `ImageSamplingConfig`: steps, sampler, seed,
    batch_size, precision, label, guidance_scale, order and window. Images are pictures of Pillow,
    arrays of bytes of shape (h, w) or (h, w, c), or tensors of bytes of shape (c, h, w), in the
    size and mode of the model's images.

    Args:
        model: A diffusion model.
    """

    def __init__(self, model: ImageDiffusionModel) -> None:
        self.model = model

    @abstractmethod
    def _run(self, request: Request, config: ImageSamplingConfig) -> R:
        """Does the task."""

    @checked_arguments(ImageSamplingConfig)
    def sample(self, n: int = 1, **options: Any) -> R:
        """Generates n images from noise. Without a label, all classes come in turn."""
        return self._do("sample", n, options, sample_request)

    @checked_arguments(ImageSamplingConfig)
    def edit(self, image: Given, *, strength: float = 0.5, n: int = 1, **options: Any) -> R:
        """Adds noise to an image and resamples it: n variations.

        Args:
            strength: Amount of noise, from 0 (the image itself) to 1 (nothing of it is left).
        """
        pixels = pixels_of(self.model, image)
        request_of = partial(edit_request, image=pixels, strength=strength)
        return self._do("edit", n, options, request_of)

    @checked_arguments(ImageSamplingConfig)
    def inpaint(self, image: Given, mask: Given, *, n: int = 1, **options: Any) -> R:
        """Fills an image where the mask is white, in n ways. Its other pixels stay as they are.

        Args:
            mask: A picture, array or tensor as large as the image, of bytes or black and white.
        """
        pixels, unknown = pixels_of(self.model, image), unknown_of(self.model, mask)
        request_of = partial(inpaint_request, image=pixels, unknown=unknown)
        return self._do("inpaint", n, options, request_of)

    @checked_arguments(ImageSamplingConfig)
    def interpolate(
        self, first: Given, second: Given, *, strength: float = 0.5, n: int = 8, **options: Any
    ) -> R:
        """Generates n images from the first to the second (DDPM, sec. 4.3).

        Args:
            strength: Amount of noise, from 0 (mixtures of the two) to 1 (nothing of them is left).
        """
        a = pixels_of(self.model, first, "the first image")
        b = pixels_of(self.model, second, "the second image")
        request_of = partial(interpolate_request, first=a, second=b, strength=strength)
        return self._do("interpolate", n, options, request_of)

    def _do(self, task: str, n: int, options: dict[str, Any], make: Callable[..., Request]) -> R:
        """Makes the request of a task and does it. Raises UserError if options contradict."""
        check_count(n)
        (config,) = from_arguments(options, ImageSamplingConfig)
        if config.guidance_scale != 1 and not self.model.config.classes:
            raise UserError("--guidance_scale: this model was trained without classes")
        if task != "sample" and config.guidance_scale != 1 and config.label is None:
            raise UserError(f"--{task} with --guidance_scale needs --class")
        request = make(
            self.model,
            n=n,
            seed=config.seed,
            label=classes_of(self.model, config.label, n),
            guidance_scale=config.guidance_scale,
        )
        return self._run(in_order(self.model, request, config.order, config.window), config)
