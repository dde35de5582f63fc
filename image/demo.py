"""The tabs of an image model on the page of `textdiff demo`."""

from collections.abc import Iterator
from functools import partial
from typing import Any, TypeVar

import gradio as gr
import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL.Image import DecompressionBombError, Image, Resampling
from torch import Tensor

from image.config import SAMPLER, SAMPLING_STEPS
from image.decoding import MODES, fit_image
from image.grid import to_image
from image.model import ImageDiffusionModel, quantized, scaled
from image.pipeline import ImageDiffusion, ImageOutput
from textdiff.config import UserError
from textdiff.demo import curve
from textdiff.demo.controls import Controls, buttons, number_of_samples, sampling_controls
from textdiff.demo.frames import Frame, connect, new_frames, pictures
from textdiff.demo.kinds import Kind, Tab
from textdiff.diffusion.gaussian import diffuse
from textdiff.prng import noise_generator, sample_keys

Pixels = UInt8[Tensor, "c h w"]
SIDE = 280  # pixels of a picture that is painted on
ALL, ANY = "all in turn", "any"  # choices besides the classes


def tabs(name: str) -> list[Tab]:
    """Loads an image model and returns its tabs."""
    return tabs_of(ImageDiffusion.from_pretrained(name))


def tabs_of(pipe: ImageDiffusion) -> list[Tab]:
    """The tabs of the tasks that a model can do."""
    example = large(pipe.sample(1, seed=3).images[0])
    found = [Tab("Images", partial(sample_tab, pipe))]
    found += [Tab("Edit", partial(edit_tab, pipe, example))]
    if pipe.model.config.infill_prob:
        found += [Tab("Inpaint", partial(inpaint_tab, pipe, example))]
    return [*found, Tab("Noise", partial(noise_tab, pipe.model, example))]


def sample_tab(pipe: ImageDiffusion) -> None:
    """Images from noise."""
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            start, stop = buttons("Generate")
            with gr.Accordion("Settings", open=False):
                controls = _controls(pipe.model, ALL, number=8)
        with gr.Column(scale=2, min_width=320):
            hint = "Images appear here out of noise, step by step."
            view = new_frames("images", f"{hint} The slider goes back through the steps.")

    def frames(*values: Any) -> Iterator[Frame]:
        return step_frames(pipe.stream.sample(**_options(controls, values)))

    connect([start.click], frames, controls.inputs, view, stop)


def edit_tab(pipe: ImageDiffusion, example: Image) -> None:
    """Variations of a picture."""
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            picture = _picture_input(example)
            strength = gr.Slider(0, 1, 0.5, step=0.01, precision=2, label="Strength")
            start, stop = buttons("Edit")
            with gr.Accordion("Settings", open=False):
                controls = _controls(pipe.model, ANY, number=4)
        with gr.Column(scale=2, min_width=320):
            view = new_frames("edit", "Variations of the picture appear here.")

    def frames(picture: Image | None, strength: float, *values: Any) -> Iterator[Frame]:
        pixels, options = fitted(pipe.model, picture), _options(controls, values)
        steps = pipe.stream.edit(pixels, strength=strength, **options)
        return step_frames(steps, shape_note(pipe.model, picture))

    connect([start.click], frames, [picture, strength, *controls.inputs], view, stop)


