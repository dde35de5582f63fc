"""Text from pure noise, and whether it differs from real text."""

import json
import subprocess
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import pyplot as plt
from report_sections.runs import TEXTDIFF, sentences, text_run
from report_sections.section import WIDTH, Formula, Section, Table, TryNext

from textdiff import TextDiffusion
from textdiff.text import grammar

TEXT = partial(
    Section,
    name="text",
    title="True or false: diffusion generates text",
    problem=(
        r"[HW7] 1. Can a diffusion model generate text, by adding noise to the embeddings of words "
        r"and conditionally resampling? We start from noise alone, and ask whether the sentences "
        r"differ from real ones."
    ),
    derivation=[
        Formula(
            "At full noise, the state no longer depends on any sentence. So we may start from "
            "random numbers, and resample as in section 11.",
            r"q(x_T\mid x_0)\approx\mathcal{N}(0,I)\quad\Rightarrow\quad x_T\sim\mathcal{N}(0,I)",
        ),
        Formula(
            r"The model then gives every sentence a probability, which sums over all paths from "
            r"noise to it.",
            r"p_\theta(w)=\int p(x_T)\,\prod_{t=1}^{T}p_\theta(x_{t-1}\mid x_t)\;"
            r"p_\theta(w\mid x_0)\;dx_{0:T}",
        ),
        Formula(
            "Perplexity tells how surprised another language model is: it is about the number of "
            "words between which that model has to choose.",
            r"\mathrm{perplexity}=\exp\left(-\frac{1}{n}\sum_{i=1}^{n}"
            r"\log p_{\mathrm{LM}}(w_i\mid w_1\ldots w_{i-1})\right)",
        ),
    ],
    idea=(
        r"A claim that cannot fail says nothing. So the answer is true only if five conditions "
        r"hold. They exclude the easy ways to look good: to write the same sentence again and "
        r"again, to copy the training text, or to place common words in any order. Bigrams (each "
        r"word depends on the one before), single words, and shuffled sentences are the rivals."
    ),
    try_next=TryNext(
        "textdiff sample report/text --n 3 --show_steps",
        "Watch when the words appear. Then train on your own text, one sentence per line: "
        "`textdiff train --data.train my.txt --run runs/mine`.",
    ),
)
METRICS = {
    "perplexity": "perplexity (reference model)",
    "unigram_entropy": "entropy of words (nats)",
    "distinct_2": "different pairs of words (share)",
    "two_sample_accuracy": "told from real text (share)",
    "novelty": "not in the training text (share)",
    "copied_8grams": "copied runs of 8 words (share)",
}
SAMPLES = 500
Results = dict[str, dict[str, Any]]


class Check(NamedTuple):
    """A condition for the verdict."""

    value: float
    sign: str
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the condition holds."""
        return self.value < self.limit if self.sign == "<" else self.value > self.limit


def experiment(folder: Path) -> Section:
    """Compares generated sentences with real ones."""
    section, run = TEXT(), text_run(folder)
    table = _evaluate(run)
    pipe = TextDiffusion.from_pretrained(run)
    samples = sentences(pipe, pipe.sample(SAMPLES, seed=1, batch_size=250))
    grammatical = sum(map(grammar.judge, samples)) / SAMPLES
    checks = _checks(table, grammatical)
    true = all(check.holds for check in checks.values())
    _draw(section, table)
    section.tables = [
        Table("Six sentences from pure noise", [["sentence"], *([s] for s in samples[:6])]),
        _table_of_checks(checks),
    ]
    section.numbers = {
        "verdict": true,
        "grammatical": grammatical,
        "sentences": SAMPLES,
        "samples": samples[:6],
        "checks": checks,
        "table": table,
    }
    section.finding = _finding(true, grammatical, table)
    return section


def _finding(true: bool, grammatical: float, table: Results) -> str:
    ours, real, bigram = (table[name] for name in ("model", "held-out text", "bigram"))
    return (
        f"{true}: {grammatical:.1%} of the sentences are grammatical, and {ours['novelty']:.0%} "
        f"are not in the training text. Their perplexity is {ours['perplexity']:.2f}, that of "
        f"held-out text is {real['perplexity']:.2f}, and that of bigrams is "
        f"{bigram['perplexity']:.2f}. Likelihood is another matter. The model was trained "
        "on the squared error of $x_0$, not on the bound of section 3. On held-out text this bound "
        f"is {ours['nats_per_token']:.2f} nats per token, and the exact value may be lower; "
        f"bigrams have {bigram['nats_per_token']:.2f}. So the model writes good "
        "sentences, but it does not know their probabilities well."
    )


def _evaluate(run: str) -> Results:
    """The table of `textdiff evaluate`."""
    options = ["--n", "500", "--ode", "0", "--scored", "100"]
    command = [*TEXTDIFF, "evaluate", run, *options, "--baselines", "[bigram,unigram,shuffled]"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    report = Path(run, "evaluation", "report.json").read_text(encoding="utf-8")
    table: Results = json.loads(report)["table"]
    return table


def _checks(table: Results, grammatical: float) -> dict[str, Check]:
    """The conditions, by their description."""
    ours, real = table["model"], table["held-out text"]
    weakest = min(table[name]["perplexity"] for name in ("bigram", "unigram", "shuffled"))
    entropy, distinct = (ours[key] / real[key] for key in ("unigram_entropy", "distinct_2"))
    return {
        "perplexity, below that of all three rivals": Check(ours["perplexity"], "<", weakest),
        "share of grammatical sentences": Check(grammatical, ">", 0.8),
        "share of sentences not in the training text": Check(ours["novelty"], ">", 0.5),
        "entropy of words, over that of held-out text": Check(entropy, ">", 0.97),
        "different pairs of words, over those of held-out text": Check(distinct, ">", 0.9),
    }


def _table_of_checks(checks: dict[str, Check]) -> Table:
    rows = [
        [name, f"{check.value:.3f}", f"{check.sign} {check.limit:.3f}", str(check.holds)]
        for name, check in checks.items()
    ]
    head = ["condition", "measured", "must be", "holds"]
    return Table("The answer is true only if every condition holds", [head, *rows])


def _draw(section: Section, table: Results) -> None:
    options = {"figsize": (WIDTH, 6.2), "layout": "constrained", "sharey": True}
    figure, panels = plt.subplots(3, 2, **options)
    colors = ["C1" if name == "model" else "C2" for name in table]
    for axes, (key, label) in zip(panels.flat, METRICS.items(), strict=True):
        axes.barh(list(table), [row[key] for row in table.values()], color=colors)
        axes.set(xscale="log" if key == "perplexity" else "linear")
        axes.set_title(label, fontsize=8)
    panels[0, 0].invert_yaxis()
    section.add_figure(
        "The model (orange) should look like held-out text, the first bar, in every panel. The "
        "rivals below it fail in at least one.",
        figure,
    )
