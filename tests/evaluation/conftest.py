"""Fixtures of the evaluation: a model without context, and a tiny run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from textdiff.cli.main import main
from textdiff.text import grammar
from textdiff.text.model import DiffusionLM

TINY = (
    "--model.width 32 --model.heads 2 --model.depth 1 --data.length 24 --train.batch_size 16 "
    "--train.precision no --train.steps 4"
)


@pytest.fixture
def contextless(new_model: Callable[..., DiffusionLM]) -> DiffusionLM:
    """An untrained model without attention and with a prior of single words.

    It has the statistics of the data, and the token log-likelihood has its full weight.
    """
    model = new_model(prior="unigram").eval()
    model.prior_weight.fill_(1.0)
    for block in model.denoiser.blocks:
        block.out.weight.data.zero_()
    return model


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a run of four steps."""
    folder: Path = tmp_path_factory.mktemp("runs")
    text = folder / "text.txt"
    text.write_text("\n".join(grammar.corpus(400, seed=0)) + "\n", encoding="utf-8")
    path = str(folder / "tiny")
    main(["train", "--run", path, "--data.train", str(text), *TINY.split()])
    return path
