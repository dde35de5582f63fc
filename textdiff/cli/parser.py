"""Command lines of text and images: parsing, logging, and errors of one line.

Results go to standard output, progress and warnings to standard error. A mistake of the user ends
the program with one line and exit code 2. This module imports nothing heavy.
"""

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from jsonargparse import Namespace, auto_cli

from textdiff import __version__
from textdiff.arguments import command_line_names
from textdiff.cli.streams import TolerantStream, accept_all_characters
from textdiff.config import UserError
from textdiff.memory import keep_freed_memory
from textdiff.options import OptionParser, config_file, read_yaml


class Command(NamedTuple):
    """A command.

    Args:
        add_options: Adds the options to a parser. The first line of its docstring is the help.
        run: Does the work.
        epilog: Text at the end of the help.
    """

    add_options: Callable[[OptionParser], None]
    run: Callable[[Namespace], None]
    epilog: str | None = None

    @property
    def summary(self) -> str:
        """The first line of the help."""
        return (self.add_options.__doc__ or "").split("\n")[0]


Commands = dict[str, Command]


def run_command_line(
    commands: Commands, argv: Sequence[str] | None, prog: str, description: str
) -> None:
    """Runs the command that the arguments begin with. A single command needs no name.

    Args:
        argv: Arguments, by default those of this process.
    """
    given = map(_with_underscores, sys.argv[1:] if argv is None else argv)
    arguments = _joined(_joined([*given], "--forbid"), "--require")
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        accept_all_characters(sys.stdout)
        output = TolerantStream(sys.stdout or nowhere, raises=True)
        errors = TolerantStream(sys.stderr or nowhere)
        streams = redirect_stdout(output), redirect_stderr(errors)
        with streams[0], streams[1], _logging(), command_line_names():
            try:
                _run(commands, arguments, build_parser(commands, prog, description))
                sys.stdout.flush()
            except UserError as error:
                fail(str(error))
            except UnicodeDecodeError as error:
                reason = f"{error.reason} at byte {error.start}"
                fail(f"a file is not UTF-8 text ({reason}): save it as UTF-8")
            except OSError as error:
                reader_left = isinstance(error, BrokenPipeError) and error is output.failure
                if not reader_left:
                    fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
            except KeyboardInterrupt:
                sys.exit(130)


def build_parser(commands: Commands, prog: str, description: str) -> OptionParser:
    """Builds a parser with a subcommand for each command, or the parser of a single command."""
    if len(commands) == 1:
        (command,) = commands.values()
        parser = OptionParser(prog=prog, description=description, epilog=command.epilog)
        command.add_options(parser)
        return parser
    parser = OptionParser(prog=prog, description=description, names=commands)
    parser.add_argument("--version", action="version", version=__version__)
    about = f"{prog} COMMAND --help lists the options of a command."
    subcommands = parser.add_subcommands(
        metavar="COMMAND", required=True, title="commands", description=about
    )
    for name, command in commands.items():
        subparser = OptionParser(description=command.summary, epilog=command.epilog)
        command.add_options(subparser)
        subcommands.add_subcommand(name, subparser, help=command.summary)
        subparser.prog = f"{prog} {name}"
        parser.names += subparser.option_names()
    return parser


def run_script(functions: Any, **options: Any) -> None:
    """Runs a function, or one of several, with options from the command line.

    The parameters of the function are its options.

    Args:
        functions: A function, or a dictionary of functions by name.
        options: Further arguments of `jsonargparse.auto_cli`.
    """
    keep_freed_memory()
    try:
        auto_cli(functions, as_positional=False, parser_class=OptionParser, **options)
    except UserError as error:
        fail(str(error))


def add_train_options(parser: OptionParser, config: type) -> None:
    """Adds --config, --resume, --overwrite and all options of a configuration."""
    help_ = "YAML file with any of the options below, or the name of one in configs/, such as e2e."
    parser.add_argument("--config", action="config", help=help_)
    help_ = "Continue from the newest checkpoint in the run folder."
    parser.add_argument("--resume", action="store_true", help=help_)
    help_ = "Replace the run in the run folder."
    parser.add_argument("--overwrite", action="store_true", help=help_)
    parser.add_class_arguments(config)


