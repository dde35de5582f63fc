"""Evaluation of a model of pairs: one target for each held-out source, beside its references.

The table has a row of references, in which one reference of each source is compared with the
others. The autoregressive baseline has two rows: samples at temperature 1 and greedy decoding,
which is usual in data to text.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from textdiff.diffusion.samplers import EVALUATIONS
from textdiff.evaluation.baselines import autoregressive_config, train_baseline
from textdiff.evaluation.config import EvaluationConfig
from textdiff.evaluation.pair_evaluator import PairEvaluator, TargetRow, held_out_pairs
from textdiff.evaluation.report import report_rows
from textdiff.evaluation.scores import Scores, recovery_of, scores_of
from textdiff.progress import ProgressBar
from textdiff.sampling import collect, sampling_precision, with_progress
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.config import TextConfig
from textdiff.text.dataset import examples
from textdiff.text.decoding import resolve_decoding, without_auto
from textdiff.text.inputs import candidates
from textdiff.text.requests import TextModel, joined
from textdiff.text.sampling import generate
from textdiff.text.selection import most_like_others, ranking
from textdiff.text.sources import open_texts
from textdiff.text.targets import target_request
from textdiff.text.task import Task

GREEDY = 0.001  # temperature at which the most probable token is drawn


def evaluate_pairs(
    model: TextModel,
    tokenizer: Tokenizer,
    config: TextConfig,
    options: EvaluationConfig,
    folder: Path,
    seconds: float,
) -> dict[str, Any]:
    """Evaluates a model of pairs and writes the report into a folder, after every row.

    Args:
        config: Configuration of the run.
        seconds: Training time of the baselines.

    Returns:
        The content of report.json.
    """
    data = replace(config.data, streaming=False, valid=options.data or config.data.valid)
    texts = open_texts(data)
    pairs = held_out_pairs(texts.valid, options.n, model, tokenizer)
    held_out = [tuple(ids) for ids in examples(texts.valid, tokenizer, data)]
    scored = random.Random(0).sample(held_out, min(options.scored, len(held_out)))
    evaluator = PairEvaluator(pairs, scored, [*texts.train()], tokenizer)
    decoding = without_auto(model, resolve_decoding(model, options.decoding), options.sampler)
    report = {
        "table": {},
        "signatures": evaluator.signatures,
        "recovery": recovery_of(model, scored),
        "options": asdict(options) | asdict(decoding) | {"draws": options.draws},
    }
    rows = chain(
        [_reference_row(evaluator)],
        _model_rows(model, evaluator, options),
        _baseline_rows(config, evaluator, options, folder, seconds),
    )
    metrics, sources = evaluator.sentence_metrics, [*pairs]
    return report_rows(report, rows, evaluator.metrics_of, metrics, folder, sources)


def _reference_row(evaluator: PairEvaluator) -> TargetRow:
    """One reference of each source, and the others as its references."""
    rng, texts, others = random.Random(0), list[str](), list[list[str]]()
    for references in evaluator.pairs.values():
        own = rng.randrange(len(references))
        texts.append(references[own])
        others.append(references[:own] + references[own + 1 :])
    return TargetRow("references", evaluator.encode(texts), texts=texts, references=others)


def _model_rows(
    model: TextModel, evaluator: PairEvaluator, options: EvaluationConfig
) -> Iterator[TargetRow]:
    """A row for each number of steps; an autoregressive model has one row."""
    scores = scores_of("model", model, evaluator.scored, options)
    counts = options.step_counts[:1] if isinstance(model, Autoregressive) else options.step_counts
    for steps in counts:
        label = "model" if len(counts) == 1 else f"model, {steps} steps"
        yield generated_row(label, model, evaluator, options, steps, scores)


def _baseline_rows(
    config: TextConfig,
    evaluator: PairEvaluator,
    options: EvaluationConfig,
    folder: Path,
    seconds: float,
) -> Iterator[TargetRow]:
    """Samples and greedy targets of the autoregressive baseline."""
    usual = options.with_usual_decoding()
    greedy = replace(usual, temperature=GREEDY, mbr=1, rank=None)
    for name in options.baselines or []:
        own = autoregressive_config(config)
        model = train_baseline(name, own, evaluator.tokenizer, folder, seconds)
        scores = scores_of(name, model, evaluator.scored, usual)
        yield generated_row(name, model, evaluator, usual, 1, scores)
        yield generated_row(f"{name}, greedy", model, evaluator, greedy, 1, scores)


def generated_row(
    label: str,
    model: TextModel,
    evaluator: PairEvaluator,
    options: EvaluationConfig,
    steps: int,
    scores: Scores,
) -> TargetRow:
    """A row of generated targets, one for each source.

    Args:
        label: Name of the row.
        steps: Number of sampling steps.
        scores: Likelihoods of the references.
    """
    tokenizer, many = evaluator.tokenizer, candidates(options.mbr, options.rank)
    given, sampling = [*map(list, evaluator.encode([*evaluator.pairs]))], options.sampling(steps)
    requests = [target_request(model, ids, many, None, options.decoding) for ids in given]

    def decode(row: int, ids: list[int]) -> str:
        return tokenizer.decode(ids[len(given[row // many]) + 1 :])

    request = joined(requests)
    select = ranking(model, request, 1, options.rank, sampling) or most_like_others(many)
    task = Task(request, decode, sampling, select)
    start, count = time.perf_counter(), -(-len(given) * many // sampling.batch_size)
    batches = generate(model, tokenizer, task.request, sampling)
    found = collect(with_progress(batches, count, label=f"sampling {label}"))
    bar = {"desc": f"choosing {label}", "total": len(given), "unit": "target", "leave": False}
    results = [*ProgressBar(task.results(found), disable=select is None, **bar)]
    seconds = time.perf_counter() - start
    sentences = [evaluator.target(result.ids) for result in results]
    evaluations = many * steps * EVALUATIONS[options.sampler]
    if isinstance(model, Autoregressive):
        evaluations = many * max(map(len, sentences))
    precision = sampling_precision(model, options.precision)
    texts = [result.text for result in results]
    dtype = "bfloat16" if precision == "bf16" else "float32"
    return TargetRow(label, sentences, scores, seconds, evaluations, dtype, texts)
