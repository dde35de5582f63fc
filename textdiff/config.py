"""Every option of a text run, with its default: what `--help` prints, a YAML file overrides and `runs/NAME/config.yaml` records.

Imports nothing heavy, so that the command line answers at once. `Model` becomes the network's own configuration, `Train` serves images too.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

Precision = Literal["auto", "bf16", "no"]
TRACKERS = ("tensorboard", "wandb", "trackio", "comet_ml", "aim", "mlflow", "clearml", "dvclive", "swanlab")  # what accelerate knows


class InputError(ValueError):
    """The user gave something that cannot be used; the message names it and the way out. The command line prints it as one line."""


def check(condition: bool, key: str, rule: str, got: object) -> None:
    """Raises InputError unless the condition holds."""
    if not condition:
        raise InputError(f"{key} must be {rule}, got {got!r}")


@dataclass(frozen=True)
class Data:
    """Where the text comes from and how it is cut into examples.

    Args:
        train: A .txt, .csv, .json, .jsonl (each also .gz) or .parquet file, a glob of them, a URL, or the name of a data set on the
            Hugging Face hub. Nothing: sentences of the built-in grammar.
        valid: The same for validation. Nothing: the hub's validation split, or `valid_share` of the training examples.
        field: The column that holds the text (a .txt file's lines are its column `text`).
        length: Longest example in tokens. Longer sentences are left out and counted, unless `pack` is on.
        pack: Join all text and cut it into blocks of `length` tokens, for long documents instead of a sentence a line.
        streaming: Read the training data as it goes, for what does not fit on the disk: more text than memory needs no stream. Where the
            number of files is a multiple of that of processes, each reads its own files, and batches are others than on one process.
        valid_share: Share of the training examples held out when there is no `valid`: at random, or with `pack` up to ten stretches.
    """

    train: str | None = None
    valid: str | None = None
    field: str = "text"
    length: int = 64
    pack: bool = False
    streaming: bool = False
    valid_share: float = 0.05

    def __post_init__(self) -> None:
        check(self.length >= 2, "data.length", "at least 2", self.length)
        check(0 < self.valid_share < 1, "data.valid_share", "between 0 and 1", self.valid_share)


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer, trained on the training text and saved with the model as tokenizer.json.

    Args:
        kind: word (words and punctuation marks), wordpiece, or bpe (byte level: any text survives the round trip exactly).
        name: Take this tokenizer instead, by folder, tokenizer.json or hub name.
        size: Largest vocabulary.
        min_count: A word must occur this often to get a token of its own.
        lowercase: Lower-case the text (word and wordpiece).
    """

    kind: Literal["word", "wordpiece", "bpe"] = "word"
    name: str | None = None
    size: int = 8192
    min_count: int = 2
    lowercase: bool = True

    def __post_init__(self) -> None:
        check(self.size >= 8, "tokenizer.size", "at least 8", self.size)
        check(self.min_count >= 1, "tokenizer.min_count", "at least 1", self.min_count)


@dataclass(frozen=True)
class Model:
    """The text model: noise on learned word embeddings, a transformer that removes it, and rounding back to words.

    Args:
        family: diffusion, or the autoregressive model (GPT-2's shape) it is measured against, which only takes width, depth, heads and dropout.
        objective: ce: cross-entropy on the words, x0 = softmax(logits) E (score interpolation). x0: squared error of x0 plus the
            rounding cross-entropy (Diffusion-LM). eps: squared error of the noise, the plain DDPM objective, plus the same.
        schedule: adaptive fits the noise levels to where the loss falls, in training and sampling; the others are fixed.
        logsnr_min: Log SNR at the noisiest end.
        logsnr_max: Log SNR at the clean end.
        embed_dim: Width of the word embeddings that are diffused; every embedding has norm sqrt(embed_dim).
        embedding_init: spectral (words of the same company start close, by an SVD of the training text's co-occurrences) or random.
        width: Width of the transformer.
        depth: Layers of the transformer.
        heads: Attention heads; width / heads must be even.
        dropout: Dropout in the transformer.
        self_condition: Share of training examples that are also given the model's own first estimate.
        reveal: Share of training examples with some words given, which teaches infilling and continuing.
        uniform_share: With the adaptive schedule, share of training examples whose log SNR is uniform over the range instead.
        output_prior: Add the noisy word's own evidence to the logits, from the first to the second of these shares of the training.
        sampling_temperature: Of the word probabilities when sampling, unless the command line says otherwise.
        sampling_guidance: How much the context counts when sampling (1: as trained), unless the command line says otherwise.
    """

    family: Literal["diffusion", "autoregressive"] = "diffusion"
    objective: Literal["ce", "x0", "eps"] = "ce"
    schedule: Literal["adaptive", "linear", "cosine", "sqrt", "sigmoid", "constant_alpha"] = "adaptive"
    logsnr_min: float = -9.0
    logsnr_max: float = 6.0
    embed_dim: int = 32
    embedding_init: Literal["spectral", "random"] = "spectral"
    width: int = 192
    depth: int = 6
    heads: int = 3
    dropout: float = 0.0
    self_condition: float = 0.5
    reveal: float = 0.25
    uniform_share: float = 0.1
    output_prior: tuple[float, float] = (0.25, 0.6)
    sampling_temperature: float = 1.05
    sampling_guidance: float = 1.6

    def __post_init__(self) -> None:
        check(self.logsnr_min < self.logsnr_max, "model.logsnr_min", f"below logsnr_max = {self.logsnr_max}", self.logsnr_min)
        for name in ("embed_dim", "width", "depth", "heads"):
            check(getattr(self, name) >= 1, f"model.{name}", "at least 1", getattr(self, name))
        check(self.width % (2 * self.heads) == 0, "model.width", f"a multiple of 2 * heads = {2 * self.heads}", self.width)
        check(0 <= self.dropout < 1, "model.dropout", "in [0, 1)", self.dropout)
        for name in ("self_condition", "reveal", "uniform_share"):
            check(0 <= getattr(self, name) <= 1, f"model.{name}", "in [0, 1]", getattr(self, name))
        start, end = self.output_prior
        check(0 <= start < end, "model.output_prior", "two rising shares of the training", self.output_prior)
        check(0.001 <= self.sampling_temperature <= 1000, "model.sampling_temperature", "between 0.001 and 1000", self.sampling_temperature)
        check(0 <= self.sampling_guidance <= 100, "model.sampling_guidance", "between 0 and 100", self.sampling_guidance)


@dataclass(frozen=True)
class Train:
    """The optimization, for text and images alike.

    Args:
        steps: Optimizer steps.
        minutes: Train for about so long on this machine instead: a short trial sets `steps`, which config.yaml records.
        batch_size: Examples a step, over all processes and accumulation.
        accumulate: Parts a process cuts its share of a batch into, to save memory.
        optimizer: muon (orthogonalized momentum for the matrices of the blocks, AdamW for the rest) or adamw.
        lr: Peak learning rate, after `warmup` steps, then a cosine down to 0.
        warmup: Steps of linear warm-up.
        weight_decay: On matrices, not on embeddings, gains and biases.
        clip: Largest norm of the gradient.
        ema: Decay a step of the averaged weights that are validated, sampled from and saved.
        precision: bf16 (autocast), no (float32), or auto: bf16 where this machine computes it natively and faster.
        compile: Compile the training step (torch.compile): true, false, or auto: on CUDA, where it pays.
        shard: Split the weights, gradients, optimizer state and averaged weights over the processes
            (fully sharded data parallel), for models too large for one device.
        on_nonfinite: A loss or gradient that is NaN or infinite ends the run (stop) or is left out (skip), at most `skip_limit` times.
        skip_limit: How many steps may be left out.
        seed: Data order, noise and initial weights are functions of it.
        log_every: Steps between lines of metrics.jsonl.
        valid_every: Steps between validations with samples.
        save_every: Steps between checkpoints.
        trackers: Also log to this one, or a list of them: tensorboard, wandb, trackio, ... (installed, through accelerate).
    """

    steps: int = 3000
    minutes: float | None = None
    batch_size: int = 128
    accumulate: int = 1
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

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "log_every", "valid_every", "save_every"):
            check(getattr(self, name) >= 1, f"train.{name}", "at least 1", getattr(self, name))
        check(self.minutes is None or self.minutes > 0, "train.minutes", "positive", self.minutes)
        check(self.lr > 0, "train.lr", "positive", self.lr)
        check(self.clip > 0, "train.clip", "positive", self.clip)
        check(self.warmup >= 0, "train.warmup", "0 or more", self.warmup)
        check(self.skip_limit >= 1, "train.skip_limit", "at least 1", self.skip_limit)
        check(self.weight_decay >= 0, "train.weight_decay", "0 or more", self.weight_decay)
        check(0 <= self.ema < 1, "train.ema", "in [0, 1)", self.ema)
        check(0 <= self.seed < 2**63, "train.seed", "between 0 and 2^63 - 1", self.seed)
        for tracker in self.tracker_names:
            check(tracker in TRACKERS, "train.trackers", f"of {', '.join(TRACKERS)}", tracker)

    @property
    def tracker_names(self) -> list[str]:
        return [self.trackers] if isinstance(self.trackers, str) else self.trackers


