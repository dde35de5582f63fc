"""What training a text model costs, by arithmetic: `python scripts/benchmarks/costs.py`.

FLOPs, bytes of memory and of communication, and from them the hours on several GPUs. The formulas
are in docs/scaling.md; `benchmark.py scaling` compares them with measurements. Weights are float32,
and Muon updates the matrices of the blocks.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from textdiff.cli.parser import fail, run_script
from textdiff.config import TrainConfig
from textdiff.table import table_lines
from textdiff.text.model import DiffusionLM, DiffusionLMConfig
from textdiff.training.optimizers import build_optimizers

FLOAT, PAIR = 4, 12  # bytes of a float32 number, and of a word pair with its probability
KEPT = 18  # widths per token and block that the backward pass needs, in numbers
WORD_COPIES = {"unigram": 8, "markov": 13}  # numbers per token and word at the peak, as measured
# FLOPs of Muon per block, in cubes of the width (training/muon.py): six matrices, 16 w^2 numbers
MUON = {"float32": 4 * 16 + 6 * 34, "bf16": 5 * (4 * 16 + 6 * 2)}


@dataclass(frozen=True)
class Costs:
    """Costs of training a diffusion model with objective ce, by its configuration.

    Args:
        config: The model. Its `self_cond_prob` is taken to hold during the whole training.
    """

    config: DiffusionLMConfig

    @cached_property
    def weights(self) -> tuple[int, int]:
        """Number of all weights, and of those that Muon updates."""
        with torch.device("meta"):
            model = DiffusionLM(self.config)
        muon = build_optimizers(model, TrainConfig(precision="no"), torch.device("cpu"))[0]
        of_muon = sum(p.numel() for group in muon.param_groups for p in group["params"])
        return sum(p.numel() for p in model.parameters()), of_muon

    def flops(self, length: int) -> float:
        """FLOPs of matrix products per token of a training step, in sentences of this length.

        A pass through the network has 24 w^2 + 4 l w per block, 2 w V for the logits, 2 d w for
        each input, and the modulation of the norms once per sentence. A step has a forward and two
        backward passes, and a self-conditioned example one more forward pass.
        """
        c, markov = self.config, self.config.has_markov_prior
        blocks = c.depth * (24 * c.width**2 + 4 * length * c.width)
        norms = (2 * c.depth + 1) * 4 * c.width**2 + 2 * (128 + c.width) * c.width
        inputs = 2 * c.embed_dim * c.width * (3 if markov else 2)
        network = blocks + norms / length + inputs + 2 * c.width * c.vocab_size
        words = 2 * c.embed_dim * c.vocab_size  # products of a vector and all embeddings, or a mean
        own, estimate = words * (c.prior != "none"), words * markov
        again = network + own + estimate + words
        return 3 * (network + own) + estimate + c.self_cond_prob * again

    def muon_flops(self, precision: str) -> float:
        """FLOPs per step in which Muon orthogonalizes its matrices, for any number of tokens."""
        return MUON[precision] * self.config.depth * self.config.width**3

    def prior_bytes(self, length: int, batch: int) -> float:
        """Bytes that the recursions of the Markov prior read per step: forwards and backwards.

        For each position they read all pairs, and for each pair a number of each sentence.
        """
        passes = 2 * (1 + self.config.self_cond_prob) * self.config.has_markov_prior
        return passes * length * self.config.prior_pairs * (PAIR + FLOAT * batch)

    @property
    def state_bytes(self) -> int:
        """Bytes of weights, gradients, averaged weights, Muon's and AdamW's state, and pairs."""
        n, of_muon = self.weights
        state = FLOAT * (3 * n + of_muon + 2 * (n - of_muon))
        return state + 2 * PAIR * self.config.prior_pairs * self.config.has_markov_prior

    def activation_bytes(self, length: int, batch: int, fused: bool = False) -> float:
        """Bytes that are kept until the backward pass, and those of the words' logits.

        Args:
            fused: Whether attention keeps no scores, as fused kernels do.
        """
        c = self.config
        scores = 0 if fused else c.heads * length
        blocks = c.depth * (KEPT * c.width + scores)
        return FLOAT * length * batch * (blocks + WORD_COPIES[c.prior] * c.vocab_size)

    def exchanged_bytes(self, processes: int, shard: bool = False) -> float:
        """Bytes that each process sends per step.

        Gradients are added up in a ring: 2 (P - 1) / P times their size. Sharded, weights are
        collected twice and gradients distributed once, and once more collected for each example
        with self-conditioning; Muon sends its matrices to their owners and back.
        """
        n, of_muon = self.weights
        part = (processes - 1) / processes
        if not shard:
            return FLOAT * n * 2 * part
        collected = 2 + (self.config.self_cond_prob > 0)
        return FLOAT * part * ((collected + 1) * n + 2 * of_muon / processes)


@dataclass(frozen=True)
class Gpu:
    """What a GPU reaches. The defaults are data sheet values of an A100 with 80 GB.

    Args:
        flops: FLOP/s of matrix products in bf16.
        share: Share of them that training reaches. An assumption.
        bandwidth: Bytes per second of its memory.
        memory: Bytes of its memory.
        link: Bytes per second that it sends to GPUs of the same machine.
        network: Bytes per second that it sends to GPUs of other machines.
        per_machine: GPUs of a machine.
    """

    flops: float = 312e12
    share: float = 0.3
    bandwidth: float = 2.0e12
    memory: float = 80e9
    link: float = 300e9
    network: float = 25e9
    per_machine: int = 8


def plan(
    costs: Costs, gpu: Gpu, processes: int, tokens: float, batch: int, shard: bool
) -> dict[str, Any]:
    """Figures of a training on several GPUs.

    Args:
        tokens: Number of training tokens.
        batch: Sentences per step and GPU.
    """
    length = costs.config.length
    per_step = length * batch
    steps = tokens / (per_step * processes)
    muon = costs.muon_flops("bf16") / (processes if shard else 1)
    compute = (per_step * costs.flops(length) + muon) / (gpu.share * gpu.flops)
    prior = costs.prior_bytes(length, batch) / (gpu.share * gpu.bandwidth)
    speed = gpu.link if processes <= gpu.per_machine else gpu.network
    exchange = costs.exchanged_bytes(processes, shard) / speed
    state = costs.state_bytes / (processes if shard else 1)
    hours = steps * (compute + prior + exchange) / 3600
    return {
        "steps": f"{steps:,.0f}",
        "network, ms per step": 1e3 * compute,
        "prior, ms per step": 1e3 * prior,
        "exchange, ms per step": 1e3 * exchange,
        "hours": hours,
        "GPU hours": hours * processes,
        "state, GB per GPU": state / 1e9,
        "activations, GB": costs.activation_bytes(length, batch, fused=True) / 1e9,
        "exchanged, GB per step": costs.exchanged_bytes(processes, shard) / 1e9,
    }


def costs(
    width: int = 640,
    depth: int = 12,
    vocab: int = 32_000,
    length: int = 128,
    batch: int = 64,
    tokens: float = 10e9,
    pairs: int = 1_000_000,
    self_cond: float = 0.25,
    shard: bool = False,
    gpus: list[int] | None = None,
    gpu: Gpu = Gpu(),
) -> None:
    """Print what a training costs.

    Args:
        width: Width of the transformer.
        depth: Number of its blocks.
        vocab: Size of the vocabulary.
        length: Tokens per example.
        batch: Examples per step and GPU.
        tokens: Number of training tokens.
        pairs: Word pairs of the Markov prior.
        self_cond: Share of all examples that are self-conditioned. The default model has half of
            them from the middle of the training on.
        shard: Divide weights and optimizer state between the GPUs.
        gpus: Numbers of GPUs. If null, 1, 8 and 64.
        gpu: What a GPU reaches.
    """
    if min(width, depth, vocab, length, batch, tokens) <= 0:
        fail("all sizes must be positive")
    shape = {"width": width, "depth": depth, "heads": max(1, width // 64), "length": length}
    prior = {"prior_pairs": pairs, "self_cond_prob": self_cond}
    of_model = Costs(DiffusionLMConfig(vocab_size=vocab, **shape, **prior))
    rows = {f"{n} GPUs": plan(of_model, gpu, n, tokens, batch, shard) for n in gpus or [1, 8, 64]}
    report(of_model, tokens, rows)


def report(costs: Costs, tokens: float, rows: dict[str, dict[str, Any]]) -> None:
    """Prints FLOPs and a table of plans."""
    n, flops = costs.weights[0], costs.flops(costs.config.length)
    print(f"{n / 1e6:.1f} M weights, {flops / 1e6:.0f} MFLOP per token, {flops / n:.1f} per weight")
    print(f"{tokens:.3g} tokens: {flops * tokens:.3g} FLOP")
    print(*table_lines(rows), sep="\n")


if __name__ == "__main__":
    run_script(costs)
