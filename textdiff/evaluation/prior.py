"""The Markov prior of a model as a baseline: what counts alone predict, without the network."""

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer

from textdiff.config import UserError
from textdiff.evaluation.reference_lm import sentence_batches
from textdiff.text.diagnostics import Sentence
from textdiff.text.lengths import length_nats
from textdiff.text.model import DiffusionLM
from textdiff.text.requests import TextModel, sample_request
from textdiff.text.tokenizer import special_ids


class Prior:
    """Words of a model's Markov prior, and lengths from its training text.

    Args:
        model: A model of single texts.

    Raises:
        UserError: If the model has no Markov prior.
    """

    def __init__(self, model: TextModel, tokenizer: Tokenizer) -> None:
        if not isinstance(model, DiffusionLM) or model.markov is None:
            raise UserError("--baselines prior needs a model with model.prior markov")
        self.model, self.chain = model, model.markov.chain()
        self.never = [*special_ids(tokenizer)]

    @torch.no_grad()
    def nats(self, sentences: Sequence[Sentence]) -> np.ndarray:
        """-log p of each sentence with its length, in nats."""
        found = []
        for batch in sentence_batches(sentences, 50):
            ids, mask = (batch[name].to(self.model.device) for name in ("ids", "mask"))
            unseen = self.chain.start.new_zeros(*ids.shape, self.model.config.vocab_size)
            found.append(length_nats(self.model, ids, mask) + self.chain.nats(unseen, ids, mask))
        return torch.cat(found).double().cpu().numpy()

    @torch.no_grad()
    def sample(self, n: int, seed: int) -> list[Sentence]:
        """Samples without special tokens."""
        request, sentences = sample_request(self.model, n, seed), list[Sentence]()
        generator = torch.Generator().manual_seed(seed)
        for mask in request.mask.split(128):
            logits = torch.zeros(*mask.shape, self.model.config.vocab_size)
            logits[..., self.never] = -torch.inf
            numbers = torch.rand(mask.shape, generator=generator)
            given = (each.to(self.model.device) for each in (logits, mask, numbers))
            rows = zip(self.chain.sample(*given).tolist(), mask.sum(1).tolist(), strict=True)
            sentences += [tuple(words[:length]) for words, length in rows]
        return sentences