def add_export_options(parser: OptionParser) -> None:
    """Adds --format and --out."""
    help_ = "Format of the file. onnx: a graph that onnxruntime runs; needs textdiff[onnx]."
    parser.add_argument("--format", type=Literal["onnx"], default="onnx", help=help_)
    parser.add_argument("--out", type=str, default="model.onnx", help="The file.")


def fail(message: str) -> NoReturn:
    """Ends the program with one line."""
    print(f"textdiff: error: {message}", file=sys.stderr)
    sys.exit(2)


def quiet_libraries() -> None:
    """Turns off progress bars and advice of the libraries."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it reports every retry twice


def _run(commands: Commands, arguments: list[str], parser: OptionParser) -> None:
    kind = "image" if "image" in parser.prog else "text"
    arguments = _with_saved_options(with_config_files(arguments, kind), commands)
    options = parser.instantiate(parser.parse_args(arguments))
    if len(commands) > 1:
        name, options = options.subcommand, options[options.subcommand]
    else:
        (name,) = commands
    keep_freed_memory()
    commands[name].run(options)


def with_config_files(arguments: list[str], kind: str = "text") -> list[str]:
    """Replaces the names of configurations by their files."""

    def file_in(argument: str) -> str:
        return re.sub(r"(?<=^--config=)\w+$", lambda m: config_file(m[0], kind), argument)

    found = [*map(file_in, arguments)]
    for i, name in enumerate(found[1:], 1):
        if found[i - 1] == "--config":
            found[i] = config_file(name, kind)
    return found


def _with_saved_options(arguments: list[str], commands: Commands) -> list[str]:
    """With --resume, adds the saved options of the run as a --config before all other options.

    The last --run or --config names the run folder, as in the parser.
    """
    if "--resume" not in arguments or {"-h", "--help"} & {*arguments}:
        return arguments
    start = 1 if len(commands) > 1 else 0
    command = commands.get(arguments[0]) if start else next(iter(commands.values()))
    parser = OptionParser()
    if command:
        command.add_options(parser)
    if "resume" not in parser.option_names():
        return arguments
    scan = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    scan.add_argument("--run", dest="runs", action="append", default=[parser.get_defaults().run])
    scan.add_argument("--config", dest="runs", action="append", type=_run_of_config)
    try:
        found, _ = scan.parse_known_args(arguments)
    except argparse.ArgumentError:
        return arguments  # the parser reports it
    run = Path([name for name in found.runs if name is not None][-1])
    if not (run / "config.yaml").exists():
        way_out = "start one without --resume, or name another --run"
        raise UserError(f"--resume: {run} holds no run to continue: {way_out}")
    return [*arguments[:start], "--config", str(run / "config.yaml"), *arguments[start:]]


def _run_of_config(path: str) -> str | None:
    """The run folder that a configuration file names, if any."""
    run = None if path == "-" else read_yaml(Path(path)).get("run")
    return run if isinstance(run, str) else None  # the parser reports other types


def _joined(arguments: list[str], name: str) -> list[str]:
    """Joins the values of a list that is given several times: --forbid a --forbid b is a,b."""
    found, values, rest = list[str](), list[str](), iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option != name:
            found.append(argument)
        elif (given := value if equals else next(rest, None)) is not None:
            values.append(given)
    return [*found, f"{name}={','.join(values)}"] if len(values) > 1 else arguments


def _with_underscores(argument: str) -> str:
    """Replaces dashes in the name of an option: --show-steps becomes --show_steps.

    An argument with spaces is a text and does not change.
    """
    name, equals, value = argument.partition("=")
    if not re.fullmatch(r"--[\w.-]+", name):
        return argument
    return "--" + name[2:].replace("-", "_") + equals + value


@contextmanager
def _logging() -> Iterator[None]:
    """Writes log lines to standard error as it is now."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("textdiff: %(levelname)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger("textdiff").setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
