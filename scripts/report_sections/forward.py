"""The forward process: its effect on an image and on a sentence, and its moments."""

import math

import torch
from matplotlib import pyplot as plt
from report_sections.network import generator
from report_sections.section import Section
from torch import Tensor

from image.sources import digits
from textdiff.diffusion.discrete import Chain, linear_betas
from textdiff.diffusion.gaussian import alpha_sigma, diffuse
from textdiff.diffusion.schedules import SCHEDULES, Schedule, bounded
from textdiff.text import grammar

TIMES = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 1.0)
Schedules = dict[str, Schedule]


def forward() -> Section:
    """Compares the schedules on a digit and on a sentence."""
    section = Section(
        "forward",
        "The forward process",
        "What does noise do to an image and to a sentence under each schedule? What if every "
        "variance is 0, or 1? When can the input no longer be recognized?",
    )
    schedules = {name: bounded(schedule, -12.0, 12.0) for name, schedule in SCHEDULES.items()}
    words, embeddings = _vocabulary()
    images = digits().pixels[:500].float() / 127.5 - 1
    _draw_digit(section, images[:1], schedules)
    accuracy = {
        name: {str(t): _accuracy(embeddings, _at(schedule, t)) for t in TIMES}
        for name, schedule in schedules.items()
    }
    _draw_schedules(section, schedules, accuracy)
    section.lines = _noisy_sentences(words, embeddings, schedules)
    unchanged, destroyed = (_correlation(images[:1], beta) for beta in (0.0, 1.0))
    half_of_words, half_of_digits = map(_half_point, (embeddings, images.flatten(1)))
    section.numbers = {
        "nearest_word_accuracy": accuracy,
        "logsnr_where_half_the_words_are_found": half_of_words,
        "logsnr_where_half_the_digits_are_found": half_of_digits,
        "words": len(words),
        "correlation_after_10_steps_of_beta_0": unchanged,
        "correlation_after_10_steps_of_beta_1": destroyed,
    }
    section.answer = (
        f"Ten steps with beta = 0 change nothing (correlation with the input {unchanged:.2f}). Ten "
        f"steps with beta = 1 leave nothing of the input ({abs(destroyed):.2f}). Only the log SNR "
        "matters, and a schedule sets the time at which it is reached. Half of a sentence's words "
        f"are nearest to their own embedding, of {len(words)}, at log SNR {half_of_words:.1f}. "
        "Half of 500 digits of 64 pixels are nearest to their own image at log SNR "
        f"{half_of_digits:.1f}."
    )
    return section


def moments() -> Section:
    """Compares simulated chains with the closed form of their mean and covariance."""
    section = Section(
        "moments",
        "Mean and covariance in closed form",
        "Does noise added step by step have the mean sqrt(alpha_bar_t) x_0 and the covariance "
        "(1 - alpha_bar_t) I?",
    )
    T, n = 100, 20_000
    means, covariances = zip(*_deviations(T, n), strict=True)
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    axes.plot(range(1, T + 1), means, label="largest of 3 means")
    axes.plot(range(1, T + 1), covariances, label="largest of 6 covariances")
    axes.axhline(4, color="grey", linestyle=":")
    axes.set(xlabel="t", ylabel="standard errors", ylim=(0, 5))
    axes.set_title(f"{n:,} simulated chains against the closed form")
    axes.legend()
    section.add_figure(
        "Deviation of the empirical mean and covariance, in standard errors. By chance it rarely "
        "exceeds 4.",
        figure,
    )
    mean, covariance = max(means), max(covariances)
    section.numbers = {
        "largest_mean_deviation": mean,
        "largest_covariance_deviation": covariance,
    }
    section.answer = (
        f"Yes. Over all {T} steps the mean deviates by at most {mean:.1f} standard errors and the "
        f"covariance by at most {covariance:.1f}, which chance explains."
    )
    return section


def _deviations(T: int, n: int) -> list[tuple[float, float]]:
    """Largest deviations of mean and covariance after each step, in standard errors."""
    chain = Chain.from_betas(linear_betas(T, 1e-4, 0.2))
    x0 = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    rng, x, deviations = generator(0), x0.expand(n, 3), []
    for t in range(1, T + 1):
        noise = torch.randn(x.shape, generator=rng, dtype=torch.float64)
        x = chain.alpha[t].sqrt() * x + chain.beta[t].sqrt() * noise
        mean, var = chain.alpha_bar[t].sqrt() * x0, float(1 - chain.alpha_bar[t])
        mean_deviation = (x.mean(0) - mean).abs().max() / math.sqrt(var / n)
        error = torch.full((3, 3), var / math.sqrt(n), dtype=torch.float64)
        error.fill_diagonal_(var * math.sqrt(2 / n))
        difference = x.T.cov() - var * torch.eye(3, dtype=torch.float64)
        deviations.append((float(mean_deviation), float((difference.abs() / error).max())))
    return deviations


