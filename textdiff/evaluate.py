"""One table in which held-out text, a model and its baselines have the same columns, and nothing is judged by one figure alone.

A run's evaluation/ folder keeps the teacher and the baselines it trains, report.json, samples and figures.
"""

import json
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tokenizers import Tokenizer
from torch import Tensor
from tqdm import tqdm

from textdiff import metrics
from textdiff.autoregressive import Autoregressive
from textdiff.baselines import Bigram, autoregressive, diffusion_lm, shuffled
from textdiff.config import Data, Evaluation, InputError, Model, Sampling, TextRun, Train, Vocabulary
from textdiff.data import Corpus, collate, examples
from textdiff.generate import finished, from_noise, generate, load
from textdiff.lm import DiffusionLM
from textdiff.metrics import Sentence
from textdiff.run import steps_within, train
from textdiff.sources import open_texts
from textdiff.vocab import PAD, UNK, save_tokenizer

log = logging.getLogger("textdiff")

LEVELS = tuple(float(level) for level in range(-8, 5))


@dataclass
class Row:
    """What one writer wrote, and what it thinks of held-out text (nats a sentence; none: it cannot say)."""

    name: str
    sentences: list[Sentence]
    nats: np.ndarray | None = None
    ode_nats: np.ndarray | None = None
    seconds: float | None = None
    evaluations: int | None = None


