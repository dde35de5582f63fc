"""True or false: diffusion generates text. The built-in grammar's model, judged beside held-out text and baselines."""

import json
import subprocess
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from notes.runs import TEXTDIFF
from notes.section import Section

from textdiff import grammar
from textdiff.config import Sampling
from textdiff.generate import finished, from_noise, generate, load, rewriting
from textdiff.table import lines
from textdiff.vocab import encode

MEASURES = ("teacher_perplexity", "unigram_entropy", "distinct_2", "two_sample_accuracy", "novel", "copied_8grams")
UNSAID = ("ode_nats_per_token", "ode_nats_error", "ode_nats_per_word", "dtype", "unk_rate", "pad_rate", "evaluations", "seconds_per_1000")
STRENGTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


def rewrites(run: str) -> Section:
    section = Section(
        "rewrite",
        "Perturb and resample a sentence",
        "With how much noise does a sentence stay what it was, and when does it become another?",
    )
    model, tokenizer = load(run)
    sentences = grammar.corpus(16, seed=7, training=False)
    kept, good, same = [], [], []
    for strength in STRENGTHS:
        words, fine, equal = [], [], []
        for number, sentence in enumerate(sentences):
            ids = encode(tokenizer, sentence)
            task = rewriting(model, ids, 3, strength)
            for found in finished(generate(model, tokenizer, task, Sampling(seed=number))):
                words.append(sum(a == b for a, b in zip(found, ids, strict=True)) / len(ids))
                fine.append(bool(grammar.judge(" ".join(tokenizer.id_to_token(i) for i in found))))
                equal.append(found == ids)
        for total, part in ((kept, words), (good, fine), (same, equal)):
            total.append(sum(part) / len(part))
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    axes.plot(STRENGTHS, kept, "o-", label="words kept")
    axes.plot(STRENGTHS, good, "s-", label="grammatical")
    axes.plot(STRENGTHS, same, "^-", label="unchanged")
    axes.set(xlabel="strength (share of the schedule that is noise)", ylabel="share", ylim=(0, 1.03))
    axes.legend()
    section.draw("48 rewrites of 16 sentences at each strength.", figure)
    section.numbers = {str(s): {"kept": k, "grammatical": g, "unchanged": u} for s, k, g, u in zip(STRENGTHS, kept, good, same, strict=True)}
    half = section.numbers["0.5"]
    section.answer = (
        f"At strength 0.5 {half['kept']:.0%} of the words stay, {half['unchanged']:.0%} of the sentences are unchanged and "
        f"{half['grammatical']:.0%} are grammatical; at 1 only the length stays, and {section.numbers['1.0']['grammatical']:.0%} are."
    )
    return section


def verdict(run: str) -> Section:
    section = Section("text", "True or false: diffusion generates text", "Do sentences made from noise differ from real ones by any measure we have?")
    subprocess.run(
        [*TEXTDIFF, "evaluate", run, "--n", "500", "--ode", "0", "--scored", "100", "--baselines", "[bigram,unigram,shuffled]"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    table: dict[str, dict[str, Any]] = json.loads(Path(run, "evaluation", "report.json").read_text(encoding="utf-8"))["table"]
    figure, axes = plt.subplots(2, 3, figsize=(10, 5), layout="constrained", sharey=True)
    for place, key in zip(axes.flat, MEASURES, strict=True):
        place.barh(list(table), [row[key] for row in table.values()])
        place.set(title=key.replace("_", " "), xscale="log" if key == "teacher_perplexity" else "linear")
    axes[0, 0].invert_yaxis()
    section.draw("Held-out text, the training text, the model's sentences, and baselines that know less, by six measures.", figure)
    grammatical, samples = _grammatical(run)
    ours, perplexity = table["model"], {name: row["teacher_perplexity"] for name, row in table.items()}
    real, weaker = table["held-out text"], [perplexity[name] for name in ("bigram", "unigram", "shuffled")]
    checks = {
        "perplexity below that of bigrams, unigrams and shuffled words": (perplexity["model"], "<", min(weaker)),
        "share of grammatical sentences": (grammatical, ">", 0.8),
        "share of sentences that are not in the training text": (ours["novel"], ">", 0.5),
        "unigram entropy over that of held-out text": (ours["unigram_entropy"] / real["unigram_entropy"], ">", 0.97),
        "distinct 2-grams over those of held-out text": (ours["distinct_2"] / real["distinct_2"], ">", 0.9),
    }
    held = {what: value < bar if sign == "<" else value > bar for what, (value, sign, bar) in checks.items()}
    true = all(held.values())
    section.lines = [f"{what}: {value:.3f}, must be {sign} {bar:.3f}: {held[what]}" for what, (value, sign, bar) in checks.items()] + [""]
    section.lines += lines({name: {key: value for key, value in row.items() if key not in UNSAID} for name, row in table.items()})
    section.numbers = {"verdict": true, "grammatical": grammatical, "samples": samples, "checks": checks, "table": table}
    section.answer = (
        f"{true}: {grammatical:.1%} of the sentences are grammatical, {ours['novel']:.0%} are not in the training text, and a language model "
        f"finds them as likely as real ones (perplexity {perplexity['model']:.2f} and {perplexity['held-out text']:.2f}, bigrams "
        f"{perplexity['bigram']:.2f}); it would have been false had any line above failed. "
        f"Only likelihood disagrees: trained for squared error, the model bounds it by "
        f"{ours['nats_per_token']:.2f} nats a token, and bigrams reach {table['bigram']['nats_per_token']:.2f}."
    )
    return section


def _grammatical(run: str, n: int = 500) -> tuple[float, list[str]]:
    """By the grammar itself; and a few of the sentences."""
    model, tokenizer = load(run)
    written = finished(generate(model, tokenizer, from_noise(model, n, seed=1), Sampling(seed=1, batch_size=250)))
    sentences = [" ".join(tokenizer.id_to_token(i) for i in ids) for ids in written]
    return sum(bool(grammar.judge(sentence)) for sentence in sentences) / n, sentences[:6]
