"""What a run folder allows, told before anything slow is imported: no new run over an old one, no resumption as another run."""

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from textdiff.config import InputError, Run


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
    before, now = _read(path), json.loads(json.dumps(asdict(config)))  # type: ignore[call-overload]
    for section in now.keys() - {"run", "train"}:
        for name, value in now[section].items():
            if before.get(section, {}).get(name) != value:
                old = before.get(section, {}).get(name)
                raise InputError(f"--resume cannot change {section}.{name} from {old!r} to {value!r}: leave it out, for the run goes on with {path}")


def _check_steps(state: Path, config: Run) -> None:
    done = max((int(path.name[5:]) for path in state.glob("step-*") if path.name[5:].isdigit()), default=0)
    if done > config.train.steps:
        raise InputError(f"{state.parent} is at step {done} already: with --resume, --train.steps must be at least that, got {config.train.steps}")


def saved_config(name: str) -> tuple[Path, dict[str, Any]]:
    """The folder of the run that a model belongs to, and what its config.yaml says."""
    for path in (Path(name) / "config.yaml", Path(name).parent / "config.yaml"):
        if path.exists():
            return path.parent, _read(path)
    raise InputError(f"{name} has no config.yaml, which says what it was trained on: evaluate a run folder")


def _read(path: Path) -> dict[str, Any]:
    """A run's config.yaml. Raises InputError if it is none."""
    try:
        saved = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(saved, dict) or not {"run", "data", "model", "train"} <= saved.keys():
        raise InputError(f"{path} is not the configuration of a run")
    return saved