def inpaint_tab(pipe: ImageDiffusion, example: Image) -> None:
    """A picture in which what was painted over is filled."""
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            canvas = gr.ImageEditor(
                {"background": example, "layers": [], "composite": None},
                label="Paint over it",
                type="pil",
                format="png",
                sources=["upload", "clipboard"],
                brush=gr.Brush(default_size=SIDE // 6, colors=["#e4572e"], color_mode="fixed"),
                layers=False,
                transforms=[],
                canvas_size=example.size,
                elem_id="editor",
            )
            editor = _only_pictures(canvas)
            start, stop = buttons("Fill")
            with gr.Accordion("Settings", open=False):
                controls = _controls(pipe.model, ANY, number=4)
        with gr.Column(scale=2, min_width=320):
            view = new_frames("inpaint", "The filled pictures appear here.")

    def frames(painted: dict[str, Any] | None, *values: Any) -> Iterator[Frame]:
        picture = (painted or {}).get("background")
        pixels, unknown = fitted(pipe.model, picture), brushed(pipe.model, painted or {})
        if not unknown.any():
            raise UserError("nothing is painted over: paint over what is to be filled")
        steps = pipe.stream.inpaint(pixels, unknown, **_options(controls, values))
        return step_frames(steps, shape_note(pipe.model, picture))

    connect([start.click], frames, [editor, *controls.inputs], view, stop)


def noise_tab(model: ImageDiffusionModel, example: Image) -> None:
    """A picture that becomes noise."""
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            picture = _picture_input(example)
            schedule, seed = curve.controls()
        with gr.Column(scale=2, min_width=320):
            frames = noise_frames(model, example, curve.OWN, 0)
            view = new_frames("noise-image", frames=frames, at=curve.POINTS // 2)

    triggers = [picture.change, schedule.change, seed.change]
    make = partial(noise_frames, model)
    connect(triggers, make, [picture, schedule, seed], view, at_once=True)


def noise_frames(
    model: ImageDiffusionModel, picture: Image | None, schedule: str, seed: int
) -> Iterator[Frame]:
    """The picture at each time: x_t = alpha x0 + sigma eps, with the same eps at all times."""
    x0 = scaled(fitted(model, picture).unsqueeze(0))
    logsnrs = curve.log_snrs(schedule, model.schedule())
    eps = noise_generator(sample_keys(seed, 1))(x0).expand(len(logsnrs), -1, -1, -1)
    x_t = quantized(diffuse(x0.expand_as(eps), eps, logsnrs))
    shown = (pictures([to_image(pixels)]) for pixels in x_t)
    yield from curve.noise_frames(shown, logsnrs, shape_note(model, picture))


def step_frames(steps: Iterator[ImageOutput], note: str = "") -> Iterator[Frame]:
    """The frames of a stream of steps."""
    for step in steps:
        label = f"step {step.step} of {step.steps}"
        yield Frame(pictures(step.images), max(1, step.steps), label, note)


def fitted(model: ImageDiffusionModel, picture: Image | None) -> Pixels:
    """A picture in the shape of the model's images. Raises UserError if there is none."""
    if picture is None:
        raise UserError("there is no picture: choose one")
    channels, height, width = model.config.shape
    pixels = torch.from_numpy(fit_image(picture, (height, width), MODES[channels]).copy())
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def shape_note(model: ImageDiffusionModel, picture: Image | None) -> str:
    """A line that says that a picture of another shape was cropped; empty if it was not."""
    assert picture is not None
    _, height, width = model.config.shape
    if picture.width * height == picture.height * width:
        return ""
    found = f"The picture is {picture.width}x{picture.height}"
    return f"{found}, the model's images are {width}x{height}: its middle was used."


def brushed(model: ImageDiffusionModel, painted: dict[str, Any]) -> Bool[Tensor, "h w"]:
    """The pixels of the model's images that were painted over, at least by half."""
    _, height, width = model.config.shape
    unknown = torch.zeros(height, width, dtype=torch.bool)
    for layer in painted.get("layers", []):
        alpha = fit_image(layer.getchannel("A"), (height, width), "L")
        unknown |= torch.from_numpy(np.asarray(alpha) > 127)
    return unknown


def large(picture: Image) -> Image:
    """An image as a picture that can be painted on."""
    times = max(1, SIDE // max(picture.size))
    return picture.resize((picture.width * times, picture.height * times), Resampling.NEAREST)


def _picture_input(example: Image) -> gr.Image:
    """A picture, to be replaced by one of the user's."""
    sources: Any = ["upload", "clipboard"]
    options: Any = {"type": "pil", "format": "png", "sources": sources, "buttons": []}
    return _only_pictures(gr.Image(example, label="Picture", height=SIDE, **options))


C = TypeVar("C", gr.Image, gr.ImageEditor)


def _only_pictures(component: C) -> C:
    """The component, with a clear message for a file that is not a picture."""
    decode = component.preprocess

    def preprocess(payload: Any) -> Any:
        try:
            return decode(payload)
        except (OSError, DecompressionBombError) as error:
            rule = "the file is not a picture, or too large: choose a PNG or JPEG"
            raise gr.Error(rule, print_exception=False) from error

    component.preprocess = preprocess  # type: ignore[method-assign]
    return component


def _controls(model: ImageDiffusionModel, other: str, number: int) -> Controls:
    """The controls of a request, with a choice besides the classes."""
    found = {"n": number_of_samples("Images", number), **sampling_controls(SAMPLING_STEPS, SAMPLER)}
    if model.config.classes:
        classes = [other, *model.config.classes]
        found["label"] = gr.Dropdown(classes, value=other, label="Class")
        label = "Guidance towards the class (1: none)"
        found["guidance_scale"] = gr.Slider(0, 5, 1, step=0.1, precision=2, label=label)
    return Controls(found)


def _options(controls: Controls, values: tuple[Any, ...]) -> dict[str, Any]:
    """Arguments of the task. The choice besides the classes stands for none."""
    options = controls.options(values)
    if options.get("label") == ANY:  # nothing to be guided towards
        del options["guidance_scale"]
    return {name: value for name, value in options.items() if value not in (ALL, ANY)}


KIND = Kind(("textdiff-image",), tabs)
