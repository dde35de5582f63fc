"""The same run on other numbers of processes, in other parts, interrupted and gone on with: how far its weights are from those of one process."""

import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from injected.harness import Kind, emptied, ended, forked, run_to_the_end, until
from injected.runs import Result

from textdiff import checkpoint

BOUND = {torch.float32: 1e-6, torch.float64: 1e-12}


def splits(kind: Kind, folder: Path, steps: int = 50) -> Iterator[Result]:
    """A batch on 1 or 2 processes, in 1, 2, 4 or 8 parts each: the same weights after 50 steps, up to rounding."""
    kind = kind.at(folder, steps=steps, batch_size=20, optimizer="adamw", save_every=1000, valid_every=1000)  # 20 examples in 16 parts: some have two
    for dtype, bound in BOUND.items():
        whole = _weights(kind, folder / "whole", dtype)
        apart = {
            (world, parts): _apart(_weights(kind, folder / "parts", dtype, world, accumulate=parts), whole)
            for world in (1, 2)
            for parts in (1, 2, 4, 8)
            if (world, parts) != (1, 1)
        }
        worst = max(apart, key=lambda split: apart[split])
        what = f"{kind.name}, {str(dtype)[6:]}: 1 and 2 processes, 1, 2, 4 and 8 parts: weights within {bound:g}"
        yield f"{what} (worst {apart[worst]:.1e}, {worst[0]} x {worst[1]})", sum(distance <= bound for distance in apart.values()), len(apart)


def moved(kind: Kind, folder: Path) -> Iterator[Result]:
    """Stopped on 1 process, gone on with on 2, stopped, gone on with on 1, with other intervals between checkpoints."""
    kind = kind.at(folder, steps=3000, batch_size=4, optimizer="adamw", save_every=1000, valid_every=10_000, log_every=1000)
    whole = _weights(kind, folder / "whole", torch.float64)
    with emptied(folder / "moved") as home:
        stops = [_stopped(kind.at(home, save_every=interval), world) for world, interval in ((1, 70), (2, 110))]
        _finish(kind.at(home), torch.float64, 1)
        apart = _apart(_newest(home), whole)
    what = f"{kind.name}, float64: resumed on 1, 2, 1 processes after steps {' and '.join(map(str, stops))}, weights within 1e-12 ({apart:.1e})"
    yield what, int(apart <= 1e-12), 1


def launchers(kind: Kind, folder: Path) -> Iterator[Result]:
    """Two machines, played by two launchers on the loopback device: the same weights as one process, in float32."""
    kind = kind.at(folder, steps=20, optimizer="adamw", save_every=1000)
    run_to_the_end(kind.at(folder / f"alone-{kind.name}"))
    script = {"text": "scripts/train_text.py", "images": "scripts/train_image.py"}[kind.name]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--master_addr", "127.0.0.1", "--master_port", str(_free_port())]
    with emptied(folder / "machines") as home:
        options = ["--config", str(folder / f"alone-{kind.name}" / "config.yaml"), "--run", str(home)]
        machines = [
            subprocess.Popen([*launch, "--node_rank", str(rank), "--", script, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for rank in (0, 1)
        ]
        codes = [machine.wait(120) for machine in machines]
        apart = math.inf if any(codes) else _apart(_newest(home), _newest(folder / f"alone-{kind.name}"))
    yield f"{kind.name}, float32: two launchers on loopback: weights within 1e-6 ({apart:.1e})", int(apart <= 1e-6), 1


def _weights(kind: Kind, home: Path, dtype: torch.dtype, world: int = 1, **options: object) -> dict[str, torch.Tensor]:
    """What a run in a new folder ends with."""
    with emptied(home):
        _finish(kind.at(home, **options), dtype, world)
        return _newest(home)


def _finish(kind: Kind, dtype: torch.dtype, world: int) -> None:
    codes = [ended(child) for child in _started(kind, dtype, world)]
    if any(codes):
        raise RuntimeError(f"processes of a run of {kind.name} ended with exit codes {codes}")


def _started(kind: Kind, dtype: torch.dtype, world: int) -> list[int]:
    """A run on so many processes, as torchrun starts them."""
    port = _free_port()

    def process(rank: int) -> Callable[[], object]:
        def work() -> None:
            if world > 1:
                numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(number) for name, number in numbers.items()}}
            torch.set_default_dtype(dtype)
            kind.train(kind.config, resume=True)

        return work

    return [forked(process(rank)) for rank in range(world)]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _stopped(kind: Kind, world: int) -> int:
    """Goes on until there is a new checkpoint, is told to stop, and says after which step it did."""
    state = Path(kind.config.run, "state")
    before = checkpoint.steps(state)
    children = _started(kind, torch.float64, world)
    until(lambda: checkpoint.steps(state) != before, children[0])
    os.kill(children[0], signal.SIGTERM)
    codes = [ended(child) for child in children]
    if set(codes) != {130}:
        raise RuntimeError(f"a run of {kind.name} that was told to stop ended with {codes}")
    return int(checkpoint.steps(state)[-1].name.removeprefix("step-"))


def _newest(home: Path) -> dict[str, torch.Tensor]:
    """The weights and their average."""
    saved = checkpoint.newest(home / "state")
    assert saved is not None
    return {f"{part}.{name}": tensor for part in ("model", "ema") for name, tensor in saved.tensors[part].items()}


def _apart(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    """The distance of all weights from the others, relative to their size."""
    mine, theirs = (torch.cat([each[name].flatten().double() for name in sorted(each)]) for each in (some, others))
    return float((mine - theirs).norm() / theirs.norm())


def everything(kind: Kind, folder: Path) -> Iterator[Result]:
    for part in (splits, moved, launchers):
        yield from part(kind, folder)
