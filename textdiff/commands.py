"""What each command does once its options are read. Every heavy import waits until its command runs."""

import importlib.util
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from textdiff.config import Evaluation, InputError, Sampling, TextRun, check
from textdiff.folder import check_folder
from textdiff.parser import hush_libraries
from textdiff.processes import everyones, from_main_process, place

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from textdiff.autoregressive import Autoregressive
    from textdiff.generate import Draft, Task
    from textdiff.lm import DiffusionLM


def train(options: Namespace) -> None:
    config = TextRun(**{field.name: options[field.name] for field in fields(TextRun)})
    check_folder(config, options.resume, options.overwrite)  # before anything slow is imported
    hush_libraries()
    from textdiff import run

    run.train(config, resume=options.resume, overwrite=options.overwrite)


def sample(options: Namespace) -> None:
    model, tokenizer = _load(options)
    from textdiff.generate import from_noise

    task = from_noise(model, options.n, options.seed, options.length)
    _print(options, map(tokenizer.decode, _generated(options, model, tokenizer, task)))


def rewrite(options: Namespace) -> None:
    check(0 <= options.strength <= 1, "--strength", "between 0 (the text itself) and 1 (only its length is kept)", options.strength)
    model, tokenizer = _load(options)
    from textdiff.generate import rewriting
    from textdiff.vocab import encode

    task = rewriting(model, encode(tokenizer, options.text), options.n, options.strength)
    if options.strength == 0:
        return _print(options, [options.text] * options.n)
    _print(options, map(tokenizer.decode, _generated(options, model, tokenizer, task)))


def infill(options: Namespace) -> None:
    for mark in re.findall(r"\[[A-Za-z_]+\]", options.text):
        check(mark == "[MASK]", "a word to be filled in --text", "written [MASK]", mark)
    model, tokenizer = _load(options)
    from textdiff.generate import infilling
    from textdiff.vocab import MASK, encode, filled

    given = encode(tokenizer, options.text)
    task = infilling(model, given, options.n, tokenizer.token_to_id(MASK))
    _print(options, (filled(tokenizer, options.text, given, ids) for ids in _generated(options, model, tokenizer, task)))


def continue_(options: Namespace) -> None:
    model, tokenizer = _load(options)
    from textdiff.generate import continuing
    from textdiff.vocab import encode, following

    beginning = options.text.rstrip()
    given = encode(tokenizer, beginning)
    task = continuing(model, given, options.n, options.seed, options.length)
    generated = _generated(options, model, tokenizer, task)
    _print(options, (beginning + following(tokenizer, given, ids[len(given) :]) for ids in generated))


def evaluate(options: Namespace) -> None:
    needed = {"matplotlib": "evaluate", "sacrebleu": "evaluate", "sklearn": "evaluate"} | ({"mauve": "mauve"} if options.mauve else {})
    for module, extra in needed.items():
        if importlib.util.find_spec(module) is None:
            raise InputError(f"this needs {module}: pip install 'textdiff[{extra}]'")
    hush_libraries()
    from textdiff import evaluate as evaluation
    from textdiff.report import show

    report = evaluation.evaluate(options.model, Evaluation(**{field.name: options[field.name] for field in fields(Evaluation)}))
    print("\n".join(show(report)))


def doctor(options: Namespace) -> None:
    hush_libraries()
    logging.getLogger("textdiff").setLevel(logging.WARNING)  # the report says what was chosen
    from textdiff.doctor import CheckFailed, examine

    try:
        for line in examine():
            print(line, flush=True)
    except CheckFailed as error:  # of all else a bug report needs the traceback
        raise InputError(str(error)) from error


def _load(options: Namespace) -> "tuple[DiffusionLM | Autoregressive, Tokenizer]":
    """The model, once what can be checked without it is checked."""
    check(1 <= options.n <= 10**7, "--n", "between 1 and 10,000,000", options.n)
    if "text" in options:
        typed = options.text.encode("utf-8", "surrogateescape")  # bytes that the locale has no name for
        options.text = typed.decode("utf-8", "surrogateescape")
        check(bool(options.text.strip()), "--text", "a text", options.text)
        check(options.text == options.text.encode("utf-8", "ignore").decode(), "--text", "valid UTF-8", ascii(options.text))
    hush_libraries()
    from textdiff.generate import load

    return load(options.model)


def _generated(options: Namespace, model: "DiffusionLM | Autoregressive", tokenizer: "Tokenizer", task: "Task") -> Iterator[list[int]]:
    """The task's sequences as they are done."""
    from textdiff.generate import finished

    return finished(_watched(options, model, tokenizer, task))


def _watched(options: Namespace, model: "DiffusionLM | Autoregressive", tokenizer: "Tokenizer", task: "Task") -> "Iterator[Draft]":
    """Drafts, with a progress bar, or with all of them, on standard error."""
    from tqdm import tqdm

    from textdiff.generate import generate, precision_for

    sampling, where = Sampling(**{field.name: options[field.name] for field in fields(Sampling)}), place()
    precision = from_main_process(lambda: precision_for(model, sampling.precision), where)
    sampling = replace(sampling, precision=precision)
    with tqdm(total=0, unit="step", disable=options.show_steps or where.rank > 0 or None, leave=False) as bar:
        for draft in everyones(generate(model, tokenizer, task, sampling, where), where):
            bar.total = draft.steps * -(-options.n // (options.batch_size * where.world))
            bar.update()
            if options.show_steps:
                for row, ids in zip(draft.rows, draft.sentences(), strict=True):
                    print(f"step {draft.step:3d}  sentence {row}: {tokenizer.decode(ids)}", file=sys.stderr)
            yield draft


def _print(options: Namespace, texts: Iterable[str]) -> None:
    from tqdm import tqdm

    for index, text in enumerate(texts):
        if place().rank > 0:
            continue
        line = json.dumps({"index": index, "seed": options.seed, "text": text}, ensure_ascii=False)
        tqdm.write(line if options.format == "jsonl" else "\\n".join(text.splitlines()))  # without tearing a progress bar
        sys.stdout.flush()
