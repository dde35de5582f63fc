"""Reading of options from the command line and from YAML files, with errors of one line.

This module imports nothing heavy, so that the command line answers at once.
"""

import difflib
import re
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from jsonargparse import ArgumentParser, Namespace

from textdiff.config import UserError

T = TypeVar("T")

TYPE_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "str": "a text",
    "NoneType": "null",
}


HELP = {
    "--print_config": "Print all options as a YAML file for --config, and exit. With "
    "=skip_default, only those that differ from the defaults.",
    "--version": "Show the version and exit.",
}


class OptionParser(ArgumentParser):
    """A jsonargparse parser that raises UserError with one line.

    Args:
        names: Further names that a misspelled option may stand for, such as commands.
    """

    def __init__(self, *args: Any, names: Collection[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self.names = list(names)

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """The help, which explains jsonargparse's own options in plain words."""
        self._plain_words()
        return super().format_help(*args, **kwargs)

    def _plain_words(self) -> None:
        for action in self._actions:
            for option, words in HELP.items():
                if option in action.option_strings:
                    action.help = words
            if action.help == "Path to a configuration file.":
                action.metavar = "FILE"
                action.help = f"YAML file with options of this section, without `{action.dest}.`."

    def option_names(self) -> list[str]:
        """Names of all options, without dashes."""
        return [text.lstrip("-") for action in self._actions for text in action.option_strings]

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Namespace:
        """Reads a configuration file as UTF-8; jsonargparse would use the locale's encoding."""
        if path == "-":  # standard input
            return super().parse_path(path, *args, **kwargs)
        _check_names(Path(path), read_yaml(Path(path)), self.option_names())
        content = Path(path).read_text(encoding="utf-8-sig")
        try:
            return self.parse_string(content, Path(path).name, *args, **kwargs)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises UserError with the parser's message in plain words."""
        known = [*self.names, *self.option_names()]
        raise UserError(_describe(" ".join(message.split()), known)) from ex


def load_run_config(path: Path, kind: type[T]) -> T:
    """Reads config.yaml of a run folder as the dataclass `kind`.

    An option that is missing has its default value.

    Raises:
        UserError: If the file cannot be read, has an unknown option or a wrong value.
    """
    if not {"run", "data", "model", "train"} <= read_yaml(path).keys():
        raise UserError(f"{path} is not the configuration of a run")
    return load_config(path, kind)


def load_config(path: Path, kind: type[T]) -> T:
    """Reads a YAML file of options as the dataclass `kind`. Raises as `load_run_config`."""
    parser = OptionParser()
    parser.add_class_arguments(kind)
    options = parser.parse_path(path)
    try:
        return kind(**vars(parser.instantiate(options)))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def from_options(kind: type[T], options: Namespace) -> T:
    """A dataclass, from the parsed options of the same names."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    values: dict[str, Any] = {name: options[name] for name in names}
    return kind(**values)


def shipped_configs() -> dict[str, Path]:
    """The files of configs/ by their names without .yaml. An installed textdiff contains them."""
    package = Path(__file__).parent
    folders = package / "configs", package.with_name("configs")
    return {path.stem: path for folder in folders for path in folder.glob("*.yaml")}


def config_file(name: str, kind: str = "text") -> str:
    """The path of a configuration file, or of the file of configs/ that has this name.

    Args:
        name: A path, or a name such as e2e, which stands for configs/text_e2e.yaml.
        kind: text or image.

    Raises:
        UserError: If there is neither a file nor a configuration of this name.
    """
    if not re.fullmatch(r"\w+", name) or Path(name).exists():
        return name
    files, prefix = shipped_configs(), f"{kind}_"
    if prefix + name not in files:
        known = sorted(stem.removeprefix(prefix) for stem in files if stem.startswith(prefix))
        raise UserError(f"--config must be a file or one of {', '.join(known)}, got {name}")
    return str(files[prefix + name])


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file of options. Raises UserError if it is not one."""
    try:
        saved = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read as YAML: {reason}") from error
    if not isinstance(saved, dict):
        raise UserError(f"{path} must hold options, such as `train: {{lr: 0.001}}`")
    return saved


def _check_names(path: Path, saved: dict[str, Any], names: Collection[str]) -> None:
    """Raises UserError for the first name in `saved` that is not in `names`."""
    sections = {name.partition(".")[0] for name in names if "." in name}
    for name, value in saved.items():
        if name in sections and not isinstance(value, dict):
            raise UserError(f"{path}: {name} must be a section of options, got {value!r}")
        written = [f"{name}.{key}" for key in value] if name in sections else [str(name)]
        for option in written:
            if option not in names:
                raise UserError(f"{path} has the unknown option {option}{_guess(option, names)}")


def _guess(name: str, known: Collection[str], dashes: str = "") -> str:
    """A hint such as ` (did you mean train.lr?)`, or an empty string."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {dashes}{near[0]}?)" if near else ""


def _describe(message: str, known: Collection[str]) -> str:
    """The parser's message in plain words.

    jsonargparse offers no other hook: its exceptions carry a sentence, not the option and value.
    """
    unknown = message.removeprefix("unrecognized arguments: ")
    if unknown != message:
        option = next((word for word in unknown.split() if word.startswith("--")), "")
        return message + _guess(option[2:].partition("=")[0], known, "--")
    required = message.removeprefix("the following arguments are required: ")
    if required != message:
        names = [name.rpartition(".")[2] for name in required.split(", ")]
        return f"missing: {', '.join(names)}; --help lists the options"
    if message.startswith('expected "subcommand"'):
        return "missing: a command; --help lists them"
    if file := re.match(r"Parser key \"config\": (?:File|Path) (.*?): '([^']*)'", message):
        return f"--config {file[2]} {file[1]}"
    if command := re.search(r"invalid choice: '([^']+)'", message):
        return message + _guess(command[1], known)
    if lacking := re.fullmatch(
        r"argument ([^\s/]+)\S*: expected (?:one|(\d+)) arguments?", message
    ):
        return f"{lacking[1]} needs {lacking[2] or 'a'} value{'s' * bool(lacking[2])}"
    stray = re.match(r"Subcommand '\w+' does not accept option '((\w+)\.[^']+)'", message)
    if stray:
        option, section = stray[1], stray[2]
        return f"the file of --{section} has the unknown option {option}{_guess(option, known)}"
    return _describe_value(message)


def _describe_value(message: str) -> str:
    """The parser's message about the value of an option in plain words."""
    section = re.match(r'Parser key "([^"]+)": Unable to load config (\S+)', message)
    if section and not Path(section[2].strip("'")).is_file():
        return f"--{section[1]} must be a YAML file with options, got {section[2]}"
    key = re.match(r'Parser key "([^"]+)"', message)
    value = re.search(r".*(?:Got|Given) value:(.*)$", message)
    types = re.findall(r"Expected an? (?:<class '(\w+)'>|typing\.Literal\[(.*?)\])", message)
    if not (key and value and types):
        return message
    kinds = [TYPE_NAMES.get(name, name) or f"one of {choices}" for name, choices in types]
    got, quoted = value[1].strip(), "'no'" in message and value[1].strip() == "False"
    hint = " (YAML reads no as false: put it in quotes)" if quoted else ""
    got = {"": "nothing", "None": "null"}.get(got, got)
    return f"--{key[1]} must be {' or '.join(dict.fromkeys(kinds))}, got {got}{hint}"
