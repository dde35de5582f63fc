"""Every option of an image run, with its default; the optimization's are `textdiff.config.Train`. Imports nothing heavy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from textdiff.config import Precision, Train, check

SAMPLERS = ("ddpm", "ddim", "dpm_solver", "heun")


@dataclass(frozen=True)
class Data:
    """Which images, and in what shape.

    Args:
        train: digits (8x8, from scikit-learn), dots (generated: one white pixel on black), an idx file as MNIST's (also .gz, its labels beside
            it), a folder or a .zip of images (sub-folders are classes), or the name of a data set on the Hugging Face hub.
        valid: The same for validation. Nothing: `valid_share` of the training images.
        size: Resize the shorter side to this and cut out the middle square. Nothing: as they are, all of one size.
        channels: 1 (grey) or 3 (RGB). Nothing: as most of them are.
        flip: Mirror every other training image.
        labels: Use the classes, where there are some.
        valid_share: Share of the training images held out when there is no `valid`.
    """

    train: str = "digits"
    valid: str | None = None
    size: int | None = None
    channels: Literal[1, 3] | None = None
    flip: bool = False
    labels: bool = True
    valid_share: float = 0.1

    def __post_init__(self) -> None:
        check(self.size is None or self.size >= 4, "data.size", "at least 4", self.size)
        check(0 < self.valid_share < 1, "data.valid_share", "between 0 and 1", self.valid_share)


@dataclass(frozen=True)
class Model:
    """The U-Net and what it is trained for.

    Args:
        objective: What the network predicts, and whose squared error it is trained on: eps (the noise), x0 (the image) or v.
        schedule: The noise levels, in training and sampling.
        logsnr_min: Log SNR at the noisiest end.
        logsnr_max: Log SNR at the clean end.
        width: Channels at full resolution.
        multipliers: Channels at each resolution, in multiples of `width`; every resolution is half the one before.
        blocks: Residual blocks at each resolution on the way down; one more on the way up.
        attention: Resolutions that get attention: 0 is the full one.
        dropout: Dropout in the residual blocks.
        label_dropout: Share of training images whose class is withheld, which classifier-free guidance needs.
    """

    objective: Literal["eps", "x0", "v"] = "eps"
    schedule: Literal["linear", "cosine", "sqrt", "sigmoid", "constant_alpha"] = "cosine"
    logsnr_min: float = -9.0
    logsnr_max: float = 10.0
    width: int = 64
    multipliers: list[int] = field(default_factory=lambda: [1, 2, 2])
    blocks: int = 2
    attention: list[int] = field(default_factory=lambda: [1])
    dropout: float = 0.0
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        check(self.logsnr_min < self.logsnr_max, "model.logsnr_min", f"below logsnr_max = {self.logsnr_max}", self.logsnr_min)
        check(self.width >= 4 and self.width % 4 == 0, "model.width", "a multiple of 4", self.width)
        check(bool(self.multipliers) and min(self.multipliers) >= 1, "model.multipliers", "a list of whole numbers from 1", self.multipliers)
        check(self.blocks >= 1, "model.blocks", "at least 1", self.blocks)
        resolutions = range(len(self.multipliers))
        check(all(level in resolutions for level in self.attention), "model.attention", f"of 0 to {len(self.multipliers) - 1}", self.attention)
        check(0 <= self.dropout < 1, "model.dropout", "in [0, 1)", self.dropout)
        check(0 <= self.label_dropout <= 1, "model.label_dropout", "in [0, 1]", self.label_dropout)


@dataclass(frozen=True)
class ImageRun:
    """Everything that decides an image run.

    Args:
        run: The folder it writes: config.yaml, metrics.jsonl, samples/, state/ (to resume) and model/ (all that sampling needs).
        data: Which images.
        model: The network and what it is trained for.
        train: The optimization.
    """

    run: str = "runs/image"
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=lambda: Train(optimizer="adamw", lr=1e-3))

    @property
    def width(self) -> int:
        """Width of the network's matrix products: of its 3x3 convolutions at full resolution."""
        return 9 * self.model.width


@dataclass(frozen=True)
class Sampling:
    """How images are drawn from a model.

    Args:
        steps: Steps of the sampler from pure noise (an edit takes `strength` of them); heun calls the network twice a step, the others once.
        sampler: ddpm (ancestral), ddim (deterministic), dpm_solver (DPM-Solver++ 2M), heun (probability-flow ODE).
        guidance: Of images of a class: 1 is the model's own idea of it, more exaggerates (classifier-free guidance).
        seed: Image i is a function of the seed and i.
        batch_size: Images at a time; changes the speed, not the images.
        precision: Of the network: auto (bf16 where this machine computes it natively and faster), bf16, or no (float32). In bf16 an image may depend
            on the batch it is in.
    """

    steps: int = 50
    sampler: Literal["ddpm", "ddim", "dpm_solver", "heun"] = "ddpm"
    guidance: float = 1.0
    seed: int = 0
    batch_size: int = 64
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        check(self.steps >= 1, "--steps", "at least 1", self.steps)
        check(self.guidance >= 0, "--guidance", "0 or more", self.guidance)
        check(0 <= self.seed < 2**63, "--seed", "between 0 and 2^63 - 1", self.seed)
        check(self.batch_size >= 1, "--batch_size", "at least 1", self.batch_size)


@dataclass(frozen=True)
class Evaluation:
    """How an image model is judged.

    Args:
        data: Held-out images, of the same classes, fitted to the model's shape. Nothing: what the run held out.
        n: Samples of each row, on which the accuracy score's classifier is trained. Rows are compared with held-out images, as many of each as
            there are held out, if these are fewer.
        steps: Steps of the sampler, or a list of them, for a row each.
        samplers: The sampler, or a list of them, for a row each.
        guidance: Of the images' classes.
        seed: Of the samples.
        precision: Of the network when sampling: auto, bf16 or no (float32). Likelihoods are always float32.
        scored: Held-out images whose likelihood is estimated.
        ode: How many of them by the probability-flow ODE too, which takes longer.
        inception: Compare in the features of torch-fidelity's Inception network instead of a classifier trained on the same images (for
            photographs; needs torch-fidelity, which downloads it).
        out: Folder for report.json and the figures, which are replaced. Nothing: evaluation/ in the run folder.
    """

    data: str | None = None
    n: int = 1000
    steps: int | list[int] = 50
    samplers: str | list[str] = "ddpm"
    guidance: float = 1.0
    seed: int = 0
    precision: Precision = "auto"
    scored: int = 64
    ode: int = 16
    inception: bool = False
    out: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("n", 10), ("scored", 2), ("ode", 0), ("seed", 0)):
            check(getattr(self, name) >= least, f"--{name}", f"at least {least}", getattr(self, name))
        check(self.ode != 1, "--ode", "0, or 2 and more, for it has an interval", self.ode)
        check(not Path(self.out or ".").is_file(), "--out", "a folder", self.out)
        check(self.guidance >= 0, "--guidance", "0 or more", self.guidance)
        check(self.seed < 2**63, "--seed", "between 0 and 2^63 - 1", self.seed)
        check(bool(self.numbers_of_steps) and min(self.numbers_of_steps) >= 1, "--steps", "at least 1", self.steps)
        for sampler in self.names_of_samplers:
            check(sampler in SAMPLERS, "--samplers", f"of {', '.join(SAMPLERS)}", sampler)

    @property
    def numbers_of_steps(self) -> list[int]:
        return [self.steps] if isinstance(self.steps, int) else self.steps

    @property
    def names_of_samplers(self) -> list[str]:
        return [self.samplers] if isinstance(self.samplers, str) else self.samplers
