"""The forward process of any data under any schedule: controls, curve and frames."""

from collections.abc import Iterable, Iterator
from functools import partial

import gradio as gr
import torch
from jaxtyping import Float
from torch import Tensor

from textdiff.demo.controls import LARGEST_SEED
from textdiff.demo.frames import Frame
from textdiff.diffusion.gaussian import alpha_sigma
from textdiff.diffusion.schedules import SCHEDULES, Schedule
from textdiff.nn import bounded_schedule

OWN = "the model's own"
LOGSNRS = (-10.0, 10.0)  # range of the schedules that are shown
WIDTH, HEIGHT, LEFT = 320, 150, 30  # of the drawing
POINTS = 41  # times from data to noise


def controls() -> tuple[gr.Dropdown, gr.Number]:
    """The schedule and the seed."""
    schedule = gr.Dropdown([OWN, *SCHEDULES], value=OWN, label="Schedule")
    seed = gr.Number(0, minimum=0, maximum=LARGEST_SEED, precision=0, label="Seed")
    return schedule, seed


def log_snrs(schedule: str, own: Schedule) -> Float[Tensor, " n"]:
    """Log SNR of each frame, from data to noise.

    Args:
        schedule: `OWN`, or a schedule of the core, within the range that is shown.
        own: The model's schedule.
    """
    chosen = own if schedule == OWN else bounded_schedule(schedule, *LOGSNRS)
    return chosen(torch.linspace(0, 1, POINTS)).detach().cpu()


def noise_frames(
    contents: Iterable[str], logsnrs: Float[Tensor, " n"], note: str
) -> Iterator[Frame]:
    """Frames with the curve below each content.

    Args:
        contents: HTML of the data at each log SNR.
        note: A line below.
    """
    values = logsnrs.tolist()
    for i, content in enumerate(contents):
        label = caption(i / (POINTS - 1), values[i])
        yield Frame(content + drawing(values, i), POINTS, label, note)


def drawing(logsnrs: list[float], now: int) -> str:
    """The curve as SVG.

    Args:
        logsnrs: Log SNR at each time.
        now: Number of the time of the point.
    """
    points = [*map(partial(_place, len(logsnrs)), range(len(logsnrs)), logsnrs)]
    x, y = points[now]
    line = " ".join(f"{x:.0f},{y:.1f}" for x, y in points)
    ticks = "".join(_tick(value) for value in (-10.0, 0.0, 10.0))
    return (
        f"<svg class='td-curve' viewBox='0 0 {WIDTH} {HEIGHT + 18}' role='img' "
        f"aria-label='log SNR against time'>{ticks}<polyline points='{line}'/>"
        f"<line x1='{x:.0f}' x2='{x:.0f}' y1='0' y2='{HEIGHT}'/>"
        f"<circle cx='{x:.0f}' cy='{y:.1f}' r='5'/>"
        f"<text x='{LEFT}' y='{HEIGHT + 14}'>data</text>"
        f"<text x='{WIDTH}' y='{HEIGHT + 14}' text-anchor='end'>noise</text></svg>"
    )


def caption(time: float, logsnr: float) -> str:
    """Time, log SNR, and the scales of signal and noise."""
    value = torch.tensor([logsnr])
    alpha, sigma = (float(scale) for scale in alpha_sigma(value, value))
    shown = round(logsnr, 1) + 0.0  # not -0.0
    return f"t {time:.2f} · log SNR {shown:+.1f} · signal {alpha:.2f} · noise {sigma:.2f}"


def _place(count: int, index: int, logsnr: float) -> tuple[float, float]:
    low, high = LOGSNRS
    x = LEFT + (WIDTH - LEFT) * index / (count - 1)
    return x, 4 + (HEIGHT - 8) * (high - logsnr) / (high - low)


def _tick(value: float) -> str:
    _, y = _place(2, 0, value)
    return f"<text x='0' y='{y + 4:.0f}'>{value:+.0f}</text>".replace("+0<", "0<")