def evaluate(name: str, options: Evaluation) -> dict[str, Any]:
    """Writes evaluation/ beside the model and returns what report.json holds."""
    model, tokenizer = load(name)
    home, config = run_of(name)
    folder = Path(options.out) if options.out else home / "evaluation"
    texts = open_texts(replace(config.data, streaming=False, valid=options.data or config.data.valid))
    training = _sentences(texts.train(), tokenizer, config.data)
    real, reference = _halves(_sentences(texts.valid, tokenizer, config.data), options.n)
    n, scored = len(real), real[: options.scored]
    budget = options.minutes * 60 if options.minutes else trained_seconds(home / "metrics.jsonl")
    teacher, _ = _trained("teacher", autoregressive(config, seed=1), tokenizer, folder, options.teacher_minutes * 60)
    assert isinstance(teacher, Autoregressive)
    sampling = Sampling(steps=options.steps, sampler=options.sampler, temperature=options.temperature, seed=options.seed, batch_size=250)

    def counted_bigrams() -> Row:
        bigram = Bigram(training, tokenizer.get_vocab_size())
        return Row("bigram", bigram.sample(n, seed=0), np.array([bigram.nats(sentence) for sentence in scored]))

    def same_budget(baseline: str, changed: TextRun, n: int, sampling: Sampling) -> Row:
        trained, _ = _trained(baseline, changed, tokenizer, folder, budget)
        return _written(baseline, trained, tokenizer, n, scored, sampling, options)

    published = replace(sampling, steps=2000, sampler="ddpm", clamp=True)
    baselines: dict[str, Callable[[], Row]] = {
        "ar": lambda: same_budget("ar", autoregressive(config), n, sampling),
        "diffusion-lm": lambda: same_budget("diffusion-lm", diffusion_lm(config), min(n, options.slow_n), published),
        "bigram": counted_bigrams,
        "shuffled": lambda: Row("shuffled", shuffled(training, n, seed=0)),
    }
    rows = [Row("held-out text", real), _written("model", model, tokenizer, n, scored, sampling, options)]
    rows += [baselines[baseline]() for baseline in options.baselines]
    report = _report(rows, scored, reference, training, teacher, tokenizer)
    report["recovery"] = {"levels": LEVELS, **_recovery(model, scored)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    _write_samples(rows, tokenizer, folder)
    _draw(report, rows, folder / "figures.png")
    return report


def _halves(sentences: list[Sentence], n: int) -> tuple[list[Sentence], list[Sentence]]:
    """n held-out sentences to be judged like any writer's, and as many others that writers are told apart from."""
    if len(sentences) < 2 * n:
        log.warning("held-out text has %d sentences: %d for each half, instead of --n %d", len(sentences), len(sentences) // 2, n)
    n = min(n, len(sentences) // 2)
    mixed = random.Random(0).sample(sentences, 2 * n)
    return mixed[:n], mixed[n:]


def run_of(name: str) -> tuple[Path, TextRun]:
    """The folder and the configuration of the run that a model belongs to."""
    for path in (Path(name) / "config.yaml", Path(name).parent / "config.yaml"):
        if path.exists():
            saved = yaml.safe_load(path.read_text())
            saved["model"]["output_prior"] = tuple(saved["model"]["output_prior"])
            kinds = {"data": Data, "tokenizer": Vocabulary, "model": Model, "train": Train}
            return path.parent, TextRun(run=saved["run"], **{part: kind(**saved[part]) for part, kind in kinds.items()})
    raise InputError(f"{name} has no config.yaml, which says what it was trained on: evaluate a run folder")


# --- writers


def _written(
    name: str, model: DiffusionLM | Autoregressive, tokenizer: Tokenizer, n: int, scored: list[Sentence], sampling: Sampling, options: Evaluation
) -> Row:
    """What a model writes and what it thinks of the scored sentences."""
    sentences: list[Sentence] = []
    began = time.perf_counter()
    with tqdm(total=n, desc=f"sampling {name}", unit="sentence") as bar:
        for ids in finished(generate(model, tokenizer, from_noise(model, n, sampling.seed), sampling)):
            sentences.append(tuple(ids))
            bar.update()
    seconds = time.perf_counter() - began
    evaluations = sampling.steps * (2 if sampling.sampler == "heun" else 1) if isinstance(model, DiffusionLM) else max(map(len, sentences))
    nats, ode = _nats(name, model, scored, options)
    return Row(name, sentences, nats, ode, seconds, evaluations)


def _nats(name: str, model: DiffusionLM | Autoregressive, scored: list[Sentence], options: Evaluation) -> tuple[np.ndarray, np.ndarray | None]:
    exact: list[Tensor] = []
    ode: list[Tensor] = []
    for batch in tqdm(list(_batches(scored, 50)), desc=f"likelihood of {name}", unit="batch"):
        ids, mask, key = (batch[part].to(model.device) for part in ("ids", "mask", "index"))
        if isinstance(model, Autoregressive):
            with torch.no_grad():
                exact.append(model.nats(ids, mask).sum(1).cpu())
            continue
        exact.append(metrics.bound(model, ids, mask, key).cpu())
        if int(key[0]) < options.ode:
            rows = key < options.ode
            ode.append(metrics.ode_bound(model, ids[rows], mask[rows], key[rows]).cpu())
    return torch.cat(exact).double().numpy(), torch.cat(ode).double().numpy() if ode else None


def _recovery(model: DiffusionLM | Autoregressive, scored: list[Sentence]) -> dict[str, Any]:
    if not isinstance(model, DiffusionLM):
        return {}
    batch = next(_batches(scored, 200))
    ids, mask = batch["ids"].to(model.device), batch["mask"].to(model.device)
    return {"recovered": list(metrics.recovery(model, ids, mask, LEVELS).values())}


def _trained(name: str, config: TextRun, tokenizer: Tokenizer, folder: Path, seconds: float) -> tuple[DiffusionLM | Autoregressive, Tokenizer]:
    """A model with the run's tokenizer, trained on its data for so long, once: the next evaluation finds it."""
    path = folder / name
    if not (path / "finished").exists():
        (path / "tokenizer").mkdir(parents=True, exist_ok=True)
        save_tokenizer(tokenizer, path / "tokenizer")
        config = replace(config, run=str(path), tokenizer=replace(config.tokenizer, name=str(path / "tokenizer")))
        steps = steps_within(config, seconds)
        log.info("training %s for %d steps, about %.0f seconds: %s", name, steps, seconds, path)
        train(replace(config, train=replace(config.train, steps=steps, valid_every=steps)), overwrite=True)
        (path / "finished").touch()
    return load(str(path))


def trained_seconds(path: Path) -> float:
    """How long a run trained, over all its resumptions, by its metrics.jsonl."""
    seconds = [line["seconds"] for line in map(json.loads, path.read_text().splitlines()) if "seconds" in line]
    return sum(before for before, after in zip(seconds, [*seconds[1:], -1.0], strict=True) if after < before)


# --- the table


def _report(
    rows: list[Row], scored: list[Sentence], reference: list[Sentence], training: list[Sentence], teacher: Autoregressive, tokenizer: Tokenizer
) -> dict[str, Any]:
    copies = metrics.Copies(training)
    decode = {row.name: [tokenizer.decode(list(sentence)) for sentence in row.sentences] for row in rows}
    real = [tokenizer.decode(list(sentence)) for sentence in reference]
    words = sum(len(tokenizer.decode(list(sentence)).split()) for sentence in scored) / sum(map(len, scored))
    table = {}
    for row in tqdm(rows, desc="judging", unit="row"):
        accuracy, low, high = metrics.two_sample_accuracy(real, decode[row.name])
        tokens = Counter(token for sentence in row.sentences for token in sentence)
        sizes = [len(sentence) for sentence in row.sentences]
        longest = [copies.longest_copied(sentence) for sentence in row.sentences[:200]]
        table[row.name] = {
            **_likelihood(row, scored, words),
            "teacher_perplexity": _perplexity(teacher, row.sentences),
            "unigram_entropy": metrics.unigram_entropy(row.sentences),
            **{f"distinct_{k}": metrics.distinct(row.sentences, k) for k in range(1, 5)},
            "self_bleu": metrics.self_bleu(decode[row.name]),
            "length_mean": float(np.mean(sizes)),
            "length_std": float(np.std(sizes)),
            **{f"{mark.strip('[]').lower()}_rate": tokens[tokenizer.token_to_id(mark)] / tokens.total() for mark in (UNK, PAD)},
            "novel": copies.novel(row.sentences),
            "copied_8grams": copies.copied(row.sentences, 8),
            "longest_copied_ngram": float(np.mean(longest)),
            "two_sample_accuracy": accuracy,
            "two_sample_interval": [low, high],
            "seconds_per_1000": row.seconds and 1000 * row.seconds / len(row.sentences),
            "evaluations": row.evaluations,
            "dtype": "float32",
            "sentences": len(row.sentences),
        }
    return {"table": table, "teacher": {"held_out_perplexity": _perplexity(teacher, scored)}}


def _likelihood(row: Row, scored: list[Sentence], words_per_token: float) -> dict[str, float | None]:
    """Nats a token and a word; a ratio of sums, whose error is that of the residuals. The end of a sentence is coded, not counted."""
    figures: dict[str, float | None] = {}
    for name, nats in (("nats", row.nats), ("ode_nats", row.ode_nats)):
        sizes = np.array([len(sentence) for sentence in scored])[: None if nats is None else len(nats)]
        ratio = None if nats is None else float(nats.sum() / sizes.sum())
        error = None if nats is None else float((nats - ratio * sizes).std() / math.sqrt(len(sizes)) / sizes.mean())
        figures |= {f"{name}_per_token": ratio, f"{name}_error": error, f"{name}_per_word": None if ratio is None else ratio / words_per_token}
    return figures


@torch.no_grad()
def _perplexity(teacher: Autoregressive, sentences: Sequence[Sentence]) -> float:
    """A token, the end of a sentence included."""
    total = 0.0
    for batch in _batches(sentences, 250):
        total += float(teacher.nats(batch["ids"].to(teacher.device), batch["mask"].to(teacher.device)).double().sum())
    return math.exp(total / sum(len(sentence) + 1 for sentence in sentences))


def show(report: dict[str, Any]) -> Iterator[str]:
    """The table as text: a line a figure, a column a row of the report."""
    table = report["table"]
    wide = max(22, *(len(name) + 2 for name in table))
    yield " " * 24 + "".join(f"{name:>{wide}}" for name in table)
    for key in next(iter(table.values())):
        yield f"{key:24}" + "".join(f"{_shown(row[key]):>{wide}}" for row in table.values())
    yield f"teacher's perplexity of the scored held-out text: {report['teacher']['held_out_perplexity']:.2f}"


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " to ".join(_shown(part) for part in value)
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) >= 100 else f"{value:.3f}"
    return "-" if value is None else str(value)


def _write_samples(rows: list[Row], tokenizer: Tokenizer, folder: Path) -> None:
    with open(folder / "samples.txt", "w") as file:
        for row in rows:
            print(f"# {row.name}", *(tokenizer.decode(list(sentence)) for sentence in islice(row.sentences, 20)), "", sep="\n", file=file)


def _draw(report: dict[str, Any], rows: list[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    recovery = report["recovery"]
    if "recovered" in recovery:
        left.plot(recovery["levels"], recovery["recovered"], marker="o")
    left.set(xlabel="log SNR", ylabel="share of words found again", ylim=(0, 1), title="Recovery of held-out words against noise")
    for row in rows:
        sizes, counts = np.unique([len(sentence) for sentence in row.sentences], return_counts=True)
        right.plot(sizes, counts / counts.sum(), label=row.name)
    right.set(xlabel="tokens", ylabel="share of sentences", title="Length")
    right.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _sentences(texts: Any, tokenizer: Tokenizer, data: Data) -> list[Sentence]:
    return [tuple(ids) for ids in examples(texts, tokenizer, data)]


def _batches(sentences: Sequence[Sentence], size: int) -> Iterator[dict[str, Tensor]]:
    corpus = Corpus.of([list(sentence) for sentence in sentences])
    for first in range(0, len(corpus), size):
        numbers = np.arange(first, min(first + size, len(corpus)))
        yield collate([corpus[i] for i in numbers], numbers)
