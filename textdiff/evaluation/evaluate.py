"""Evaluation of a text model: one table for held-out text, the model and its baselines.

All rows have the same columns, and no single metric is sufficient. The training text has a row as
well: if held-out text is of another kind, no model can come closer to it than its training text.
"""

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from textdiff.config import UserError
from textdiff.diffusion.samplers import EVALUATIONS
from textdiff.evaluation.baselines import (
    autoregressive_config,
    diffusion_lm_config,
    train_baseline,
)
from textdiff.evaluation.config import EvaluationConfig
from textdiff.evaluation.evaluator import Evaluator, Row
from textdiff.evaluation.ngram import Bigram, Unigram, shuffled
from textdiff.evaluation.pairs import evaluate_pairs
from textdiff.evaluation.prior import Prior
from textdiff.evaluation.reference_lm import PretrainedReferenceLM, ReferenceLM
from textdiff.evaluation.report import report_rows, start_report
from textdiff.evaluation.scores import Scores, recovery_of, scores_of
from textdiff.sampling import collect, sampling_precision, with_progress
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.config import DataConfig, TextConfig
from textdiff.text.dataset import examples
from textdiff.text.decoding import Decoding, resolve_decoding, without_auto
from textdiff.text.diagnostics import Sentence
from textdiff.text.hub import load_model
from textdiff.text.requests import TextModel, sample_request
from textdiff.text.sampling import generate
from textdiff.text.sources import open_texts
from textdiff.training.run_dir import load_config_of, training_seconds

log = logging.getLogger("textdiff")

PAPER_STEPS = 2000  # sampling steps of Diffusion-LM


def evaluate(name: str, options: EvaluationConfig) -> dict[str, Any]:
    """Evaluates a model and writes the report into its run folder, after every row.

    Args:
        name: A run folder or its model/ folder.

    Returns:
        The content of report.json.
    """
    model, tokenizer = load_model(name)
    decoding = without_auto(model, resolve_decoding(model, options.decoding), options.sampler)
    run, config = load_config_of(name, TextConfig)
    options = replace(options, baselines=options.baselines_for(model.config.has_sources))
    folder = Path(options.out) if options.out else run / "evaluation"
    spent = training_seconds(run / "metrics.jsonl")
    budget = options.minutes * 60 if options.minutes else spent
    if model.config.has_sources:
        return evaluate_pairs(model, tokenizer, config, options, folder, budget)
    prior = Prior(model, tokenizer) if "prior" in (options.baselines or []) else None
    training, held_out = _sentences(config.data, options.data, tokenizer)
    real, reference = _halves(held_out, options.n)
    evaluator = Evaluator(
        scored=real[: options.scored],
        reference=reference,
        training=training,
        reference_lm=_reference_lm(options, config, tokenizer, folder, spent),
        tokenizer=tokenizer,
        mauve=options.mauve,
        grammar=config.data.train is None and options.data is None,
    )
    report = start_report(evaluator) | {
        "recovery": recovery_of(model, evaluator.scored),
        "options": asdict(options) | asdict(decoding) | {"draws": options.draws},
    }
    rows = chain(
        _text_rows(real, training),
        _model_rows("model", model, evaluator, len(real), options, decoding),
        _baseline_rows(options, config, evaluator, folder, budget, len(real), prior),
    )
    return report_rows(report, rows, evaluator.metrics_of, evaluator.sentence_metrics, folder)


def _sentences(
    data: DataConfig, held_out: str | None, tokenizer: Tokenizer
) -> tuple[list[Sentence], list[Sentence]]:
    """Sentences of the training text and of the held-out text, which `held_out` may replace."""
    texts = open_texts(replace(data, streaming=False, valid=held_out or data.valid))
    training, valid = (examples(text, tokenizer, data) for text in (texts.train(), texts.valid))
    return [tuple(ids) for ids in training], [tuple(ids) for ids in valid]


def _halves(sentences: list[Sentence], n: int) -> tuple[list[Sentence], list[Sentence]]:
    """n held-out sentences for the table and n others that all rows are compared with."""
    half = len(sentences) // 2
    if half < n:
        log.warning("held-out text has %d sentences: using %d instead of --n %d", 2 * half, half, n)
        n = half
    mixed = random.Random(0).sample(sentences, 2 * n)
    return mixed[:n], mixed[n:]


def _text_rows(real: list[Sentence], training: list[Sentence]) -> list[Row]:
    """Rows of held-out text and of training text."""
    sample = random.Random(0).sample(training, min(len(training), len(real)))
    return [Row("held-out text", real), Row("training text", sample)]


