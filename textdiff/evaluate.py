"""One table in which held-out text, a model and its baselines have the same columns, and nothing is judged by one figure alone.

The training text has a row as well: where held-out text is of another kind, no model can come closer to it than the text it was trained on.
A run's evaluation/ folder keeps the teacher and the baselines it trains, report.json, samples and figures.
"""

import json
import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from tqdm import tqdm

from textdiff import metrics
from textdiff.autoregressive import Autoregressive
from textdiff.baselines import Bigram, Unigram, autoregressive, diffusion_lm, shuffled
from textdiff.checkpoint import digest
from textdiff.config import Data, Evaluation, InputError, TextRun, Train
from textdiff.data import examples
from textdiff.folder import saved_config
from textdiff.generate import Draft, finished, from_noise, generate, load, precision_for, temperature_and_guidance
from textdiff.lm import DiffusionLM
from textdiff.metrics import Sentence
from textdiff.report import Judge, Row, report, write
from textdiff.run import train
from textdiff.sources import open_texts
from textdiff.teacher import ForeignTeacher, Teacher, batches
from textdiff.vocab import save_tokenizer

log = logging.getLogger("textdiff")

LEVELS = tuple(float(level) for level in range(-8, 5))


def evaluate(name: str, options: Evaluation) -> dict[str, Any]:
    """Writes evaluation/ beside the model and returns what report.json holds."""
    model, tokenizer = load(name)
    temperature, guidance = temperature_and_guidance(model, options.sampling(1))
    home, config = saved_config(name, TextRun)
    folder = Path(options.out) if options.out else home / "evaluation"
    texts = open_texts(replace(config.data, streaming=False, valid=options.data or config.data.valid))
    training = _sentences(texts.train(), tokenizer, config.data)
    real, reference = _halves(_sentences(texts.valid, tokenizer, config.data), options.n)
    scored, spent = real[: options.scored], trained_seconds(home / "metrics.jsonl")
    teacher = _teacher(options, config, tokenizer, folder, spent)
    of_grammar = config.data.train is None and options.data is None
    judge = Judge(scored, reference, training, teacher, tokenizer, options.mauve, of_grammar)
    judged = report(judge) | {"recovery": _recovery(model, scored)}
    judged["options"] = asdict(options) | {"temperature": temperature, "guidance": guidance}
    texts_of_people = [Row("held-out text", real), Row("training text", random.Random(0).sample(training, min(len(training), len(real))))]
    written = _written("model", model, judge, len(real), options)
    others = _baselines(options, config, judge, folder, options.minutes * 60 if options.minutes else spent, len(real))
    rows = list[Row]()
    for row in chain(texts_of_people, written, others):  # written down one by one: a row may take an hour
        rows.append(row)
        judged["table"][row.name] = judge.figures(row)
        write(judged, rows, judge, folder)
    return judged


