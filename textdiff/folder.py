"""What a run folder allows, told before anything slow is imported: no new run over an old one, no resumption as another run."""

import difflib
import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from textdiff.config import InputError, Run
from textdiff.parser import Parser, plainly

T = TypeVar("T")


def check_folder(config: Run, resume: bool, overwrite: bool) -> None:
    """Raises InputError if the run cannot go into its folder, or its trackers are not installed."""
    folder = Path(config.run)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--run {folder} is a file: choose a folder")
    if resume and overwrite:
        raise InputError("--resume goes on with a run and --overwrite deletes it: choose one")
    for name in config.train.tracker_names:
        if importlib.util.find_spec(name) is None:
            raise InputError(f"train.trackers names {name}, which is not installed: pip install {name}")
    if any((folder / name).exists() for name in ("state", "metrics.jsonl")) and not (resume or overwrite):
        raise InputError(f"{folder} already holds a run: go on with --resume, replace it with --overwrite, or choose another --run")
    if resume and (folder / "config.yaml").exists():
        _check_same_run(folder / "config.yaml", config)
        _check_steps(folder / "state", config)


def _check_same_run(path: Path, config: Run) -> None:
    """Going on with other data, words or another network would quietly make it another run; the optimization may change."""
    before, now = asdict(load_config(path, type(config))), asdict(config)  # type: ignore[call-overload]
    for section in now.keys() - {"run", "train"}:
        for name, value in now[section].items():
            if (old := before[section][name]) != value:
                raise InputError(f"--resume cannot change {section}.{name} from {old!r} to {value!r}: leave it out, for the run goes on with {path}")


def _check_steps(state: Path, config: Run) -> None:
    done = max((int(path.name[5:]) for path in state.glob("step-*") if path.name[5:].isdigit()), default=0)
    if done > config.train.steps:
        raise InputError(f"{state.parent} is at step {done} already: with --resume, --train.steps must be at least that, got {config.train.steps}")


def saved_config(name: str, kind: type[T]) -> tuple[Path, T]:
    """The folder of the run that a model belongs to, and its configuration."""
    for path in (Path(name) / "config.yaml", Path(name).parent / "config.yaml"):
        if path.exists():
            return path.parent, load_config(path, kind)
    raise InputError(f"{name} has no config.yaml, which says what it was trained on: evaluate a run folder")


def load_config(path: Path, kind: type[T]) -> T:
    """Reads a run's config.yaml as the dataclass `kind`; a missing option has its default.

    Raises InputError, with the file and the key, for an unknown option or an impossible value.
    """
    if not {"run", "data", "model", "train"} <= _read(path).keys():
        raise InputError(f"{path} is not the configuration of a run")
    return load_options(path, kind)


def load_options(path: Path, kind: type[T]) -> T:
    """Reads a configuration that names a few options only. Raises InputError as `load_config`."""
    saved, parser = _read(path), _ConfigParser()
    parser.add_class_arguments(kind)
    _check_names(path, saved, [action.dest for action in parser._actions])
    try:
        return kind(**vars(parser.instantiate(parser.parse_object(saved))))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


class _ConfigParser(Parser):
    """Raises what is wrong instead of ending the program."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(plainly(" ".join(message.split())))


def _check_names(path: Path, saved: dict[str, Any], options: list[str]) -> None:
    """Raises InputError for the first name that is not among `options`, such as train.steps."""
    known = [name for name in options if not any(other.startswith(f"{name}.") for other in options)]
    sections = {name: part if isinstance(part, dict) else None for name, part in saved.items()}
    written = [f"{name}.{key}" for name, part in sections.items() for key in part or {}]
    written += [name for name, part in sections.items() if part is None]
    for name in written:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            guess = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(f"{path} has the unknown option {name}{guess}")


def _read(path: Path) -> dict[str, Any]:
    """Reads a YAML file of options. Raises InputError if it is none."""
    try:
        saved = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(saved, dict):
        raise InputError(f"{path} is not the configuration of a run")
    return saved
