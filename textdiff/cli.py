"""The command line: its parser, its options and its one-line errors. Imports nothing heavy, so that `--help` answers at once.

Results go to standard output, progress and warnings to standard error; a mistake is one line and exit code 2.
"""

import difflib
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentParser, Namespace

from textdiff import __version__, commands
from textdiff.config import Evaluation, InputError, Sampling, TextRun

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
    parser = build_parser()
    try:
        options = parser.parse_args(arguments)
        if options.subcommand == "train" and options.train.resume:
            options = parser.parse_args(with_saved_options(arguments, Path(options.train.run)))
        options = parser.instantiate(options)
        _, run = COMMANDS[options.subcommand]
        run(options[options.subcommand])
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


def build_parser() -> Parser:
    parser = Parser(prog="textdiff", description="Gaussian diffusion language models: train on your own text, sample, rewrite, infill, continue.")
    parser.add_argument("--version", action="version", version=__version__)
    subcommands = parser.add_subcommands(metavar="COMMAND", required=True)
    for name, (add_options, _) in COMMANDS.items():
        summary = (add_options.__doc__ or "").split("\n")[0]
        subparser = Parser(description=summary, epilog=EPILOGUE.get(name))
        add_options(subparser)
        subcommands.add_subcommand(name, subparser, help=summary)
    return parser


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


def _underscored(argument: str) -> str:
    """--show-steps and --show_steps are the same option; what has spaces is a text."""
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value if re.fullmatch(r"--[\w.-]+", name) else argument


COMMANDS: dict[str, tuple[Callable[[Parser], None], Callable[[Namespace], None]]] = {
    "train": (train_options, commands.train),
    "sample": (sample_options, commands.sample),
    "rewrite": (rewrite_options, commands.rewrite),
    "infill": (infill_options, commands.infill),
    "continue": (continue_options, commands.continue_),
    "evaluate": (evaluate_options, commands.evaluate),
}
