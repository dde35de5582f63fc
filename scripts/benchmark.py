"""Benchmarks: `python scripts/benchmark.py text`, `image`, `quality`, `inpainting`, `scaling`.

text: The denoiser beside a BERT encoder of the same size, in the shape of Diffusion-LM
(arXiv:2205.14217), built from transformers. image: The U-Net beside UNet2DModel of diffusers of the
same size, and a step of the samplers, without the network, beside the schedulers of diffusers.

Both measure a training step (forward, backward, fused AdamW) and a network evaluation, interleaved
with those of the alternative: tokens or images per second, the share of the machine's own matmul
rate, and memory. They print medians and ratios, and write a JSON file.

quality: Minutes of training to given bounds, beside Diffusion-LM's recipe and an autoregressive
model (benchmarks/quality.py).

inpainting: Exact conditioning beside replacement (benchmarks/inpainting.py).

scaling: Speed and memory of training by length, batch, width and processes (benchmarks/scaling.py).
"""

import json
import statistics
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.comparison import Setting, compare, matmul_rates
from benchmarks.denoisers import LENGTH
from benchmarks.inpainting import inpainting
from benchmarks.quality import quality
from benchmarks.scaling import scaling
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn

from textdiff.cli.parser import run_script
from textdiff.config import SamplingConfig
from textdiff.device import choose_precision, machine_name, own_device
from textdiff.diffusion.discrete import Chain
from textdiff.diffusion.gaussian import Prediction
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.text.model import DiffusionLM, DiffusionLMConfig
from textdiff.text.requests import sample_request
from textdiff.text.sampling import generate
from textdiff.text.tokenizer import MASK, PAD, UNK
from textdiff.timing import timed

Result = dict[str, Any]


def text(
    shapes: list[tuple[int, int]] | None = None,
    batch_size: int | None = None,
    dropout: float = 0.1,
    rounds: int = 7,
    gpu: bool = False,
    out: str = "benchmark.json",
) -> None:
    """Compare the text denoiser with a BERT encoder of the same size.

    Args:
        shapes: Pairs of width and depth. If null, (384, 6) and (256, 4); on the GPU (512, 16) and
            (768, 12).
        batch_size: Sequences of 64 tokens per step. If null, 16; on the GPU 512.
        dropout: Dropout rate of both networks in training.
        rounds: Number of measurements, of which the median counts.
        gpu: Use the GPU, with compiled networks and larger shapes.
        out: File for the results as JSON.
    """
    device = choose_device(gpu, rounds)
    shapes = shapes or ([(512, 16), (768, 12)] if gpu else [(384, 6), (256, 4)])
    batch_size = batch_size or (512 if gpu else 16)
    results = describe_machine(device)
    rows = []
    for width, depth in shapes:
        flops = 2 * LENGTH * depth * (12 * width**2 + 2 * LENGTH * width)
        name, size = f"{width} x {depth}", (width, depth, dropout)
        for precision, rate in results["matmul_flops"].items():
            setting = Setting("text", name, size, precision, batch_size, device)
            rows += compare(setting, rounds, flops / rate)
    print_rows(rows, "tokens")
    speed = sentences_per_second(device)
    model = "25 tokens, 192 x 6, 32-d embeddings, 2,600 words"
    speeds = ", ".join(f"{steps} steps {value:.1f}" for steps, value in speed.items())
    print(f"\nsentences/s, {model}, precision {choose_precision('auto', device)}: {speeds}")
    write_json(results | {"denoisers": rows, "sentences_per_second": speed}, out)


def image(
    width: int = 64,
    res_blocks: int = 2,
    batch_size: int = 32,
    rounds: int = 5,
    gpu: bool = False,
    out: str = "benchmark-image.json",
) -> None:
    """Compare the U-Net with that of diffusers on 1x32x32 images, and samplers with schedulers.

    Args:
        width: Channels at full resolution. The two lower resolutions have twice as many.
        res_blocks: Residual blocks per resolution.
        batch_size: Images per step.
        rounds: Number of measurements, of which the median counts.
        gpu: Use the GPU, with compiled networks.
        out: File for the results as JSON.
    """
    device = choose_device(gpu, rounds)
    results = describe_machine(device)
    rows = []
    name, size = f"{width}, 1 2 2, {res_blocks}", (width, res_blocks)
    for precision in results["matmul_flops"]:
        rows += compare(Setting("image", name, size, precision, batch_size, device), rounds)
    print_rows(rows, "images")
    overhead = sampler_overhead()
    for sampler, (ours, theirs) in overhead.items():
        speeds = f"{ours:.1f} us, diffusers {theirs:.1f} us (ratio {ours / theirs:.2f})"
        print(f"a step of {sampler} on 1x1x8x8 without the network: {speeds}")
    write_json(results | {"denoisers": rows, "step_microseconds": overhead}, out)


def choose_device(gpu: bool, rounds: int) -> torch.device:
    """The device to measure. Ends the program if an option is impossible."""
    if rounds < 1:
        sys.exit(f"--rounds must be at least 1, got {rounds}")
    if not gpu:
        return torch.device("cpu")
    if own_device().type == "cpu":
        sys.exit("--gpu needs an accelerator, and this machine or this build of torch has none")
    return own_device()


