"""One measured point of `benchmark.py scaling`, in processes of its own.

`python scripts/benchmarks/scaling_point.py JSON`, or the same under torchrun with several
processes, trains a model on random words and prints what it measured as JSON.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from benchmarks.comparison import peak_megabytes
from torch.utils.flop_counter import FlopCounterMode

from textdiff.config import TrainConfig
from textdiff.memory import keep_freed_memory
from textdiff.text.dataset import Corpus
from textdiff.text.markov_prior import PairStatistics
from textdiff.text.model import DiffusionLM, DiffusionLMConfig
from textdiff.text.pair_counts import pair_statistics
from textdiff.timing import timed
from textdiff.training.batching import MicroBatch
from textdiff.training.trainer import Trainer

DEPTH, HEAD_WIDTH, EMBED_DIM, PAIRS = 4, 32, 32, 50_000
WARM_UP, LEAST = 1, 3  # steps that are not measured, and fewest that are


@dataclass(frozen=True)
class Point:
    """A training whose cost is measured.

    Args:
        batch: Sentences per step and process.
        prior: markov or unigram.
        self_cond: Probability of self-conditioning.
        processes: Number of processes, with one thread each.
    """

    length: int = 64
    batch: int = 16
    width: int = 128
    vocab: int = 2048
    prior: str = "markov"
    self_cond: float = 0.0
    processes: int = 1

    @property
    def tokens(self) -> int:
        """Tokens per step and process."""
        return self.length * self.batch

    @property
    def config(self) -> DiffusionLMConfig:
        """The model. All words are predicted, and self-conditioning begins at once."""
        return DiffusionLMConfig(
            vocab_size=self.vocab,
            length=self.length,
            width=self.width,
            depth=DEPTH,
            heads=self.width // HEAD_WIDTH,
            embed_dim=EMBED_DIM,
            prior=self.prior,
            prior_pairs=PAIRS if self.prior == "markov" else 0,
            self_cond_prob=self.self_cond,
            self_cond_start=0.0,
            infill_prob=0.0,
            stagger_prob=0.0,
        )


@dataclass(frozen=True)
class Measured:
    """What a point needed.

    Args:
        seconds: Median time of a step: processor time, which other programs do not lengthen, or
            with several processes, which wait for each other, real time.
        megabytes: Peak memory of the main process above that of a tiny model.
        flops: Counted FLOPs of the matrix products of a step on the main process.
        exchange_seconds: Time in which the processes add up as many numbers as there are weights.
    """

    seconds: float
    megabytes: float
    flops: float
    exchange_seconds: float


def measure(point: Point, seconds: float) -> Measured:
    """Trains for about this many seconds."""
    keep_freed_memory()
    torch.set_num_threads(1)
    words = random_words(point.vocab)
    pairs = statistics_of_pairs(words, point.vocab)
    with tempfile.TemporaryDirectory() as folder:
        small = replace(point, length=4, batch=2, width=HEAD_WIDTH)
        trainer = new_trainer(small, pairs, Path(folder))
        rank = trainer.accelerator.process_index
        next(trainer.train(batches(small, words, rank)))  # loads the kernels
        before = peak_megabytes()
        trainer = new_trainer(point, pairs, Path(folder))
        steps = trainer.train(batches(point, words, rank))
        times = [step_seconds(steps, point.processes) for _ in range(WARM_UP)]
        n = max(LEAST, int(seconds / agreed(times[-1])))
        times = [step_seconds(steps, point.processes) for _ in range(n)]
        megabytes = peak_megabytes() - before
        with FlopCounterMode(display=False) as counter:
            next(steps)
    exchange = exchange_seconds(sum(p.numel() for p in trainer.raw.parameters()))
    return Measured(statistics.median(times), megabytes, counter.get_total_flops(), exchange)


def step_seconds(steps: Iterator[object], processes: int) -> float:
    """Time of the next step, as `Measured` has it."""
    clock = time.process_time if processes == 1 else time.perf_counter
    began = clock()
    next(steps)
    return clock() - began


def random_words(vocab: int, n: int = 200_000) -> np.ndarray:
    """Words whose frequencies follow Zipf's law."""
    frequency = 1 / np.arange(1, vocab + 1)
    return np.random.default_rng(0).choice(vocab, n, p=frequency / frequency.sum())


def statistics_of_pairs(words: np.ndarray, vocab: int) -> PairStatistics:
    """Statistics of `PAIRS` pairs of neighbouring words."""
    corpus = Corpus.of([words.tolist()])
    return pair_statistics(corpus, vocab, most=PAIRS)


def new_trainer(point: Point, pairs: PairStatistics, folder: Path) -> Trainer[DiffusionLM]:
    """A trainer of a new model, with Muon in float32."""
    torch.manual_seed(0)
    model = DiffusionLM(point.config)
    ones = torch.ones(point.vocab), torch.ones(point.length + 1)
    model.set_data_statistics(*ones, pairs if point.prior == "markov" else None)
    options = TrainConfig(steps=1_000_000, batch_size=point.batch, precision="no")
    return Trainer(model, options, folder, Accelerator(cpu=True))


def batches(point: Point, words: np.ndarray, rank: int) -> Iterator[list[MicroBatch]]:
    """Batches of random sentences of equal length."""
    rng = np.random.default_rng(rank)
    for step in count():
        starts = rng.integers(len(words) - point.length, size=(point.batch, 1))
        ids = torch.from_numpy(words[starts + np.arange(point.length)])
        index = torch.arange(point.batch) + point.batch * (step * point.processes + rank)
        tensors = {"ids": ids, "mask": torch.ones_like(ids, dtype=torch.bool), "index": index}
        yield [MicroBatch(tensors, 1 / point.processes, point.tokens)]


def agreed(number: float) -> float:
    """The number of the main process, on all processes."""
    value = torch.tensor(float(number))
    if dist.is_initialized():
        dist.broadcast(value, 0)
    return float(value)


def exchange_seconds(numbers: int) -> float:
    """Median time in which the processes add up so many float32 numbers; 0 on one process."""
    if not dist.is_initialized():
        return 0.0
    values, cpu = torch.zeros(numbers), torch.device("cpu")
    return statistics.median(timed(lambda: dist.all_reduce(values), cpu) for _ in range(5))


def main() -> None:
    """Measures the point of the command line."""
    given = json.loads(sys.argv[1])
    measured = measure(Point(**given["point"]), given["seconds"])
    if not dist.is_initialized() or dist.get_rank() == 0:
        print(json.dumps(asdict(measured)), flush=True)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
