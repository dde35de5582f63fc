"""Options of a text run. Importing this module does not import torch."""

from dataclasses import dataclass, field, fields
from typing import Literal

from textdiff.config import TrainConfig, check


@dataclass(frozen=True)
class DataConfig:
    """Options of the training text.

    Args:
        train: Training text: a .txt, .csv, .json, .jsonl (each also .gz) or .parquet file, a glob
            of them, a URL, or a data set on the Hugging Face hub. If null, sentences of the
            built-in grammar.
        valid: Validation text, given in the same way. If null, the hub's validation split, or
            `valid_share` of the training examples.
        field: Column that holds the text. The lines of a .txt file are its column `text`.
        source: Column of the sources, for a model that generates a target from a source. Needs
            `target`, the column of the targets, which takes the place of `field`.
        target: Column of the targets.
        length: Longest example in tokens. Longer sentences are left out and counted, unless `pack`
            is on.
        pack: Join the whole text and cut it into blocks of `length` tokens. For long documents
            instead of one sentence per line.
        streaming: Read the training data while training, for data larger than the disk. Text larger
            than memory does not need it. If the number of files is a multiple of the number of
            processes, each process reads its own files, and the batches differ from those of one
            process.
        valid_share: Share of the training examples held out if there is no `valid`: chosen at
            random, or with `pack` in up to ten contiguous stretches.
    """

    train: str | None = None
    valid: str | None = None
    field: str = "text"
    source: str | None = None
    target: str | None = None
    length: int = 64
    pack: bool = False
    streaming: bool = False
    valid_share: float = 0.05

    def __post_init__(self) -> None:
        check(self.length >= 2, "data.length", "at least 2", self.length)
        check(0 < self.valid_share < 1, "data.valid_share", "between 0 and 1", self.valid_share)
        both = (self.source is None) == (self.target is None)
        check(both, "data.target", "given together with data.source", self.target)
        check(not (self.pack and self.source), "data.pack", "false with data.source", self.pack)

    @property
    def fields(self) -> tuple[str, ...]:
        """Columns of the text: that of `field`, or those of source and target."""
        return (self.source, self.target) if self.source and self.target else (self.field,)


@dataclass(frozen=True)
class TokenizerConfig:
    """Options of the tokenizer, which is trained on the training text and saved with the model.

    Args:
        kind: word (words and punctuation marks), wordpiece, or bpe (byte level: every text survives
            encoding and decoding exactly).
        name: Use this tokenizer instead: a folder, a tokenizer.json or a hub name.
        size: Largest vocabulary size.
        min_count: Number of times a word must occur to get a token of its own.
        lowercase: Convert the text to lower case (word and wordpiece only).
    """

    kind: Literal["word", "wordpiece", "bpe"] = "word"
    name: str | None = None
    size: int = 8192
    min_count: int = 2
    lowercase: bool = True

    def __post_init__(self) -> None:
        check(self.size >= 8, "tokenizer.size", "at least 8", self.size)
        check(self.min_count >= 1, "tokenizer.min_count", "at least 1", self.min_count)


