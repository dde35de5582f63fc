"""The language model that judges how fluent sentences are: one trained by the evaluation on the same text, or any causal model by name."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from textdiff.autoregressive import Autoregressive
from textdiff.config import InputError
from textdiff.data import Corpus, collate
from textdiff.device import own_device
from textdiff.metrics import Sentence
from textdiff.vocab import MASK, PAD, UNK


class Teacher:
    """Our own: knows the tokens, and codes a sentence with its end."""

    def __init__(self, model: Autoregressive) -> None:
        self.model = model

    @torch.no_grad()
    def nats(self, sentences: Sequence[Sentence]) -> Float[np.ndarray, " n"]:
        """-log p of each."""
        return np.concatenate([self.model.nats(ids, mask).cpu().double().sum(1).numpy() for ids, mask in self._batches(sentences)])

    def coded(self, sentence: Sentence) -> int:
        """How many tokens of ours `nats` codes: the end of a sentence is one."""
        return len(sentence) + 1

    @torch.no_grad()
    def features(self, sentences: Sequence[Sentence]) -> Float[np.ndarray, "n w"]:
        """Last hidden state at each sentence's last token."""
        parts = (self.model.features(ids, mask) for ids, mask in self._batches(sentences))
        return np.concatenate([part.float().cpu().numpy() for part in parts])

    def _batches(self, sentences: Sequence[Sentence]) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches(sentences, 250):
            yield batch["ids"].to(self.model.device), batch["mask"].to(self.model.device)


class ForeignTeacher(Teacher):
    """A causal model of transformers, by folder or hub name, that reads the sentences as text with its own tokenizer."""

    def __init__(self, name: str, tokenizer: Tokenizer) -> None:
        try:
            self.reader, self.foreign = AutoTokenizer.from_pretrained(name), AutoModelForCausalLM.from_pretrained(name, use_safetensors=True).eval()
        except Exception as error:  # transformers and the hub raise many kinds
            raise InputError(f"--teacher {name} cannot be loaded as a causal language model: {' '.join(str(error).split())[:200]}") from error
        torch.nn.Module.to(self.foreign, own_device())
        self.tokenizer, self.unspelled = tokenizer, {tokenizer.token_to_id(mark) for mark in (PAD, UNK, MASK)}
        self.begin = self.reader.bos_token_id if self.reader.bos_token_id is not None else self.reader.eos_token_id
        if self.begin is None:
            raise InputError(f"--teacher {name} has a tokenizer with neither bos_token nor eos_token: nothing to begin a sentence with")
        self.name, self.longest = name, getattr(self.foreign.config, "max_position_embeddings", math.inf)

    @torch.no_grad()
    def nats(self, sentences: Sequence[Sentence]) -> Float[np.ndarray, " n"]:
        """Of the words alone, neither the end nor what cannot be spelled ([UNK])."""
        every = (self._ids(sentence) for sentence in sentences)
        return np.array([float(self.foreign(ids, labels=ids).loss) * (ids.shape[1] - 1) if ids.shape[1] > 1 else 0.0 for ids in every])

    def coded(self, sentence: Sentence) -> int:
        return sum(token not in self.unspelled for token in sentence)

    @torch.no_grad()
    def features(self, sentences: Sequence[Sentence]) -> Float[np.ndarray, "n w"]:
        hidden = [self.foreign(self._ids(sentence), output_hidden_states=True).hidden_states[-1] for sentence in sentences]
        return np.stack([h[0, -1].float().cpu().numpy() for h in hidden])

    def _ids(self, sentence: Sentence) -> Tensor:
        ids: Any = self.reader(self.tokenizer.decode(list(sentence)), add_special_tokens=False)["input_ids"]
        if len(ids) >= self.longest:
            raise InputError(f"--teacher {self.name} reads at most {self.longest:,} tokens: a sentence has {len(ids):,}, and one begins it")
        return torch.tensor([[self.begin, *ids]], device=self.foreign.device)


def perplexity(teacher: Teacher, sentences: Sequence[Sentence]) -> float:
    """A token of ours, whatever the teacher's are; the end of a sentence counts where the teacher codes it."""
    return math.exp(teacher.nats(sentences).sum() / sum(map(teacher.coded, sentences)))


def batches(sentences: Sequence[Sentence], size: int) -> Iterator[dict[str, Tensor]]:
    """In order, padded, numbered."""
    corpus = Corpus.of([list(sentence) for sentence in sentences])
    for first in range(0, len(corpus), size):
        numbers = np.arange(first, min(first + size, len(corpus)))
        yield collate([corpus[i] for i in numbers], numbers)
