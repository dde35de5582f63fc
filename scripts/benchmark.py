"""How fast it is: `python scripts/benchmark.py text`.

The denoiser, against a BERT encoder of the same size in Diffusion-LM's shape (arXiv:2205.14217) built from transformers: a training step
(forward, backward, fused AdamW; both with dropout) and a network evaluation, interleaved in one run, as tokens/s, share of the machine's
own matmul rate, and memory. Then whole sentences a second from the text model. Medians and their ratios; benchmark.json beside the table.
"""

import json
import math
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn
from tqdm import tqdm
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertEncoder

from textdiff.config import Sampling
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


CONTENDERS: dict[str, type[OurDenoiser] | type[BertDenoiser]] = {"textdiff": OurDenoiser, "BERT encoder": BertDenoiser}


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
        for precision, rate in rates.items():
            rows += denoisers(width, depth, precision, batch_size, dropout, rounds, device, rate)
    show(rows)
    speed = sentences_per_second(device)
    print("\nsentences/s, 25 tokens, 192 x 6, 32-d embeddings, 2,600 words, float32: " + ", ".join(f"{n} steps {s:.1f}" for n, s in speed.items()))
    figures = {"machine": machine, "torch": torch.__version__, "matmul_flops": rates, "denoisers": rows, "sentences_per_second": speed}
    Path(out).write_text(json.dumps(figures, indent=2) + "\n")


def matmul_rate(dtype: torch.dtype, device: torch.device, n: int = 2048) -> float:
    """FLOP/s of the best of ten products of n x n matrices."""
    a, b = torch.randn(2, n, n, device=device, dtype=dtype)
    return 2 * n**3 / min(timed(lambda: a @ b, device) for _ in range(10))


def denoisers(
    width: int, depth: int, precision: str, batch_size: int, dropout: float, rounds: int, device: torch.device, rate: float
) -> list[dict[str, Any]]:
    """Both contenders at one size, their runs taking turns."""
    runs = {name: Contender(name, width, depth, precision, batch_size, dropout, device) for name in CONTENDERS}
    work = {(name, what): getattr(run, what) for name, run in runs.items() for what in ("step", "evaluate")}
    seconds = interleaved(work, rounds, device, f"{width} x {depth} {precision}")
    tokens = batch_size * LENGTH
    flops = 2 * tokens * depth * (12 * width**2 + 2 * LENGTH * width)  # one evaluation; a step takes three times as many
    return [
        {
            "denoiser": name,
            "shape": f"{width} x {depth}",
            "precision": precision,
            "parameters": sum(p.numel() for p in runs[name].model.parameters()),
            "step_tokens_per_second": tokens / seconds[name, "step"],
            "step_share_of_matmul": 3 * flops / seconds[name, "step"] / rate,
            "evaluation_tokens_per_second": tokens / seconds[name, "evaluate"],
            "evaluation_share_of_matmul": flops / seconds[name, "evaluate"] / rate,
            "step_megabytes": memory(name, width, depth, precision, batch_size, dropout, device),
        }
        for name in runs
    ]


class Contender:
    """A denoiser with its optimizer and a batch."""

    def __init__(self, name: str, width: int, depth: int, precision: str, batch_size: int, dropout: float, device: torch.device) -> None:
        torch.manual_seed(0)
        self.model = CONTENDERS[name](width, depth, dropout).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.x0, self.logsnr = torch.randn(batch_size, LENGTH, EMBED, device=device), torch.linspace(-6, 6, batch_size, device=device)
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


def show(rows: list[dict[str, Any]]) -> None:
    print("shape     precision  denoiser       parameters   step tokens/s (of matmul)   evaluation tokens/s (of matmul)   step MB")
    for row in rows:
        step, evaluation = (f"{row[f'{what}_tokens_per_second']:,.0f} ({row[f'{what}_share_of_matmul']:.0%})" for what in ("step", "evaluation"))
        size = f"{row['parameters'] / 1e6:.1f} M"
        print(f"{row['shape']:9} {row['precision']:10} {row['denoiser']:14} {size:>10} {step:>27} {evaluation:>33} {row['step_megabytes']:9.0f}")
    by = {(row["shape"], row["precision"], row["denoiser"]): row for row in rows}
    for shape, precision in dict.fromkeys((row["shape"], row["precision"]) for row in rows):
        ours = by[shape, precision, "textdiff"]
        for other in PRECISIONS if precision == "bf16" else [precision]:
            theirs = by[shape, other, "BERT encoder"]
            ratios = [ours[f"{what}_tokens_per_second"] / theirs[f"{what}_tokens_per_second"] for what in ("step", "evaluation")]
            mean = math.sqrt(ratios[0] * ratios[1])
            print(f"{shape}: {precision} against {other}: step {ratios[0]:.2f}, evaluation {ratios[1]:.2f} times as fast (mean {mean:.2f})")


if __name__ == "__main__":
    auto_cli({"text": text}, as_positional=False)
