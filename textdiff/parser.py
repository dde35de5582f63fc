"""What every command line here has in common: how options are written, and that a mistake is one line and exit code 2.

Results go to standard output, progress and warnings to standard error. Imports nothing heavy, so that `--help` answers at once.
"""

import difflib
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from textdiff import __version__
from textdiff.config import InputError


class Parser(ArgumentParser):
    """Says what is wrong in one line, with the nearest name among those of `commands`."""

    def __init__(self, *args: Any, commands: "Commands | None" = None, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self.commands = commands or {}

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Namespace:
        """Reads a configuration file as UTF-8. jsonargparse would read it in the locale's encoding."""
        if path == "-":  # standard input
            return super().parse_path(path, *args, **kwargs)
        content = Path(path).read_text(encoding="utf-8-sig")
        return self.parse_string(content, Path(path).name, *args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        message = " ".join(str(message).split())
        fail(plainly(message) + nearest_name(message, self.commands))


Commands = dict[
    str, tuple[Callable[[Parser], None], Callable[[Namespace], None]]
]  # its name -> its options (whose docstring is its help), what it does

SECTIONS = {"data", "tokenizer", "model", "train"}
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
    if missing := re.match(r'Parser key "config": File does not exist: (.*?)(?: |$)', message):
        return f"--config {missing[1]} does not exist"
    key, value = re.match(r'Parser key "([^"]+)"', message), re.search(r"(?:Got|Given) value: (.*)$", message)
    expected = re.findall(r"Expected an? (?:<class '(\w+)'>|typing\.Literal\[(.*?)\])", message)
    if not (key and value and expected):
        return message
    kinds = [KINDS.get(kind, kind) or f"one of {choices}" for kind, choices in expected]
    hint = " (YAML reads no as false: put it in quotes)" if "'no'" in message and value[1] == "False" else ""
    return f"--{key[1]} must be {' or '.join(dict.fromkeys(kinds))}, got {value[1]}{hint}"


def nearest_name(message: str, commands: Commands) -> str:
    """` (did you mean ...?)` for a message about a name that does not exist."""
    found = re.search(r"unrecognized arguments: (?:.* )?(--[^\s=]+)|accept option '([^']+)'|invalid choice: '([^']+)'", message)
    if not found:
        return ""
    wanted = next(group for group in found.groups() if group).lstrip("-")
    near = difflib.get_close_matches(wanted, _names(commands), n=1)
    return f" (did you mean {'--' * bool(found[1])}{near[0]}?)" if near else ""


def _names(commands: Commands) -> list[str]:
    """Commands and the options of all of them, without dashes."""
    names = list(commands)
    for add_options, _ in commands.values():
        subparser = Parser()
        add_options(subparser)
        names += [option.lstrip("-") for action in subparser._actions for option in action.option_strings]
    return names


def command_line(commands: Commands, argv: Sequence[str] | None, prog: str, description: str, epilogs: dict[str, str] | None = None) -> None:
    """Runs the command that `argv` (nothing: this process's) begins with; a single one needs no name."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        _take_every_character(sys.stdout)
        output = TolerantStream(sys.stdout or nowhere, raises=True)
        with redirect_stdout(output), redirect_stderr(TolerantStream(sys.stderr or nowhere)), _logging():
            try:
                _command_line(commands, argv, prog, description, epilogs or {})
            except OSError as error:
                if not isinstance(error, BrokenPipeError) or error is not output.failure:  # else our reader has enough
                    fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


@contextmanager
def _logging() -> Iterator[None]:
    """Log lines go to standard error as it is now."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("textdiff: %(levelname)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger("textdiff").setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def _take_every_character(stream: Any) -> None:
    """Makes files and pipes UTF-8, whatever the locale, and terminals show what they lack as \\xe9."""
    if isinstance(stream, io.TextIOWrapper):
        encoding = None if stream.isatty() else "utf-8"
        stream.reconfigure(encoding=encoding, errors="backslashreplace")


class TolerantStream:
    """A stream that may lose its reader or be full: what is written from then on is discarded.

    Standard error hides the failure, for a run goes on when its terminal is gone. Standard output
    `raises` it, once.
    """

    def __init__(self, stream: Any, raises: bool = False) -> None:
        self.stream, self.raises = stream, raises
        self.failure: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with self._tolerating_failure():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._tolerating_failure():
            self.stream.flush()

    @contextmanager
    def _tolerating_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error
            self._discard()
            if self.raises:
                raise

    def _discard(self) -> None:
        """Python would try once more, at its end, to write what is left in the buffer."""
        with suppress(OSError, ValueError, AttributeError), open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), self.stream.fileno())  # a stream in memory has none


