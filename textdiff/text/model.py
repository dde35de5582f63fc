"""DiffusionLM: Gaussian noise on word embeddings, a transformer that removes it, and rounding.

`forward` returns the loss terms of a training step; the network and its predictions are in
`predictor`, `generate` is in `generation`. Losses are float32, also under autocast.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModel

from textdiff.device import wants_static_shapes
from textdiff.diffusion.gaussian import diffuse
from textdiff.diffusion.markov import MarkovChain
from textdiff.nn import upcast
from textdiff.prng import low_discrepancy_times, normal, uniform
from textdiff.text.corruption import (
    CorruptedBatch,
    LossPositions,
    dropped_sources,
    sample_levels,
    sample_logsnr,
)
from textdiff.text.functional import project, source_positions
from textdiff.text.generation import GenerativePredictor
from textdiff.text.markov_prior import Evidence, PairStatistics
from textdiff.text.model_config import DiffusionLMConfig
from textdiff.text.objective import word_losses
from textdiff.text.transformer import Keys, NoisyText, Positions, Vectors

Tokens = Int[Tensor, "b l"]
Scalar = Float[Tensor, ""]


class DiffusionLM(GenerativePredictor):
    """The diffusion language model: a `GenerativePredictor` with its training losses."""

    @property
    def compiled_parts(self) -> list[nn.Module]:
        """Modules that training compiles: all, or the network alone beside a Markov prior.

        The prior's recursion over the words would be unrolled into a long graph.
        """
        return [self.denoiser] if self.markov else [self]

    @property
    def has_sentence_loss(self) -> bool:
        """Whether the loss is that of whole sentences, which needs a Markov prior."""
        return self.markov is not None and self.config.sentence_loss

    def set_data_statistics(
        self,
        token_counts: Float[Tensor, " v"],
        length_counts: Float[Tensor, " n"],
        pairs: PairStatistics | None = None,
    ) -> None:
        """Sets the frequencies of words and lengths, and the logits that training starts from.

        Args:
            token_counts: Count of each token in the training text.
            length_counts: Count of each sentence length from 0 to `config.length`.
            pairs: Statistics of word pairs, for a Markov prior.
        """
        unigram = (token_counts + 0.1) / (token_counts + 0.1).sum()
        self.words.unigram.copy_(unigram)
        self.lengths.copy_(length_counts / length_counts.sum())
        with torch.no_grad():
            if self.config.schedule == "adaptive":
                self.adaptive.limit.copy_(-(unigram * unigram.log()).sum())
            if self.config.objective == "ce" and not self.markov:
                self.head.bias.copy_(unigram.log())
            if self.markov and pairs:
                self.markov.set_statistics(pairs)
                self.head.bias.zero_()

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
            self.prior_weight.copy_((warmed_up + self.has_sentence_loss).clamp(0, 1))
        batch = self._corrupt(ids, mask, index)
        text = batch.text
        evidence = self.evidence(text)
        self_cond = self._self_conditioning(batch, text, torch.as_tensor(progress))
        text = text._replace(self_cond=self_cond).without(batch.dropped, self.logsnr_range[0])
        h = self._hidden(text, evidence, index if self.training else None)
        if evidence is None or not self.has_sentence_loss:
            return self._word_terms(batch, h, evidence)
        logits = self._logits(h, batch.x_t, batch.logsnr, evidence)
        return self._sentence_terms(batch, logits, evidence.chain)

    def _corrupt(self, ids: Tokens, mask: Positions, index: Keys) -> CorruptedBatch:
        """Adds noise to the embeddings, with a log SNR for each word."""
        c, (low, high) = self.config, self.logsnr_range
        source = source_positions(ids, c.separator)
        if self.training:
            prob = c.uniform_logsnr_prob if c.schedule == "adaptive" else 0.0
            schedule = self.schedule()
            logsnr = sample_logsnr(index, schedule, self.logsnr_range, prob)
            shares = c.infill_prob, c.stagger_prob
            levels, predicted = sample_levels(
                index, mask, schedule, logsnr, high, *shares, source if c.has_sources else None
            )
        else:
            logsnr = high - (high - low) * low_discrepancy_times(index)
            levels, predicted = torch.where(source, high, logsnr.unsqueeze(1)), mask & ~source
        prob = c.source_drop_prob if self.training and c.has_sources else 0.0
        dropped = dropped_sources(index, ids, c.separator, prob)
        x0 = self.words.embeddings[ids]
        eps = normal(index, x0.shape, stream=1)
        text = NoisyText(diffuse(x0, eps, levels), levels, mask).without(dropped, low)
        noisy = text.levels, predicted, text.x_t, source, dropped
        return CorruptedBatch(ids, mask, index, x0, eps, *noisy)

    def _sentence_terms(
        self, batch: CorruptedBatch, logits: Float[Tensor, "b l v"], chain: MarkovChain
    ) -> dict[str, Scalar]:
        """Loss terms of whole sentences; given words add next to nothing."""
        with torch.autocast(logits.device.type, enabled=False):
            nats = chain.nats(logits, batch.ids, batch.mask)
        return {"ce": nats.sum() / self._count(batch)} | self._schedule_term(batch, nats)

    def _word_terms(
        self, batch: CorruptedBatch, h: Float[Tensor, "b l w"], evidence: Evidence | None
    ) -> dict[str, Scalar]:
        """Loss terms of single words, given the last hidden states."""
        c, count = self.config, self._count(batch)
        positions = LossPositions.of(batch.predicted)
        words, x0, eps, x_t = map(positions.gather, (batch.ids, batch.x0, batch.eps, batch.x_t))
        logsnr, h = positions.gather(batch.logsnr), positions.gather(h)
        if c.objective != "ce":
            out = upcast(self.head(h))
        elif evidence is None:
            out = self._logits(h, x_t, logsnr)
        else:
            here = evidence.at(positions.gather)
            out = self._logits(h, x_t, logsnr, here) + self.prior_weight * here.messages
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
        return terms | self._schedule_term(batch, positions.scatter(nats.detach()).sum(1))

    def _count(self, batch: CorruptedBatch) -> Scalar:
        """About the expected number of predicted words, so that losses of parts of a batch add up.

        Half of the words are given in an infill, and two fifths are clean on a staggered path.
        """
        c, words = self.config, batch.mask.sum() * self.config.target_share
        share = (1 - c.infill_prob / 2) * (1 - 0.4 * c.stagger_prob) if self.training else 1.0
        return words * share

    def _schedule_term(self, batch: CorruptedBatch, nats: Float[Tensor, " b"]) -> dict[str, Scalar]:
        """Misfit of the adaptive schedule, from the nats of each sentence."""
        if not self.training or self.config.schedule != "adaptive":
            return {}
        misfit = self.adaptive.misfit(nats.detach() / batch.targets, batch.logsnr[:, -1])
        misfit = misfit * batch.has_one_level * batch.targets
        return {"schedule": misfit.sum() / self._count(batch)}

    @torch.no_grad()
    def _self_conditioning(
        self, batch: CorruptedBatch, text: NoisyText, progress: Scalar
    ) -> Vectors:
        """The model's own first estimate of x0 for some examples, and zeros for the others."""
        zeros, c = torch.zeros_like(batch.x_t), self.config
        if not c.self_cond_prob:
            return zeros
        begun = progress >= (c.self_cond_start if self.training else 0)
        prob = begun * c.self_cond_prob
        chosen = uniform(batch.keys, stream=9) < prob.to(zeros.device)
        if wants_static_shapes(zeros.device):
            x0 = self.predict(text)[0].x0
            return torch.where(chosen[:, None, None], project(x0), zeros)
        if not prob:
            return zeros
        rows = chosen.nonzero().squeeze(1)
        # at least one row: all processes or none must call a sharded network
        some = rows if len(rows) else rows.new_zeros(1)
        x0 = self.predict(NoisyText(text.x_t[some], text.logsnr[some], text.mask[some]))[0].x0
        zeros[rows] = project(x0)[: len(rows)]
        return zeros


AutoModel.register(DiffusionLMConfig, DiffusionLM)
