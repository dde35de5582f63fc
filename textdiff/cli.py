"""The `textdiff` command and its options. Imports nothing heavy, so that `--help` answers at once."""

from collections.abc import Sequence
from typing import Literal

from textdiff import commands
from textdiff.config import Evaluation, Sampling, TextRun
from textdiff.parser import Commands, Parser, add_train_options, command_line

MODEL_HELP = "A run folder, its model/ folder, or a model's name on the Hugging Face hub."
EPILOGUE = {
    "train": (
        "The log shows the loss terms (ce: nats a word given its noisy vector; eps, x0: mean squares; round: nats a word given its nearly clean "
        "vector; schedule: misfit of the adaptive schedule, negligible; in validation the noise levels are spread evenly) and, with objective ce, "
        "the context gain: the nats a word that the model saves at each noise level by reading the neighbours. If that stays at 0, samples will be "
        "word salad."
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    """The `textdiff` command."""
    about = "Gaussian diffusion language models: train on your own text, sample, rewrite, infill, continue."
    command_line(COMMANDS, argv, prog="textdiff", description=about, epilogs=EPILOGUE)


# --- options of each command; the first line of the docstring is its help


def train_options(parser: Parser) -> None:
    """Train a model on a text file, a data set of the hub, or the built-in grammar."""
    add_train_options(parser, TextRun)


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


def doctor_options(parser: Parser) -> None:
    """Print what this machine is, what was chosen for it, how long runs take, and check that it computes right: for a new device or a bug report."""


def _generation_options(parser: Parser, n: int) -> None:
    parser.add_argument("model", type=str, help=MODEL_HELP)
    parser.add_argument("--n", type=int, default=n, help="How many sentences.")
    parser.add_class_arguments(Sampling)
    parser.add_argument("--format", type=Literal["text", "jsonl"], default="text", help="One sentence a line, or one JSON object a line.")
    parser.add_argument("--show_steps", action="store_true", help="Show the sentences at every step, on standard error.")


COMMANDS: Commands = {
    "train": (train_options, commands.train),
    "sample": (sample_options, commands.sample),
    "rewrite": (rewrite_options, commands.rewrite),
    "infill": (infill_options, commands.infill),
    "continue": (continue_options, commands.continue_),
    "evaluate": (evaluate_options, commands.evaluate),
    "doctor": (doctor_options, commands.doctor),
}
