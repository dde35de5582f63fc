"""Training losses of single words."""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from textdiff.diffusion.gaussian import PREDICTIONS
from textdiff.diffusion.losses import LOSSES


def word_losses(
    objective: str,
    out: Float[Tensor, "n k"],
    x_t: Float[Tensor, "n d"],
    logsnr: Float[Tensor, " n"],
    words: Int[Tensor, " n"],
    x0: Float[Tensor, "n d"],
    eps: Float[Tensor, "n d"],
    rounding_logits: Callable[[Float[Tensor, "n d"]], Float[Tensor, "n v"]],
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """The objective's loss and the cross-entropy of each word; with ce they are the same.

    Args:
        objective: ce, eps or x0.
        out: Output of the network: logits with ce, otherwise the predicted eps or x0.
        rounding_logits: Logits of the words given a clean vector.
    """
    if objective == "ce":
        nats = F.cross_entropy(out, words, reduction="none")
        return nats, nats
    prediction = PREDICTIONS[objective](x_t, out, logsnr)
    error = LOSSES[objective](lambda *_: prediction, x0, eps, logsnr)
    logits = rounding_logits(prediction.x0.detach())
    return error.mean(-1), F.cross_entropy(logits, words, reduction="none")
