"""NaN and infinity in the loss, in a gradient or in a weight."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from robustness.harness import Result, TinyRun, run_child, scratch_folder
from textdiff.config import UserError
from textdiff.training.trainer import Trainer

Injection = Callable[[torch.nn.Module, float], None]
OPTIONS = (  # options of training, and the message that they lead to
    ({}, "step 6, examples"),
    ({"on_nonfinite": "skip", "skip_limit": 2}, "(2 of 2)"),
)
UNCHANGED = "test: the weights did not change"


def nonfinite(run: TinyRun, folder: Path) -> Iterator[Result]:
    """A step that is not finite never changes the weights. It ends the run or is skipped."""
    held = []
    for inject in INJECTIONS.values():
        for value in (math.nan, math.inf):
            for options, message in OPTIONS:
                with scratch_folder(folder / "nonfinite") as home:
                    work = partial(_train_injected, run.at(home, **options), inject, value)
                    code, output = run_child(work)
                expected = (message, "not finite", UNCHANGED)
                held.append(code == 2 and all(part in output for part in expected))
    claim = "NaN and infinity in loss, gradients, weights: stopped or skipped, weights unchanged"
    yield Result(f"{run.name}: {claim}", sum(held), len(held))


def _inject_into_loss(model: torch.nn.Module, value: float) -> None:
    forward = model.forward

    def injected(*args: Any, **tensors: Any) -> dict[str, torch.Tensor]:
        return {name: term * value for name, term in forward(*args, **tensors).items()}

    model.forward = injected  # type: ignore[method-assign]


def _inject_into_gradient(model: torch.nn.Module, value: float) -> None:
    parameter = next(p for p in model.parameters() if p.requires_grad)
    parameter.register_hook(lambda gradient: gradient + value)


def _inject_into_weights(model: torch.nn.Module, value: float) -> None:
    kinds = (torch.nn.Linear, torch.nn.Conv2d)  # every step uses all of their weights
    layer = next(module for module in model.modules() if isinstance(module, kinds))
    with torch.no_grad():
        layer.weight.view(-1)[0] = value


INJECTIONS: dict[str, Injection] = {
    "loss": _inject_into_loss,
    "gradient": _inject_into_gradient,
    "weights": _inject_into_weights,
}


def _train_injected(run: TinyRun, inject: Injection, value: float) -> None:
    """Injects the value after the fifth step, and prints whether the weights change later."""
    train = Trainer.train

    def injected(trainer: Trainer[Any], batches: Any) -> Iterator[Any]:
        before: dict[str, torch.Tensor] = {}
        try:
            for done in train(trainer, batches):
                yield done
                if done.step == 5:
                    inject(trainer.raw, value)
                    before = {
                        name: p.detach().clone() for name, p in trainer.raw.named_parameters()
                    }
        except UserError:
            after = dict(trainer.raw.named_parameters())
            same = (
                torch.equal(p.nan_to_num(), after[name].nan_to_num()) for name, p in before.items()
            )
            print(UNCHANGED if before and all(same) else "test: the weights changed", flush=True)
            raise

    Trainer.train = injected  # type: ignore[method-assign]
    run.train()