def describe_machine(device: torch.device) -> Result:
    """Prints and returns the machine, the version of torch and the matmul rates."""
    machine, rates = machine_name(device), matmul_rates(device)
    shown = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in rates.items())
    print(f"{machine}, torch {torch.__version__}; matmul: {shown}")
    return {"machine": machine, "torch": torch.__version__, "matmul_flops": rates}


def sampler_overhead(steps: int = 50, rounds: int = 50) -> dict[str, tuple[float, float]]:
    """Microseconds per step outside the network, for our samplers and for diffusers' schedulers.

    The tensor is tiny. Both are interleaved, and the fastest of many rounds counts.
    """
    from diffusers import DDIMScheduler, DDPMScheduler

    x, rng = torch.randn(1, 1, 8, 8), torch.Generator().manual_seed(0)
    prediction = Prediction(x / 2, x / 3)

    def run_scheduler(scheduler: Any) -> None:
        y = x
        for t in scheduler.timesteps:
            y = scheduler.step(prediction.eps, t, y, generator=rng).prev_sample

    def run_sampler(name: str, logsnrs: Tensor) -> None:
        exhaust(SAMPLERS[name](lambda *_: prediction, x, logsnrs, generator=rng))

    times: dict[str, tuple[float, float]] = {}
    schedulers: dict[str, Any] = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler}
    for name, kind in schedulers.items():
        scheduler = kind(1000, timestep_spacing="trailing")
        scheduler.set_timesteps(steps)
        table = Chain.from_betas(scheduler.betas).logsnr
        logsnrs = torch.cat([table[scheduler.timesteps + 1], table[:1]]).float()
        work = (partial(run_sampler, name, logsnrs), partial(run_scheduler, scheduler))
        seconds = [[timed(run, x.device) for run in work] for _ in range(rounds)]
        ours, theirs = (1e6 * min(column) / steps for column in zip(*seconds, strict=True))
        times[name] = ours, theirs
    return times


def sentences_per_second(device: torch.device, n: int = 64) -> dict[int, float]:
    """Speed of sampling by number of steps, with an untrained model of the default size."""
    words = [PAD, UNK, MASK, *(f"word{i}" for i in range(2597))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNK))
    model = DiffusionLM(DiffusionLMConfig(vocab_size=len(words))).eval()
    nn.Module.to(model, device)  # transformers hides its signature from the type checker
    request = sample_request(model, n, seed=0, length=25)

    def sample(steps: int) -> None:
        exhaust(generate(model, tokenizer, request, SamplingConfig(steps=steps)))

    def median_seconds(steps: int) -> float:
        return statistics.median(timed(partial(sample, steps), device) for _ in range(3))

    return {steps: n / median_seconds(steps) for steps in (8, 32, 128)}


def exhaust(iterator: Iterable[object]) -> None:
    """Runs an iterator to its end."""
    for _ in iterator:
        pass


def print_rows(rows: list[Result], unit: str) -> None:
    """Prints a table of all networks, and the ratios of their speeds."""
    columns = f"step {unit}/s (of matmul)   evaluation {unit}/s (of matmul)   step MB"
    print(f"shape        precision  denoiser       parameters   {columns}")
    for row in rows:
        size = f"{row['parameters'] / 1e6:.1f} M"
        start = f"{row['shape']:12} {row['precision']:10} {row['denoiser']:14} {size:>10}"
        speeds = f"{format_speed(row, 'step'):>27} {format_speed(row, 'evaluation'):>33}"
        print(f"{start} {speeds} {row['step_megabytes']:9.0f}")
    by_key = {(row["shape"], row["precision"], row["denoiser"]): row for row in rows}
    our_name, their_name = dict.fromkeys(row["denoiser"] for row in rows)
    for shape, precision in dict.fromkeys((row["shape"], row["precision"]) for row in rows):
        ours = by_key[shape, precision, our_name]
        for other in ("bf16", "float32") if precision == "bf16" else [precision]:
            theirs = by_key[shape, other, their_name]
            keys = ("step_per_second", "evaluation_per_second")
            step, evaluation = (ours[key] / theirs[key] for key in keys)
            ratios = f"step {step:.2f}, evaluation {evaluation:.2f} times as fast"
            print(f"{shape}: {precision} against {their_name} in {other}: {ratios}")


def format_speed(row: Result, kind: str) -> str:
    """Units per second, with the share of the matmul rate if it is known."""
    share = row[f"{kind}_share_of_matmul"]
    return f"{row[f'{kind}_per_second']:,.0f}" + (f" ({share:.0%})" if share else "")


def write_json(results: Result, path: str) -> None:
    """Writes the results to a file."""
    Path(path).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def with_flag_values(arguments: list[str]) -> list[str]:
    """The arguments with `--gpu` alone as `--gpu=true`."""
    following = [*arguments, ""][1:]
    return [
        "--gpu=true" if word == "--gpu" and value not in ("true", "false") else word
        for word, value in zip(arguments, following, strict=True)
    ]


if __name__ == "__main__":
    commands = {"text": text, "image": image, "quality": quality, "inpainting": inpainting}
    commands["scaling"] = scaling
    run_script(commands, args=with_flag_values(sys.argv[1:]))
