"""The command line. Results go to standard output, progress and warnings to standard error; a mistake is one line and exit code 2.

Heavy imports wait until a command runs, so that `--help` answers at once.
"""

import difflib
import importlib.util
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from jsonargparse import ArgumentParser, Namespace

from textdiff import __version__
from textdiff.config import Evaluation, InputError, Sampling, TextRun, check
from textdiff.folder import check_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from textdiff.autoregressive import Autoregressive
    from textdiff.generate import Draft, Task
    from textdiff.lm import DiffusionLM

MODEL_HELP = "A run folder, its model/ folder, or a model's name on the Hugging Face hub."
EPILOGUE = {
    "train": (
        "The log shows the loss terms (ce: nats a word given its noisy vector; eps, x0: mean squares; round: nats a word given its nearly clean "
        "vector; schedule: misfit of the adaptive schedule, negligible; in validation the noise levels are spread evenly) and, with objective ce, "
        "the context gain: the nats a word that the model saves at each noise level by reading the neighbours. If that stays at 0, samples will be "
        "word salad."
    ),
}


class Parser(ArgumentParser):
    """Says what is wrong in one line, with the nearest name that exists."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        message = " ".join(str(message).split())
        fail(plainly(message) + nearest_name(message))


KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "str": "a text",
    "NoneType": "null",
}


def plainly(message: str) -> str:
    """The parser's message about a value of the wrong type, without Python's names for types."""
    key, value = re.match(r'Parser key "([^"]+)"', message), re.search(r"(?:Got|Given) value: (.*)$", message)
    expected = re.findall(r"Expected an? (?:<class '(\w+)'>|typing\.Literal\[(.*?)\])", message)
    if not (key and value and expected):
        return message
    kinds = [KINDS.get(kind, kind) or f"one of {choices}" for kind, choices in expected]
    return f"--{key[1]} must be {' or '.join(dict.fromkeys(kinds))}, got {value[1]}"


def nearest_name(message: str) -> str:
    """` (did you mean ...?)` for a message about a name that does not exist."""
    found = re.search(r"unrecognized arguments: (?:.* )?(--[^\s=]+)|accept option '([^']+)'|invalid choice: '([^']+)'", message)
    if not found:
        return ""
    wanted = next(group for group in found.groups() if group).lstrip("-")
    near = difflib.get_close_matches(wanted, _names(), n=1)
    return f" (did you mean {'' if near[0] in COMMANDS or '.' in near[0] else '--'}{near[0]}?)" if near else ""


def _names() -> list[str]:
    """Commands and the options of all of them, without dashes."""
    names = list(COMMANDS)
    for add_options, _ in COMMANDS.values():
        subparser = Parser()
        add_options(subparser)
        names += [option.lstrip("-") for action in subparser._actions for option in action.option_strings]
    return names


def main(argv: Sequence[str] | None = None) -> None:
    """The `textdiff` command."""
    arguments = [_underscored(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    logging.basicConfig(format="textdiff: %(levelname)s: %(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("textdiff").setLevel(logging.INFO)
    parser, commands = build_parser()
    try:
        options = parser.parse_args(arguments)
        if options.subcommand == "train" and options.train.resume:
            options = parser.parse_args(with_saved_options(arguments, Path(options.train.run)))
        options = parser.instantiate(options)
        commands[options.subcommand](options[options.subcommand])
        sys.stdout.flush()
    except InputError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would try once more to write what is left
        if not isinstance(error, BrokenPipeError):  # whoever read our output has enough
            fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def with_saved_options(arguments: list[str], folder: Path) -> list[str]:
    """What `train --resume` goes on with: the options of the run, then those given now."""
    saved = folder / "config.yaml"
    return [arguments[0], "--config", str(saved), *arguments[1:]] if saved.exists() else arguments


def build_parser() -> tuple[Parser, dict[str, Callable[[Namespace], None]]]:
    parser = Parser(prog="textdiff", description="Gaussian diffusion language models: train on your own text, sample, rewrite, infill, continue.")
    parser.add_argument("--version", action="version", version=__version__)
    subcommands = parser.add_subcommands(metavar="COMMAND", required=True)
    for name, (add_options, _) in COMMANDS.items():
        summary = (add_options.__doc__ or "").split("\n")[0]
        subparser = Parser(description=summary, epilog=EPILOGUE.get(name))
        add_options(subparser)
        subcommands.add_subcommand(name, subparser, help=summary)
    return parser, {name: run for name, (_, run) in COMMANDS.items()}


def fail(message: str) -> NoReturn:
    print(f"textdiff: error: {message}", file=sys.stderr)
    sys.exit(2)


# --- options of each command; the first line of the docstring is its help


def train_options(parser: Parser) -> None:
    """Train a model on a text file, a data set of the hub, or the built-in grammar."""
    parser.add_argument("--config", action="config", help="A YAML file with any of the options below.")
    parser.add_argument("--resume", action="store_true", help="Go on from the newest checkpoint in the run folder.")
    parser.add_argument("--overwrite", action="store_true", help="Replace the run in the run folder.")
    parser.add_class_arguments(TextRun)


def sample_options(parser: Parser) -> None:
    """Print sentences generated from noise."""
    _generation_options(parser, n=8)
    parser.add_argument("--length", type=int | None, help="Tokens a sentence; drawn from the training text's lengths if not given.")


def rewrite_options(parser: Parser) -> None:
    """Add noise to a sentence and resample it: the more noise, the freer the result."""
    _generation_options(parser, n=4)
    parser.add_argument("--text", type=str, required=True, help="The sentence.")
    parser.add_argument("--strength", type=float, default=0.5, help="Noise, as a share of the schedule: 0 returns the text, 1 keeps its length only.")


def infill_options(parser: Parser) -> None:
    """Fill the [MASK]s of a sentence; the given words stay as they are."""
    _generation_options(parser, n=4)
    parser.add_argument("--text", type=str, required=True, help='The sentence, as in "the [MASK] [MASK] is near the river".')


def continue_options(parser: Parser) -> None:
    """Print sentences that begin with the given words."""
    _generation_options(parser, n=4)
    parser.add_argument("--text", type=str, required=True, help="The beginning.")
    parser.add_argument("--length", type=int | None, help="Tokens a sentence, the beginning included.")


def evaluate_options(parser: Parser) -> None:
    """Judge a model beside held-out text and baselines, by many figures together."""
    parser.add_argument("model", type=str, help="A run folder.")
    parser.add_class_arguments(Evaluation)


def _generation_options(parser: Parser, n: int) -> None:
    parser.add_argument("model", type=str, help=MODEL_HELP)
    parser.add_argument("--n", type=int, default=n, help="How many sentences.")
    parser.add_class_arguments(Sampling)
    parser.add_argument("--format", type=Literal["text", "jsonl"], default="text", help="One sentence a line, or one JSON object a line.")
    parser.add_argument("--show_steps", action="store_true", help="Show the sentences at every step, on standard error.")


# --- what they do


def run_train(options: Namespace) -> None:
    config = TextRun(**{field.name: options[field.name] for field in fields(TextRun)})
    check_folder(config, options.resume, options.overwrite)  # before anything slow is imported
    hush_libraries()
    from textdiff.run import train

    train(config, resume=options.resume, overwrite=options.overwrite)


def run_sample(options: Namespace) -> None:
    model, tokenizer = _load(options)
    from textdiff.generate import from_noise

    task = from_noise(model, options.n, options.seed, options.length)
    _print(options, map(tokenizer.decode, _generated(options, model, tokenizer, task)))


def run_rewrite(options: Namespace) -> None:
    check(0 <= options.strength <= 1, "--strength", "between 0 (the text itself) and 1 (only its length is kept)", options.strength)
    model, tokenizer = _load(options)
    from textdiff.generate import rewriting
    from textdiff.vocab import encode

    task = rewriting(model, encode(tokenizer, options.text), options.n, options.strength)
    if options.strength == 0:
        return _print(options, [options.text] * options.n)
    _print(options, map(tokenizer.decode, _generated(options, model, tokenizer, task)))


def run_infill(options: Namespace) -> None:
    for mark in re.findall(r"\[[A-Za-z_]+\]", options.text):
        check(mark == "[MASK]", "a word to be filled in --text", "written [MASK]", mark)
    model, tokenizer = _load(options)
    from textdiff.generate import infilling
    from textdiff.vocab import MASK, encode, filled

    given = encode(tokenizer, options.text)
    task = infilling(model, given, options.n, tokenizer.token_to_id(MASK))
    _print(options, (filled(tokenizer, options.text, given, ids) for ids in _generated(options, model, tokenizer, task)))


def run_continue(options: Namespace) -> None:
    model, tokenizer = _load(options)
    from textdiff.generate import continuing
    from textdiff.vocab import encode, following

    beginning = options.text.rstrip()
    given = encode(tokenizer, beginning)
    task = continuing(model, given, options.n, options.seed, options.length)
    generated = _generated(options, model, tokenizer, task)
    _print(options, (beginning + following(tokenizer, given, ids[len(given) :]) for ids in generated))


def run_evaluate(options: Namespace) -> None:
    for module, package in (("matplotlib", "matplotlib"), ("sacrebleu", "sacrebleu"), ("sklearn", "scikit-learn")):
        if importlib.util.find_spec(module) is None:
            raise InputError(f"evaluating needs {package}: pip install 'textdiff[evaluate]'")
    hush_libraries()
    from textdiff.evaluate import evaluate, show

    report = evaluate(options.model, Evaluation(**{field.name: options[field.name] for field in fields(Evaluation)}))
    print("\n".join(show(report)))


def _load(options: Namespace) -> "tuple[DiffusionLM | Autoregressive, Tokenizer]":
    """The model, once what can be checked without it is checked."""
    check(options.n >= 1, "--n", "at least 1", options.n)
    if "text" in options:
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

    from textdiff.generate import generate

    sampling = Sampling(**{field.name: options[field.name] for field in fields(Sampling)})
    with tqdm(total=0, unit="step", disable=options.show_steps or None, leave=False) as bar:
        for draft in generate(model, tokenizer, task, sampling):
            bar.total = draft.steps * -(-options.n // options.batch_size)
            bar.update()
            if options.show_steps:
                for row, ids in zip(draft.rows, draft.sentences(), strict=True):
                    print(f"step {draft.step:3d}  sentence {row}: {tokenizer.decode(ids)}", file=sys.stderr)
            yield draft


def _print(options: Namespace, texts: Iterable[str]) -> None:
    from tqdm import tqdm

    for index, text in enumerate(texts):
        line = json.dumps({"index": index, "seed": options.seed, "text": text}, ensure_ascii=False)
        tqdm.write(line if options.format == "jsonl" else "\\n".join(text.splitlines()))  # without tearing a progress bar
        sys.stdout.flush()


def hush_libraries() -> None:
    """Progress bars and advice of the libraries are not ours to show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _underscored(argument: str) -> str:
    """--show-steps and --show_steps are the same option; what has spaces is a text."""
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value if re.fullmatch(r"--[\w.-]+", name) else argument


COMMANDS: dict[str, tuple[Callable[[Parser], None], Callable[[Namespace], None]]] = {
    "train": (train_options, run_train),
    "sample": (sample_options, run_sample),
    "rewrite": (rewrite_options, run_rewrite),
    "infill": (infill_options, run_infill),
    "continue": (continue_options, run_continue),
    "evaluate": (evaluate_options, run_evaluate),
}
