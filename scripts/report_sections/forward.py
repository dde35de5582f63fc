"""The forward process: its effect on an image and on a sentence under each schedule."""

from functools import partial
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from report_sections.network import generator
from report_sections.section import WIDTH, Formula, Section, Table, TryNext
from torch import Tensor

from image.sources import digits
from textdiff.diffusion.discrete import Chain
from textdiff.diffusion.gaussian import alpha_sigma, diffuse
from textdiff.diffusion.schedules import SCHEDULES, Schedule, bounded
from textdiff.text import grammar

TEXT = partial(
    Section,
    name="forward",
    title="The forward process",
    problem=(
        r"[DDD] 1.1 and 1.3. Noise is added to an image in steps, and step $t$ has the variance "
        r"$\beta_t$. What happens if every variance is 0, and what if every variance is 1? How "
        r"does the schedule of the variances decide when the image can no longer be recognized?"
    ),
    derivation=[
        Formula(
            "One step shrinks the state a little and adds fresh noise.",
            r"x_t=\sqrt{1-\beta_t}\,x_{t-1}+\sqrt{\beta_t}\,\epsilon_t,"
            r"\quad\epsilon_t\sim\mathcal{N}(0,I)",
        ),
        Formula(
            "The two extreme variances keep everything, or nothing.",
            r"\beta_t=0:\quad x_t=x_{t-1}\qquad\qquad\beta_t=1:\quad x_t=\epsilon_t",
        ),
        Formula(
            r"After any number of steps, one number says how noisy the state is: the logarithm of "
            r"the signal-to-noise ratio, called log SNR and written $\lambda$.",
            r"x_t=\alpha x_0+\sigma\epsilon,\qquad\lambda=\log\frac{\alpha^2}{\sigma^2}"
            r"=\log\frac{\bar{\alpha}_t}{1-\bar{\alpha}_t}",
        ),
    ],
    idea=(
        r"A schedule is a rule that gives the log SNR at each time $t$, from $t=0$ (data) to $t=1$ "
        r"(noise). It does not change what noise does. Two schedules that have the same log SNR "
        r"give the same picture. A schedule only decides at which time that log SNR is reached. "
        r"Large variances reach it early, and small variances reach it late."
    ),
    try_next=TryNext(
        "textdiff demo report/text",
        "Open the tab Noise, which has the forward process, and choose a schedule. Find the time "
        "at which you can no longer read the sentence. Then choose another schedule, and find it "
        "again.",
    ),
)
TIMES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
STYLES = ("-", "-", "-", "--", "--")
Schedules = dict[str, Schedule]


def experiment(_: Path) -> Section:
    """Compares the schedules on a digit and on a sentence."""
    section = TEXT()
    schedules = {name: bounded(schedule, -12.0, 12.0) for name, schedule in SCHEDULES.items()}
    words, embeddings = _vocabulary()
    images = digits().pixels[:500].float() / 127.5 - 1
    half_of_words, half_of_digits = map(_half_point, (embeddings, images.flatten(1)))
    _draw_digit(section, images[:1], schedules)
    _draw_schedules(section, schedules, embeddings, half_of_words)
    section.tables.append(_noisy_sentences(words, embeddings, schedules))
    unchanged, destroyed = (_correlation(images[:1], beta) for beta in (0.0, 1.0))
    section.numbers = {
        "nearest_word_accuracy": {
            name: {str(t): _accuracy(embeddings, _at(schedule, t)) for t in TIMES}
            for name, schedule in schedules.items()
        },
        "logsnr_where_half_the_words_are_found": half_of_words,
        "logsnr_where_half_the_digits_are_found": half_of_digits,
        "words": len(words),
        "correlation_after_10_steps_of_beta_0": unchanged,
        "correlation_after_10_steps_of_beta_1": destroyed,
    }
    section.finding = (
        f"After ten steps with variance 0, the correlation of a digit with its start is "
        f"{unchanged:.2f}: nothing changed. After ten steps with variance 1 it is "
        f"{abs(destroyed):.2f}: nothing is left. A word counts as recognized if its own embedding, "
        f"of {len(words)}, is the nearest one. Half of the words are recognized at log SNR "
        f"{half_of_words:.1f}, under every schedule. For digits of 64 pixels, among 500 digits, "
        f"this happens at log SNR {half_of_digits:.1f}."
    )
    return section


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


def _accuracy(embeddings: Tensor, logsnr: Tensor, n: int = 2000) -> float:
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


def _noisy_sentences(words: list[str], embeddings: Tensor, schedules: Schedules) -> Table:
    sentence = grammar.corpus(1, seed=3)[0]
    ids = [words.index(word) for word in sentence.split()]
    rows = [["schedule", "$t=0.4$", "$t=0.6$"]]
    for name, schedule in schedules.items():
        nearest = [_nearest(ids, embeddings, _at(schedule, t)) for t in (0.4, 0.6)]
        rows.append([name, *(" ".join(words[i] for i in each) for each in nearest)])
    return Table(f"The word nearest to each noisy embedding of: {sentence}", rows)


def _draw_digit(section: Section, image: Tensor, schedules: Schedules) -> None:
    rows, size = len(schedules), (WIDTH, 0.7 * len(schedules))
    figure, grid = plt.subplots(rows, len(TIMES), figsize=size, layout="constrained")
    noise = torch.randn(image.shape, generator=generator(0))
    for number, (name, schedule) in enumerate(schedules.items()):
        for axes, t in zip(grid[number], TIMES, strict=True):
            x = diffuse(image, noise, schedule(torch.tensor([t])).float())
            axes.imshow(x[0, 0], cmap="gray", vmin=-1.3, vmax=1.3)
            axes.set(xticks=[], yticks=[], title="" if number else f"t = {t:g}")
        grid[number][0].set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center")
    section.add_figure(
        "One digit under every schedule (rows), with the same noise. Time runs from left to right. "
        "See how early the digit disappears in the last row, and how late in the second.",
        figure,
    )


def _draw_schedules(
    section: Section, schedules: Schedules, embeddings: Tensor, half_point: float
) -> None:
    size = (WIDTH, 5.2)
    figure, (above, below) = plt.subplots(2, 1, figsize=size, layout="constrained", sharex=True)
    t, times = torch.linspace(0.001, 0.999, 200, dtype=torch.float64), torch.linspace(0, 1, 21)
    for (name, schedule), style in zip(schedules.items(), STYLES, strict=True):
        above.plot(t, schedule(t), linestyle=style, label=name.replace("_", " "))
        shares = [_accuracy(embeddings, _at(schedule, float(time))) for time in times]
        below.plot(times, shares, linestyle=style)
    above.axhline(half_point, color="grey", linestyle=":")
    above.set(ylabel="log SNR", title="How noisy: the schedules")
    above.legend(ncols=2)
    below.axhline(0.5, color="grey", linestyle=":")
    below.set(xlabel="time t (0 is data, 1 is noise)", ylabel="share of words", ylim=(0, 1.03))
    below.set_title("How readable: words nearest to their own embedding")
    section.add_figure(
        "Above: the log SNR of each schedule. Below: the share of noisy words that can be "
        "recognized. A curve crosses the dotted line below at the time at which it crosses the "
        "dotted line above.",
        figure,
    )
