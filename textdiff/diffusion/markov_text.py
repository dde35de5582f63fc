"""Text of a Markov chain, whose denoiser, likelihood and entropy are exact at every log SNR.

It is to text what `gaussian_mixture` is to points: tests and figures use it as ground truth.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from textdiff.diffusion.gaussian import LogSNR, Prediction, alpha_sigma, from_x0
from textdiff.diffusion.markov import MarkovChain, Mask, WordLogits
from textdiff.diffusion.transitions import Words

Vectors = Float[Tensor, "b l d"]


@dataclass(frozen=True)
class MarkovText:
    """Sentences of a Markov chain, seen as the embeddings of their words.

    Args:
        chain: The chain of the words. A row of its transitions and `end` add up to 1.
        embeddings: Embeddings of the words.
    """

    chain: MarkovChain
    embeddings: Float[Tensor, "v d"]

    def log_likelihood(self, x_t: Vectors, logsnr: LogSNR) -> WordLogits:
        """log N(x_t; alpha e, sigma^2 I) of the embedding e of each word, up to a constant."""
        alpha, sigma = alpha_sigma(logsnr, x_t)
        inner = x_t @ self.embeddings.T - alpha / 2 * self.embeddings.square().sum(-1)
        return alpha / sigma**2 * inner

    def log_posterior(self, x_t: Vectors, logsnr: LogSNR, mask: Mask) -> WordLogits:
        """log p(word i | x_t) of every word, given the vectors of the whole sentence."""
        own = self.log_likelihood(x_t, logsnr)
        return (own + self.chain.log_messages(own, mask)).log_softmax(-1)

    def denoise(self, x_t: Vectors, logsnr: LogSNR, mask: Mask) -> Prediction:
        """The exact E[x0 | x_t]. No denoiser has a lower eps-loss.

        Args:
            logsnr: Log SNR of each sentence, or of each word.
        """
        x0 = self.log_posterior(x_t, logsnr, mask).exp() @ self.embeddings
        return from_x0(x_t, x0, logsnr)

    def sample(self, mask: Mask, uniforms: Float[Tensor, "b l"]) -> Words:
        """Draws sentences of the lengths of `mask` from uniform random numbers in (0, 1)."""
        nothing = uniforms.new_zeros(*uniforms.shape, len(self.embeddings))
        return self.chain.sample(nothing, mask, uniforms)

    def length_probabilities(self, longest: int) -> Float[Tensor, " n"]:
        """Probability of each length from 0 to `longest` for sentences that end at random."""
        mass, lengths = self.chain.start.unsqueeze(1), [self.chain.start.new_zeros(())]
        for _ in range(longest):
            lengths.append((mass.squeeze(1) * self.chain.end).sum())
            mass = self.chain.transitions.forward(mass)
        return torch.stack(lengths)

    def nats(self, words: Words, mask: Mask) -> Float[Tensor, " b"]:
        """-log p(words | length) in nats."""
        lengths = self.length_probabilities(mask.shape[1])
        return lengths[mask.sum(1)].log() - self.chain.log_prob(words, mask)

    def entropy(self, length: int) -> Float[Tensor, ""]:
        """Entropy of the sentences of one length, in nats. The chain must have no contexts.

        It is E[-log p(words | length)], a sum over single words and neighbouring pairs.
        """
        chain, table = self.chain, self.chain.transitions.dense()
        before, after = [chain.start], [chain.end]
        for _ in range(length - 1):
            before.append(before[-1] @ table)
            after.append(table @ after[-1])
        after.reverse()
        total = (before[-1] * chain.end).sum()  # probability of this length
        log_joint = torch.xlogy(before[0] * after[0], chain.start).sum()
        log_joint += torch.xlogy(before[-1] * chain.end, chain.end).sum()
        for first, second in zip(before[:-1], after[1:], strict=True):
            log_joint += torch.xlogy(first.unsqueeze(1) * table * second, table).sum()
        return total.log() - log_joint / total
