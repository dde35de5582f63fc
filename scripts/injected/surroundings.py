"""Faults around a run: numbers that are not finite, no network, nobody who listens, a dead tracker, a read-only folder; and how samples are drawn."""

import importlib.util
import json
import math
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from injected.harness import Kind, emptied, ended, fingerprint, forked, run_to_the_end
from injected.runs import Result

from image import generate as image_generate
from image.config import Sampling as ImageSampling
from image.sources import digits
from textdiff import generate as text_generate
from textdiff.config import InputError, Sampling
from textdiff.trainer import Trainer

# --- numbers that are not finite


def nonfinite(kind: Kind, folder: Path) -> Iterator[Result]:
    """NaN or infinity in the loss, a gradient or a weight: stopped before the weights change, by step and examples; or left out, so often."""
    held = []
    log = folder / "poisoned.log"
    for poison in POISONS.values():
        for value in (math.nan, math.inf):
            for options, said in (({}, "step 6, examples"), ({"on_nonfinite": "skip", "skip_limit": 2}, "(2 of at most 2)")):
                with emptied(folder / "poisoned") as home:
                    log.unlink(missing_ok=True)
                    code = ended(forked(partial(_poisoned, kind.at(home, **options), poison, value), log))
                    told = log.read_text(errors="replace", encoding="utf-8")
                    held.append(code == 2 and said in told and "not finite" in told and "weights unchanged" in told)
    yield f"{kind.name}: NaN and infinity in loss, gradients, weights: stopped or counted, weights unchanged", sum(held), len(held)


def _in_loss(model: torch.nn.Module, value: float) -> None:
    forward = model.forward
    model.forward = lambda *args, **tensors: {name: term * value for name, term in forward(*args, **tensors).items()}  # type: ignore[method-assign]


def _in_gradient(model: torch.nn.Module, value: float) -> None:
    next(p for p in model.parameters() if p.requires_grad).register_hook(lambda gradient: gradient + value)


def _in_weights(model: torch.nn.Module, value: float) -> None:
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).view(-1)[0] = value


POISONS: dict[str, Callable[[torch.nn.Module, float], None]] = {"loss": _in_loss, "gradient": _in_gradient, "weights": _in_weights}


def _poisoned(kind: Kind, poison: Callable[[torch.nn.Module, float], None], value: float) -> None:
    """A run that is poisoned after its fifth step, and says on its death whether the weights are what they were then."""
    step, before = Trainer._one_step, dict[str, torch.Tensor]()

    def poisoned(trainer: Trainer[Any], batches: Any) -> Any:
        if trainer.step == 5:
            poison(trainer.raw, value)
            before.update({name: weight.detach().clone() for name, weight in trainer.raw.named_parameters()})
        try:
            return step(trainer, batches)
        except InputError:
            same = all(torch.equal(before[name].nan_to_num(), now.nan_to_num()) for name, now in trainer.raw.named_parameters())
            print("weights unchanged" if same else "weights changed", flush=True)
            raise

    Trainer._one_step = poisoned  # type: ignore[method-assign]
    kind.train(kind.config)


# --- nobody there


def nobody_there(kind: Kind, folder: Path) -> Iterator[Result]:
    """No network, no reader of what is said, a tracker that dies, a folder that is read-only."""
    whole = kind.at(folder / f"heard-{kind.name}")
    run_to_the_end(whole)
    expected = fingerprint(Path(whole.config.run))
    held = []
    for surroundings in (_no_network, _no_reader, _full_terminal):
        with emptied(folder / "alone") as home:
            code = ended(forked(partial(_within, surroundings, kind.at(home))))
            held.append(code == 0 and fingerprint(home) == expected)
    yield f"{kind.name}: no network (no connection attempted), no reader, a full terminal: the same bytes", sum(held), len(held)
    with emptied(folder / "alone") as home:
        log = folder / "tracker.log"
        code = ended(forked(partial(_with_dead_tracker, kind.at(home, trackers="tensorboard")), log))
        told = log.read_text(errors="replace", encoding="utf-8")
        held = [code == 0 and told.count("tensorboard failed") == 1 and fingerprint(home) == expected]
        log.unlink()
    yield f"{kind.name}: a tracker that dies: told once, the same bytes", sum(held), len(held)
    held = [_read_only(kind, folder, place) for place in (".", "state", "model")]
    yield f"{kind.name}: a folder that is read-only: one line, the checkpoint before is whole, and it goes on later", sum(held), len(held)


def _within(surroundings: Callable[[], None], kind: Kind) -> None:
    surroundings()
    kind.train(kind.config)
    load = {"text": text_generate.load, "images": image_generate.load}[kind.name]
    load(kind.config.run)


def _no_network() -> None:
    """Whoever tries to connect, or to ask for an address, ends the process."""

    def refuse(*args: object) -> None:
        os._exit(1)

    socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse  # type: ignore[assignment,method-assign]


def _no_reader() -> None:
    """As of `textdiff train | head` when head has seen enough."""
    reading, writing = os.pipe()
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    os.close(reading)


def _full_terminal() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    os.dup2(full, 2)


