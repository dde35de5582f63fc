"""Rewrites of sentences: noise on their embeddings, and resampling."""

from functools import partial
from pathlib import Path

from matplotlib import pyplot as plt
from report_sections.runs import sentences, text_run
from report_sections.section import WIDTH, Formula, Section, Table, TryNext

from textdiff import TextDiffusion
from textdiff.text import grammar

TEXT = partial(
    Section,
    name="rewrite",
    title="Perturb and resample a sentence",
    problem=(
        r"[HW7] 1, the procedure. Noise is added to the embeddings of a sentence, and the noisy "
        r"sentence is resampled. With how much noise does a sentence stay what it was, and when "
        r"does it become another one?"
    ),
    derivation=[
        Formula(
            r"Each word $w_i$ becomes a vector, its embedding $e(w_i)$. Noise is added up to a "
            r"time $t$, which is called the strength.",
            r"x_0=\left(e(w_1),\ldots,e(w_n)\right),\qquad x_t=\alpha_t x_0+\sigma_t\epsilon",
        ),
        Formula(
            r"Resampling takes reverse steps from there (section 5), where a network estimates "
            r"$\hat{x}_0$ from all noisy words together.",
            r"x_s\sim q\left(x_s\mid x_t,\,\hat{x}_0(x_t,t)\right),\qquad s<t",
        ),
        Formula(
            "At the end, each estimated vector is replaced by the word that fits it best. A "
            r"learned number $b_v$ for each word says how common the word is.",
            r"w_i=\mathrm{argmax}_v\left(\hat{x}_{0,i}^{\top}e(v)+b_v\right)",
        ),
    ],
    idea=(
        r"A little noise hides nothing: each noisy vector is still nearest to its own word. With "
        r"more noise, some words can no longer be read from their own vector. The network then "
        r"guesses them from the other words, and may choose another word that fits the sentence. "
        r"With full noise, nothing of the sentence is left, and the result is a new one."
    ),
    try_next=TryNext(
        'textdiff rewrite report/text --text "the queen helps the boy ." --strength 0.3,0.6 --n 4',
        'Add `--protect "queen"` to keep a word. Look for verbs that still agree with their '
        "subjects when the subjects have changed.",
    ),
)
STRENGTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
SHOWN = (0.2, 0.4, 0.6, 1.0)
SENTENCES, COPIES = 16, 3


def experiment(folder: Path) -> Section:
    """Rewrites sentences with several amounts of noise."""
    section = TEXT()
    pipe = TextDiffusion.from_pretrained(text_run(folder))
    sources = list(grammar.corpus(SENTENCES, seed=7, training=False))
    outputs = {s: pipe.rewrite(sources, strength=s, n=COPIES) for s in STRENGTHS}
    rewrites = {s: sentences(pipe, output) for s, output in outputs.items()}
    section.numbers = {str(s): _shares(sources, found) for s, found in rewrites.items()}
    _draw(section)
    rows = [[f"{s:g}", rewrites[s][0]] for s in SHOWN]
    section.tables.append(
        Table(f"Rewrites of: {sources[0]}", [["strength", "rewrite"], *rows]),
    )
    half, full = section.numbers["0.5"], section.numbers["1.0"]
    section.finding = (
        f"We made {SENTENCES * COPIES} rewrites at each strength, of {SENTENCES} sentences that "
        f"the model has never seen. At strength 0.5, {half['kept']:.0%} of the words are still in "
        f"their place, {half['unchanged']:.0%} of the sentences are unchanged, and "
        f"{half['grammatical']:.0%} are grammatical. At strength 1 only the length is kept: "
        f"{full['kept']:.0%} of the words agree by chance, and {full['grammatical']:.0%} of the "
        "sentences are grammatical."
    )
    return section


def _shares(sources: list[str], rewrites: list[str]) -> dict[str, float]:
    """Shares of kept words, and of grammatical and unchanged sentences."""
    repeated = [source for source in sources for _ in range(COPIES)]
    pairs = [*zip(repeated, rewrites, strict=True)]
    kept = [
        sum(a == b for a, b in zip(source.split(), found.split(), strict=True))
        / len(source.split())
        for source, found in pairs
    ]
    return {
        "kept": sum(kept) / len(pairs),
        "grammatical": sum(grammar.judge(found) for found in rewrites) / len(pairs),
        "unchanged": sum(source == found for source, found in pairs) / len(pairs),
    }


def _draw(section: Section) -> None:
    figure, axes = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
    labels = {
        "grammatical": "grammatical sentences",
        "kept": "words kept",
        "unchanged": "sentences unchanged",
    }
    for (name, label), style in zip(labels.items(), ("s-", "o--", "^:"), strict=True):
        axes.plot(STRENGTHS, [row[name] for row in section.numbers.values()], style, label=label)
    axes.set(xlabel="strength (0 is no noise, 1 is pure noise)", ylabel="share", ylim=(0, 1.03))
    axes.set_title("What noise and resampling do to sentences")
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.92))
    section.add_figure(
        "With more noise, fewer words stay, until only chance agreements are left. The sentences "
        "remain grammatical: what comes back is a sentence, but another one.",
        figure,
    )
