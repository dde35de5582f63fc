"""The `textdiff` command and its options. This module imports nothing heavy."""

from collections.abc import Sequence
from typing import Literal

from textdiff.cli import commands
from textdiff.cli.parser import (
    Command,
    Commands,
    add_export_options,
    add_train_options,
    run_command_line,
)
from textdiff.config import SamplingConfig
from textdiff.evaluation.config import EvaluationConfig
from textdiff.options import OptionParser
from textdiff.text.config import TextConfig
from textdiff.text.control_config import ClassifierConfig
from textdiff.text.decoding_config import DecodingConfig

MODEL_HELP = "Run folder, its model/ folder, or a model on the Hugging Face hub."
LOG_HELP = (
    "Losses in the log: ce: cross-entropy of a word given its noisy embedding, in nats. eps, x0: "
    "squared error per component. round: cross-entropy of a word given its nearly clean "
    "embedding. schedule: misfit of the adaptive schedule, which is negligible. Validation spreads "
    "the log SNRs evenly. context gain (objective ce): nats per word that the context saves at "
    "each log SNR. If it stays at 0, samples will be unrelated words."
)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the `textdiff` command."""
    about = (
        "Gaussian diffusion language models: train on your own text, sample, rewrite, infill, "
        "continue, generate from a source."
    )
    run_command_line(COMMANDS, argv, prog="textdiff", description=about)


def add_train(parser: OptionParser) -> None:
    """Train a model on a text file, a data set of the hub, or the built-in grammar."""
    add_train_options(parser, TextConfig)


def add_sample(parser: OptionParser) -> None:
    """Generate sentences from noise."""
    _add_generation_options(parser, n=8)
    _add_rank(parser)
    help_ = "Tokens per sentence. If null, drawn from the lengths of the training text."
    parser.add_argument("--length", type=int | None, help=help_)


def add_rewrite(parser: OptionParser) -> None:
    """Add noise to a sentence and resample it. More noise changes more of it."""
    _add_generation_options(parser, n=4)
    _add_text(parser, "The sentence")
    help_ = (
        "Amount of noise, from 0 (the text itself) to 1 (only its length is kept), or several, "
        "separated by commas."
    )
    parser.add_argument("--strength", type=str, default="0.5", help=help_)
    help_ = "Words that do not change, separated by commas."
    parser.add_argument("--protect", type=str | None, help=help_)
    help_ = "Rank by nats per token (fluency), or by words in common with the sentence."
    orders = Literal["fluency", "similarity"]
    parser.add_argument("--rank_by", type=orders, default="fluency", help=help_)


def add_infill(parser: OptionParser) -> None:
    """Fill the [MASK]s of a sentence. The other words are kept."""
    _add_generation_options(parser, n=4)
    _add_text(parser, 'The sentence, as in "the [MASK] [MASK] is near the [MASK*]"')
    help_ = (
        "Largest number of tokens for which a [MASK*] stands. It is less where there are several, "
        "and where the sentence would be too long. [MASK] stands for one."
    )
    parser.add_argument("--longest", type=int, default=8, help=help_)


def add_continue(parser: OptionParser) -> None:
    """Generate sentences that begin with the given words."""
    _add_generation_options(parser, n=4)
    _add_text(parser, "The beginning")
    help_ = "Tokens per sentence, including the beginning."
    parser.add_argument("--length", type=int | None, help=help_)


def add_generate(parser: OptionParser) -> None:
    """Generate targets from sources, with a model of pairs (data.source, data.target)."""
    _add_generation_options(parser, n=1)
    parser.add_argument("--source", type=str | None, help="The source.")
    help_ = "Text file with one source per line. If neither is given, standard input."
    parser.add_argument("--source_file", type=str | None, help=help_)
    help_ = "Tokens per target. If null, predicted from the source."
    parser.add_argument("--length", type=int | None, help=help_)
    help_ = "Candidates for each target; the one that agrees best with the others is printed."
    parser.add_argument("--mbr", type=int, default=1, help=help_)
    _add_rank(parser)


def add_train_classifier(parser: OptionParser) -> None:
    """Train a small classifier of labelled texts, which guides a model (sample --classifier)."""
    parser.add_argument("model", type=str, help=MODEL_HELP)
    parser.add_class_arguments(ClassifierConfig)


def add_evaluate(parser: OptionParser) -> None:
    """Compare a model with held-out text and with baselines."""
    parser.add_argument("model", type=str, help="Run folder.")
    parser.add_class_arguments(EvaluationConfig)


def add_plot(parser: OptionParser) -> None:
    """Draw losses, context gain, schedule, word embeddings and samples of runs."""
    parser.add_argument("runs", type=str, nargs="+", help="Run folders, also unfinished.")
    help_ = "Folder of the pictures and of index.html. If null, plots/ in the first run folder."
    parser.add_argument("--out", type=str | None, help=help_)
    help_ = "Format of the pictures."
    parser.add_argument("--format", type=Literal["png", "svg"], default="png", help=help_)


def add_push(parser: OptionParser) -> None:
    """Upload a trained model, of text or of images, to the Hugging Face hub."""
    parser.add_argument("model", type=str, help="Run folder, or its model/ folder.")
    parser.add_argument("repo", type=str, help="Name on the hub, such as user/model.")
    help_ = "Make a new repository private."
    parser.add_argument("--private", action="store_true", help=help_)


def add_export(parser: OptionParser) -> None:
    """Write the denoiser of a text model to a file for other programs, and check it there."""
    parser.add_argument("model", type=str, help=MODEL_HELP)
    add_export_options(parser)


def add_demo(parser: OptionParser) -> None:
    """Open a page in the browser on which models are tried out: text appears out of noise."""
    help_ = f"{MODEL_HELP} Several are shown side by side. Without one, a model of the built-in "
    help_ += "grammar in runs/demo, which is trained first if it is not there."
    parser.add_argument("model", type=str, nargs="*", help=help_)
    help_ = "Address to listen on. The default is seen by this machine only, 0.0.0.0 by others too."
    parser.add_argument("--host", type=str, default="127.0.0.1", help=help_)
    parser.add_argument("--port", type=int, default=7860, help="Port to listen on.")


def add_doctor(parser: OptionParser) -> None:
    """Check this machine: device, precision, speed, correctness. Attach it to bug reports."""


def _add_rank(parser: OptionParser) -> None:
    help_ = "Sample that many candidates for each sentence, and print the best of all of them."
    parser.add_argument("--rank", type=int | None, help=help_)


def _add_text(parser: OptionParser, what: str) -> None:
    _add_rank(parser)
    help_ = f"{what}. If null, each line of standard input is one."
    parser.add_argument("--text", type=str | None, help=help_)


def _add_generation_options(parser: OptionParser, n: int) -> None:
    parser.add_argument("model", type=str, help=MODEL_HELP)
    parser.add_argument("--n", type=int, default=n, help="Number of sentences.")
    parser.add_class_arguments(SamplingConfig)
    parser.add_class_arguments(DecodingConfig)
    help_ = (
        "text: one sentence per line. table: with strength, similarity and score, where there are "
        "any. jsonl: one JSON object per line."
    )
    formats = Literal["text", "table", "jsonl"]
    parser.add_argument("--format", type=formats, default="text", help=help_)
    help_ = "Print the sentences after every step, to standard error."
    parser.add_argument("--show_steps", action="store_true", help=help_)


COMMANDS: Commands = {
    "train": Command(add_train, commands.train, LOG_HELP),
    "sample": Command(add_sample, commands.sample),
    "rewrite": Command(add_rewrite, commands.rewrite),
    "infill": Command(add_infill, commands.infill),
    "continue": Command(add_continue, commands.continue_),
    "generate": Command(add_generate, commands.generate),
    "train-classifier": Command(add_train_classifier, commands.train_classifier),
    "evaluate": Command(add_evaluate, commands.evaluate),
    "plot": Command(add_plot, commands.plot),
    "export": Command(add_export, commands.export),
    "push": Command(add_push, commands.push),
    "demo": Command(add_demo, commands.demo),
    "doctor": Command(add_doctor, commands.doctor),
}
