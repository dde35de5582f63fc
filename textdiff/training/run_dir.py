"""The run folder: which runs may write to it, and what is in it when training starts.

The checks import nothing heavy, so that the command line reports a mistake at once.
"""

import importlib.util
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml

from textdiff.config import RunConfig, UserError
from textdiff.options import load_run_config

R = TypeVar("R", bound=RunConfig)
T = TypeVar("T")


@dataclass(frozen=True)
class RunDir(Generic[R]):
    """A run folder that was checked against the configuration of a run.

    Args:
        path: The folder.
        resume: Whether training resumes from the newest checkpoint in the folder.
        overwrite: Whether the run in the folder is replaced.
        saved: Configuration of the run that is resumed, if there is one.
    """

    path: Path
    resume: bool = False
    overwrite: bool = False
    saved: R | None = None

    @contextmanager
    def locked(self, main_process: bool = True) -> Iterator[None]:
        """Keeps other runs out of the folder. Only the main process takes the lock.

        Raises:
            UserError: If another run is writing to the folder.
        """
        if not main_process:
            yield
            return
        from filelock import FileLock, Timeout

        self.path.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(self.path / ".lock", timeout=0).acquire()
        except Timeout as error:
            wait = "wait until it has ended, or choose another --run"
            raise UserError(f"another run is writing to {self.path}: {wait}") from error
        with lock:
            yield

    def begin(self, config: R) -> None:
        """Deletes the run that is to be overwritten and writes config.yaml."""
        from textdiff.training.checkpoint import atomic_write

        if self.overwrite:
            for name in ("state", "model", "samples", "evaluation"):
                shutil.rmtree(self.path / name, ignore_errors=True)
            (self.path / "metrics.jsonl").unlink(missing_ok=True)
        (self.path / "model").mkdir(parents=True, exist_ok=True)
        options = json.loads(json.dumps(asdict(config)))  # type: ignore[call-overload]
        atomic_write(self.path / "config.yaml", yaml.safe_dump(options, sort_keys=False))


def open_run_dir(config: R, *, resume: bool = False, overwrite: bool = False) -> RunDir[R]:
    """Checks whether the run can use its folder. Nothing is written yet.

    Raises:
        UserError: If the folder holds another run, if resuming would change what the run is, or if
            a tracker is not installed.
    """
    path, saved = Path(config.run), None
    if path.exists() and not path.is_dir():
        raise UserError(f"--run {path} is a file: choose a folder")
    if resume and overwrite:
        raise UserError("--resume continues a run and --overwrite deletes it: choose one")
    for name in config.train.tracker_names:
        if importlib.util.find_spec(name) is None:
            missing = f"train.trackers names {name}, which is not installed"
            raise UserError(f"{missing}: pip install {name}")
    holds_run = any((path / name).exists() for name in ("state", "metrics.jsonl"))
    if holds_run and not (resume or overwrite):
        ways_out = "continue it with --resume, replace it with --overwrite, or choose another --run"
        raise UserError(f"{path} already holds a run: {ways_out}")
    if resume and (path / "config.yaml").exists():
        saved = load_run_config(path / "config.yaml", type(config))
        _check_same_run(path / "config.yaml", saved, config)
        _check_steps(path / "state", config)
        _check_model(path, config)
    return RunDir(path, resume, overwrite, saved)


def load_config_of(model: str, kind: type[T]) -> tuple[Path, T]:
    """The run folder of a trained model and the run's configuration.

    Args:
        model: A run folder or the model/ folder in it.
        kind: The dataclass of the configuration.

    Raises:
        UserError: If there is no config.yaml.
    """
    for folder in (Path(model), Path(model).parent):
        if (folder / "config.yaml").exists():
            return folder, load_run_config(folder / "config.yaml", kind)
    what = "config.yaml, which says what it was trained on"
    raise UserError(f"{model} has no {what}: evaluate a run folder")


def training_seconds(path: Path) -> float:
    """Training time of a run, over all its resumptions.

    Args:
        path: metrics.jsonl of the run. Its last line may be incomplete.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    logged = [json.loads(line) for line in lines if line.endswith("}")]
    seconds = [line["seconds"] for line in logged if "seconds" in line]
    pairs = zip(seconds, [*seconds, -1.0][1:], strict=True)
    return sum(before for before, after in pairs if after < before)


def steps_done(state: Path) -> int:
    """The step of the newest checkpoint in a run's state/; 0 if there is none."""
    numbers = (path.name.removeprefix("step-") for path in state.glob("step-*"))
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def _check_same_run(path: Path, saved: R, config: R) -> None:
    """Raises UserError if data, tokenizer or model differ; only the optimization may change."""
    before: dict[str, Any] = asdict(saved)  # type: ignore[call-overload]
    now: dict[str, Any] = asdict(config)  # type: ignore[call-overload]
    for section in now.keys() - {"run", "train"}:
        for name, value in now[section].items():
            if (old := before[section][name]) != value:
                change = f"{section}.{name} from {old!r} to {value!r}"
                way_out = f"leave it out, for the run continues with {path}"
                raise UserError(f"--resume cannot change {change}: {way_out}")


def _check_model(path: Path, config: RunConfig) -> None:
    """Raises UserError if config.yaml was edited and asks for another network than the trained."""
    try:
        trained = json.loads((path / "model" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # not written yet, or damaged: training writes it again
    asked = json.loads(json.dumps(asdict(config.model)))  # type: ignore[call-overload]
    for name, value in asked.items():
        # the text may have fewer pairs and contexts for the prior than asked for
        is_size = type(value) in (int, list) and not name.startswith("prior_")
        if is_size and (old := trained.get(name, value)) != value:
            way_out = f"write {old!r} there, or start again with --overwrite"
            change = f"model.{name} {value!r}, the trained model has {old!r}"
            raise UserError(f"{path / 'config.yaml'} has {change}: {way_out}")


def _check_steps(state: Path, config: RunConfig) -> None:
    """Raises UserError if the newest checkpoint is already beyond the last step."""
    done = steps_done(state)
    if done > config.train.steps:
        rule = f"--train.steps must be at least that, got {config.train.steps}"
        raise UserError(f"{state.parent} is at step {done} already: with --resume, {rule}")
