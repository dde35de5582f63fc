"""How the forward process forgets: a picture, a sentence, and the moments."""

import math

import torch
from matplotlib import pyplot as plt
from notes.section import Section

from image.sources import digits
from textdiff import grammar
from textdiff.diffusion.chain import Chain, linear_betas
from textdiff.diffusion.gaussian import alpha_sigma, diffuse
from textdiff.diffusion.schedule import SCHEDULES, Schedule, bounded

TIMES = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 1.0)


def forward() -> Section:
    section = Section(
        "forward",
        "The forward process forgets",
        "What does noise do to an image and to a sentence under each schedule? What if every variance is 0, or 1? When is the input unrecognizable?",
    )
    curves = {name: bounded(schedule, -12.0, 12.0) for name, schedule in SCHEDULES.items()}
    words, vectors = _vocabulary()
    picture = digits().pixels[0].float()[None] / 127.5 - 1
    _picture(section, picture, curves)
    recognized = {name: [_accuracy(vectors, curve(torch.tensor(t, dtype=torch.float64))) for t in TIMES] for name, curve in curves.items()}
    _curves(section, curves, recognized)
    sentence = grammar.corpus(1, seed=3)[0].split()
    section.lines = ["A sentence at t = 0.4 and 0.6, each word read as the one whose vector is nearest:", ""]
    for t in (0.4, 0.6):
        for name, curve in curves.items():
            read = _read([words.index(word) for word in sentence], vectors, curve(torch.tensor(t, dtype=torch.float64)))
            section.lines.append(f"{t}  {name:14}  " + " ".join(words[i] for i in read))
    levels = torch.linspace(-10, 6, 65)
    shares = [_accuracy(vectors, level) for level in levels]
    pictures = digits().pixels[:500].float().flatten(1) / 127.5 - 1
    seen = [_accuracy(pictures, level) for level in levels]
    lost, faded = (float(levels[next(i for i, share in enumerate(curve) if share > 0.5)]) for curve in (shares, seen))
    section.numbers |= {
        "nearest_word_accuracy": {name: dict(zip(map(str, TIMES), values, strict=True)) for name, values in recognized.items()},
        "logsnr_where_half_the_words_are_found": lost,
        "logsnr_where_half_the_digits_are_found": faded,
        "words": len(words),
    }
    still, gone = (_correlation(picture, beta) for beta in (0.0, 1.0))
    section.numbers |= {"correlation_after_10_steps_of_beta_0": still, "correlation_after_10_steps_of_beta_1": gone}
    section.answer = (
        f"With ten betas of 0 nothing changes (correlation {still:.2f}), with ten of 1 nothing is left ({abs(gone):.2f}). What counts is the log "
        f"SNR, and a schedule only says when it is reached: half of a sentence's words are nearest to their own vector, of {len(words)}, at log SNR "
        f"{lost:.1f}, and half of 500 digits of 64 pixels to their own picture at {faded:.1f}."
    )
    return section


def moments() -> Section:
    section = Section(
        "moments",
        "Mean and covariance in closed form",
        "Does noise added step by step have the mean sqrt(alpha_bar_t) x_0 and the covariance (1 - alpha_bar_t) I?",
    )
    T, n = 100, 20_000
    chain = Chain.from_betas(linear_betas(T, 1e-4, 0.2))
    x0 = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    dice, x = torch.Generator().manual_seed(0), x0.expand(n, 3)
    deviations: list[tuple[float, float]] = []
    for t in range(1, T + 1):
        x = chain.alpha[t].sqrt() * x + chain.beta[t].sqrt() * torch.randn(x.shape, generator=dice, dtype=torch.float64)
        mean, var = chain.alpha_bar[t].sqrt() * x0, float(1 - chain.alpha_bar[t])
        off_mean = (x.mean(0) - mean).abs().max() / math.sqrt(var / n)
        error = torch.full((3, 3), var / math.sqrt(n), dtype=torch.float64).fill_diagonal_(var * math.sqrt(2 / n))
        off_covariance = ((x.T.cov() - var * torch.eye(3, dtype=torch.float64)).abs() / error).max()
        deviations.append((float(off_mean), float(off_covariance)))
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    axes.plot(range(1, T + 1), deviations, label=("largest of 3 means", "largest of 6 covariances"))
    axes.axhline(4, color="grey", linestyle=":")
    axes.set(xlabel="t", ylabel="standard errors", title=f"{n:,} chains, step by step, against the closed form", ylim=(0, 5))
    axes.legend()
    section.draw("Deviation of the empirical mean and covariance, in standard errors. Chance rarely passes 4.", figure)
    section.numbers = {
        "largest_mean_deviation": max(mean for mean, _ in deviations),
        "largest_covariance_deviation": max(covariance for _, covariance in deviations),
    }
    section.answer = (
        f"Yes. Over all {T} steps the mean is off by at most {section.numbers['largest_mean_deviation']:.1f} and the covariance by at most "
        f"{section.numbers['largest_covariance_deviation']:.1f} standard errors, as chance allows."
    )
    return section


