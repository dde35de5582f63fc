"""How fast it is: `python scripts/benchmark.py text` and `python scripts/benchmark.py image`.

text: the denoiser against a BERT encoder of the same size in Diffusion-LM's shape (arXiv:2205.14217) built from transformers. image: the U-Net
against UNet2DModel of diffusers of the same size, and a step of the samplers, without network, against diffusers' schedulers.

A training step (forward, backward, fused AdamW) and a network evaluation of both, interleaved in one run, as tokens or images a second, share of
the machine's own matmul rate, and memory. Medians and their ratios; a JSON file beside the table.
"""

import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse import auto_cli
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn
from tqdm import tqdm
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertEncoder

from image.unet import UNet
from textdiff.config import Sampling
from textdiff.diffusion.chain import Chain
from textdiff.diffusion.gaussian import Prediction
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.generate import from_noise, generate
from textdiff.lm import DiffusionLM, DiffusionLMConfig
from textdiff.transformer import TextDenoiser
from textdiff.vocab import MASK, PAD, UNK

EMBED, LENGTH = 16, 64
PRECISIONS = {"bf16": torch.bfloat16, "float32": torch.float32}


class BertDenoiser(nn.Module):
    """x_t and the noise level through BERT's encoder: two layers up, learned positions, a time embedding, two layers down."""

    def __init__(self, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        shape = BertConfig(
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=width // 64,
            intermediate_size=4 * width,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        self.up = nn.Sequential(nn.Linear(EMBED, width), nn.Tanh(), nn.Linear(width, width))
        self.level = nn.Sequential(nn.Linear(1, 4 * 128), nn.SiLU(), nn.Linear(4 * 128, width))
        self.place = nn.Parameter(torch.randn(LENGTH, width) * 0.02)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        self.encoder = BertEncoder(shape)
        self.down = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, EMBED))

    def forward(self, x_t: Tensor, logsnr: Tensor) -> Tensor:
        h = self.up(x_t) + self.level(logsnr.unsqueeze(1)).unsqueeze(1) + self.place
        return self.down(self.encoder(self.dropout(self.norm(h))).last_hidden_state)


