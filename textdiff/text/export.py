"""The network of a text model as a graph for export: one call of `predict`.

A loop over the words would be unrolled to the length of the example, so the recursions of the
Markov prior are scans here, which have any length.
"""

import copy
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

from textdiff.config import UserError
from textdiff.diffusion.gaussian import diffuse
from textdiff.diffusion.markov import TINY, MarkovChain, WordLogits
from textdiff.export import Graph, log_snrs
from textdiff.text.markov_prior import MarkovPrior
from textdiff.text.model import DiffusionLM
from textdiff.text.requests import TextModel
from textdiff.text.transformer import NoisyText

OUTPUTS = {"ce": ("x0", "probabilities"), "x0": ("x0",), "eps": ("eps",)}


class ScannedChain(MarkovChain):
    """A Markov chain whose messages are those of `MarkovChain`, by scans over the positions.

    The transitions of contexts must not depend on those of their suffixes.
    """

    def log_messages(self, log_likelihood: WordLogits, mask: Bool[Tensor, "b l"]) -> WordLogits:
        """Computes the messages of `MarkovChain`, by scans when a graph is exported."""
        if torch.compiler.is_exporting():
            return self._scanned(log_likelihood, mask)
        return super().log_messages(log_likelihood, mask)

    def _scanned(self, log_likelihood: WordLogits, mask: Bool[Tensor, "b l"]) -> WordLogits:
        table, words = self.transitions, self.transitions.words.long()
        before, after = table.before.long(), table.after.long()
        likelihood = log_likelihood.softmax(-1).transpose(0, 1)
        own = likelihood[..., words].contiguous()  # l b s
        inner = mask.t().unsqueeze(-1).contiguous()
        start, end = (each.expand(own.shape[1], -1).clone() for each in (self.start, self.end))

        def product(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
            pairs = x[:, rows] * table.values
            return torch.zeros_like(x).index_add(1, columns, pairs)

        def forward(message: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
            x = _normalized(message * own)
            backoff = (x @ table.backoff_weight).unsqueeze(1) * table.backoff
            return product(x, before, after) + backoff, message.clone()

        def backward(message: Tensor, here: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            own, inside = here
            x = _normalized(message * own)
            backoff = (x @ table.backoff).unsqueeze(1) * table.backoff_weight
            new = torch.where(inside, product(x, after, before) + backoff, self.end)
            return new, message.clone()

        forwards = scan(forward, start, own)[1]
        backwards = scan(backward, end, (own, inner), reverse=True)[1]
        of_words = torch.zeros_like(likelihood).index_add(2, words, forwards * backwards)
        return of_words.clamp(min=TINY).log().transpose(0, 1)


class ScannedPrior(MarkovPrior):
    """A Markov prior whose chain is a `ScannedChain`."""

    def chain(self) -> MarkovChain:
        """The Markov chain of the words."""
        return ScannedChain(**vars(super().chain()))

    def list_transitions(self) -> None:
        """Lists the transitions of contexts from their suffixes among the pairs."""
        table = super().chain().transitions
        if not table.contexts:
            return
        states = len(table.backoff)
        first, size = table.vocab_size, torch.bincount(table.before, minlength=states)
        before, after, values = [table.before], [table.after], [table.values]
        of_words = table.backoff_weight.clone()
        context, weight = torch.arange(first, states), table.contexts.weight
        suffix = table.contexts.suffix.long()
        while len(context):
            number = torch.repeat_interleave(size[suffix])
            place = torch.arange(len(number)) - (size[suffix].cumsum(0) - size[suffix])[number]
            entry = (size.cumsum(0) - size)[suffix][number] + place
            before.append(context[number].to(table.before))
            after.append(table.after[entry])
            values.append(weight[number] * table.values[entry])
            self.backoff_weight[context] += weight * of_words[suffix]
            longer, index = suffix >= first, suffix - first
            context, weight, index = context[longer], weight[longer], index[longer]
            weight, suffix = (
                weight * table.contexts.weight[index],
                table.contexts.suffix[index].long(),
            )
        order = torch.cat(before).argsort(stable=True)
        self.pairs = torch.stack([torch.cat(before)[order], torch.cat(after)[order]])
        self.values = torch.cat(values)[order]
        self.context_weight.zero_()


class Denoiser(nn.Module):
    """Maps noisy embeddings to the outputs of the model's objective, without guidance."""

    def __init__(self, model: DiffusionLM) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().eval()
        if self.model.markov:
            self.model.markov.__class__ = ScannedPrior
            cast(ScannedPrior, self.model.markov).list_transitions()

    def forward(
        self,
        x_t: Float[Tensor, "b l d"],
        logsnr: Float[Tensor, "b l"],
        mask: Bool[Tensor, "b l"],
        self_cond: Float[Tensor, "b l d"],
    ) -> tuple[Tensor, ...]:
        prediction, logits = self.model.predict(NoisyText(x_t, logsnr, mask, self_cond))
        outputs = {"x0": prediction.x0, "eps": prediction.eps, "probabilities": logits.softmax(-1)}
        return tuple(outputs[name] for name in OUTPUTS[self.model.config.objective])


def text_graph(model: TextModel) -> Graph:
    """The network of a diffusion model of text, with its prior.

    Raises:
        UserError: If the model is autoregressive.
    """
    if not isinstance(model, DiffusionLM):
        raise UserError("an autoregressive model has no denoiser: export a diffusion model")
    axes: Any = {0: "batch", 1: "length"}
    inputs = ("x_t", "logsnr", "mask", "self_cond")
    denoiser = Denoiser(model)

    def examples(size: int) -> tuple[Tensor, ...]:
        return _example(denoiser.model, size, min(2 + 3 * size, model.config.length))

    facts = {"logsnrs": log_snrs(denoiser.model.schedule())}
    outputs = OUTPUTS[model.config.objective]
    return Graph(denoiser, inputs, outputs, (axes,) * 4, examples, facts)


def _example(model: DiffusionLM, n: int, length: int) -> tuple[Tensor, ...]:
    """n noisy sentences of random words, of at most `length` words, at log SNRs of the model."""
    rng, (low, high) = torch.Generator().manual_seed(n), model.logsnr_range
    words = torch.randint(model.config.vocab_size, (n, length), generator=rng)
    size = torch.randint(1, length + 1, (n, 1), generator=rng).clamp(min=length - n + 1)
    logsnr = low + (high - low) * torch.rand(n, length, generator=rng)
    x0 = model.words.embeddings[words].detach()
    x_t = diffuse(x0, torch.randn(x0.shape, generator=rng), logsnr)
    return x_t, logsnr, torch.arange(length) < size, torch.randn(x0.shape, generator=rng)


def _normalized(x: Tensor) -> Tensor:
    return x / x.sum(1, keepdim=True).clamp(min=TINY)
