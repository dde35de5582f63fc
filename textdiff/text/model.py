"""DiffusionLM: Gaussian noise on word embeddings, a transformer that removes it, and rounding.

`forward` returns the loss terms of a training step. `predict` is one call of the network, which
sampling wraps into a denoiser. Log SNR, losses and logits are float32, also under autocast.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from textdiff.config import check
from textdiff.device import wants_static_shapes
from textdiff.diffusion.gaussian import PREDICTIONS, PerSample, Prediction, diffuse, from_x0
from textdiff.diffusion.schedules import SCHEDULES, Schedule, endpoints
from textdiff.nn import bounded_schedule, upcast
from textdiff.prng import low_discrepancy_times, normal, uniform
from textdiff.text.adaptive_schedule import AdaptiveSchedule
from textdiff.text.config import ModelConfig
from textdiff.text.corruption import CorruptedBatch, LossPositions, infill_mask, sample_logsnr
from textdiff.text.functional import project, without_banned
from textdiff.text.objective import word_losses
from textdiff.text.transformer import Keys, Positions, TextDenoiser, Vectors
from textdiff.text.word_embedding import WordEmbedding

Tokens = Int[Tensor, "b l"]
Scalar = Float[Tensor, ""]


class DiffusionLMConfig(PreTrainedConfig, ModelConfig):
    """Options of the model, with the vocabulary size and the longest sequence of the data."""

    model_type = "textdiff"
    __no_type_check__ = True  # transformers' __init__ takes more options than its signature has
    vocab_size: int = 8
    length: int = 64

    def __post_init__(self, **kwargs: Any) -> None:
        ModelConfig.__post_init__(self)
        super().__post_init__(**kwargs)


class DiffusionLM(PreTrainedModel):
    """The diffusion language model.

    Buffers: `lengths` holds the frequencies of sentence lengths (0 to `config.length`) in the
    training text, `prior_weight` the weight of the words' log-likelihood in the logits.

    Raises UserError if the objective or the schedule does not exist.
    """

    config_class = DiffusionLMConfig
    base_model_prefix = "diffusion_lm"
    config: DiffusionLMConfig
    lengths: Tensor
    prior_weight: Tensor

    def __init__(self, config: DiffusionLMConfig) -> None:
        super().__init__(config)
        c = config
        for name, known in (("objective", PREDICTIONS), ("schedule", SCHEDULES)):
            allowed = ("ce" if name == "objective" else "adaptive", *known)
            value = getattr(c, name)
            check(value in allowed, f"model.{name}", f"one of {', '.join(allowed)}", value)
        self.words = WordEmbedding(c.vocab_size, c.embed_dim, rounding_bias=c.objective != "ce")
        self.denoiser = TextDenoiser(c.embed_dim, c.width, c.depth, c.heads, c.length, c.dropout)
        self.head = nn.Linear(c.width, c.vocab_size if c.objective == "ce" else c.embed_dim)
        nn.init.normal_(self.head.weight, std=0.02)
        self.logsnr_range = c.logsnr_min, c.logsnr_max
        if c.schedule == "adaptive":
            self.adaptive = AdaptiveSchedule(c.embed_dim, c.vocab_size, *self.logsnr_range)
        else:
            self.fixed_schedule = bounded_schedule(c.schedule, *self.logsnr_range)
            self.logsnr_range = endpoints(self.fixed_schedule)
        self.register_buffer("lengths", torch.full((c.length + 1,), 1 / (c.length + 1)))
        self.register_buffer("prior_weight", torch.zeros(()))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Does nothing: every module initializes itself."""

    def set_data_statistics(
        self, token_counts: Float[Tensor, " v"], length_counts: Float[Tensor, " n"]
    ) -> None:
        """Sets the frequencies of words and lengths, and the logits that training starts from.

        Args:
            token_counts: Count of each token in the training text.
            length_counts: Count of each sentence length from 0 to `config.length`.
        """
        unigram = (token_counts + 0.1) / (token_counts + 0.1).sum()
        self.words.unigram.copy_(unigram)
        self.lengths.copy_(length_counts / length_counts.sum())
        with torch.no_grad():
            if self.config.schedule == "adaptive":
                self.adaptive.limit.copy_(-(unigram * unigram.log()).sum())
            if self.config.objective == "ce":
                self.head.bias.copy_(unigram.log())

    def schedule(self) -> Schedule:
        """Noise schedule t -> log SNR of training and sampling."""
        adaptive = self.config.schedule == "adaptive"
        return self.adaptive.schedule() if adaptive else self.fixed_schedule

    def predict(
        self,
        x_t: Vectors,
        logsnr: PerSample,
        self_cond: Vectors,
        known: Positions,
        mask: Positions,
        *,
        temperature: float = 1.0,
        guidance_scale: float = 1.0,
        banned: Bool[Tensor, " v"] | None = None,
    ) -> tuple[Prediction, Float[Tensor, "b l v"]]:
        """Predicts the clean embeddings and the logits of the words.

        Classifier-free guidance (arXiv:2207.12598, eq. 6) towards the context: the unconditional
        model is Bayes' rule for each word without its neighbours, position and length, without
        training. Guidance extrapolates logits with objective ce (word probabilities become
        p (p / p_free)^(guidance_scale - 1), to the power 1 / temperature), otherwise x0.

        Args:
            self_cond: An earlier estimate of x0, or zeros.
            known: True where `x_t` holds clean embeddings of given words.
            temperature: Temperature of the word probabilities (objective ce only).
            banned: Words of probability 0.
        """
        words, guided = self.words, guidance_scale != 1
        out = self._output(self.denoiser(x_t, logsnr, self_cond, known, mask), x_t, logsnr)
        with torch.autocast(x_t.device.type, enabled=False):
            if self.config.objective != "ce":
                prediction = PREDICTIONS[self.config.objective](x_t, out, logsnr)
                if guided:
                    p_free = words.context_free_logits(x_t, logsnr).softmax(-1)
                    x0 = torch.lerp(p_free @ words.embeddings, prediction.x0, guidance_scale)
                    prediction = from_x0(x_t, x0, logsnr)
                return prediction, without_banned(words.rounding_logits(prediction.x0), banned)
            if guided:
                out = torch.lerp(words.context_free_logits(x_t, logsnr), out, guidance_scale)
            logits = without_banned(out, banned)
            x0 = (logits / temperature).softmax(-1) @ words.embeddings
            return from_x0(x_t, x0, logsnr), logits

    def forward(
        self, ids: Tokens, mask: Positions, index: Keys, progress: float | Scalar = 1.0
    ) -> dict[str, Scalar]:
        """Returns loss terms, each a mean over the predicted words. Training minimizes their sum.

        ce: cross-entropy of the words given their noisy vectors, in nats. eps, x0: squared error
        per component. round: cross-entropy of the words given nearly clean vectors. schedule:
        misfit of the adaptive schedule, whose gradient reaches the schedule alone.

        In evaluation mode log SNR is uniform and no word is given, so that losses of different
        steps and schedules can be compared.

        Args:
            mask: True at real positions.
            index: Indices of the examples in the run, from which all randomness is derived.
            progress: Share of the training that is done.
        """
        if self.training:
            start, end = self.config.prior_warmup
            warmed_up = (torch.as_tensor(progress) - start) / (end - start)
            self.prior_weight.copy_(warmed_up.clamp(0, 1))
        batch = self._corrupt(ids, mask, index)
        x_in = torch.where(batch.known.unsqueeze(-1), batch.x0, batch.x_t)
        self_cond = self._self_conditioning(index, x_in, batch.logsnr, batch.known, mask)
        dropout_index = index if self.training else None
        h = self.denoiser(x_in, batch.logsnr, self_cond, batch.known, mask, dropout_index)
        return self._loss_terms(batch, h)

    def _corrupt(self, ids: Tokens, mask: Positions, index: Keys) -> CorruptedBatch:
        """Adds noise to the embeddings and chooses the words that are given."""
        c, (low, high) = self.config, self.logsnr_range
        if self.training:
            prob = c.uniform_logsnr_prob if c.schedule == "adaptive" else 0.0
            logsnr = sample_logsnr(index, self.schedule(), self.logsnr_range, prob)
            known = infill_mask(index, mask, c.infill_prob)
        else:
            logsnr = high - (high - low) * low_discrepancy_times(index)
            known = torch.zeros_like(mask)
        x0 = self.words.embeddings[ids]
        eps = normal(index, x0.shape, stream=1)
        return CorruptedBatch(ids, mask, index, known, x0, eps, logsnr, diffuse(x0, eps, logsnr))

    def _loss_terms(self, batch: CorruptedBatch, h: Float[Tensor, "b l w"]) -> dict[str, Scalar]:
        """Loss terms of a batch, given the last hidden states."""
        c, targets = self.config, batch.mask & ~batch.known
        # divided by the expected number of targets, so that losses of parts of a batch add up
        count = batch.mask.sum() * (1 - c.infill_prob / 2 if self.training else 1.0)
        positions = LossPositions.of(targets)
        words, x0, eps, x_t = map(positions.gather, (batch.ids, batch.x0, batch.eps, batch.x_t))
        logsnr = positions.gather(batch.logsnr.unsqueeze(1).expand_as(batch.mask))
        out = self._output(positions.gather(h), x_t, logsnr)
        loss, nats = word_losses(
            c.objective, out, x_t, logsnr, words, x0, eps, self.words.rounding_logits
        )
        terms: dict[str, Tensor] = {c.objective: positions.scatter(loss).sum() / count}
        if c.objective != "ce":  # this term keeps the embeddings apart
            noise = positions.gather(normal(batch.keys, batch.x0.shape, stream=2))
            nearly_clean = diffuse(x0, noise, torch.full_like(logsnr, self.logsnr_range[1]))
            logits = self.words.rounding_logits(nearly_clean)
            loss = F.cross_entropy(logits, words, reduction="none")
            terms["round"] = positions.scatter(loss).sum() / count
        if self.training and c.schedule == "adaptive":
            mean_nats = positions.scatter(nats.detach()).sum(1) / batch.mask.sum(1)
            misfit = self.adaptive.misfit(mean_nats, batch.logsnr) * ~batch.known.any(1)
            terms["schedule"] = (misfit * targets.sum(1)).sum() / count
        return terms

    def _output(
        self, h: Float[Tensor, "b *l w"], x_t: Float[Tensor, "b *l d"], logsnr: PerSample
    ) -> Float[Tensor, "b *l k"]:
        """Logits with objective ce, otherwise the predicted x0 or eps. In float32."""
        out = upcast(self.head(h))
        if self.config.objective != "ce":
            return out
        with torch.autocast(x_t.device.type, enabled=False):
            return out + self.words.log_likelihood(self.prior_weight * x_t, logsnr)

    @torch.no_grad()
    def _self_conditioning(
        self, index: Keys, x_t: Tensor, logsnr: Tensor, known: Tensor, mask: Tensor
    ) -> Vectors:
        """The model's own first estimate of x0 for some examples, and zeros for the others."""
        zeros = torch.zeros_like(x_t)
        chosen = uniform(index, stream=9) < self.config.self_cond_prob
        if wants_static_shapes(x_t.device):
            x0 = self.predict(x_t, logsnr, zeros, known, mask)[0].x0
            return torch.where(chosen[:, None, None], project(x0), zeros)
        rows = chosen.nonzero().squeeze(1)
        if self.config.self_cond_prob:
            # at least one row: all processes or none must call a sharded network
            some = rows if len(rows) else rows.new_zeros(1)
            inputs = (x_t[some], logsnr[some], zeros[some], known[some], mask[some])
            x0 = self.predict(*inputs)[0].x0
            zeros[rows] = project(x0)[: len(rows)]
        return zeros


AutoConfig.register(DiffusionLMConfig.model_type, DiffusionLMConfig)
AutoModel.register(DiffusionLMConfig, DiffusionLM)
