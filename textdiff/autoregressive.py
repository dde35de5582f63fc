"""The autoregressive model that a diffusion model is measured against: GPT-2's shape from transformers, on the same tokens and trainer.

One extra token begins and ends every sentence, so that a sentence's likelihood includes its length.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AutoConfig, AutoModel, GPT2Config, GPT2LMHeadModel, PreTrainedConfig, PreTrainedModel

from textdiff.counter import hashed, uniform
from textdiff.layers import exact
from textdiff.lm import cross_entropy


class AutoregressiveConfig(PreTrainedConfig):
    """What of `textdiff.config.Model` concerns it, with what the data decide."""

    model_type = "textdiff-autoregressive"

    def __init__(
        self, vocab_size: int = 8, length: int = 64, width: int = 192, depth: int = 6, heads: int = 3, dropout: float = 0.0, **kwargs: Any
    ) -> None:
        self.vocab_size, self.length = vocab_size, length
        self.width, self.depth, self.heads, self.dropout = width, depth, heads, dropout
        super().__init__(**kwargs)


class Autoregressive(PreTrainedModel):
    """p(sentence) = prod p(word | words before) p(end | sentence)."""

    config_class = AutoregressiveConfig
    base_model_prefix = "autoregressive"
    config: AutoregressiveConfig

    def __init__(self, config: AutoregressiveConfig) -> None:
        super().__init__(config)
        shape = GPT2Config(
            vocab_size=config.vocab_size + 1,
            n_positions=config.length + 1,
            n_embd=config.width,
            n_layer=config.depth,
            n_head=config.heads,
            resid_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            attn_pdrop=config.dropout,
        )
        self.gpt = GPT2LMHeadModel(shape)
        self.post_init()

    @property
    def end(self) -> int:
        """The token at the beginning and at the end."""
        return self.config.vocab_size

    def nats(self, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b m"]:
        """-log p of every token and, after the last, of the end; 0 beyond. m = l + 1."""
        sizes = mask.sum(1, keepdim=True)
        targets = F.pad(ids, (0, 1)).scatter(1, sizes, self.end)
        logits = exact(self.gpt(self._with_start(ids)).logits)
        places = torch.arange(targets.shape[1], device=ids.device)
        return cross_entropy(logits, targets) * (places <= sizes)

    def features(self, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b w"]:
        """Last hidden state at the last token, from which the end of the sentence is predicted.

        The end token itself is not read: after a sentence the model has only ever predicted it.
        """
        hidden = self.gpt.transformer(self._with_start(ids)).last_hidden_state
        return hidden[torch.arange(len(ids), device=ids.device), mask.sum(1)]

    def _with_start(self, ids: Int[Tensor, "b l"]) -> Int[Tensor, "b m"]:
        """The network's input: `end`, which begins every sentence, before the tokens."""
        return F.pad(ids, (1, 0), value=self.end)

    def forward(
        self, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"], index: Int[Tensor, " b"], progress: object = 1.0
    ) -> dict[str, Float[Tensor, ""]]:
        """The named loss term `ce`: nats a token, the end's included in the sum and not in the count. `index` and `progress` are not needed."""
        return {"ce": self.nats(ids, mask).sum() / mask.sum()}

    @torch.no_grad()
    def generate_tokens(
        self, ids: Int[Tensor, "b l"], known: int, keys: Int[Tensor, " b"], *, temperature: float = 1.0, banned: Bool[Tensor, " v"]
    ) -> Iterator[Int[Tensor, "b l"]]:
        """A copy of `ids` on the CPU after every token, with one more filled in from place `known` on.

        All places after it, and after the end of a sentence, hold `end`.
        """
        ids = ids.clone()
        ids[:, known:] = self.end
        history = self._with_start(ids[:, :known])
        done = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        cache = None
        for place in range(known, ids.shape[1]):
            out = self.gpt(history if cache is None else history[:, -1:], past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            logits = exact(out.logits[:, -1]) / temperature
            logits[:, : self.end] = logits[:, : self.end].masked_fill(banned, -torch.inf)
            if place == 0:
                logits[:, self.end] = -torch.inf  # no sentence is empty
            thresholds = uniform(hashed(keys, place), stream=1).unsqueeze(1)
            drawn = torch.searchsorted(logits.softmax(-1).cumsum(-1), thresholds).squeeze(1).clamp(max=self.end)
            done = done | (drawn == self.end)
            ids[:, place] = torch.where(done, self.end, drawn)
            history = torch.cat([history, ids[:, place : place + 1]], 1)
            yield (shown := ids.to("cpu", copy=True))
            if (shown[:, place] == self.end).all():
                return


AutoConfig.register(AutoregressiveConfig.model_type, AutoregressiveConfig)
AutoModel.register(AutoregressiveConfig, Autoregressive)
