"""The commands of `textdiff`. Heavy imports wait until their command runs."""

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from textdiff.cli.lines import naming_lines, read_lines
from textdiff.cli.parser import quiet_libraries
from textdiff.config import SamplingConfig, UserError, check
from textdiff.evaluation.config import EvaluationConfig
from textdiff.options import from_options
from textdiff.text.config import TextConfig
from textdiff.text.control_config import ClassifierConfig
from textdiff.text.decoding_config import DecodingConfig
from textdiff.text.inputs import candidates, checked_strengths, checked_texts
from textdiff.training.run_dir import open_run_dir

if TYPE_CHECKING:
    from textdiff.cli.printer import TextPrinter


def train(options: Namespace) -> None:
    """Trains a text model."""
    config = from_options(TextConfig, options)
    run_dir = open_run_dir(config, resume=options.resume, overwrite=options.overwrite)
    quiet_libraries()
    from textdiff.text.train import train

    train(config, run_dir)


def sample(options: Namespace) -> None:
    """Prints sentences generated from noise."""
    settings = {"length": options.length} | _generation(options)
    _tasks(options).sample(**settings)


def rewrite(options: Namespace) -> None:
    """Prints variations of a sentence, or of each line of standard input."""
    strengths = checked_strengths(_numbers("--strength", options.strength))
    settings = {
        "strength": strengths,
        "protect": () if options.protect is None else options.protect,
    }
    _on_texts(options, "rewrite", settings | {"rank_by": options.rank_by})


def infill(options: Namespace) -> None:
    """Prints a sentence, or each line of standard input, with its [MASK]s filled."""
    _on_texts(options, "infill", {"longest": options.longest})


def continue_(options: Namespace) -> None:
    """Prints sentences that begin with the given words, or with each line of standard input."""
    _on_texts(options, "complete", {"length": options.length})


def generate(options: Namespace) -> None:
    """Prints targets of a source, or of each line of a file or of standard input."""
    if options.source is not None and options.source_file is not None:
        raise UserError("--source and --source_file are both given: leave one of them out")
    settings = {"length": options.length, "mbr": options.mbr} | _generation(options)

    def do(texts: str | list[str]) -> None:
        checked_texts(texts, "--source")
        _tasks(options).generate(texts, **settings)

    if options.source is not None:
        return do(_typed(options.source))
    naming_lines(read_lines(options.source_file, "--source"), do)


def train_classifier(options: Namespace) -> None:
    """Trains a classifier of labelled texts for a model."""
    config = from_options(ClassifierConfig, options)
    quiet_libraries()
    from textdiff.text.classifier import train_classifier
    from textdiff.text.hub import load_model

    train_classifier(*load_model(options.model), config)


def evaluate(options: Namespace) -> None:
    """Prints the table of an evaluation."""
    config = from_options(EvaluationConfig, options)
    needed = {"matplotlib": "evaluate", "sacrebleu": "evaluate", "sklearn": "evaluate"}
    _need(needed | ({"mauve": "mauve"} if options.mauve else {}))
    quiet_libraries()
    from textdiff.evaluation.evaluate import evaluate
    from textdiff.evaluation.report import report_lines
    from textdiff.training.card import add_evaluation

    report = evaluate(options.model, config)
    own = [row for row in report["table"] if row.partition(",")[0] == "model"]
    add_evaluation(options.model, report["table"], own, "textdiff evaluate", config)
    print("\n".join(report_lines(report)))


def plot(options: Namespace) -> None:
    """Draws pictures of runs and prints the path of a page with all of them."""
    _need({"matplotlib": "evaluate", "sklearn": "evaluate"})
    quiet_libraries()
    from textdiff.evaluation.plots import plot_runs

    out = Path(options.out or Path(options.runs[0]) / "plots")
    print(plot_runs(options.runs, out, options.format))


def export(options: Namespace) -> None:
    """Writes the denoiser of a model to a file, and prints what it takes and gives."""
    quiet_libraries()
    from textdiff.export import export_onnx, need_onnx
    from textdiff.text.export import text_graph
    from textdiff.text.hub import load_model

    need_onnx()
    print(export_onnx(text_graph(load_model(options.model)[0]), Path(options.out)))


def push(options: Namespace) -> None:
    """Uploads a model and prints its address."""
    from textdiff.upload import check_repo_id, push_folder

    check_repo_id(options.repo)
    quiet_libraries()
    from textdiff.hub import model_source

    folder = Path(model_source(options.model, ("config.json", "model.safetensors")))
    check(folder.is_dir(), "MODEL", "a run folder or its model/ folder", options.model)
    print(push_folder(folder, options.repo, private=options.private))


def demo(options: Namespace) -> None:
    """Serves a page on which models are tried out in a browser."""
    _need({"gradio": "demo"})
    quiet_libraries()
    from textdiff.demo.page import serve

    serve(options.model, options.host, options.port)


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


def _need(modules: dict[str, str]) -> None:
    """Raises UserError, with the extra to install, if a module is missing."""
    for module, extra in modules.items():
        if importlib.util.find_spec(module) is None:
            raise UserError(f"this needs {module}: pip install 'textdiff[{extra}]'")


def _on_texts(options: Namespace, task: str, settings: dict[str, Any]) -> None:
    """Does a task on --text, or on the lines of standard input."""
    settings |= _generation(options)

    def do(texts: str | list[str]) -> None:
        checked_texts(texts, mask=task == "infill")
        getattr(_tasks(options), task)(texts, **settings)

    return naming_lines(read_lines(), do) if options.text is None else do(_typed(options.text))


def _tasks(options: Namespace) -> "TextPrinter":
    """The tasks of the model. What needs no model is checked before, for loading takes seconds."""
    quiet_libraries()
    from textdiff.cli.printer import TextPrinter
    from textdiff.text.hub import load_model

    return TextPrinter(*load_model(options.model), options.format, options.show_steps)


def _typed(text: str) -> str:
    """An argument of the command line, in which Python keeps undecodable bytes as surrogates."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def _numbers(name: str, text: str) -> list[float]:
    """Numbers separated by commas, also in brackets. Raises UserError if one is none."""
    try:
        return [float(part) for part in text.strip("[] ").split(",")]
    except ValueError as error:
        raise UserError(f"{name} must be numbers separated by commas, got {text!r}") from error


def _generation(options: Namespace) -> dict[str, Any]:
    """The number of texts, and the options of the sampler and of decoding."""
    candidates(options.n, options.rank)
    for name in ("length", "longest", "mbr"):
        value = options.get(name)
        check(value is None or value >= 1, f"--{name}", "at least 1", value)
    configs = from_options(SamplingConfig, options), from_options(DecodingConfig, options)
    found = {key: value for config in configs for key, value in vars(config).items()}
    return {"n": options.n, "rank": options.rank} | found