@runtime_checkable
class Run(Protocol):
    """What runs of text and of images have in common."""

    @property
    def run(self) -> str: ...
    @property
    def train(self) -> Train: ...
    @property
    def width(self) -> int: ...


@dataclass(frozen=True)
class Sampling:
    """How text is drawn from a model.

    Args:
        steps: Steps of the sampler from pure noise (a rewrite takes `strength` of them); heun calls the network twice a step, the others once.
        sampler: ddpm (ancestral), ddim (deterministic), dpm_solver (DPM-Solver++ 2M), heun (probability-flow ODE).
        temperature: Of the word probabilities, for models trained with objective ce: below 1 safer, above 1 more varied. Nothing: the model's
            own (model.sampling_temperature).
        guidance: How much the context counts: 1 as trained, about 1.6 for words that agree with each other, 0 for words one by one, 3 and more
            for words too rare. Nothing: the model's own (model.sampling_guidance).
        seed: Sentence i is a function of the seed and i.
        batch_size: Sentences at a time; changes the speed, not the sentences.
        clamp: Move every estimate to the nearest word (Diffusion-LM's clamping trick).
        precision: Of the network: auto (bf16 where this machine computes it natively and faster), bf16, or no (float32). In bf16 a
            sentence may depend on the batch it is in.
    """

    steps: int = 32
    sampler: Literal["ddpm", "ddim", "dpm_solver", "heun"] = "ddpm"
    temperature: float | None = None
    guidance: float | None = None
    seed: int = 0
    batch_size: int = 64
    clamp: bool = False
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        check(self.steps >= 1, "--steps", "at least 1", self.steps)
        check(self.temperature is None or 0.001 <= self.temperature <= 1000, "--temperature", "between 0.001 and 1000", self.temperature)
        check(self.guidance is None or 0 <= self.guidance <= 100, "--guidance", "between 0 and 100", self.guidance)
        check(0 <= self.seed < 2**63, "--seed", "between 0 and 2^63 - 1", self.seed)
        check(self.batch_size >= 1, "--batch_size", "at least 1", self.batch_size)


