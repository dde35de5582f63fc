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
from textdiff.text.target_lengths import TargetLengths
from textdiff.text.transformer import Keys, NoisyText, Positions, TextDenoiser
from textdiff.text.word_embedding import WordEmbedding

Logits = Float[Tensor, "b l v"]
Guide = Callable[[Logits], Logits]  # word probabilities -> what guidance adds to the logits


class WordPredictor(PreTrainedModel):
    """Word embeddings, the network, its prior and the noise schedule.

    Buffers: `lengths` holds the frequencies of sentence lengths (0 to `config.length`) in the
    training text, and `prior_weight` the weight of the prior's posterior in the logits.

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
            allowed, value = ("ce" if name == "objective" else "adaptive", *known), getattr(c, name)
            check(value in allowed, f"model.{name}", f"one of {', '.join(allowed)}", value)
        self.words = WordEmbedding(c.vocab_size, c.embed_dim, rounding_bias=c.objective != "ce")
        sizes = c.vocab_size, c.prior_pairs, c.prior_contexts
        self.markov = MarkovPrior(*sizes) if c.has_markov_prior else None
        self.logsnr_range = c.logsnr_min, c.logsnr_max
        if c.schedule != "adaptive":
            self.fixed_schedule = bounded_schedule(c.schedule, *self.logsnr_range)
            self.logsnr_range = endpoints(self.fixed_schedule)
        shape = c.embed_dim, c.width, c.depth, c.heads, c.length, self.logsnr_range, c.dropout
        self.denoiser = TextDenoiser(*shape, c.stagger_prob > 0, c.has_markov_prior)
        self.head = nn.Linear(c.width, c.vocab_size if c.objective == "ce" else c.embed_dim)
        nn.init.normal_(self.head.weight, std=0.02)
        if c.schedule == "adaptive":  # optimizer states depend on the order of the parameters
            self.adaptive = AdaptiveSchedule(c.embed_dim, c.vocab_size, *self.logsnr_range)
        self.register_buffer("lengths", torch.full((c.length + 1,), 1 / (c.length + 1)))
        if c.has_sources:
            self.target_lengths = TargetLengths(c.vocab_size, c.length)
        self.register_buffer("prior_weight", torch.zeros(()))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Does nothing: every module initializes itself."""

    def schedule(self) -> Schedule:
        """Noise schedule t -> log SNR of training and sampling."""
        adaptive = self.config.schedule == "adaptive"
        return self.adaptive.schedule() if adaptive else self.fixed_schedule

    def predict(self, text: NoisyText, **decoding: Any) -> tuple[Prediction, Logits]:
        """Predicts the clean embeddings and the logits of the words.

        Args:
            decoding: `temperature`, `guidance_scale`, `banned` and `source`, as in `word_logits`.
                Temperature needs objective ce.
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
        moving: Positions | None = None,
        automaton: Automaton | None = None,
        guide: Guide | None = None,
        **decoding: Any,
    ) -> tuple[Words, Logits]:
        """Draws the words of each sentence together; returns them and their probabilities.

        The probabilities are those of the words at each position, before guidance by `guide`. The
        model must have a Markov prior.

        Args:
            uniforms: Uniform random numbers in (0, 1).
            moving: Words that the network predicts, and not the prior alone. If None, all.
            automaton: The set of sentences that may be drawn. If None, all.
            guide: Guidance of the words' logits.
            decoding: As in `predict`.
        """
        logits, joint = self.word_logits(text, **decoding)
        assert joint is not None
        with torch.autocast(text.x_t.device.type, enabled=False):
            marginal = (logits + joint.log_messages(logits, text.mask)).softmax(-1)
            logits = logits + guide(marginal) if guide else logits
            if moving is not None:
                own = self.words.log_likelihood(text.x_t, text.logsnr) / decoding["temperature"]
                own = without_banned(own, decoding["banned"])
                logits = torch.where(moving.unsqueeze(-1), logits, own)
            sample = partial(automaton.sample, joint.chain) if automaton else joint.chain.sample
            return sample(logits, text.mask, uniforms), marginal

    def word_logits(
        self,
        text: NoisyText,
        *,
        temperature: float = 1.0,
        guidance_scale: float = 1.0,
        banned: Bool[Tensor, "*#b v"] | None = None,
        source: Positions | None = None,
    ) -> tuple[Logits, Joint | None]:
        """Logits of each word, and with a Markov prior the distribution of sentences they make.

        Classifier-free guidance (arXiv:2207.12598, eq. 6): the probabilities p become
        p (p / p_free)^(guidance_scale - 1), to the power 1 / temperature. The unconditional model
        p_free is the network without the source. If there is none, it is Bayes' rule under the
        prior, without the network and without training, and the guidance is towards the context.

        Args:
            temperature: Temperature of the probabilities, those of the chain included.
            banned: Words of probability 0.
            source: True at the words of the source, for a model that was trained without them too.
        """
        evidence = self.evidence(text)
        logits = self._network_logits(text, evidence)
        if guidance_scale != 1:
            free = self._free_logits(text, evidence, source)
            logits = torch.lerp(free, logits, guidance_scale)
        with torch.autocast(text.x_t.device.type, enabled=False):
            logits = without_banned(logits, banned) / temperature
            if evidence is None:
                return logits, None
            weight, chain = self.prior_weight / temperature, evidence.chain
            chain = chain.power(1 / temperature) if temperature != 1 else chain
            messages = None if self.config.sentence_loss else weight * evidence.messages
            return logits, Joint(chain, messages)

    def _network_logits(self, text: NoisyText, evidence: Evidence | None) -> Logits:
        return self._logits(self._hidden(text, evidence), text.x_t, text.logsnr, evidence)

    def _free_logits(
        self, text: NoisyText, evidence: Evidence | None, source: Positions | None
    ) -> Logits:
        """Logits without the source, or without any context."""
        if source is not None:
            free = text.without(source, self.logsnr_range[0])
            return self._network_logits(free, self.evidence(free))
        if evidence is not None:
            return evidence.log_likelihood
        with torch.autocast(text.x_t.device.type, enabled=False):
            return self.words.context_free_logits(text.x_t, text.logsnr)

    def _predict_vectors(
        self,
        text: NoisyText,
        *,
        guidance_scale: float = 1.0,
        banned: Bool[Tensor, "*#b v"] | None = None,
        source: Positions | None = None,
        temperature: float = 1.0,
    ) -> tuple[Prediction, Logits]:
        """`predict` with the objectives x0 and eps. Guidance extrapolates x0."""
        prediction = self._network_vectors(text)
        free = None
        if guidance_scale != 1 and source is not None:
            free = self._network_vectors(text.without(source, self.logsnr_range[0])).x0
        with torch.autocast(text.x_t.device.type, enabled=False):
            if guidance_scale != 1:
                if free is None:
                    p_free = self.words.context_free_logits(text.x_t, text.logsnr).softmax(-1)
                    free = p_free @ self.words.embeddings
                x0 = torch.lerp(free, prediction.x0, guidance_scale)
                prediction = from_x0(text.x_t, x0, text.logsnr)
            return prediction, without_banned(self.words.rounding_logits(prediction.x0), banned)

    def _network_vectors(self, text: NoisyText) -> Prediction:
        out = upcast(self.head(self._hidden(text)))
        with torch.autocast(text.x_t.device.type, enabled=False):
            return PREDICTIONS[self.config.objective](text.x_t, out, text.logsnr)

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
