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


def do_task(writer: ImageWriter, options: Namespace) -> None:
    """Does the task that the options of the command line describe.

    Images from files are fitted to the size and the mode of the model's images.

    Raises:
        UserError: If an image cannot be read, or if options cannot be used.
    """
    shape = writer.model.config.shape
    settings = vars(from_options(ImageSamplingConfig, options)) | {"n": options.n}
    if options.inpaint:
        image, mask = _read_image(options.inpaint), _read_image(options.mask)
        rule = "as large as the image, {}x{}".format(*image.size)
        check(image.size == mask.size, "--mask", rule, "{}x{}".format(*mask.size))
        unknown = fit_image(mask, shape[1:], MODES[1])
        return writer.inpaint(fit_image(image, shape[1:], MODES[shape[0]]), unknown, **settings)
    paths = [options.edit] if options.edit else options.interpolate or []
    images = [fit_image(_read_image(path), shape[1:], MODES[shape[0]]) for path in paths]
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