BASELINES = ("ar", "diffusion-lm", "bigram", "unigram", "shuffled")


@dataclass(frozen=True)
class Evaluation:
    """How a model is judged.

    Args:
        data: Held-out text, in the field that the run names. Nothing: what the run held out.
        n: Sentences of each row.
        steps: Steps of the sampler, or a list of them, for a row each.
        sampler: The model's sampler.
        temperature: Of the model's word probabilities; nothing: its own.
        guidance: How much the context counts to the model (1: as trained, as its likelihood always is); nothing: its own.
        clamp: Move every estimate of the model's to the nearest word.
        precision: Of the network when sampling: auto, bf16 or no (float32). Likelihoods are always float32.
        seed: Of the samples.
        baselines: Rows beside the model's: ar (autoregressive) and diffusion-lm (that paper's recipe) are trained for as long as the model
            was, and kept; bigram, unigram and shuffled count.
        minutes: Train the baselines for so long instead.
        teacher: Judge fluency by this causal language model: a folder, a hub name, or an autoregressive run of ours with the same words.
            Nothing: a GPT-2 trained from scratch on the same text.
        teacher_minutes: Train it for so long. Nothing: a tenth of the model's own time, but at most five minutes.
        mauve: Add MAUVE, with the teacher's hidden states as features (needs the extra mauve).
        scored: Held-out sentences whose likelihood is estimated.
        ode: How many of them by the probability-flow ODE too, which takes much longer.
        slow_n: Sentences of diffusion-lm, whose sampler takes 2,000 steps.
        out: Folder for report.json, samples.txt, figures.png and the trained baselines. Nothing: evaluation/ in the run folder.
    """

    data: str | None = None
    n: int = 1000
    steps: int | list[int] = 32
    sampler: Literal["ddpm", "ddim", "dpm_solver", "heun"] = "ddpm"
    temperature: float | None = None
    guidance: float | None = None
    clamp: bool = False
    precision: Precision = "auto"
    seed: int = 0
    baselines: list[str] = field(default_factory=lambda: ["bigram", "shuffled"])
    minutes: float | None = None
    teacher: str | None = None
    teacher_minutes: float | None = None
    mauve: bool = False
    scored: int = 200
    ode: int = 20
    slow_n: int = 100
    out: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("n", 10), ("scored", 2), ("ode", 0), ("slow_n", 10), ("seed", 0)):
            check(getattr(self, name) >= least, f"--{name}", f"at least {least}", getattr(self, name))
        check(not Path(self.out or ".").is_file(), "--out", "a folder", self.out)
        check(bool(self.numbers_of_steps), "--steps", "at least 1", self.steps)
        for steps in self.numbers_of_steps:
            self.sampling(steps)
        for baseline in self.baselines:
            check(baseline in BASELINES, "--baselines", f"of {', '.join(BASELINES)}", baseline)
        for name in ("minutes", "teacher_minutes"):
            check(getattr(self, name) is None or getattr(self, name) > 0, f"--{name}", "positive", getattr(self, name))

    @property
    def numbers_of_steps(self) -> list[int]:
        return [self.steps] if isinstance(self.steps, int) else self.steps

    def sampling(self, steps: int) -> Sampling:
        return Sampling(steps, self.sampler, self.temperature, self.guidance, self.seed, 250, self.clamp, self.precision)


@dataclass(frozen=True)
class TextRun:
    """Everything that decides a text run.

    Args:
        run: The folder it writes: config.yaml, metrics.jsonl, state/ (to resume) and model/ (all that sampling needs).
        data: Where the text comes from.
        tokenizer: Its words.
        model: The network and what it is trained for.
        train: The optimization.
    """

    run: str = "runs/text"
    data: Data = field(default_factory=Data)
    tokenizer: Vocabulary = field(default_factory=Vocabulary)
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)

    @property
    def width(self) -> int:
        """Width of the network's matrix products."""
        return self.model.width
