"""Muon: momentum with orthogonalized updates of weight matrices (Keller Jordan, 2024).

The update rule and the state are those of `torch.optim.Muon`, so either can load the other's
checkpoints. This version orthogonalizes many matrices at once, and in float32 where bf16 is slow.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.tensor import DTensor

from textdiff.training.sharding import map_full

A, B, C = 3.4445, -4.7750, 2.0315  # x -> A x + B x^3 + C x^5 pulls (0, 1] towards 1 (Keller Jordan)
STEPS = 5
BAND = (0.68, 1.21)  # range of singular values from 0.003 to 1 after five steps in exact arithmetic


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized, with decoupled weight decay. For matrices only.

    The update of an n x m matrix has the root mean square of AdamW's: 0.2 sqrt(max(n, m)) times an
    orthogonal matrix (Moonlight, arXiv:2502.16982, eq. 4), so both take the same learning rate.

    Args:
        dtype: bfloat16 or float32, in which matrices are orthogonalized.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Updates every matrix that has a gradient. A closure is ignored."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            grads = [p.grad for p in params]
            for p in params:
                if not self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            buffers = [self.state[p]["momentum_buffer"] for p in params]
            torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
            updates = torch._foreach_lerp(grads, buffers, group["momentum"])
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            for p, update in zip(params, self._orthogonalize(list(updates)), strict=True):
                p.add_(update, alpha=-0.2 * math.sqrt(max(p.shape)) * group["lr"])

    def _orthogonalize(self, updates: list[Tensor]) -> list[Tensor]:
        """Orthogonalized updates. Sharded ones are assembled for it, each on one process."""
        sharded = [update for update in updates if isinstance(update, DTensor)]
        if not sharded:
            return orthogonalize(updates, self.dtype)
        if self.dtype == torch.bfloat16:  # halves the communication
            sharded = [cast(DTensor, update.to(self.dtype)) for update in sharded]
        return [*map_full(lambda full: orthogonalize(full, self.dtype), sharded)]


def orthogonalize(
    matrices: Iterable[Float[Tensor, "_ _"]], dtype: torch.dtype
) -> list[Float[Tensor, "_ _"]]:
    """Moves each matrix U S V^T towards U V^T by five quintic Newton-Schulz steps.

    Singular values of at least 0.003 of the Frobenius norm end in `BAND`. In float32 the steps are
    computed on the small Gram matrices, a third less work for the matrices of a transformer;
    bfloat16 is too coarse for that.
    """
    matrices = list(matrices)
    wide = [m if m.shape[0] <= m.shape[1] else m.mT for m in matrices]
    in_bf16 = dtype == torch.bfloat16
    groups = defaultdict(list)
    for number, matrix in enumerate(wide):
        groups[matrix.shape if in_bf16 else matrix.shape[0]].append(number)
    iterate = _newton_schulz if in_bf16 else _gram_newton_schulz
    results: dict[int, Tensor] = {}
    for numbers in groups.values():
        unit = [wide[n] / wide[n].norm().clamp(min=1e-7) for n in numbers]
        results |= zip(numbers, iterate(unit), strict=True)
    return [
        (results[n] if m.shape[0] <= m.shape[1] else results[n].mT).to(m.dtype)
        for n, m in enumerate(matrices)
    ]


def _newton_schulz(matrices: list[Tensor]) -> list[Tensor]:
    """X <- (A + B X X^T + C (X X^T)^2) X, for matrices of one shape, in bfloat16."""
    x = torch.stack(matrices).bfloat16()
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return list(x)


def _gram_newton_schulz(matrices: list[Tensor]) -> list[Tensor]:
    """The same for matrices with equally many rows, as a polynomial in the Gram matrix X X^T.

    With P_k = A + B G_k + C G_k^2 and G_{k+1} = P_k^2 G_k the result is P_5 ... P_1 X.
    """
    gram, product = torch.stack([x @ x.mT for x in matrices]), None
    for step in range(STEPS):
        factor = torch.baddbmm(gram, gram, gram, beta=B, alpha=C)
        factor.diagonal(dim1=-2, dim2=-1).add_(A)
        product = factor if product is None else factor @ product
        if step < STEPS - 1:
            gram = factor @ (factor @ gram)
    assert product is not None
    return [p @ x for p, x in zip(product, matrices, strict=True)]