def _correlation(picture: torch.Tensor, beta: float) -> float:
    """Of a picture and 200 draws of it after ten steps."""
    chain = Chain.from_betas(torch.full((10,), beta))
    x0 = picture.double().expand(200, -1, -1, -1)
    x = diffuse(x0, chain.logsnr[-1:].expand(len(x0)), torch.randn(x0.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    return float(torch.corrcoef(torch.stack([x.flatten(), x0.flatten()]))[0, 1])


def _vocabulary() -> tuple[list[str], torch.Tensor]:
    """The grammar's words and random vectors of variance 1 a component, as a text model starts with."""
    words = sorted({word for sentence in grammar.corpus(2000, seed=0) for word in sentence.split()})
    vectors = torch.randn(len(words), 16, generator=torch.Generator().manual_seed(0))
    return words, torch.nn.functional.normalize(vectors, dim=-1) * 4


def _accuracy(vectors: torch.Tensor, logsnr: torch.Tensor, n: int = 4000) -> float:
    """How often a noisy word is nearest to its own vector."""
    ids = torch.randint(len(vectors), (n,), generator=torch.Generator().manual_seed(1)).tolist()
    return sum(a == b for a, b in zip(_read(ids, vectors, logsnr), ids, strict=True)) / n


def _read(ids: list[int], vectors: torch.Tensor, logsnr: torch.Tensor) -> list[int]:
    """Words with noise on their vectors, each read as the nearest."""
    noise = torch.randn(len(ids), vectors.shape[1], generator=torch.Generator().manual_seed(2))
    x = diffuse(vectors[ids], logsnr.float().expand(len(ids)), noise)
    alpha, _ = alpha_sigma(logsnr.float().reshape(1), x[:1])
    nearest: list[int] = torch.cdist(x, alpha * vectors).argmin(1).tolist()
    return nearest


def _picture(section: Section, picture: torch.Tensor, curves: dict[str, Schedule]) -> None:
    figure, grid = plt.subplots(len(curves), len(TIMES), figsize=(8, 1.2 * len(curves)), layout="constrained")
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    for row, (name, curve) in zip(grid, curves.items(), strict=True):
        for axes, t in zip(row, TIMES, strict=True):
            axes.imshow(diffuse(picture, curve(torch.tensor([t])).float(), noise)[0, 0], cmap="gray", vmin=-1.3, vmax=1.3)
            axes.set(xticks=[], yticks=[], title=f"t = {t}" if name == next(iter(curves)) else "")
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    section.draw("A digit under every schedule: the same noise, other amounts of it.", figure)


def _curves(section: Section, curves: dict[str, Schedule], recognized: dict[str, list[float]]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    t = torch.linspace(0.001, 0.999, 200, dtype=torch.float64)
    for name, curve in curves.items():
        left.plot(t, curve(t), label=name)
        right.plot(TIMES, recognized[name], "o-", label=name)
    left.set(xlabel="t", ylabel="log SNR", title="Schedules")
    right.set(xlabel="t", ylabel="share of words found again", title="Nearest vector of a noisy word", ylim=(0, 1.03))
    right.legend()
    section.draw("The schedules, and how many words of a noisy sentence are still nearest to their own vector.", figure)
