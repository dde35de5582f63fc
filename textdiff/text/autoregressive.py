"""The autoregressive baseline: GPT-2's architecture on the same tokens, with the same trainer.

One extra token begins and ends every sentence, so that the likelihood includes the length.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AutoModel, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from textdiff.nn import upcast
from textdiff.prng import fold_in, uniform
from textdiff.text.functional import cross_entropy, source_positions
from textdiff.text.model_config import AutoregressiveConfig

ONLY_LEFT_TO_RIGHT = "an autoregressive model can sample and continue, not rewrite or infill"


class Autoregressive(PreTrainedModel):
    """The autoregressive model p(sentence) = prod p(word | words before) p(end | sentence)."""

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
        """Token at the beginning and at the end of a sentence."""
        return self.config.vocab_size

    def nats(self, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b m"]:
        """-log p of every token and of the end after the last one; 0 beyond. m = l + 1.

        Sources are given and have 0.
        """
        sizes = mask.sum(1, keepdim=True)
        targets = F.pad(ids, (0, 1)).scatter(1, sizes, self.end)
        logits = upcast(self.gpt(self._with_start(ids)).logits)
        position = torch.arange(targets.shape[1], device=ids.device)
        coded = (position <= sizes) & ~source_positions(targets, self.config.separator)
        return cross_entropy(logits, targets) * coded

    def features(self, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b w"]:
        """Last hidden state at the last token, from which the end is predicted.

        The end token is never an input after a sentence, only a target.
        """
        hidden = self.gpt.transformer(self._with_start(ids)).last_hidden_state
        return hidden[torch.arange(len(ids), device=ids.device), mask.sum(1)]

    def _with_start(self, ids: Int[Tensor, "b l"]) -> Int[Tensor, "b m"]:
        """Tokens with `end`, which begins every sentence, in front."""
        return F.pad(ids, (1, 0), value=self.end)

    def forward(
        self,
        ids: Int[Tensor, "b l"],
        mask: Bool[Tensor, "b l"],
        index: Int[Tensor, " b"],
        progress: object = 1.0,
    ) -> dict[str, Float[Tensor, ""]]:
        """Loss term `ce`: nats per token. The end is in the sum, but not in the count.

        `index` and `progress` are not used.
        """
        return {"ce": self.nats(ids, mask).sum() / (mask.sum() * self.config.target_share)}

    @torch.no_grad()
    def generate_tokens(
        self,
        ids: Int[Tensor, "b l"],
        known: int,
        keys: Int[Tensor, " b"],
        *,
        temperature: float = 1.0,
        banned: Bool[Tensor, " v"],
    ) -> Iterator[Int[Tensor, "b l"]]:
        """Samples token after token; yields a copy of all sequences on the CPU after each.

        Positions that are not sampled yet, and those after the end, hold `end`.

        Args:
            known: Number of tokens at the beginning that are given.
            keys: Key of each sequence, from which its randomness is derived.
            banned: Tokens that are never sampled.
        """
        ids = ids.clone()
        ids[:, known:] = self.end
        history = self._with_start(ids[:, :known])
        done = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        cache = None
        for position in range(known, ids.shape[1]):
            new = history if cache is None else history[:, -1:]
            out = self.gpt(new, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            logits = upcast(out.logits[:, -1]) / temperature
            logits[:, : self.end] = logits[:, : self.end].masked_fill(banned, -torch.inf)
            if position == (known if self.config.has_sources else 0):
                logits[:, self.end] = -torch.inf  # no sentence and no target is empty
            threshold = uniform(fold_in(keys, position), stream=1).unsqueeze(1)
            cumulative = logits.softmax(-1).cumsum(-1)
            token = torch.searchsorted(cumulative, threshold).squeeze(1).clamp(max=self.end)
            done = done | (token == self.end)
            ids[:, position] = torch.where(done, self.end, token)
            history = torch.cat([history, ids[:, position : position + 1]], 1)
            yield (copy := ids.to("cpu", copy=True))
            if (copy[:, position] == self.end).all():
                return


AutoModel.register(AutoregressiveConfig, Autoregressive)
