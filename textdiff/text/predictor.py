"""Prediction of words from their noisy embeddings: the network and the prior that it corrects.

`predict` is one call of the network, which sampling wraps into a denoiser. Log SNR and logits are
float32, also under autocast.

With a Markov prior p(w), the words of a sentence have the joint distribution

    p(w | x_t) proportional to p(w) prod_i N(x_i; alpha e(w_i), sigma^2 I) exp(network_i(w_i)):

Bayes' rule for a Markov text, corrected by the network word by word.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from textdiff.config import check
from textdiff.diffusion.automaton import Automaton
from textdiff.diffusion.gaussian import PREDICTIONS, LogSNR, Prediction, from_x0
from textdiff.diffusion.schedules import SCHEDULES, Schedule, endpoints
from textdiff.diffusion.transitions import Words
from textdiff.nn import bounded_schedule, upcast
from textdiff.text.adaptive_schedule import AdaptiveSchedule
from textdiff.text.functional import without_banned
from textdiff.text.markov_prior import Evidence, Joint, MarkovPrior
from textdiff.text.model_config import DiffusionLMConfig
from textdiff.text.transformer import Keys, NoisyText, TextDenoiser
from textdiff.text.word_embedding import WordEmbedding

# probabilities of words -> what guidance adds to their logits
Guide = Callable[[Float[Tensor, "b l v"]], Float[Tensor, "b l v"]]


class WordPredictor(PreTrainedModel):
    """Word embeddings, the network, its prior and the noise schedule.

    Buffers: `lengths` holds the frequencies of sentence lengths (0 to `config.length`) in the
    training text, `target_lengths` those of targets after sources of each length, and
    `prior_weight` the weight of the prior's posterior in the logits.

    Raises UserError if the objective or the schedule does not exist.
    """

    config_class = DiffusionLMConfig
    base_model_prefix = "diffusion_lm"
    config: DiffusionLMConfig
    lengths: Tensor
    target_lengths: Tensor
    prior_weight: Tensor

    def __init__(self, config: DiffusionLMConfig) -> None:
        super().__init__(config)
        c = config
        for name, known in (("objective", PREDICTIONS), ("schedule", SCHEDULES)):
            allowed = ("ce" if name == "objective" else "adaptive", *known)
            value = getattr(c, name)
            check(value in allowed, f"model.{name}", f"one of {', '.join(allowed)}", value)
        self.words = WordEmbedding(c.vocab_size, c.embed_dim, rounding_bias=c.objective != "ce")
        self.markov = MarkovPrior(c.vocab_size, c.prior_pairs) if c.has_markov_prior else None
        self.logsnr_range = c.logsnr_min, c.logsnr_max
        if c.schedule != "adaptive":
            self.fixed_schedule = bounded_schedule(c.schedule, *self.logsnr_range)
            self.logsnr_range = endpoints(self.fixed_schedule)
        sizes = c.embed_dim, c.width, c.depth, c.heads, c.length, self.logsnr_range, c.dropout
        self.denoiser = TextDenoiser(*sizes, c.stagger_prob > 0, c.has_markov_prior)
        self.head = nn.Linear(c.width, c.vocab_size if c.objective == "ce" else c.embed_dim)
        nn.init.normal_(self.head.weight, std=0.02)
        if c.schedule == "adaptive":  # optimizer states depend on the order of the parameters
            self.adaptive = AdaptiveSchedule(c.embed_dim, c.vocab_size, *self.logsnr_range)
        self.register_buffer("lengths", torch.full((c.length + 1,), 1 / (c.length + 1)))
        if c.has_sources:
            self.register_buffer("target_lengths", torch.ones(c.length + 1, c.length + 1))
        self.register_buffer("prior_weight", torch.zeros(()))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Does nothing: every module initializes itself."""

    def schedule(self) -> Schedule:
        """Noise schedule t -> log SNR of training and sampling."""
        adaptive = self.config.schedule == "adaptive"
        return self.adaptive.schedule() if adaptive else self.fixed_schedule

    def predict(
        self, text: NoisyText, **decoding: Any
    ) -> tuple[Prediction, Float[Tensor, "b l v"]]:
        """Predicts the clean embeddings and the logits of the words.

        Args:
            decoding: `temperature`, `guidance_scale` and `banned`, as in `word_logits`. Temperature
                needs objective ce.
        """
        if self.config.objective != "ce":
            return self._predict_vectors(text, **decoding)
        logits, joint = self.word_logits(text, **decoding)
        with torch.autocast(text.x_t.device.type, enabled=False):
            if joint:
                logits = logits + joint.log_messages(logits, text.mask)
            x0 = logits.softmax(-1) @ self.words.embeddings
            return from_x0(text.x_t, x0, text.logsnr), logits

    def draw_words(
        self,
        text: NoisyText,
        uniforms: Float[Tensor, "b l"],
        automaton: Automaton | None = None,
        guide: Guide | None = None,
        **decoding: Any,
    ) -> tuple[Words, Float[Tensor, "b l v"]]:
        """Draws the words of each sentence together; returns them and their probabilities.

        The probabilities are those of the words at each position, before guidance by `guide`.

        The model must have a Markov prior.

        Args:
            uniforms: Uniform random numbers in (0, 1).
            automaton: The set of sentences that may be drawn. If None, all.
            guide: Guidance of the words' logits.
            decoding: As in `predict`.
        """
        logits, joint = self.word_logits(text, **decoding)
        assert joint is not None
        with torch.autocast(text.x_t.device.type, enabled=False):
            marginal = (logits + joint.log_messages(logits, text.mask)).softmax(-1)
            logits = logits + guide(marginal) if guide else logits
            sample = partial(automaton.sample, joint.chain) if automaton else joint.chain.sample
            return sample(logits, text.mask, uniforms), marginal

    def word_logits(
        self,
        text: NoisyText,
        *,
        temperature: float = 1.0,
        guidance_scale: float = 1.0,
        banned: Bool[Tensor, "*#b v"] | None = None,
    ) -> tuple[Float[Tensor, "b l v"], Joint | None]:
        """Logits of each word, and with a Markov prior the distribution of sentences they make.

        Classifier-free guidance (arXiv:2207.12598, eq. 6) towards the context: the unconditional
        model is Bayes' rule under the prior, without the network and without training. The
        probabilities p become p (p / p_free)^(guidance_scale - 1), to the power 1 / temperature.

        Args:
            temperature: Temperature of the probabilities, those of the chain included.
            banned: Words of probability 0.
        """
        evidence = self.evidence(text)
        logits = self._logits(self._hidden(text, evidence), text.x_t, text.logsnr, evidence)
        with torch.autocast(text.x_t.device.type, enabled=False):
            if guidance_scale != 1:
                context_free = self.words.context_free_logits
                free = evidence.log_likelihood if evidence else context_free(text.x_t, text.logsnr)
                logits = torch.lerp(free, logits, guidance_scale)
            logits = without_banned(logits, banned) / temperature
            if evidence is None:
                return logits, None
            weight, chain = self.prior_weight / temperature, evidence.chain
            chain = chain.power(1 / temperature) if temperature != 1 else chain
            messages = None if self.config.sentence_loss else weight * evidence.messages
            return logits, Joint(chain, messages)

    def _predict_vectors(
        self,
        text: NoisyText,
        *,
        guidance_scale: float = 1.0,
        banned: Bool[Tensor, "*#b v"] | None = None,
        temperature: float = 1.0,
    ) -> tuple[Prediction, Float[Tensor, "b l v"]]:
        """`predict` with the objectives x0 and eps. Guidance extrapolates x0."""
        words, x_t, logsnr = self.words, text.x_t, text.logsnr
        out = upcast(self.head(self._hidden(text)))
        with torch.autocast(x_t.device.type, enabled=False):
            prediction = PREDICTIONS[self.config.objective](x_t, out, logsnr)
            if guidance_scale != 1:
                p_free = words.context_free_logits(x_t, logsnr).softmax(-1)
                x0 = torch.lerp(p_free @ words.embeddings, prediction.x0, guidance_scale)
                prediction = from_x0(x_t, x0, logsnr)
            return prediction, without_banned(words.rounding_logits(prediction.x0), banned)

    def evidence(self, text: NoisyText) -> Evidence | None:
        """Bayes' rule under the Markov prior; None without one."""
        if self.markov is None:
            return None
        with torch.autocast(text.x_t.device.type, enabled=False):
            chain, own = self.markov.chain(), self.words.log_likelihood(text.x_t, text.logsnr)
            # without gradients in training: the estimate is an input, as in self-conditioning
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.training):
                messages = chain.log_messages(own, text.mask)
                estimate = (own + messages).softmax(-1) @ self.words.embeddings
            return Evidence(chain, own, messages, estimate)

    def _hidden(
        self, text: NoisyText, evidence: Evidence | None = None, index: Keys | None = None
    ) -> Float[Tensor, "b l w"]:
        """Last hidden states of the network."""
        return self.denoiser(text, index, evidence.estimate if evidence else None)

    def _logits(
        self,
        h: Float[Tensor, "b *l w"],
        x_t: Float[Tensor, "b *l d"],
        logsnr: LogSNR,
        evidence: Evidence | None = None,
    ) -> Float[Tensor, "b *l v"]:
        """The network's logits plus the log-likelihood of the words, in float32.

        With a Markov prior, unigrams stand in for its messages during the warm-up.
        """
        out, weight = upcast(self.head(h)), self.prior_weight
        if self.config.prior == "none":
            return out
        with torch.autocast(x_t.device.type, enabled=False):
            if evidence is None:
                return out + self.words.log_likelihood(weight * x_t, logsnr)
            return out + weight * evidence.log_likelihood + (1 - weight) * self.words.unigram.log()
