"""How fast it is: `python scripts/benchmark.py text`, `image` and `quality`.

text: the denoiser against a BERT encoder of the same size in Diffusion-LM's shape (arXiv:2205.14217) built from transformers. image: the U-Net
against UNet2DModel of diffusers of the same size, and a step of the samplers, without network, against diffusers' schedulers.

A training step (forward, backward, fused AdamW) and a network evaluation of both, interleaved in one run, as tokens or images a second, share of
the machine's own matmul rate, and memory. Medians and their ratios; a JSON file beside the table.

quality: minutes of training to stated bounds, beside Diffusion-LM's recipe and an autoregressive model (benchmarks/quality.py).
"""

import json
import statistics
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.quality import quality
from jsonargparse import auto_cli
from rivals.denoisers import LENGTH
from rivals.race import compared, matmul_rates
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn

from textdiff.config import Sampling
from textdiff.device import choose_precision, machine_name, own_device, timed
from textdiff.diffusion.chain import Chain
from textdiff.diffusion.gaussian import Prediction
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.generate import from_noise, generate
from textdiff.lm import DiffusionLM, DiffusionLMConfig
from textdiff.vocab import MASK, PAD, UNK


def text(
    shapes: list[tuple[int, int]] | None = None,
    batch_size: int | None = None,
    dropout: float = 0.1,
    rounds: int = 7,
    gpu: bool = False,
    out: str = "benchmark.json",
) -> None:
    """The text denoiser against a BERT encoder of its size.

    Args:
        shapes: Pairs of width and depth. Nothing: (384, 6) and (256, 4), on the GPU (512, 16) and (768, 12).
        batch_size: Sequences of 64 tokens a step. Nothing: 16, on the GPU 512.
        dropout: Of both, in training.
        rounds: Every measurement is the median of so many.
        gpu: On the GPU, compiled, with larger shapes.
        out: Where the figures go as JSON.
    """
    device = chosen(gpu, rounds)
    shapes = shapes or ([(512, 16), (768, 12)] if gpu else [(384, 6), (256, 4)])
    batch_size = batch_size or (512 if gpu else 16)
    rates, machine = matmul_rates(device), machine_name(device)
    print(f"{machine}, torch {torch.__version__}; matmul: " + ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in rates.items()))
    rows = []
    for width, depth in shapes:
        flops = 2 * LENGTH * depth * (12 * width**2 + 2 * LENGTH * width)
        for precision, rate in rates.items():
            rows += compared("text", f"{width} x {depth}", (width, depth, dropout), precision, batch_size, rounds, device, flops / rate)
    show(rows, "tokens")
    speed = sentences_per_second(device)
    print(
        f"\nsentences/s, 25 tokens, 192 x 6, 32-d embeddings, 2,600 words, precision {choose_precision('auto', device)}: "
        + ", ".join(f"{n} steps {s:.1f}" for n, s in speed.items())
    )
    figures = {"machine": machine, "torch": torch.__version__, "matmul_flops": rates, "denoisers": rows, "sentences_per_second": speed}
    Path(out).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def image(width: int = 64, blocks: int = 2, batch_size: int = 32, rounds: int = 5, gpu: bool = False, out: str = "benchmark-image.json") -> None:
    """The U-Net against that of diffusers on 1x32x32 images, and the samplers against its schedulers.

    Args:
        width: Channels at full resolution; twice as many at the two others.
        blocks: Residual blocks at each resolution.
        batch_size: Images a step.
        rounds: Every measurement is the median of so many.
        gpu: On the GPU, compiled.
        out: Where the figures go as JSON.
    """
    device = chosen(gpu, rounds)
    rates, machine = matmul_rates(device), machine_name(device)
    print(f"{machine}, torch {torch.__version__}; matmul: " + ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in rates.items()))
    rows = []
    for precision in rates:
        rows += compared("image", f"{width}, 1 2 2, {blocks}", (width, blocks), precision, batch_size, rounds, device)
    show(rows, "images")
    overhead = sampler_overhead()
    for name, (ours, theirs) in overhead.items():
        print(f"a step of {name} on 1x1x8x8 without network: {ours:.1f} us, diffusers {theirs:.1f} us ({ours / theirs:.2f} of it)")
    figures = {"machine": machine, "torch": torch.__version__, "matmul_flops": rates, "denoisers": rows, "step_microseconds": overhead}
    Path(out).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def sampler_overhead(steps: int = 50, rounds: int = 50) -> dict[str, tuple[float, float]]:
    """Microseconds of a step outside the network, ours and diffusers', on a tiny tensor: the least of many rounds that take turns."""
    from diffusers import DDIMScheduler, DDPMScheduler

    x, dice = torch.randn(1, 1, 8, 8), torch.Generator().manual_seed(0)
    constant, eps = Prediction(x / 2, x / 3), x / 3

    def theirs(scheduler: Any) -> None:
        y = x
        for t in scheduler.timesteps:
            y = scheduler.step(eps, t, y, generator=dice).prev_sample

    def ours(name: str, logsnrs: Tensor) -> None:
        exhausted(SAMPLERS[name](lambda *_: constant, x, logsnrs, generator=dice))

    times: dict[str, tuple[float, float]] = {}
    schedulers: dict[str, Any] = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler}
    for name, kind in schedulers.items():
        scheduler = kind(1000, timestep_spacing="trailing")
        scheduler.set_timesteps(steps)
        levels = Chain.from_betas(scheduler.betas).logsnr
        work = partial(ours, name, torch.cat([levels[scheduler.timesteps + 1], levels[:1]]).float()), partial(theirs, scheduler)
        taken = [[timed(run, x.device) for run in work] for _ in range(rounds)]
        ours_best, theirs_best = (1e6 * min(column) / steps for column in zip(*taken, strict=True))
        times[name] = ours_best, theirs_best
    return times


