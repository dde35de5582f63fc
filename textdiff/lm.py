"""DiffusionLM: words become vectors, noise is added to the vectors, a transformer takes it away, and vectors become words again.

`forward(ids, mask, index)` returns the named loss terms of a training step; `predict` is one call of the network, which generation wraps
into a Denoiser. Noise levels, losses and logits are float32, whatever autocast does.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from textdiff.config import check
from textdiff.counter import even_times, hashed, normal, uniform
from textdiff.device import wants_static_shapes
from textdiff.diffusion.gaussian import PREDICTIONS, Prediction, alpha_sigma, diffuse, from_x0
from textdiff.diffusion.loss import LOSSES
from textdiff.diffusion.schedule import SCHEDULES, Schedule, gumbel
from textdiff.layers import exact
from textdiff.levels import ends, named_schedule
from textdiff.transformer import TextDenoiser


class DiffusionLMConfig(PreTrainedConfig):
    """`textdiff.config.Model`, flat, with what the data decide: the vocabulary's size and the longest sequence."""

    model_type = "textdiff"

    def __init__(
        self,
        vocab_size: int = 8,
        length: int = 64,
        objective: str = "ce",
        schedule: str = "adaptive",
        logsnr_min: float = -9.0,
        logsnr_max: float = 6.0,
        embed_dim: int = 32,
        width: int = 192,
        depth: int = 6,
        heads: int = 3,
        dropout: float = 0.0,
        self_condition: float = 0.5,
        reveal: float = 0.25,
        uniform_share: float = 0.1,
        output_prior: Sequence[float] = (0.25, 0.6),
        sampling_temperature: float = 1.05,
        sampling_guidance: float = 1.6,
        **kwargs: Any,
    ) -> None:
        self.vocab_size, self.length = vocab_size, length
        self.objective, self.schedule, self.logsnr_min, self.logsnr_max = objective, schedule, logsnr_min, logsnr_max
        self.embed_dim, self.width, self.depth, self.heads, self.dropout = embed_dim, width, depth, heads, dropout
        self.self_condition, self.reveal, self.uniform_share = self_condition, reveal, uniform_share
        self.output_prior = list(output_prior)
        self.sampling_temperature, self.sampling_guidance = sampling_temperature, sampling_guidance
        super().__init__(**kwargs)