def _reference_lm(
    options: EvaluationConfig, config: TextConfig, tokenizer: Tokenizer, folder: Path, spent: float
) -> ReferenceLM:
    """The reference model: the named one, or a GPT-2 that is trained on the same text.

    Args:
        spent: Training time of the evaluated model in seconds.
    """
    if options.reference_lm:
        return _named_reference_lm(options.reference_lm, tokenizer)
    minutes = options.reference_minutes
    seconds = minutes * 60 if minutes else min(spent / 10, 300)
    own = autoregressive_config(config, seed=1)
    model = train_baseline("reference", own, tokenizer, folder, seconds)
    assert isinstance(model, Autoregressive)
    return ReferenceLM(model)


def _named_reference_lm(name: str, tokenizer: Tokenizer) -> ReferenceLM:
    """A run of textdiff if `name` is a run folder, otherwise a model of transformers."""
    if not (Path(name) / "config.yaml").exists():
        return PretrainedReferenceLM(name, tokenizer)
    model, other = load_model(name)
    if not isinstance(model, Autoregressive) or other.get_vocab() != tokenizer.get_vocab():
        what = "an autoregressive model with the vocabulary of the evaluated model"
        raise UserError(f"--reference_lm {name} is not {what}")
    return ReferenceLM(model)


def _baseline_rows(
    options: EvaluationConfig,
    config: TextConfig,
    evaluator: Evaluator,
    folder: Path,
    seconds: float,
    n: int,
    prior: Prior | None,
) -> Iterator[Row]:
    """Rows of the baselines.

    Args:
        seconds: Training time of each baseline that is trained.
        prior: The baseline of this name.
    """
    usual = options.with_usual_decoding()
    paper = replace(usual, steps=PAPER_STEPS, clamp=True)
    few = min(n, options.slow_n)

    def trained(name: str, own: TextConfig, n: int, sampling: EvaluationConfig) -> Iterable[Row]:
        model = train_baseline(name, own, evaluator.tokenizer, folder, seconds)
        return _model_rows(name, model, evaluator, n, sampling)

    def counted(name: str, kind: type[Bigram]) -> list[Row]:
        model = kind(evaluator.training, evaluator.tokenizer.get_vocab_size())
        nats = np.array([model.nats(sentence) for sentence in evaluator.scored])
        return [Row(name, model.sample(n, seed=0, longest=config.data.length), Scores(nats))]

    rows: dict[str, Callable[[], Iterable[Row]]] = {
        "ar": lambda: trained("ar", autoregressive_config(config), n, usual),
        "diffusion-lm": lambda: trained("diffusion-lm", diffusion_lm_config(config), few, paper),
        "prior": lambda: _prior_rows(prior, evaluator, n),
        "bigram": lambda: counted("bigram", Bigram),
        "unigram": lambda: counted("unigram", Unigram),
        "shuffled": lambda: [Row("shuffled", shuffled(evaluator.training, n, seed=0))],
    }
    for baseline in options.baselines or []:
        yield from rows[baseline]()


def _prior_rows(prior: Prior | None, evaluator: Evaluator, n: int) -> list[Row]:
    assert prior  # it was made first, because some models have none
    return [Row("prior", prior.sample(n, seed=0), Scores(prior.nats(evaluator.scored)))]


def _model_rows(
    name: str,
    model: TextModel,
    evaluator: Evaluator,
    n: int,
    options: EvaluationConfig,
    decoding: Decoding | None = None,
) -> Iterator[Row]:
    """A row for each number of steps; an autoregressive model has one row."""
    scores = scores_of(name, model, evaluator.scored, options)
    precision = sampling_precision(model, options.precision)
    autoregressive = isinstance(model, Autoregressive)
    counts = options.step_counts[:1] if autoregressive else options.step_counts
    request = sample_request(model, n, options.seed, decoding=decoding or options.decoding)
    for steps in counts:
        label = name if len(counts) == 1 else f"{name}, {steps} steps"
        sampling, start = options.sampling(steps), time.perf_counter()
        batches = generate(model, evaluator.tokenizer, request, sampling)
        shown = with_progress(batches, -(-n // sampling.batch_size), label=f"sampling {label}")
        sentences = [tuple(ids) for ids in collect(shown)]
        seconds = time.perf_counter() - start
        evaluations = steps * EVALUATIONS[options.sampler]
        if autoregressive:
            evaluations = max(map(len, sentences))
        dtype = "bfloat16" if precision == "bf16" else "float32"
        yield Row(label, sentences, scores, seconds, evaluations, dtype)