def sentences_per_second(device: torch.device, n: int = 64) -> dict[int, float]:
    """Whole sampling, by number of steps, from a model of the default size with weights as they are at first."""
    words = [PAD, UNK, MASK, *(f"word{i}" for i in range(2597))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNK))
    model = DiffusionLM(DiffusionLMConfig(vocab_size=len(words))).eval()
    nn.Module.to(model, device)  # transformers hides its signature from the type checker
    speed = {}
    for steps in (8, 32, 128):
        task = from_noise(model, n, seed=0, length=25)
        taken = (timed(lambda: exhausted(generate(model, tokenizer, task, Sampling(steps=steps))), device) for _ in range(3))  # noqa: B023
        speed[steps] = n / statistics.median(taken)
    return speed


def exhausted(drafts: Iterator[object]) -> None:
    for _ in drafts:
        pass


def chosen(gpu: bool, rounds: int) -> torch.device:
    if rounds < 1:
        sys.exit(f"--rounds must be at least 1, got {rounds}")
    if gpu and own_device().type == "cpu":
        sys.exit("--gpu needs an accelerator, which this machine or this build of torch does not have")
    return own_device() if gpu else torch.device("cpu")


def show(rows: list[dict[str, Any]], unit: str) -> None:
    print(f"shape        precision  denoiser       parameters   step {unit}/s (of matmul)   evaluation {unit}/s (of matmul)   step MB")
    for row in rows:
        step, evaluation = (speed(row, what) for what in ("step", "evaluation"))
        size = f"{row['parameters'] / 1e6:.1f} M"
        print(f"{row['shape']:12} {row['precision']:10} {row['denoiser']:14} {size:>10} {step:>27} {evaluation:>33} {row['step_megabytes']:9.0f}")
    by = {(row["shape"], row["precision"], row["denoiser"]): row for row in rows}
    ours_name, theirs_name = dict.fromkeys(row["denoiser"] for row in rows)
    for shape, precision in dict.fromkeys((row["shape"], row["precision"]) for row in rows):
        ours = by[shape, precision, ours_name]
        for other in ("bf16", "float32") if precision == "bf16" else [precision]:
            theirs = by[shape, other, theirs_name]
            step, evaluation = (ours[f"{what}_per_second"] / theirs[f"{what}_per_second"] for what in ("step", "evaluation"))
            print(f"{shape}: {precision} against {theirs_name} in {other}: step {step:.2f}, evaluation {evaluation:.2f} times as fast")


def speed(row: dict[str, Any], what: str) -> str:
    share = row[f"{what}_share_of_matmul"]
    return f"{row[f'{what}_per_second']:,.0f}" + (f" ({share:.0%})" if share else "")


if __name__ == "__main__":
    given = zip(sys.argv[1:], [*sys.argv[2:], ""], strict=True)
    typed = ["--gpu=true" if word == "--gpu" and after not in ("true", "false") else word for word, after in given]
    auto_cli({"text": text, "image": image, "quality": quality}, as_positional=False, args=typed)
