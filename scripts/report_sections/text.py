"""Text: rewrites of sentences, and whether generated sentences differ from real ones."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import pyplot as plt
from report_sections.runs import TEXTDIFF
from report_sections.section import Section
from tokenizers import Tokenizer

from textdiff.config import SamplingConfig
from textdiff.sampling import collect
from textdiff.table import table_lines
from textdiff.text import grammar
from textdiff.text.hub import load_model
from textdiff.text.requests import rewrite_request, sample_request
from textdiff.text.sampling import generate
from textdiff.text.tokenizer import encode

METRICS = (
    "perplexity",
    "unigram_entropy",
    "distinct_2",
    "two_sample_accuracy",
    "novelty",
    "copied_8grams",
)
OMITTED = (  # from the table in the report
    "ode_nats_per_token",
    "ode_nats_error",
    "ode_nats_per_word",
    "dtype",
    "unk_rate",
    "pad_rate",
    "evaluations",
    "seconds_per_1000",
)
STRENGTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
Table = dict[str, dict[str, Any]]


def rewrites(run: str) -> Section:
    """Rewrites sentences with several amounts of noise."""
    section = Section(
        "rewrite",
        "Perturb and resample a sentence",
        "With how much noise does a sentence stay what it was, and when does it become another?",
    )
    section.numbers = {str(s): shares for s, shares in _rewrite_shares(run).items()}
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    labels = {"kept": "words kept", "grammatical": "grammatical", "unchanged": "unchanged"}
    for (name, label), style in zip(labels.items(), ("o-", "s-", "^-"), strict=True):
        axes.plot(STRENGTHS, [row[name] for row in section.numbers.values()], style, label=label)
    axes.set(xlabel="strength (share of the schedule)", ylabel="share", ylim=(0, 1.03))
    axes.legend()
    section.add_figure("48 rewrites of 16 sentences at each strength.", figure)
    half, full = section.numbers["0.5"], section.numbers["1.0"]
    section.answer = (
        f"At strength 0.5, {half['kept']:.0%} of the words are kept, {half['unchanged']:.0%} of "
        f"the sentences are unchanged and {half['grammatical']:.0%} are grammatical. At strength 1 "
        f"only the length is kept, and {full['grammatical']:.0%} are grammatical."
    )
    return section


def _rewrite_shares(run: str) -> dict[float, dict[str, float]]:
    """Shares of kept words, and of grammatical and unchanged sentences, for each strength."""
    model, tokenizer = load_model(run)
    shares = {}
    for strength in STRENGTHS:
        rows = []
        for seed, sentence in enumerate(grammar.corpus(16, seed=7, training=False)):
            ids = encode(tokenizer, sentence)
            request = rewrite_request(model, ids, 3, strength)
            for found in collect(generate(model, tokenizer, request, SamplingConfig(seed=seed))):
                kept = sum(a == b for a, b in zip(found, ids, strict=True)) / len(ids)
                rows.append((kept, grammar.judge(_words(tokenizer, found)), found == ids))
        means = (sum(column) / len(column) for column in zip(*rows, strict=True))
        shares[strength] = dict(zip(("kept", "grammatical", "unchanged"), means, strict=True))
    return shares


class Check(NamedTuple):
    """A condition for the verdict."""

    value: float
    sign: str
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the condition holds."""
        return self.value < self.limit if self.sign == "<" else self.value > self.limit


def verdict(run: str) -> Section:
    """Compares generated sentences with real ones."""
    section = Section(
        "text",
        "True or false: diffusion generates text",
        "Do sentences generated from noise differ from real ones by any of our metrics?",
    )
    table = _evaluate(run)
    _draw_metrics(section, table)
    grammatical, samples = _grammatical_share(run)
    checks = _checks(table, grammatical)
    true = all(check.holds for check in checks.values())
    for name, check in checks.items():
        condition = f"must be {check.sign} {check.limit:.3f}"
        section.lines.append(f"{name}: {check.value:.3f}, {condition}: {check.holds}")
    shown = {
        name: {key: value for key, value in row.items() if key not in OMITTED}
        for name, row in table.items()
    }
    section.lines += ["", *table_lines(shown)]
    section.numbers = {
        "verdict": true,
        "grammatical": grammatical,
        "samples": samples,
        "checks": checks,
        "table": table,
    }
    ours, real, bigram = (table[name] for name in ("model", "held-out text", "bigram"))
    section.answer = (
        f"{true}: {grammatical:.1%} of the sentences are grammatical and {ours['novelty']:.0%} are "
        "not in the training text. Under a language model their perplexity is "
        f"{ours['perplexity']:.2f}, that of held-out text {real['perplexity']:.2f} and that of "
        f"bigrams {bigram['perplexity']:.2f}. The verdict is false if any line above fails. Only "
        "the likelihood disagrees: the model, which is trained on squared error, has a bound of "
        f"{ours['nats_per_token']:.2f} nats per token, and bigrams have "
        f"{bigram['nats_per_token']:.2f}."
    )
    return section


def _evaluate(run: str) -> Table:
    """The table of `textdiff evaluate`."""
    options = ["--n", "500", "--ode", "0", "--scored", "100"]
    command = [*TEXTDIFF, "evaluate", run, *options, "--baselines", "[bigram,unigram,shuffled]"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    report = Path(run, "evaluation", "report.json").read_text(encoding="utf-8")
    table: Table = json.loads(report)["table"]
    return table


def _checks(table: Table, grammatical: float) -> dict[str, Check]:
    """The conditions, by their description."""
    ours, real = table["model"], table["held-out text"]
    weakest = min(table[name]["perplexity"] for name in ("bigram", "unigram", "shuffled"))
    entropy, distinct = (ours[key] / real[key] for key in ("unigram_entropy", "distinct_2"))
    lowest = "perplexity below that of bigrams, unigrams and shuffled words"
    return {
        lowest: Check(ours["perplexity"], "<", weakest),
        "share of grammatical sentences": Check(grammatical, ">", 0.8),
        "share of sentences not in the training text": Check(ours["novelty"], ">", 0.5),
        "unigram entropy, ratio to held-out text": Check(entropy, ">", 0.97),
        "distinct 2-grams, ratio to held-out text": Check(distinct, ">", 0.9),
    }


def _draw_metrics(section: Section, table: Table) -> None:
    figure, panels = plt.subplots(2, 3, figsize=(10, 5), layout="constrained", sharey=True)
    for axes, key in zip(panels.flat, METRICS, strict=True):
        axes.barh(list(table), [row[key] for row in table.values()])
        scale = "log" if key == "perplexity" else "linear"
        axes.set(title=key.replace("_", " "), xscale=scale)
    panels[0, 0].invert_yaxis()
    section.add_figure(
        "Held-out text, training text, the model's sentences, and simpler baselines, by six "
        "metrics.",
        figure,
    )


def _grammatical_share(run: str, n: int = 500) -> tuple[float, list[str]]:
    """Share of samples that the grammar accepts, and a few samples."""
    model, tokenizer = load_model(run)
    request, config = sample_request(model, n, seed=1), SamplingConfig(seed=1, batch_size=250)
    samples = collect(generate(model, tokenizer, request, config))
    sentences = [_words(tokenizer, ids) for ids in samples]
    return sum(map(grammar.judge, sentences)) / n, sentences[:6]


def _words(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The tokens with single spaces between them, as the grammar needs them."""
    return " ".join(str(tokenizer.id_to_token(i)) for i in ids)