def _halves(sentences: list[Sentence], n: int) -> tuple[list[Sentence], list[Sentence]]:
    """n held-out sentences to be judged like any writer's, and as many others that writers are told apart from."""
    if len(sentences) < 2 * n:
        log.warning("held-out text has %d sentences: %d for each half, instead of --n %d", len(sentences), len(sentences) // 2, n)
    n = min(n, len(sentences) // 2)
    mixed = random.Random(0).sample(sentences, 2 * n)
    return mixed[:n], mixed[n:]


def trained_seconds(path: Path) -> float:
    """How long a run trained, over all its resumptions, by its metrics.jsonl."""
    whole = (line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}"))  # a killed run may have left half a line
    seconds = [line["seconds"] for line in map(json.loads, whole) if "seconds" in line]
    return sum(before for before, after in zip(seconds, [*seconds[1:], -1.0], strict=True) if after < before)


# --- other writers


def _teacher(options: Evaluation, config: TextRun, tokenizer: Tokenizer, folder: Path, spent: float) -> Teacher:
    if options.teacher:
        return _named_teacher(options.teacher, tokenizer)
    seconds = options.teacher_minutes * 60 if options.teacher_minutes else min(spent / 10, 300)
    model = _trained("teacher", autoregressive(config, seed=1), tokenizer, folder, seconds)
    assert isinstance(model, Autoregressive)
    return Teacher(model)


def _named_teacher(name: str, tokenizer: Tokenizer) -> Teacher:
    """One of ours if it is a run folder, which must have the same words; else one of transformers."""
    if not (Path(name) / "config.yaml").exists():
        return ForeignTeacher(name, tokenizer)
    model, words = load(name)
    if not isinstance(model, Autoregressive) or words.get_vocab() != tokenizer.get_vocab():
        raise InputError(f"--teacher {name} is not an autoregressive model of the same words as the model to be judged")
    return Teacher(model)


def _baselines(options: Evaluation, config: TextRun, judge: Judge, folder: Path, seconds: float, n: int) -> Iterator[Row]:
    """The rows asked for; `seconds` is what a baseline may train."""

    def same_budget(name: str, changed: TextRun, n: int, options: Evaluation) -> Iterable[Row]:
        return _written(name, _trained(name, changed, judge.tokenizer, folder, seconds), judge, n, options)

    def counted(name: str, kind: type[Bigram]) -> list[Row]:
        model = kind(judge.training, judge.tokenizer.get_vocab_size())
        nats = np.array([model.nats(sentence) for sentence in judge.scored])
        return [Row(name, model.sample(n, seed=0, longest=config.data.length), nats)]

    usual = replace(options, sampler="ddpm", temperature=None, guidance=None, clamp=False)
    published = replace(usual, steps=2000, clamp=True)
    writers: dict[str, Callable[[], Iterable[Row]]] = {
        "ar": lambda: same_budget("ar", autoregressive(config), n, usual),
        "diffusion-lm": lambda: same_budget("diffusion-lm", diffusion_lm(config), min(n, options.slow_n), published),
        "bigram": lambda: counted("bigram", Bigram),
        "unigram": lambda: counted("unigram", Unigram),
        "shuffled": lambda: [Row("shuffled", shuffled(judge.training, n, seed=0))],
    }
    for baseline in options.baselines:
        yield from writers[baseline]()


def _trained(name: str, config: TextRun, tokenizer: Tokenizer, folder: Path, seconds: float) -> DiffusionLM | Autoregressive:
    """A model with the run's tokenizer, trained on its data for so long, once: the next evaluation finds it."""
    path = folder / f"{name}-{seconds:.0f}s"
    options = [config.data, config.model, _weight_deciding(config.train)]
    whose = digest(tokenizer.to_str().encode(), repr(options).encode())
    mark = path / "finished"
    if mark.exists() and mark.read_text(encoding="utf-8") != whose:
        raise InputError(f"{path} was trained beside another model, on other text or with other options: delete it, or give --out another folder")
    if not mark.exists():
        (path / "tokenizer").mkdir(parents=True, exist_ok=True)
        save_tokenizer(tokenizer, path / "tokenizer")
        log.info("training %s for %.0f seconds: %s", name, seconds, path)
        optimization = replace(config.train, minutes=seconds / 60, valid_every=10**9)
        own_words = replace(config.tokenizer, name=str(path / "tokenizer"))
        train(replace(config, run=str(path), tokenizer=own_words, train=optimization), overwrite=True)
        mark.write_text(whose, encoding="utf-8")
    return load(str(path))[0]


def _weight_deciding(train: Train) -> dict[str, Any]:
    """Training options that the weights depend on, besides the training time."""
    others = {"steps", "minutes", "accumulate", "log_every", "valid_every", "save_every", "trackers"}
    return {name: value for name, value in asdict(train).items() if name not in others}


# --- what a model writes, and what it thinks of text


def _written(name: str, model: DiffusionLM | Autoregressive, judge: Judge, n: int, options: Evaluation) -> Iterator[Row]:
    """A row for each number of steps; an autoregressive model has but one."""
    nats, ode = _nats(name, model, judge.scored, options)
    precision = precision_for(model, options.precision)
    numbers = options.numbers_of_steps[: 1 if isinstance(model, Autoregressive) else None]
    for steps in numbers:
        label = name if len(numbers) == 1 else f"{name}, {steps} steps"
        sampling = options.sampling(steps)
        began, drafts = time.perf_counter(), list[Draft]()
        with tqdm(desc=f"sampling {label}", unit="step") as bar:
            for draft in generate(model, judge.tokenizer, from_noise(model, n, options.seed), sampling):
                bar.total = draft.steps * math.ceil(n / sampling.batch_size)
                bar.update()
                if draft.step == draft.steps:
                    drafts.append(draft)
        seconds, sentences = time.perf_counter() - began, [tuple(ids) for ids in finished(drafts)]
        evaluations = steps * (2 if options.sampler == "heun" else 1) if isinstance(model, DiffusionLM) else max(map(len, sentences))
        yield Row(label, sentences, nats, ode, seconds, evaluations, "bfloat16" if precision == "bf16" else "float32")


def _nats(name: str, model: DiffusionLM | Autoregressive, scored: list[Sentence], options: Evaluation) -> tuple[np.ndarray, np.ndarray | None]:
    """Of each scored sentence, in float32; the second by the ODE, of the first few."""
    exact: list[Tensor] = []
    ode: list[Tensor] = []
    for batch in tqdm(list(batches(scored, 50)), desc=f"likelihood of {name}", unit="batch"):
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
    batch = next(batches(scored, 200))
    ids, mask = batch["ids"].to(model.device), batch["mask"].to(model.device)
    return {"logsnr": LEVELS, "share": list(metrics.recovery(model, ids, mask, LEVELS).values())}


def _sentences(texts: Any, tokenizer: Tokenizer, data: Data) -> list[Sentence]:
    return [tuple(ids) for ids in examples(texts, tokenizer, data)]
