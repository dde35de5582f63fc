"""Reference language models, which measure the perplexity of generated sentences."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from textdiff.config import UserError
from textdiff.device import own_device
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.dataset import Corpus, collate
from textdiff.text.diagnostics import Sentence
from textdiff.text.tokenizer import MASK, PAD, UNK


class ReferenceLM:
    """An autoregressive model of textdiff with the tokenizer of the evaluated model."""

    def __init__(self, model: Autoregressive) -> None:
        self.model = model

    @torch.no_grad()
    def nats(self, sentences: Sequence[Sentence]) -> Float[np.ndarray, " n"]:
        """-log p of each sentence and its end, in nats."""
        parts = (self.model.nats(ids, mask) for ids, mask in self._batches(sentences))
        return np.concatenate([part.cpu().double().sum(1).numpy() for part in parts])

    def coded_tokens(self, sentence: Sentence) -> int:
        """Number of tokens that `nats` codes. The end of the sentence is one of them."""
        return len(sentence) + 1

    @torch.no_grad()
    def features(self, sentences: Sequence[Sentence]) -> Float[np.ndarray, "n w"]:
        """Last hidden state at the last token of each sentence."""
        parts = (self.model.features(ids, mask) for ids, mask in self._batches(sentences))
        return np.concatenate([part.float().cpu().numpy() for part in parts])

    def _batches(self, sentences: Sequence[Sentence]) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in sentence_batches(sentences, 250):
            yield batch["ids"].to(self.model.device), batch["mask"].to(self.model.device)


class PretrainedReferenceLM(ReferenceLM):
    """A causal language model of transformers, which has its own tokenizer.

    Args:
        name: A folder or a name on the Hugging Face hub.
        tokenizer: Tokenizer of the evaluated model, which decodes the sentences.

    Raises:
        UserError: If the model cannot be loaded or its tokenizer has no token to begin with.
    """

    def __init__(self, name: str, tokenizer: Tokenizer) -> None:
        self.option = f"--reference_lm {name}"
        try:
            self.own_tokenizer = AutoTokenizer.from_pretrained(name)
            self.lm = AutoModelForCausalLM.from_pretrained(name, use_safetensors=True).eval()
        except Exception as error:  # transformers and the hub raise many kinds
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self.option} cannot be loaded as a causal language model: {reason}"
            ) from error
        torch.nn.Module.to(self.lm, own_device())
        self.tokenizer = tokenizer
        self.special_tokens = {tokenizer.token_to_id(token) for token in (PAD, UNK, MASK)}
        starts = (self.own_tokenizer.bos_token_id, self.own_tokenizer.eos_token_id)
        self.start = next((token for token in starts if token is not None), None)
        if self.start is None:
            lacks = "has a tokenizer with neither bos_token nor eos_token"
            raise UserError(f"{self.option} {lacks}, one of which must begin a sentence")
        self.longest = getattr(self.lm.config, "max_position_embeddings", math.inf)

    @torch.no_grad()
    def nats(self, sentences: Sequence[Sentence]) -> Float[np.ndarray, " n"]:
        """-log p of the words of each sentence, without its end and without special tokens."""
        return np.array([self._sentence_nats(sentence) for sentence in sentences])

    def coded_tokens(self, sentence: Sentence) -> int:
        """Number of tokens that `nats` codes: all but special ones such as [UNK]."""
        return sum(token not in self.special_tokens for token in sentence)

    @torch.no_grad()
    def features(self, sentences: Sequence[Sentence]) -> Float[np.ndarray, "n w"]:
        """Last hidden state at the last token of each sentence."""
        outputs = (self.lm(self._ids(each), output_hidden_states=True) for each in sentences)
        return np.stack([out.hidden_states[-1][0, -1].float().cpu().numpy() for out in outputs])

    def _sentence_nats(self, sentence: Sentence) -> float:
        ids = self._ids(sentence)
        coded = ids.shape[1] - 1
        return float(self.lm(ids, labels=ids).loss) * coded if coded else 0.0

    def _ids(self, sentence: Sentence) -> Tensor:
        """The sentence in the tokens of this model, after a start token."""
        text = self.tokenizer.decode(list(sentence))
        ids: Any = self.own_tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) >= self.longest:
            limit = f"takes at most {self.longest:,} tokens"
            raise UserError(f"{self.option} {limit}: a sentence has {len(ids):,} and a start token")
        return torch.tensor([[self.start, *ids]], device=self.lm.device)


def perplexity(reference_lm: ReferenceLM, sentences: Sequence[Sentence]) -> float:
    """Perplexity per token of the evaluated model, also if the reference model has other tokens.

    The end of a sentence counts as a token if the reference model codes it.
    """
    tokens = sum(map(reference_lm.coded_tokens, sentences))
    return math.exp(reference_lm.nats(sentences).sum() / tokens)


def sentence_batches(sentences: Sequence[Sentence], size: int) -> Iterator[dict[str, Tensor]]:
    """Yields padded batches of the sentences, in order, with the index of each sentence."""
    corpus = Corpus.of([list(sentence) for sentence in sentences])
    for first in range(0, len(corpus), size):
        indices = np.arange(first, min(first + size, len(corpus)))
        yield collate([corpus[i] for i in indices], indices)
