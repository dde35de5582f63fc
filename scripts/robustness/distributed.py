"""One run on several numbers of processes, in several micro-batches, stopped and resumed.

The weights are compared with those of one process without interruptions.
"""

import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from robustness.harness import Result, TinyRun, scratch_folder, start_child, wait, wait_until
from textdiff.training import checkpoint

TOLERANCES = {torch.float32: 1e-6, torch.float64: 1e-12}
Weights = dict[str, torch.Tensor]


def distributed(run: TinyRun, folder: Path) -> Iterator[Result]:
    """All comparisons."""
    for part in (divided_batches, moved_run, two_launchers):
        yield from part(run, folder)


def divided_batches(run: TinyRun, folder: Path, steps: int = 50) -> Iterator[Result]:
    """A batch on 1 or 2 processes, in 1 to 8 micro-batches each, gives the same weights."""
    rarely = {"save_every": 1000, "valid_every": 1000}
    # 20 examples in 16 micro-batches: some have two
    run = run.at(folder, steps=steps, batch_size=20, optimizer="adamw", **rarely)
    divisions = [(world, parts) for world in (1, 2) for parts in (1, 2, 4, 8)][1:]
    for dtype, tolerance in TOLERANCES.items():
        expected = _final_weights(run.at(folder / "complete"), dtype)
        distances = {
            (world, parts): _distance(
                _final_weights(run.at(folder / "divided", accumulation=parts), dtype, world),
                expected,
            )
            for world, parts in divisions
        }
        worst = max(distances, key=lambda division: distances[division])
        what = "1 and 2 processes, 1, 2, 4 and 8 micro-batches"
        largest = f"worst {distances[worst]:.1e}, {worst[0]} x {worst[1]}"
        claim = f"{run.name}, {str(dtype)[6:]}: {what}: weights within {tolerance:g} ({largest})"
        held = sum(distance <= tolerance for distance in distances.values())
        yield Result(claim, held, len(distances))


def moved_run(run: TinyRun, folder: Path) -> Iterator[Result]:
    """A run is stopped and resumed on 1, 2 and 1 processes, with other checkpoint intervals."""
    rarely = {"save_every": 1000, "valid_every": 10_000, "log_every": 1000}
    run = run.at(folder, steps=3000, batch_size=4, optimizer="adamw", **rarely)
    expected = _final_weights(run.at(folder / "complete"), torch.float64)
    with scratch_folder(folder / "moved") as home:
        stops = [
            _stop_after_checkpoint(run.at(home, save_every=interval), world)
            for world, interval in ((1, 70), (2, 110))
        ]
        _complete(run.at(home), torch.float64, 1)
        distance = _distance(_newest_weights(home), expected)
    what = f"resumed on 1, 2, 1 processes after steps {' and '.join(map(str, stops))}"
    claim = f"{run.name}, float64: {what}: weights within 1e-12 ({distance:.1e})"
    yield Result(claim, int(distance <= 1e-12), 1)


def two_launchers(run: TinyRun, folder: Path) -> Iterator[Result]:
    """Two launchers on the loopback device, as on two machines, give the weights of one process."""
    run = run.at(folder / f"single-{run.name}", steps=20, optimizer="adamw", save_every=1000)
    run.complete()
    script = {"text": "scripts/train_text.py", "images": "scripts/train_image.py"}[run.name]
    address = ["--master_addr", "127.0.0.1", "--master_port", str(_free_port())]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", *address]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with scratch_folder(folder / "launched") as home:
        options = ["--config", str(run.path / "config.yaml"), "--run", str(home)]
        launchers = [
            subprocess.Popen([*launch, "--node_rank", rank, "--", script, *options], **silent)
            for rank in ("0", "1")
        ]
        codes = [launcher.wait(120) for launcher in launchers]
        distance = math.inf
        if not any(codes):
            distance = _distance(_newest_weights(home), _newest_weights(run.path))
    claim = f"{run.name}, float32: two launchers on loopback: weights within 1e-6 ({distance:.1e})"
    yield Result(claim, int(distance <= 1e-6), 1)


def _final_weights(run: TinyRun, dtype: torch.dtype, world: int = 1) -> Weights:
    """Weights at the end of a run in a new folder."""
    with scratch_folder(run.path):
        _complete(run, dtype, world)
        return _newest_weights(run.path)


def _complete(run: TinyRun, dtype: torch.dtype, world: int) -> None:
    codes = [wait(child) for child in _start(run, dtype, world)]
    if any(codes):
        raise RuntimeError(f"processes of a run of {run.name} ended with exit codes {codes}")


def _start(run: TinyRun, dtype: torch.dtype, world: int) -> list[int]:
    """Starts a run on several processes, as torchrun does."""
    port = _free_port()
    return [start_child(partial(_train, run, dtype, rank, world, port)) for rank in range(world)]


def _train(run: TinyRun, dtype: torch.dtype, rank: int, world: int, port: int) -> None:
    """Trains in one of several processes."""
    if world > 1:
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        os.environ |= {name: str(value) for name, value in ranks.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_default_dtype(dtype)
    run.resume()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _stop_after_checkpoint(run: TinyRun, world: int) -> int:
    """Trains until there is a new checkpoint, stops the run and returns its last step."""
    state = run.path / "state"
    before = checkpoint.list_checkpoints(state)
    children = _start(run, torch.float64, world)
    wait_until(lambda: checkpoint.list_checkpoints(state) != before, children[0])
    os.kill(children[0], signal.SIGTERM)
    codes = [wait(child) for child in children]
    if set(codes) != {130}:
        raise RuntimeError(f"a run of {run.name} that was stopped ended with exit codes {codes}")
    return int(checkpoint.list_checkpoints(state)[-1].name.removeprefix("step-"))


def _newest_weights(home: Path) -> Weights:
    """The weights of the newest checkpoint and their average."""
    saved = checkpoint.load_latest(home / "state")
    assert saved is not None
    groups = {name: saved.tensors[name] for name in ("model", "ema")}
    return {
        f"{group}.{k}": tensor for group, named in groups.items() for k, tensor in named.items()
    }


def _distance(found: Weights, expected: Weights) -> float:
    """Distance of all weights in the Euclidean norm, relative to the norm of the expected ones."""
    x, y = (
        torch.cat([weights[name].flatten().double() for name in sorted(weights)])
        for weights in (found, expected)
    )
    return float((x - y).norm() / y.norm())
