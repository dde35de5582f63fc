"""Options that text and images share, with their defaults: training and sampling.

`--help` prints them, a YAML file overrides them, and `config.yaml` in the run folder records them.
This module imports nothing heavy, so that the command line answers at once.
"""

import re
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, get_args, get_origin, runtime_checkable

Precision = Literal["auto", "bf16", "no"]
SamplerName = Literal["ddpm", "ddim", "dpm_solver", "heun"]
TRACKERS = (  # those that accelerate supports
    "tensorboard",
    "wandb",
    "trackio",
    "comet_ml",
    "aim",
    "mlflow",
    "clearml",
    "dvclive",
    "swanlab",
)


class UserError(ValueError):
    """An error in the user's input. The message names the input and the way out.

    The command line prints it as one line, without a traceback.
    """


def check(condition: bool, key: str, rule: str, got: object) -> None:
    """Raises UserError unless the condition holds."""
    if not condition:
        raise UserError(f"{key} must be {rule}, got {shortened(repr(got))}")


def shortened(text: str, most: int = 200) -> str:
    """The text, or its beginning and its end."""
    return text if len(text) <= most else f"{text[: most - 43]} ... {text[-38:]}"


def check_choices(config: Any) -> None:
    """Raises UserError unless each field of a `Literal` type has one of its values."""
    for field_ in fields(config):
        if get_origin(field_.type) is Literal:
            rule = f"one of {', '.join(get_args(field_.type))}"
            value = getattr(config, field_.name)
            check(value in get_args(field_.type), f"--{field_.name}", rule, value)


@dataclass(frozen=True)
class TrainConfig:
    """Training options, for text and images.

    Args:
        steps: Number of optimizer steps.
        minutes: Training time in minutes. A short trial measures how many steps fit into it and
            sets `steps`, which config.yaml records.
        batch_size: Examples per step, over all processes and accumulated micro-batches.
        accumulation: Number of micro-batches into which each process divides its part of a batch.
            More of them need less memory.
        optimizer: muon (orthogonalized momentum for the weight matrices of the blocks, AdamW for
            all other weights) or adamw.
        lr: Peak learning rate, reached after `warmup` steps. A cosine then lowers it to 0.
        warmup: Steps of linear warm-up.
        weight_decay: Weight decay of the matrices. Embeddings, gains and biases have none.
        clip: Largest gradient norm. Larger gradients are scaled down to it.
        ema: Decay per step of the averaged weights, which are validated, sampled from and saved.
        precision: bf16 (autocast), no (float32), or auto: bf16 where this machine computes it
            natively and faster than float32.
        compile: Compile the training step with torch.compile: true, false, or auto (on for CUDA).
        shard: Divide weights, gradients, optimizer state and averaged weights between the processes
            (fully sharded data parallel), for models too large for one device.
        on_nonfinite: What to do when a loss or gradient is NaN or infinite: stop the run, or skip
            the step (at most `skip_limit` times).
        skip_limit: Largest number of skipped steps in the whole run.
        seed: Seed of data order, noise and initial weights.
        log_every: Steps between two lines of metrics.jsonl.
        valid_every: Steps between two validations.
        save_every: Steps between two checkpoints.
        trackers: Experiment trackers to log to as well: tensorboard, wandb, trackio or another one
            that accelerate supports and that is installed.
        license: License of the trained model for its card, as the hub names it: mit, cc-by-4.0, ...
    """

    steps: int = 3000
    minutes: float | None = None
    batch_size: int = 128
    accumulation: int = 1
    optimizer: Literal["muon", "adamw"] = "muon"
    lr: float = 6e-3
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    precision: Precision = "auto"
    compile: Literal["auto"] | bool = "auto"
    shard: bool = False
    on_nonfinite: Literal["stop", "skip"] = "stop"
    skip_limit: int = 10
    seed: int = 0
    log_every: int = 20
    valid_every: int = 500
    save_every: int = 500
    trackers: list[str] | str = field(default_factory=list)
    license: str = "unknown"

    def __post_init__(self) -> None:
        at_least_one = ("steps", "batch_size", "accumulation", "log_every", "valid_every")
        for name in (*at_least_one, "save_every", "skip_limit"):
            check(getattr(self, name) >= 1, f"train.{name}", "at least 1", getattr(self, name))
        check(self.minutes is None or self.minutes > 0, "train.minutes", "positive", self.minutes)
        check(self.lr > 0, "train.lr", "positive", self.lr)
        check(self.clip > 0, "train.clip", "positive", self.clip)
        check(self.warmup >= 0, "train.warmup", "0 or more", self.warmup)
        check(self.weight_decay >= 0, "train.weight_decay", "0 or more", self.weight_decay)
        check(0 <= self.ema < 1, "train.ema", "in [0, 1)", self.ema)
        check(0 <= self.seed < 2**63, "train.seed", "between 0 and 2^63 - 1", self.seed)
        is_name = re.fullmatch(r"[\w.-]+", self.license)
        check(bool(is_name), "train.license", "a name such as mit or cc-by-4.0", self.license)
        for tracker in self.tracker_names:
            check(tracker in TRACKERS, "train.trackers", f"one of {', '.join(TRACKERS)}", tracker)

    @property
    def tracker_names(self) -> list[str]:
        """Names of the trackers, as a list."""
        return [self.trackers] if isinstance(self.trackers, str) else self.trackers


@dataclass(frozen=True)
class SamplingConfig:
    """Options of the sampler, for text and images.

    Args:
        steps: Sampling steps from pure noise to data. Starting from less noise takes fewer of them,
            in proportion. heun calls the network twice per step, the other samplers once.
        sampler: ddpm (ancestral), ddim (deterministic), dpm_solver (DPM-Solver++ 2M) or heun
            (probability-flow ODE).
        seed: Seed of the noise. In float32, sample i depends only on the seed and on i.
        batch_size: Samples computed together. In float32 it changes the speed, not the samples.
        precision: Precision of the network: auto (bf16 where this machine computes it natively and
            faster), bf16, or no (float32). In bf16 a sample may depend on the others in its batch.
    """

    steps: int = 32
    sampler: SamplerName = "ddpm"
    seed: int = 0
    batch_size: int = 64
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        check(self.steps >= 1, "--steps", "at least 1", self.steps)
        check(0 <= self.seed < 2**63, "--seed", "between 0 and 2^63 - 1", self.seed)
        check(self.batch_size >= 1, "--batch_size", "at least 1", self.batch_size)
        check_choices(self)


@runtime_checkable
class DataOptions(Protocol):
    """The part of the options of the data that training uses."""

    @property
    def train(self) -> str | None: ...
    @property
    def valid(self) -> str | None: ...


@runtime_checkable
class ModelOptions(Protocol):
    """The part of a model's options that training uses."""

    @property
    def matmul_width(self) -> int: ...


@runtime_checkable
class RunConfig(Protocol):
    """The options that text runs and image runs have in common."""

    @property
    def run(self) -> str: ...
    @property
    def data(self) -> DataOptions: ...
    @property
    def model(self) -> ModelOptions: ...
    @property
    def train(self) -> TrainConfig: ...