def _with_dead_tracker(kind: Kind) -> None:
    def dies(*args: object, **kwargs: object) -> None:
        raise ConnectionError("nobody answers")

    importlib.util.find_spec = lambda name: True  # type: ignore[assignment]  # as if it were installed
    Accelerator.init_trackers = dies  # type: ignore[method-assign]
    kind.train(kind.config)


def _read_only(kind: Kind, folder: Path, place: str) -> bool:
    """Told in one line by whoever may not write there (root may write anywhere, so a child of root's becomes nobody)."""
    folder.chmod(0o755)
    with emptied(folder / "read-only") as home:
        run_to_the_end(kind.at(home, steps=4))
        with _without_rights(home / place):
            log = folder / "read-only.log"
            longer = kind.at(home, steps=8, save_every=4)
            code, told = ended(forked(partial(_as_nobody, longer), log)), log.read_text(errors="replace", encoding="utf-8")
            log.unlink()
        said = code == 2 and "ermission denied" in told and "Traceback" not in told
        return said and ended(forked(lambda: longer.train(longer.config, resume=True))) == 0


@contextmanager
def _without_rights(place: Path) -> Iterator[None]:
    """Nobody may write there, but everywhere else."""
    home = place if place.name == "read-only" else place.parent
    for path in (home, *home.rglob("*")):
        path.chmod(0o777)
    place.chmod(0o555)
    try:
        yield
    finally:
        place.chmod(0o777)


def _as_nobody(kind: Kind) -> None:
    if os.geteuid() == 0:
        digits()  # its libraries are loaded now, for nobody may read root's files
        os.setgid(65534)
        os.setuid(65534)
    kind.train(kind.config, resume=True)


# --- samples


def samples(kind: Kind, folder: Path, n: int) -> Iterator[Result]:
    """The same seed gives the same sentence and the same image i in batches of every size, in any order, on one process and on two."""
    trained = kind.at(folder / f"drawn-{kind.name}")
    run_to_the_end(trained)
    wanted = _drawn(trained, n, n, None, folder)
    others = [_drawn(trained, n, size, seed, folder) for size in (1, 2, 7, n) for seed in (None, 0)]
    same = sum(drawn == wanted for drawn in others)
    yield f"{kind.name}: {n} samples in batches of 1, 2, 7 and {n}, in order and shuffled: the same", same, len(others)
    apart = [_drawn_by_script(trained, n, world, folder) for world in (1, 2)]
    yield f"{kind.name}: {n} samples by 1 and by 2 processes: the same", int(apart[0] == apart[1] and len(apart[0]) == n), 1


def _drawn(kind: Kind, n: int, size: int, shuffled: int | None, folder: Path) -> str:
    """As text, by a child."""
    log = folder / "drawn.log"
    log.unlink(missing_ok=True)
    draw = {"text": _sentences, "images": _pictures}[kind.name]
    if code := ended(forked(lambda: print(json.dumps(draw(kind, n, size, shuffled))), log)):
        raise RuntimeError(f"drawing samples of {kind.name} ended with exit code {code}: {log.read_text(errors='replace', encoding='utf-8')}")
    return log.read_text(encoding="utf-8").splitlines()[-1]


def _sentences(kind: Kind, n: int, size: int, shuffled: int | None) -> list[list[int]]:
    model, tokenizer = text_generate.load(kind.config.run)
    task, options = text_generate.from_noise(model, n, seed=3), Sampling(steps=8, batch_size=size)
    if shuffled is not None:
        order = random.Random(shuffled).sample(range(n), n)
        text_generate._batches = lambda task, size: iter([order[i : i + size] for i in range(0, n, size)])  # type: ignore[assignment,misc]
    return list(text_generate.finished(text_generate.generate(model, tokenizer, task, replace(options, seed=3))))


def _pictures(kind: Kind, n: int, size: int, shuffled: int | None) -> list[Any]:
    model = image_generate.load(kind.config.run)
    task, options = image_generate.from_noise(model, n, seed=3), ImageSampling(steps=8, batch_size=size)
    order = torch.tensor(range(n) if shuffled is None else random.Random(shuffled).sample(range(n), n))
    assert task.label is not None
    task = replace(task, keys=task.keys[order], label=task.label[order])
    drawn: list[Any] = image_generate.finished(image_generate.generate(model, task, options))[order.argsort()].tolist()
    return drawn


def _drawn_by_script(kind: Kind, n: int, world: int, folder: Path) -> list[bytes]:
    """Sentences, or the bytes of image files, by the command line."""
    launch = [sys.executable, *(["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(world), "--"] if world > 1 else [])]
    common = [kind.config.run, "--n", str(n), "--seed", "3", "--steps", "8", "--batch_size", "7"]
    if kind.name == "text":
        done = subprocess.run([*launch, "scripts/sample_text.py", *common], capture_output=True, check=True, timeout=300)
        return done.stdout.splitlines()
    with emptied(folder / "files") as home:
        places = ["--out", str(home / "grid.png"), "--files", str(home / "each")]
        subprocess.run([*launch, "scripts/sample_image.py", *common, *places], capture_output=True, check=True, timeout=300)
        return [path.read_bytes() for path in sorted((home / "each").iterdir())]
