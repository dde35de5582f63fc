"""The commands of `textdiff`. Heavy imports wait until their command runs."""

import importlib.util
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from textdiff.cli.parser import quiet_libraries
from textdiff.config import SamplingConfig, UserError, check
from textdiff.distributed import current_process
from textdiff.evaluation.config import EvaluationConfig
from textdiff.options import from_options
from textdiff.text.config import DecodingConfig, TextConfig
from textdiff.training.run_dir import open_run_dir

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from textdiff.sampling import SampleBatch
    from textdiff.text.requests import Request, TextModel


def train(options: Namespace) -> None:
    """Trains a text model."""
    config = from_options(TextConfig, options)
    run_dir = open_run_dir(config, resume=options.resume, overwrite=options.overwrite)
    quiet_libraries()
    from textdiff.text.train import train

    train(config, run_dir)


def sample(options: Namespace) -> None:
    """Prints sentences generated from noise."""
    model, tokenizer = _load(options)
    from textdiff.text.requests import sample_request

    decoding = from_options(DecodingConfig, options)
    request = sample_request(model, options.n, options.seed, options.length, decoding)
    _print(options, map(tokenizer.decode, _generate(options, model, tokenizer, request)))


def rewrite(options: Namespace) -> None:
    """Prints variations of a sentence."""
    rule = "between 0 (the text itself) and 1 (only its length is kept)"
    check(0 <= options.strength <= 1, "--strength", rule, options.strength)
    model, tokenizer = _load(options)
    from textdiff.text.requests import rewrite_request
    from textdiff.text.tokenizer import encode, tokens_of_words

    ids, decoding = encode(tokenizer, options.text), from_options(DecodingConfig, options)
    words = [word.strip() for word in (options.protect or "").split(",") if word.strip()]
    protected = tokens_of_words(tokenizer, options.text, words)
    strength = [0.0 if kept else options.strength for kept in protected]
    request = rewrite_request(model, ids, options.n, strength, decoding)
    if options.strength == 0:
        return _print(options, [options.text] * options.n)
    _print(options, map(tokenizer.decode, _generate(options, model, tokenizer, request)))


def infill(options: Namespace) -> None:
    """Prints a sentence with its [MASK]s filled."""
    for mark in re.findall(r"\[[A-Za-z_]+\]", options.text):
        check(mark == "[MASK]", "a missing word in --text", "written [MASK]", mark)
    model, tokenizer = _load(options)
    from textdiff.text.requests import infill_request
    from textdiff.text.tokenizer import MASK, encode, fill_masks

    ids, decoding = encode(tokenizer, options.text), from_options(DecodingConfig, options)
    request = infill_request(model, ids, options.n, tokenizer.token_to_id(MASK), decoding)
    samples = _generate(options, model, tokenizer, request)
    _print(options, (fill_masks(tokenizer, options.text, ids, found) for found in samples))


def continue_(options: Namespace) -> None:
    """Prints sentences that begin with the given words."""
    model, tokenizer = _load(options)
    from textdiff.text.requests import continue_request
    from textdiff.text.tokenizer import decode_after, encode

    beginning, decoding = options.text.rstrip(), from_options(DecodingConfig, options)
    ids = encode(tokenizer, beginning)
    request = continue_request(model, ids, options.n, options.seed, options.length, decoding)
    samples = _generate(options, model, tokenizer, request)
    endings = (decode_after(tokenizer, ids, found[len(ids) :]) for found in samples)
    _print(options, (beginning + ending for ending in endings))


def evaluate(options: Namespace) -> None:
    """Prints the table of an evaluation."""
    needed = {"matplotlib": "evaluate", "sacrebleu": "evaluate", "sklearn": "evaluate"}
    needed |= {"mauve": "mauve"} if options.mauve else {}
    for module, extra in needed.items():
        if importlib.util.find_spec(module) is None:
            raise UserError(f"this needs {module}: pip install 'textdiff[{extra}]'")
    quiet_libraries()
    from textdiff.evaluation.evaluate import evaluate
    from textdiff.evaluation.report import report_lines

    report = evaluate(options.model, from_options(EvaluationConfig, options))
    print("\n".join(report_lines(report)))


def doctor(options: Namespace) -> None:
    """Prints a report on this machine."""
    quiet_libraries()
    logging.getLogger("textdiff").setLevel(logging.WARNING)  # the report says what was chosen
    from textdiff.doctor import CheckFailed, examine

    try:
        for line in examine():
            print(line, flush=True)
    except CheckFailed as error:  # for other errors, a bug report needs the traceback
        raise UserError(str(error)) from error


def _load(options: Namespace) -> "tuple[TextModel, Tokenizer]":
    """Loads the model, after everything that can be checked without it."""
    check(1 <= options.n <= 10**7, "--n", "between 1 and 10,000,000", options.n)
    if "text" in options:
        # Python keeps bytes that the locale cannot decode as surrogates
        typed = options.text.encode("utf-8", "surrogateescape")
        options.text = text = typed.decode("utf-8", "surrogateescape")
        check(bool(text.strip()), "--text", "a text", text)
        valid = text == text.encode("utf-8", "ignore").decode()
        check(valid, "--text", "valid UTF-8", ascii(text))
    quiet_libraries()
    from textdiff.text.sampling import load_model

    return load_model(options.model)


def _generate(
    options: Namespace, model: "TextModel", tokenizer: "Tokenizer", request: "Request"
) -> Iterator[list[int]]:
    """Yields the samples as soon as they are done, with a progress bar."""
    from textdiff.sampling import collect, gather_batches, sampling_precision, with_progress
    from textdiff.text.sampling import generate

    process, config = current_process(), from_options(SamplingConfig, options)
    config = replace(config, precision=sampling_precision(model, config.precision, process))
    batches = generate(model, tokenizer, request, config, process)
    count = -(-options.n // (config.batch_size * process.world))
    hide = options.show_steps or process.rank > 0
    gathered = gather_batches(with_progress(batches, count, hide=hide), process)
    yield from collect(_shown(gathered, tokenizer) if options.show_steps else gathered)


def _shown(
    batches: "Iterable[SampleBatch[list[int]]]", tokenizer: "Tokenizer"
) -> "Iterator[SampleBatch[list[int]]]":
    """Prints every batch to standard error and yields it."""
    for batch in batches:
        for row, ids in zip(batch.rows, batch.samples, strict=True):
            text = tokenizer.decode(ids)
            print(f"step {batch.step:3d}  sentence {row}: {text}", file=sys.stderr)
        yield batch


def _print(options: Namespace, texts: Iterable[str]) -> None:
    """Prints texts on the main process, without breaking the progress bar."""
    from tqdm import tqdm

    for index, text in enumerate(texts):
        if current_process().rank > 0:
            continue
        line = "\\n".join(text.splitlines())
        if options.format == "jsonl":
            entry = {"index": index, "seed": options.seed, "text": text}
            line = json.dumps(entry, ensure_ascii=False)
        tqdm.write(line)
        sys.stdout.flush()
