"""The tasks of an image model, written to files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jsonargparse import Namespace
from PIL.Image import Image
from torch import Tensor

from image.config import ImageSamplingConfig
from image.decoding import MODES, decode, fit_image
from image.grid import animation, grid, to_image
from image.model import ImageDiffusionModel
from image.sampling import Request, generate
from image.tasks import ImageTasks
from textdiff.config import UserError, check
from textdiff.distributed import current_process
from textdiff.options import from_options
from textdiff.sampling import collect, gather_batches, sampling_precision, with_progress


class ImageWriter(ImageTasks[None]):
    """Writes the images of a task to files and prints the name of their grid.

    Several processes divide the work, and the main process writes.

    Args:
        out: File for a grid of all images.
        files: Folder for a file of each image, or None.
        gif: File for an animation of the steps of the first batch, or None.
    """

    def __init__(
        self, model: ImageDiffusionModel, out: str, files: str | None, gif: str | None
    ) -> None:
        super().__init__(model)
        self.out, self.files, self.gif = out, files, gif

    def _run(self, request: Request, config: ImageSamplingConfig) -> None:
        model, process = self.model, current_process()
        config = replace(config, precision=sampling_precision(model, config.precision, process))
        count = -(-len(request.x0) // (config.batch_size * process.world))
        batches = generate(model, request, config, process)
        shown = with_progress(batches, count, hide=process.rank > 0)
        done = list(gather_batches(shown, process))
        if process.rank == 0:
            frames = [torch.stack([*batch.samples]) for batch in done if batch.rows[0] == 0]
            self._write(torch.stack([*collect(done)]), frames)

    def _write(self, pixels: Tensor, frames: Sequence[Tensor]) -> None:
        grid(pixels).save(self.out)
        if self.gif:
            animation(frames, Path(self.gif))
        if self.files:
            for i, image in enumerate(pixels):
                to_image(image).save(Path(self.files, f"{i:05d}.png"))
        print(self.out)


def read_images(options: Namespace) -> list[Image]:
    """The images that the options of the command line name, the mask last.

    Raises:
        UserError: If an image cannot be read, or the mask has another size than its image.
    """
    paths = [options.inpaint, options.mask, options.edit, *(options.interpolate or [])]
    images = [*map(_read_image, filter(None, paths))]
    if options.inpaint:
        image, mask = images
        rule = "as large as the image, {}x{}".format(*image.size)
        check(image.size == mask.size, "--mask", rule, "{}x{}".format(*mask.size))
    return images


def do_task(writer: ImageWriter, given: Sequence[Image], options: Namespace) -> None:
    """Does the task that the options of the command line describe.

    Args:
        given: Images of the task, as `read_images` returns them. They are fitted to the size and
            the mode of the model's images.

    Raises:
        UserError: If options cannot be used.
    """
    shape = writer.model.config.shape
    settings = vars(from_options(ImageSamplingConfig, options)) | {"n": options.n}
    images = [fit_image(image, shape[1:], MODES[shape[0]]) for image in given]
    if options.inpaint:
        unknown = fit_image(given[1], shape[1:], MODES[1])
        return writer.inpaint(images[0], unknown, **settings)
    if options.edit:
        return writer.edit(*images, strength=options.strength, **settings)
    if options.interpolate:
        return writer.interpolate(*images, strength=options.strength, **settings)
    return writer.sample(**settings)


def _read_image(path: str) -> Image:
    try:
        return decode(Path(path).read_bytes())
    except OSError as error:
        reason = error.strerror or "is not an image that can be read"
        raise UserError(f"{path}: {reason}") from error
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise UserError(f"{path}: {error}") from error