class DiffusionLM(PreTrainedModel):
    """The text model. Raises InputError for an objective or a schedule that cannot be.

    Buffers: `unigram` and `lengths`, the training text's frequencies of tokens and of lengths 0..`length`."""

    config_class = DiffusionLMConfig
    base_model_prefix = "diffusion_lm"
    config: DiffusionLMConfig
    unigram: Tensor
    lengths: Tensor
    prior_weight: Tensor

    def __init__(self, config: DiffusionLMConfig) -> None:
        super().__init__(config)
        check(config.objective in ("ce", *PREDICTIONS), "model.objective", f"ce or one of {', '.join(PREDICTIONS)}", config.objective)
        check(config.schedule in ("adaptive", *SCHEDULES), "model.schedule", f"adaptive or one of {', '.join(SCHEDULES)}", config.schedule)
        self.embedding = nn.Parameter(torch.randn(config.vocab_size, config.embed_dim))
        self.denoiser = TextDenoiser(config.embed_dim, config.width, config.depth, config.heads, config.length, config.dropout)
        self.head = nn.Linear(config.width, config.vocab_size if config.objective == "ce" else config.embed_dim)
        nn.init.normal_(self.head.weight, std=0.02)
        if config.objective != "ce":
            self.rounding_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.fixed_schedule: Schedule | None = None
        self.ends = config.logsnr_min, config.logsnr_max  # noisiest and cleanest log SNR; an adaptive schedule spans its bounds
        if config.schedule != "adaptive":
            self.fixed_schedule = named_schedule(config.schedule, config.logsnr_min, config.logsnr_max)
            self.ends = ends(self.fixed_schedule)
        else:
            self.noise_center = nn.Parameter(torch.full((), 4.7 + math.log(config.embed_dim / 768)))
            self.noise_log_scale = nn.Parameter(torch.full((), math.log(0.85)))
            self.loss_limit = nn.Parameter(torch.full((), math.log(config.vocab_size)))
        self.register_buffer("unigram", torch.full((config.vocab_size,), 1 / config.vocab_size))
        self.register_buffer("lengths", torch.full((config.length + 1,), 1 / (config.length + 1)))
        self.register_buffer("prior_weight", torch.zeros(()))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Every module initializes itself."""

    def describe_data(self, token_counts: Float[Tensor, " v"], length_counts: Float[Tensor, " n"]) -> None:
        """Sets `unigram` and `lengths`, and with them where the logits start."""
        self.unigram.copy_((token_counts + 0.1) / (token_counts + 0.1).sum())
        self.lengths.copy_(length_counts / length_counts.sum())
        with torch.no_grad():
            if self.config.schedule == "adaptive":
                self.loss_limit.copy_(-(self.unigram * self.unigram.log()).sum())
            if self.config.objective == "ce":
                self.head.bias.copy_(self.unigram.log())

    @property
    def vectors(self) -> Float[Tensor, "v d"]:
        """All embeddings, of norm sqrt(d): one unit of variance a component."""
        return F.normalize(self.embedding, dim=-1) * math.sqrt(self.config.embed_dim)

    def evidence(self, x_t: Float[Tensor, "b *l d"], logsnr: Float[Tensor, " b"]) -> Float[Tensor, "b *l v"]:
        """log N(x_t; alpha e_v, sigma^2 I) up to a constant: what a noisy vector says of its own word, without context."""
        alpha, sigma = alpha_sigma(logsnr, x_t)
        return (alpha / sigma**2 * x_t) @ self.vectors.T

    def alone(self, x_t: Float[Tensor, "b l d"], logsnr: Float[Tensor, " b"]) -> Float[Tensor, "b l v"]:
        """Logits of each word without context, by Bayes' rule: its frequency and the evidence of its own noisy vector."""
        return self.unigram.log() + self.evidence(x_t, logsnr)

    def rounding(self, x0: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """Logits of the words for a clean vector, by inner products (Diffusion-LM, sec. 4.2)."""
        logits = x0 @ self.vectors.T
        return logits if self.config.objective == "ce" else logits + self.rounding_bias

    def schedule(self) -> Schedule:
        """t -> log SNR, for training and for sampling; the adaptive one as fitted so far."""
        if self.fixed_schedule:
            return self.fixed_schedule
        low, high = self.config.logsnr_min, self.config.logsnr_max
        center, scale = self.noise_center.detach(), self.noise_log_scale.detach().exp()
        return lambda t: gumbel(t, center.to(t.device).to(t), scale.to(t.device).to(t), low, high)  # two steps: MPS has no float64

    def predict(
        self,
        x_t: Float[Tensor, "b l d"],
        logsnr: Float[Tensor, " b"],
        earlier: Float[Tensor, "b l d"],
        known: Bool[Tensor, "b l"],
        mask: Bool[Tensor, "b l"],
        *,
        temperature: float = 1.0,
        guidance: float = 1.0,
        banned: Bool[Tensor, " v"] | None = None,
    ) -> tuple[Prediction, Float[Tensor, "b l v"]]:
        """The prediction of the clean vectors and the logits of the words; `earlier` is an estimate of x0, or zero, `known` vectors are clean.

        Guidance is after the classifier-free one (arXiv:2207.12598, eq. 6): the condition is the context (neighbours, place, length), and the
        model without it needs no training, for it is Bayes' rule. The squared errors follow that equation: x0_alone + guidance (x0 - x0_alone).
        With objective ce it is the logits that do, so word probabilities become p (p / p_alone)^(guidance - 1), to the power 1 / temperature.
        """
        out = self._output(self.denoiser(x_t, logsnr, earlier, known, mask), x_t, logsnr)
        with torch.autocast(x_t.device.type, enabled=False):
            if self.config.objective != "ce":
                prediction = PREDICTIONS[self.config.objective](x_t, logsnr, out)
                if guidance != 1:
                    alone = self.alone(x_t, logsnr).softmax(-1) @ self.vectors
                    prediction = from_x0(x_t, logsnr, torch.lerp(alone, prediction.x0, guidance))
                return prediction, self._without(self.rounding(prediction.x0), banned)
            if guidance != 1:
                out = torch.lerp(self.alone(x_t, logsnr), out, guidance)
            logits = self._without(out, banned)
            x0 = (logits / temperature).softmax(-1) @ self.vectors
            return PREDICTIONS["x0"](x_t, logsnr, x0), logits

    def _output(self, h: Float[Tensor, "b *l w"], x_t: Float[Tensor, "b *l d"], logsnr: Float[Tensor, " b"]) -> Float[Tensor, "b *l k"]:
        """With objective ce the logits, else what stands for x0 or eps; in float32."""
        out = self.head(h)
        with torch.autocast(x_t.device.type, enabled=False):
            return exact(out) + (self.evidence(self.prior_weight * x_t, logsnr) if self.config.objective == "ce" else 0)

    def forward(
        self, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"], index: Int[Tensor, " b"], progress: float | Float[Tensor, ""] = 1.0
    ) -> dict[str, Float[Tensor, ""]]:
        """Named loss terms, each a mean over the tokens to be predicted, to be added up.

        ce (nats): cross-entropy of the words, given their noisy vectors. eps, x0: squared error a component. round (nats): cross-entropy of
        the word given its nearly clean vector. schedule: misfit of the adaptive schedule to the loss, which moves nothing but the schedule.

        In evaluation mode log SNR is uniform over the whole range and no word is given: losses can be compared over time and schedules.

        Args:
            mask: true on real tokens.
            index: the examples' numbers in the run; all randomness is a function of them.
            progress: share of the training that is done.
        """
        if self.training:
            self.prior_weight.copy_(self._prior_weight_at(torch.as_tensor(progress)))
        logsnr, known = self._noise_levels(index), self._revealed(index, mask)
        x0 = self.vectors[ids]
        eps = normal(index, x0.shape, stream=1)
        x_t = diffuse(x0, logsnr, eps)
        seen = torch.where(known.unsqueeze(-1), x0, x_t)
        earlier = self._first_estimate(index, seen, logsnr, known, mask)
        h = self.denoiser(seen, logsnr, earlier, known, mask, index if self.training else None)

        tokens = Tokens.of(wanted := mask & ~known)  # the words to be predicted

        def mean(total: Float[Tensor, ""]) -> Float[Tensor, ""]:
            return total / (mask.sum() * self._target_share)

        word, clean, level = tokens.pick(ids), tokens.pick(x0), tokens.pick(logsnr.unsqueeze(1).expand_as(mask))
        loss, nats = self._losses(tokens.pick(h), tokens.pick(x_t), level, word, clean, tokens.pick(eps))
        terms = {self.config.objective: mean(tokens.put(loss).sum())}
        if self.config.objective != "ce":
            again = tokens.pick(normal(index, seen.shape, stream=2))
            terms["round"] = mean(tokens.put(self._rounding_loss(word, clean, again)).sum())
        if self.training and self.config.schedule == "adaptive":
            misfit = self._schedule_misfit(tokens.put(nats.detach()).sum(1) / mask.sum(1), logsnr)
            terms["schedule"] = mean((misfit * ~known.any(1) * wanted.sum(1)).sum())  # only where no word is given
        return terms

    def _losses(
        self, h: Float[Tensor, "n w"], x_t: Float[Tensor, "n d"], logsnr: Float[Tensor, " n"], word: Int[Tensor, " n"], x0: Tensor, eps: Tensor
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Of each word the objective's loss, and the nats of its prediction: with ce the same."""
        out = self._output(h, x_t, logsnr)
        if self.config.objective == "ce":
            nats = F.cross_entropy(out, word, reduction="none")
            return nats, nats
        prediction = PREDICTIONS[self.config.objective](x_t, logsnr, out)
        error = LOSSES[self.config.objective](lambda *_: prediction, x0, logsnr, eps)
        return error.mean(-1), F.cross_entropy(self.rounding(prediction.x0.detach()), word, reduction="none")

    def _rounding_loss(self, word: Int[Tensor, " n"], x0: Float[Tensor, "n d"], eps: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Nats of each word given its nearly clean vector: what keeps the embeddings apart."""
        logsnr = torch.full((len(word),), self.ends[1], device=x0.device)
        return F.cross_entropy(self.rounding(diffuse(x0, logsnr, eps)), word, reduction="none")

    @property
    def _target_share(self) -> float:
        """The share of the words that is not given, on average: a fixed number, so that parts of a batch add up to the whole."""
        return 1 - self.config.reveal / 2 if self.training else 1.0

    def _prior_weight_at(self, progress: Float[Tensor, ""]) -> Float[Tensor, ""]:
        start, end = self.config.output_prior
        return ((progress - start) / (end - start)).clamp(0, 1)

    def _noise_levels(self, index: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Low-discrepancy in the run's example number; a few are uniform over all log SNRs, so that the rest of the range is not forgotten."""
        t = even_times(index)
        low, high = self.ends
        scheduled = self.schedule()(t) if self.training else high - (high - low) * t
        if not self.training or self.config.schedule != "adaptive":
            return scheduled
        spread = low + (high - low) * uniform(index, stream=3)
        return torch.where(uniform(index, stream=4) < self.config.uniform_share, spread, scheduled)

    def _revealed(self, index: Int[Tensor, " b"], mask: Bool[Tensor, "b l"]) -> Bool[Tensor, "b l"]:
        """Which words are given in training: in a share of the examples a prefix or scattered words, of any share of the sentence."""
        if not self.training:
            return torch.zeros_like(mask)
        place = torch.arange(mask.shape[1], device=index.device)
        share = uniform(index, stream=5).unsqueeze(1)
        prefix = place < share * mask.sum(1, keepdim=True)
        scattered = uniform(hashed(index, stream=6).unsqueeze(1) + place, stream=6) < share
        chosen = torch.where(uniform(index, stream=7).unsqueeze(1) < 0.5, prefix, scattered)
        return chosen & mask & (uniform(index, stream=8) < self.config.reveal).unsqueeze(1)

    @torch.no_grad()
    def _first_estimate(self, index: Int[Tensor, " b"], x_t: Tensor, logsnr: Tensor, known: Tensor, mask: Tensor) -> Float[Tensor, "b l d"]:
        """Self-conditioning: for a share of the examples the model's own x0 without it, zero for the rest."""
        earlier = torch.zeros_like(x_t)
        chosen = uniform(index, stream=9) < self.config.self_condition
        if wants_static_shapes(x_t.device):
            x0 = self.predict(x_t, logsnr, earlier, known, mask)[0].x0
            return torch.where(chosen[:, None, None], project(x0), earlier)
        rows = chosen.nonzero().squeeze(1)
        if self.config.self_condition:
            # at least one, for a sharded network is called by all processes or by none
            some = rows if len(rows) else rows.new_zeros(1)
            x0 = self.predict(x_t[some], logsnr[some], earlier[some], known[some], mask[some])[0].x0
            earlier[rows] = project(x0)[: len(rows)]
        return earlier

    def _schedule_misfit(self, ce: Float[Tensor, " b"], logsnr: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """How far `loss_limit exp(-exp(-(g - center) / scale))` is from the loss at noise level g = -log SNR; kept small next to the loss."""
        fit = self.loss_limit * torch.exp(-torch.exp((logsnr + self.noise_center) / self.noise_log_scale.exp()))
        return 0.01 * (ce - fit).square()

    @staticmethod
    def _without(logits: Float[Tensor, "b l v"], banned: Bool[Tensor, " v"] | None) -> Float[Tensor, "b l v"]:
        return logits if banned is None else logits.masked_fill(banned, -torch.inf)


class Tokens(NamedTuple):
    """The positions at which a loss is computed: those wanted, or all where shapes must not depend on data."""

    wanted: Bool[Tensor, "b l"]
    where: tuple[Tensor, ...] | None

    @classmethod
    def of(cls, wanted: Bool[Tensor, "b l"]) -> "Tokens":
        return cls(wanted, None if wants_static_shapes(wanted.device) else wanted.nonzero(as_tuple=True))

    def pick(self, each: Shaped[Tensor, "b l *d"]) -> Shaped[Tensor, "n *d"]:
        """One row a position."""
        return each.flatten(0, 1) if self.where is None else each[self.where]

    def put(self, values: Float[Tensor, " n"]) -> Float[Tensor, "b l"]:
        """Back in their places, and 0 where nothing is wanted."""
        if self.where is None:
            return values.view_as(self.wanted).where(self.wanted, 0)
        return torch.zeros_like(self.wanted, dtype=values.dtype).index_put(self.where, values)


def cross_entropy(logits: Float[Tensor, "b l v"], ids: Int[Tensor, "b l"]) -> Float[Tensor, "b l"]:
    """Nats a word. Flat, for torch takes three times as long on (b, v, l)."""
    return F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)


def project(x0: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
    """Into the ball that holds all embeddings and their averages: longer vectors are shortened to norm sqrt(d)."""
    limit = math.sqrt(x0.shape[-1])
    return x0 * (limit / x0.norm(dim=-1, keepdim=True).clamp(min=limit))


AutoConfig.register(DiffusionLMConfig.model_type, DiffusionLMConfig)
AutoModel.register(DiffusionLMConfig, DiffusionLM)