def _at(schedule: Schedule, t: float) -> Tensor:
    return schedule(torch.tensor(t, dtype=torch.float64))


def _correlation(image: Tensor, beta: float) -> float:
    """Correlation of an image with 200 noisy copies after ten steps."""
    chain = Chain.from_betas(torch.full((10,), beta))
    x0 = image.double().expand(200, -1, -1, -1)
    noise = torch.randn(x0.shape, generator=generator(0), dtype=torch.float64)
    x = diffuse(x0, noise, chain.logsnr[-1:].expand(len(x0)))
    return float(torch.corrcoef(torch.stack([x.flatten(), x0.flatten()]))[0, 1])


def _vocabulary() -> tuple[list[str], Tensor]:
    """The grammar's words, and random embeddings with a variance of 1 per component."""
    words = sorted({word for sentence in grammar.corpus(2000, seed=0) for word in sentence.split()})
    embeddings = torch.randn(len(words), 16, generator=generator(0))
    return words, torch.nn.functional.normalize(embeddings, dim=-1) * 4


def _half_point(embeddings: Tensor) -> float:
    """Lowest log SNR at which more than half of the noisy vectors are nearest to their own."""
    logsnrs = torch.linspace(-10, 6, 65)
    return float(next(logsnr for logsnr in logsnrs if _accuracy(embeddings, logsnr) > 0.5))


def _accuracy(embeddings: Tensor, logsnr: Tensor, n: int = 4000) -> float:
    """Share of noisy vectors that are nearest to their own embedding."""
    ids = torch.randint(len(embeddings), (n,), generator=generator(1)).tolist()
    nearest = _nearest(ids, embeddings, logsnr)
    return sum(a == b for a, b in zip(nearest, ids, strict=True)) / n


def _nearest(ids: list[int], embeddings: Tensor, logsnr: Tensor) -> list[int]:
    """The word nearest to each noisy embedding."""
    noise = torch.randn(len(ids), embeddings.shape[1], generator=generator(2))
    x = diffuse(embeddings[ids], noise, logsnr.float().expand(len(ids)))
    alpha, _ = alpha_sigma(logsnr.float().reshape(1), x[:1])
    nearest: list[int] = torch.cdist(x, alpha * embeddings).argmin(1).tolist()
    return nearest


def _noisy_sentences(words: list[str], embeddings: Tensor, schedules: Schedules) -> list[str]:
    ids = [words.index(word) for word in grammar.corpus(1, seed=3)[0].split()]
    lines = ["A sentence at t = 0.4 and 0.6, with the word nearest to each noisy embedding:", ""]
    for t in (0.4, 0.6):
        for name, schedule in schedules.items():
            nearest = _nearest(ids, embeddings, _at(schedule, t))
            lines.append(f"{t}  {name:14}  " + " ".join(words[i] for i in nearest))
    return lines


def _draw_digit(section: Section, image: Tensor, schedules: Schedules) -> None:
    rows, size = len(schedules), (8, 1.2 * len(schedules))
    figure, grid = plt.subplots(rows, len(TIMES), figsize=size, layout="constrained")
    noise = torch.randn(image.shape, generator=generator(0))
    for number, (name, schedule) in enumerate(schedules.items()):
        for axes, t in zip(grid[number], TIMES, strict=True):
            x = diffuse(image, noise, schedule(torch.tensor([t])).float())
            axes.imshow(x[0, 0], cmap="gray", vmin=-1.3, vmax=1.3)
            axes.set(xticks=[], yticks=[], title="" if number else f"t = {t}")
        grid[number][0].set_ylabel(name, rotation=0, ha="right", va="center")
    section.add_figure("A digit under every schedule, with the same noise.", figure)


def _draw_schedules(
    section: Section, schedules: Schedules, accuracy: dict[str, dict[str, float]]
) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    t = torch.linspace(0.001, 0.999, 200, dtype=torch.float64)
    for name, schedule in schedules.items():
        left.plot(t, schedule(t), label=name)
        right.plot(TIMES, list(accuracy[name].values()), "o-", label=name)
    left.set(xlabel="t", ylabel="log SNR", title="Schedules")
    right.set(xlabel="t", ylabel="share of words", ylim=(0, 1.03))
    right.set_title("Noisy words nearest to their own embedding")
    right.legend()
    section.add_figure(
        "The schedules, and the share of noisy words that can be recognized.", figure
    )