def _command_line(commands: Commands, argv: Sequence[str] | None, prog: str, description: str, epilogs: dict[str, str]) -> None:
    arguments = [_underscored(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    parser = build_parser(commands, prog, description, epilogs)
    try:
        options = parser.parse_args(arguments)
        _, chosen = _chosen(commands, options)
        if chosen.get("resume"):
            options = parser.parse_args(with_saved_options(arguments, Path(chosen.run), at=len(commands) > 1))
        _check_sections(_chosen(commands, options)[1])
        name, chosen = _chosen(commands, parser.instantiate(options))
        commands[name][1](chosen)
        sys.stdout.flush()
    except InputError as error:
        fail(str(error))
    except UnicodeDecodeError as error:
        fail(f"a file that is given as text is none ({error.reason} at byte {error.start}): --config wants YAML")
    except KeyboardInterrupt:
        sys.exit(130)


def _check_sections(options: Namespace) -> None:
    """Raises InputError if a configuration file has a value where a section of options belongs."""
    for name in SECTIONS & vars(options).keys() if "config" in options else ():
        if not isinstance(options[name], Namespace):
            raise InputError(f"--config: {name} must be a section of options, got {options[name]!r}")


def _chosen(commands: Commands, options: Namespace) -> tuple[str, Namespace]:
    """The command's name and its own options."""
    name = options.subcommand if len(commands) > 1 else next(iter(commands))
    return name, options[name] if len(commands) > 1 else options


def with_saved_options(arguments: list[str], folder: Path, at: int) -> list[str]:
    """What `--resume` goes on with: the options of the run, then those given now, which begin `at` this place."""
    saved = folder / "config.yaml"
    if not saved.exists():
        raise InputError(f"--resume: {folder} holds no run to go on with: begin one without --resume, or name another --run")
    return [*arguments[:at], "--config", str(saved), *arguments[at:]]


def build_parser(commands: Commands, prog: str, description: str, epilogs: dict[str, str]) -> Parser:
    if len(commands) == 1:
        ((name, (add_options, _)),) = commands.items()
        parser = Parser(prog=prog, description=description, epilog=epilogs.get(name), commands=commands)
        add_options(parser)
        return parser
    parser = Parser(prog=prog, description=description, commands=commands)
    parser.add_argument("--version", action="version", version=__version__)
    subcommands = parser.add_subcommands(metavar="COMMAND", required=True)
    for name, (add_options, _) in commands.items():
        summary = (add_options.__doc__ or "").split("\n")[0]
        subparser = Parser(description=summary, epilog=epilogs.get(name), commands=commands)
        add_options(subparser)
        subcommands.add_subcommand(name, subparser, help=summary)
    return parser


def add_train_options(parser: Parser, config: type) -> None:
    parser.add_argument("--config", action="config", help="A YAML file with any of the options below.")
    parser.add_argument("--resume", action="store_true", help="Go on from the newest checkpoint in the run folder.")
    parser.add_argument("--overwrite", action="store_true", help="Replace the run in the run folder.")
    parser.add_class_arguments(config)


def fail(message: str) -> NoReturn:
    print(f"textdiff: error: {message}", file=sys.stderr)
    sys.exit(2)


def _underscored(argument: str) -> str:
    """--show-steps and --show_steps are the same option; what has spaces is a text."""
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value if re.fullmatch(r"--[\w.-]+", name) else argument


def hush_libraries() -> None:
    """Progress bars and advice of the libraries are not ours to show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of every retry, twice
