"""Options of an image run and of its evaluation. This module imports nothing heavy."""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from textdiff.config import (
    Precision,
    SamplerName,
    SamplingConfig,
    TrainConfig,
    UserError,
    check,
)

SAMPLER: SamplerName = "dpm_solver"  # default sampler
SAMPLING_STEPS = 20  # default number of sampling steps
Order = Literal["parallel", "raster", "coarse-to-fine", "random"]


@dataclass(frozen=True)
class DataConfig:
    """Options of the training images.

    Args:
        train: Training images: digits (8x8, from scikit-learn), dots (generated: one white pixel on
            black), an idx file as MNIST's (also .gz, with its labels beside it), a folder or a .zip
            of images (sub-folders are classes), or a data set on the Hugging Face hub.
        valid: Validation images, given in the same way. If null, `valid_share` of the training
            images.
        size: Resize the shorter side to this size and crop the middle square. If null, the images
            are used as they are and must all have the same size.
        channels: 1 (grey) or 3 (RGB). If null, the mode that most images have.
        flip: Mirror each training image with probability 1/2.
        labels: Use the classes, if there are any.
        valid_share: Share of the training images held out if there is no `valid`.
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


@dataclass  # not frozen: the network's own configuration inherits these fields
class ModelConfig:
    """Options of the U-Net and its objective.

    Args:
        objective: What the network predicts and is trained on by squared error: eps (the noise), x0
            (the image) or v.
        schedule: Noise schedule of training and sampling.
        logsnr_min: Log SNR at the noisy end.
        logsnr_max: Log SNR at the clean end.
        width: Number of channels at full resolution.
        channel_multipliers: Number of channels at each resolution, in multiples of `width`. Each
            resolution is half the one before.
        res_blocks: Residual blocks per resolution on the way down. There is one more on the way up.
        attention_levels: Resolutions with self-attention. 0 is full resolution.
        dropout: Dropout rate of the residual blocks.
        class_drop_prob: Probability that the class of a training image is dropped, for
            classifier-free guidance.
        infill_prob: Probability that some pixels of a training image are given, which trains
            inpainting.
        stagger_prob: Probability that the pixels of a training image lose their noise one after
            another, which trains sampling in other orders than parallel.
    """

    objective: Literal["eps", "x0", "v"] = "eps"
    schedule: Literal["linear", "cosine", "sqrt", "sigmoid", "constant_alpha"] = "cosine"
    logsnr_min: float = -9.0
    logsnr_max: float = 10.0
    width: int = 64
    channel_multipliers: list[int] = field(default_factory=lambda: [1, 2, 2])
    res_blocks: int = 2
    attention_levels: list[int] = field(default_factory=lambda: [1])
    dropout: float = 0.0
    class_drop_prob: float = 0.1
    infill_prob: float = 0.25
    stagger_prob: float = 0.0

    def __post_init__(self) -> None:
        below = f"below logsnr_max = {self.logsnr_max}"
        check(self.logsnr_min < self.logsnr_max, "model.logsnr_min", below, self.logsnr_min)
        check(self.width >= 4 and self.width % 4 == 0, "model.width", "a multiple of 4", self.width)
        multipliers, levels = self.channel_multipliers, self.attention_levels
        rule = "a list of whole numbers from 1"
        valid = bool(multipliers) and min(multipliers) >= 1
        check(valid, "model.channel_multipliers", rule, multipliers)
        check(self.res_blocks >= 1, "model.res_blocks", "at least 1", self.res_blocks)
        valid = all(0 <= level < len(multipliers) for level in levels)
        rule = f"a list of levels from 0 to {len(multipliers) - 1}"
        check(valid, "model.attention_levels", rule, levels)
        check(0 <= self.dropout < 1, "model.dropout", "in [0, 1)", self.dropout)
        for name in ("class_drop_prob", "infill_prob", "stagger_prob"):
            value = getattr(self, name)
            check(0 <= value <= 1, f"model.{name}", "in [0, 1]", value)

    @property
    def has_own_levels(self) -> bool:
        """Whether each pixel may have a log SNR of its own."""
        return self.infill_prob > 0 or self.stagger_prob > 0

    @property
    def matmul_width(self) -> int:
        """Inner dimension of the 3x3 convolutions at full resolution, as matrix products."""
        return 9 * self.width


@dataclass(frozen=True)
class ImageConfig:
    """All options of an image run.

    Args:
        run: Run folder. Training writes config.yaml, metrics.jsonl, samples/, state/ (checkpoints)
            and model/ (all that sampling needs) into it.
        data: The training images.
        model: The network and its objective.
        train: The optimization.
    """

    run: str = "runs/image"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(optimizer="adamw", lr=1e-3))


@dataclass(frozen=True)
class ImageSamplingConfig(SamplingConfig):
    """Options of sampling images.

    Args:
        guidance_scale: Scale of classifier-free guidance towards the class. 1 is no guidance.
        order: Order in which pixels lose their noise, for a model with model.stagger_prob above 0.
        window: Number of pixels that lose their noise at the same time in other orders. If null, 1.
        label: Name or number of the class. If null, all classes in turn.
    """

    steps: int = SAMPLING_STEPS
    sampler: SamplerName = SAMPLER
    guidance_scale: float = 1.0
    order: Order = "parallel"
    window: int | None = None
    label: str | int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.guidance_scale >= 0, "--guidance_scale", "0 or more", self.guidance_scale)
        check_window(self.order, self.window)


def check_window(order: str, window: int | None) -> None:
    """Raises UserError unless `window` can be one of an order."""
    if window is not None:
        check(order != "parallel", "--window", "left out with --order parallel", window)
        check(window >= 1, "--window", "at least 1", window)


def check_count(n: int) -> None:
    """Raises UserError unless `n` images can be sampled."""
    check(1 <= n <= 10**6, "--n", "between 1 and 1,000,000", n)


def check_strength(value: float) -> None:
    """Raises UserError unless `value` is an amount of noise."""
    check(0 <= value <= 1, "--strength", "between 0 (no noise) and 1 (nothing is left)", value)


def need_pillow() -> None:
    """Raises UserError if Pillow is not installed."""
    if importlib.util.find_spec("PIL") is None:
        raise UserError("this needs Pillow: pip install 'textdiff[image]'")


@dataclass(frozen=True)
class EvaluationConfig:
    """Options of an evaluation.

    Args:
        data: Held-out images of the same classes, fitted to the shape of the model's images. If
            null, the images that the run held out.
        n: Number of samples per row of the table. The accuracy score's classifier is trained on
            them. Features are compared with those of as many held-out images, or of all of them if
            there are fewer.
        steps: Number of sampling steps, or a list of them, which gives one row each.
        samplers: Sampler, or a list of them, which gives one row each.
        order: Order in which the pixels of samples lose their noise.
        window: Number of pixels that lose their noise at the same time in other orders than
            parallel. If null, 1.
        guidance_scale: Scale of classifier-free guidance. 1 is no guidance.
        seed: Seed of the samples.
        precision: Precision of the network in sampling: auto, bf16 or no (float32). Likelihoods are
            always computed in float32.
        scored: Number of held-out images whose likelihood is estimated.
        ode: Number of these that are also estimated by the probability-flow ODE, which is slower.
        inception: Compare features of torch-fidelity's Inception network instead of features of a
            classifier trained on the same images. For photographs; needs torch-fidelity, which
            downloads the network.
        out: Folder for report.json and the figures. If null, evaluation/ in the run folder.
    """

    data: str | None = None
    n: int = 1000
    steps: int | list[int] = SAMPLING_STEPS
    samplers: str | list[str] = SAMPLER
    order: Order = "parallel"
    window: int | None = None
    guidance_scale: float = 1.0
    seed: int = 0
    precision: Precision = "auto"
    scored: int = 64
    ode: int = 16
    inception: bool = False
    out: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("n", 10), ("scored", 2), ("ode", 0)):
            value = getattr(self, name)
            check(value >= least, f"--{name}", f"at least {least}", value)
        check(self.ode != 1, "--ode", "0, or at least 2 for a standard error", self.ode)
        check(not Path(self.out or ".").is_file(), "--out", "a folder", self.out)
        check(bool(self.step_counts), "--steps", "at least 1", self.steps)
        for steps in self.step_counts:
            scale, order = self.guidance_scale, self.order
            ImageSamplingConfig(
                steps, SAMPLER, self.seed, guidance_scale=scale, order=order, window=self.window
            )
        known = get_args(SamplerName)
        for sampler in self.sampler_names:
            check(sampler in known, "--samplers", f"one of {', '.join(known)}", sampler)

    @property
    def step_counts(self) -> list[int]:
        """Numbers of sampling steps, as a list."""
        return [self.steps] if isinstance(self.steps, int) else self.steps

    @property
    def sampler_names(self) -> list[str]:
        """Names of the samplers, as a list."""
        return [self.samplers] if isinstance(self.samplers, str) else self.samplers