class OurDenoiser(nn.Module):
    """textdiff's transformer and one layer down."""

    def __init__(self, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.denoiser = TextDenoiser(EMBED, width, depth, width // 64, LENGTH, dropout)
        self.down = nn.Linear(width, EMBED)

    def forward(self, x_t: Tensor, logsnr: Tensor) -> Tensor:
        real = torch.ones(x_t.shape[:2], dtype=torch.bool, device=x_t.device)
        index = torch.arange(len(x_t), device=x_t.device) if self.training else None
        return self.down(self.denoiser(x_t, logsnr, torch.zeros_like(x_t), ~real, real, index))


class TheirUNet(nn.Module):
    """UNet2DModel of diffusers, with attention at half resolution."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.unet = UNet2DModel(
            sample_size=32,
            in_channels=1,
            out_channels=1,
            layers_per_block=blocks,
            block_out_channels=(width, 2 * width, 2 * width),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=64,
        )

    def forward(self, x_t: Tensor, logsnr: Tensor) -> Tensor:
        return self.unet(x_t, logsnr).sample


def our_unet(width: int, blocks: int) -> UNet:
    return UNet(1, width, (1, 2, 2), blocks, (1,))


class Subject(NamedTuple):
    """What is compared: builders by name, ours first; what one example of their input is; how many tokens or images it counts for."""

    builders: dict[str, Callable[..., nn.Module]]
    example: tuple[int, ...]
    count: int


SUBJECTS = {
    "text": Subject({"textdiff": OurDenoiser, "BERT encoder": BertDenoiser}, (LENGTH, EMBED), LENGTH),
    "image": Subject({"textdiff": our_unet, "diffusers": TheirUNet}, (1, 32, 32), 1),
}


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
    device = torch.device("cuda" if gpu else "cpu")
    shapes = shapes or ([(512, 16), (768, 12)] if gpu else [(384, 6), (256, 4)])
    batch_size = batch_size or (512 if gpu else 16)
    rates = {name: matmul_rate(dtype, device) for name, dtype in PRECISIONS.items()}
    machine = torch.cuda.get_device_name() if gpu else f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    print(f"{machine}, torch {torch.__version__}; matmul: " + ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in rates.items()))
    rows = []
    for width, depth in shapes:
        flops = 2 * LENGTH * depth * (12 * width**2 + 2 * LENGTH * width)
        for precision, rate in rates.items():
            rows += compared("text", f"{width} x {depth}", (width, depth, dropout), precision, batch_size, rounds, device, flops / rate)
    show(rows, "tokens")
    speed = sentences_per_second(device)
    print("\nsentences/s, 25 tokens, 192 x 6, 32-d embeddings, 2,600 words, float32: " + ", ".join(f"{n} steps {s:.1f}" for n, s in speed.items()))
    figures = {"machine": machine, "torch": torch.__version__, "matmul_flops": rates, "denoisers": rows, "sentences_per_second": speed}
    Path(out).write_text(json.dumps(figures, indent=2) + "\n")


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
    device = torch.device("cuda" if gpu else "cpu")
    rates = {name: matmul_rate(dtype, device) for name, dtype in PRECISIONS.items()}
    machine = torch.cuda.get_device_name() if gpu else f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    print(f"{machine}, torch {torch.__version__}; matmul: " + ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in rates.items()))
    rows = []
    for precision in rates:
        rows += compared("image", f"{width}, 1 2 2, {blocks}", (width, blocks), precision, batch_size, rounds, device)
    show(rows, "images")
    overhead = sampler_overhead()
    for name, (ours, theirs) in overhead.items():
        print(f"a step of {name} on 1x1x8x8 without network: {ours:.1f} us, diffusers {theirs:.1f} us ({ours / theirs:.2f} of it)")
    figures = {"machine": machine, "torch": torch.__version__, "matmul_flops": rates, "denoisers": rows, "step_microseconds": overhead}
    Path(out).write_text(json.dumps(figures, indent=2) + "\n")


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


def matmul_rate(dtype: torch.dtype, device: torch.device, n: int = 2048) -> float:
    """FLOP/s of the best of ten products of n x n matrices."""
    a, b = torch.randn(2, n, n, device=device, dtype=dtype)
    return 2 * n**3 / min(timed(lambda: a @ b, device) for _ in range(10))


def compared(
    subject: str,
    shape: str,
    size: tuple[float, ...],
    precision: str,
    batch_size: int,
    rounds: int,
    device: torch.device,
    seconds_of_matmul: float | None = None,
) -> list[dict[str, Any]]:
    """Both contenders at one size, their runs taking turns; `seconds_of_matmul` is what the products of one example's evaluation would take."""
    names = SUBJECTS[subject].builders
    runs = {name: Contender(subject, name, size, precision, batch_size, device) for name in names}
    work = {(name, what): getattr(run, what) for name, run in runs.items() for what in ("step", "evaluate")}
    seconds = interleaved(work, rounds, device, f"{shape} {precision}")
    examples = batch_size * SUBJECTS[subject].count
    share = seconds_of_matmul * batch_size if seconds_of_matmul else None  # of an evaluation; a step takes three times as much
    return [
        {
            "denoiser": name,
            "shape": shape,
            "precision": precision,
            "parameters": sum(p.numel() for p in runs[name].model.parameters()),
            "step_per_second": examples / seconds[name, "step"],
            "step_share_of_matmul": share and 3 * share / seconds[name, "step"],
            "evaluation_per_second": examples / seconds[name, "evaluate"],
            "evaluation_share_of_matmul": share and share / seconds[name, "evaluate"],
            "step_megabytes": memory(subject, name, size, precision, batch_size, device),
        }
        for name in names
    ]


class Contender:
    """A denoiser with its optimizer and a batch."""

    def __init__(self, subject: str, name: str, size: tuple[Any, ...], precision: str, batch_size: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.model = SUBJECTS[subject].builders[name](*size).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.x0 = torch.randn(batch_size, *SUBJECTS[subject].example, device=device)
        self.logsnr = torch.linspace(-6, 6, batch_size, device=device)
        self.autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
        self.network: Callable[[Tensor, Tensor], Tensor] = torch.compile(self.model) if device.type == "cuda" else self.model

    def step(self) -> None:
        self.model.train()
        with self.autocast:
            loss = (self.network(self.x0, self.logsnr) - self.x0).square().mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def evaluate(self) -> None:
        self.model.eval()
        with self.autocast:
            self.network(self.x0, self.logsnr)


def memory(*arguments: Any) -> float:
    """Megabytes that a training step adds to a process, at the most: on the CPU, measured in a process of its own."""
    if arguments[-1].type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        contender = Contender(*arguments)
        for _ in range(3):
            contender.step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        return alone.submit(_resident_growth, *arguments).result()


def _resident_growth(*arguments: Any) -> float:
    before = _peak_megabytes()
    contender = Contender(*arguments)
    for _ in range(3):
        contender.step()
    return _peak_megabytes() - before


def _peak_megabytes() -> float:
    """Of this process alone: what getrusage says on Linux includes the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        (peak,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, kilobytes elsewhere


def interleaved(work: dict[Any, Callable[[], object]], rounds: int, device: torch.device, label: str) -> dict[Any, float]:
    """Median seconds of each piece of work, their runs taking turns; two rounds to warm up."""
    seconds: dict[Any, list[float]] = {key: [] for key in work}
    for number in tqdm(range(rounds + 2), desc=label, unit="round", leave=False):
        for key, run in work.items():
            taken = timed(run, device)
            if number >= 2:
                seconds[key].append(taken)
    return {key: statistics.median(each) for key, each in seconds.items()}


def timed(run: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def sentences_per_second(device: torch.device, n: int = 64) -> dict[int, float]:
    """Whole sampling, by number of steps, from a model of the default size with weights as they are at first."""
    words = [PAD, UNK, MASK, *(f"word{i}" for i in range(2597))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNK))
    model = DiffusionLM(DiffusionLMConfig(vocab_size=len(words))).eval()
    nn.Module.to(model, device)  # transformers hides its signature from the type checker
    speed = {}
    for steps in (8, 32, 128):
        task = from_noise(model, n, seed=0, length=25)
        speed[steps] = n / timed(lambda: exhausted(generate(model, tokenizer, task, Sampling(steps=steps))), device)  # noqa: B023
    return speed


def exhausted(drafts: Iterator[object]) -> None:
    for _ in drafts:
        pass


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
        for other in PRECISIONS if precision == "bf16" else [precision]:
            theirs = by[shape, other, theirs_name]
            step, evaluation = (ours[f"{what}_per_second"] / theirs[f"{what}_per_second"] for what in ("step", "evaluation"))
            print(f"{shape}: {precision} against {theirs_name} in {other}: step {step:.2f}, evaluation {evaluation:.2f} times as fast")


def speed(row: dict[str, Any], what: str) -> str:
    share = row[f"{what}_share_of_matmul"]
    return f"{row[f'{what}_per_second']:,.0f}" + (f" ({share:.0%})" if share else "")


if __name__ == "__main__":
    auto_cli({"text": text, "image": image}, as_positional=False)