@dataclass  # not frozen: the network's own configuration inherits these fields
class ModelConfig:
    """Options of the text model: a diffusion model of word embeddings, or the baseline.

    Args:
        family: diffusion, or the autoregressive baseline (GPT-2), which uses only width, depth,
            heads and dropout.
        objective: Training objective. ce: cross-entropy of the words, with x0 = softmax(logits) E.
            x0: squared error of x0 (Diffusion-LM). eps: squared error of the noise (DDPM). To both
            the rounding cross-entropy is added.
        schedule: Noise schedule. adaptive is fitted to the loss in training, the others are fixed.
        logsnr_min: Log SNR at the noisy end.
        logsnr_max: Log SNR at the clean end.
        embed_dim: Dimension of the word embeddings. Every embedding has norm sqrt(embed_dim).
        embedding_init: Initial embeddings. spectral: an SVD of word co-occurrences in the training
            text, so that words of similar use start close together. random: independent.
        width: Width of the transformer.
        depth: Number of transformer blocks.
        heads: Number of attention heads. width / heads must be even.
        dropout: Dropout rate of the transformer.
        prior: Prior of the words, which the network corrects (objective ce only). markov: pairs
            of neighbours in the training text. unigram: single words. none: the network alone.
        sentence_loss: Minimize the nats of whole sentences under the Markov prior, instead of those
            of single words. The bound is a little better, and samples are worse.
        prior_pairs: Most pairs of words that the Markov prior keeps. Others have the probability of
            single words. Contexts have entries of their own.
        prior_contexts: Most pairs of words, and most triples, after which the Markov prior counts
            the next word given all of them.
        self_cond_prob: Probability that a training example is given the model's own first estimate
            of x0 (self-conditioning). With a Markov prior, the prior's estimate is always given.
        self_cond_start: Share of the training after which self-conditioning begins.
        infill_prob: Probability that some words of a training example are given, which trains
            infilling and continuing.
        stagger_prob: Probability that the words of a training example lose their noise one after
            another, which trains sampling in another order than all together. 0 trains none.
        source_drop_prob: Probability that an example of pairs has no source, which trains guidance
            towards the source. 0 trains none.
        uniform_logsnr_prob: Probability that a training example gets a log SNR uniform over the
            whole range instead of one from the adaptive schedule.
        prior_warmup: Start and end of the warm-up of the prior's posterior in the logits, as shares
            of the training.
        sampling_temperature: Default temperature of the word probabilities in sampling.
        sampling_guidance_scale: Default guidance scale in sampling. 1 is no guidance.
        sampling_length_quantile: Default quantile of the predicted lengths that a target has, in a
            model of pairs.
    """

    family: Literal["diffusion", "autoregressive"] = "diffusion"
    objective: Literal["ce", "x0", "eps"] = "ce"
    schedule: Literal["adaptive", "linear", "cosine", "sqrt", "sigmoid", "constant_alpha"] = (
        "adaptive"
    )
    logsnr_min: float = -9.0
    logsnr_max: float = 6.0
    embed_dim: int = 32
    embedding_init: Literal["spectral", "random"] = "spectral"
    width: int = 192
    depth: int = 6
    heads: int = 3
    dropout: float = 0.0
    prior: Literal["markov", "unigram", "none"] = "markov"
    sentence_loss: bool = False
    prior_pairs: int = 1_000_000
    prior_contexts: int = 2_000
    self_cond_prob: float = 0.5
    self_cond_start: float = 0.5
    infill_prob: float = 0.25
    stagger_prob: float = 0.1
    source_drop_prob: float = 0.0
    uniform_logsnr_prob: float = 0.1
    prior_warmup: tuple[float, float] = (0.25, 0.6)
    sampling_temperature: float = 1.0
    sampling_guidance_scale: float = 1.0
    sampling_length_quantile: float = 0.5

    def __post_init__(self) -> None:
        below = f"below logsnr_max = {self.logsnr_max}"
        check(self.logsnr_min < self.logsnr_max, "model.logsnr_min", below, self.logsnr_min)
        least = dict.fromkeys(("embed_dim", "width", "depth", "heads"), 1)
        for name, n in (least | {"prior_pairs": 0, "prior_contexts": 0}).items():
            check(getattr(self, name) >= n, f"model.{name}", f"at least {n}", getattr(self, name))
        multiple = f"a multiple of 2 * heads = {2 * self.heads}"
        check(self.width % (2 * self.heads) == 0, "model.width", multiple, self.width)
        check(0 <= self.dropout < 1, "model.dropout", "in [0, 1)", self.dropout)
        shares = [field.name for field in fields(ModelConfig) if field.name.endswith("_prob")]
        for name in ("self_cond_start", *shares):
            check(0 <= getattr(self, name) <= 1, f"model.{name}", "in [0, 1]", getattr(self, name))
        start, end = self.prior_warmup
        check(0 <= start < end, "model.prior_warmup", "two rising shares", self.prior_warmup)
        check_temperature("model.sampling_temperature", self.sampling_temperature)
        check_guidance_scale("model.sampling_guidance_scale", self.sampling_guidance_scale)
        check_length_quantile("model.sampling_length_quantile", self.sampling_length_quantile)

    @property
    def matmul_width(self) -> int:
        """Width of the network's matrix products."""
        return self.width

    @property
    def has_markov_prior(self) -> bool:
        """Whether the words have a Markov prior: objective ce alone predicts their distribution."""
        return self.prior == "markov" and self.objective == "ce"


def check_temperature(key: str, value: float) -> None:
    """Raises UserError unless `value` can be used as a temperature."""
    check(0.001 <= value <= 1000, key, "between 0.001 and 1000", value)


def check_guidance_scale(key: str, value: float) -> None:
    """Raises UserError unless `value` can be used as a guidance scale."""
    check(0 <= value <= 100, key, "between 0 and 100", value)


def check_length_quantile(key: str, value: float) -> None:
    """Raises UserError unless `value` can be used as a quantile of lengths."""
    check(0 < value < 1, key, "above 0 and below 1", value)


@dataclass(frozen=True)
class TextConfig:
    """All options of a text run.

    Args:
        run: Run folder. Training writes config.yaml, metrics.jsonl, state/ (checkpoints) and model/
            (all that sampling needs) into it.
        data: The training text.
        tokenizer: The tokenizer.
        model: The network and its objective.
        train: The optimization.
    """

    run: str = "runs/text"
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
