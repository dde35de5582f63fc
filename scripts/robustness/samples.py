"""Reproducible samples: the same in any batch size and order, and for any number of processes."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from image import sampling as image_sampling
from robustness.harness import Result, TinyRun, run_child, scratch_folder
from textdiff.config import Precision, SamplingConfig
from textdiff.sampling import collect
from textdiff.text import hub as text_hub
from textdiff.text import sampling as text_sampling
from textdiff.text.requests import sample_request

SEED, STEPS = 3, 8
# float32, because in bf16 a sample may depend on the others in its batch
PRECISION: Precision = "no"
OPTIONS = f"--seed {SEED} --steps {STEPS} --batch_size 7 --precision {PRECISION}".split()


def samples(run: TinyRun, folder: Path, n: int) -> Iterator[Result]:
    """Sample i depends only on the seed and on i."""
    trained = run.at(folder / f"sampled-{run.name}")
    trained.complete()
    expected = _sample(trained, n, n)
    same = [
        _sample(trained, n, batch_size, order) == expected
        for batch_size in (1, 2, 7, n)
        for order in (None, 0)
    ]
    batches = f"{n} samples in batches of 1, 2, 7 and {n}, in order and shuffled"
    yield Result(f"{run.name}: {batches}: the same", sum(same), len(same))
    one, two = (_sample_by_command(trained, n, world, folder) for world in (1, 2))
    held = one == two and len(one) == n
    yield Result(f"{run.name}: {n} samples by 1 and by 2 processes: the same", int(held), 1)


def _sample(run: TinyRun, n: int, batch_size: int, shuffle_seed: int | None = None) -> str:
    """Samples as JSON, from a child process.

    Args:
        shuffle_seed: Seed of the order in which samples are computed. If None, they are in order.
    """
    order = list(range(n))
    if shuffle_seed is not None:
        random.Random(shuffle_seed).shuffle(order)
    sample = {"text": _sample_text, "images": _sample_images}[run.name]
    config = SamplingConfig(steps=STEPS, seed=SEED, batch_size=batch_size, precision=PRECISION)
    code, output = run_child(partial(sample, run, order, config))
    if code:
        raise RuntimeError(f"sampling of {run.name} ended with exit code {code}: {output}")
    return output.splitlines()[-1]


def _sample_text(run: TinyRun, order: list[int], config: SamplingConfig) -> None:
    model, tokenizer = text_hub.load_model(str(run.path))
    request = sample_request(model, len(order), seed=SEED)

    def rows(request: Any, batch_size: int) -> Iterator[list[int]]:
        for first in range(0, len(order), batch_size):
            yield order[first : first + batch_size]

    assert callable(text_sampling._rows)
    if order != sorted(order):
        text_sampling._rows = rows
    batches = text_sampling.generate(model, tokenizer, request, config)
    print(json.dumps(list(collect(batches))))


def _sample_images(run: TinyRun, order: list[int], config: SamplingConfig) -> None:
    model = image_sampling.load_model(str(run.path))
    request, rows = image_sampling.sample_request(model, len(order), seed=SEED), torch.tensor(order)
    assert request.label is not None
    request = replace(request, keys=request.keys[rows], label=request.label[rows])
    found = torch.stack([*collect(image_sampling.generate(model, request, config))])
    print(json.dumps(found[rows.argsort()].tolist()))


def _sample_by_command(run: TinyRun, n: int, world: int, folder: Path) -> list[bytes]:
    """Sentences, or the contents of image files, from the command line."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(world), "--"]
    command = [sys.executable, *(launcher if world > 1 else [])]
    options = [str(run.path), "--n", str(n), *OPTIONS]
    if run.name == "text":
        return _run([*command, "scripts/sample_text.py", *options]).splitlines()
    with scratch_folder(folder / "files") as home:
        files = ["--out", str(home / "grid.png"), "--files", str(home / "each")]
        _run([*command, "scripts/sample_image.py", *options, *files])
        return [path.read_bytes() for path in sorted((home / "each").iterdir())]


def _run(command: list[str]) -> bytes:
    return subprocess.run(command, capture_output=True, check=True, timeout=300).stdout
