"""What several tests share: no network, no cache outside a temporary folder, one thread, and a tiny model of the built-in grammar.

One thread, for the tensors here are small, and two threads on a busy machine wait for each other longer than they compute.
"""

import os
import tempfile
from collections.abc import Callable, Iterator

import pytest

HOME = tempfile.TemporaryDirectory(prefix="textdiff-tests-")
# read when the libraries below are first imported, here and in child processes
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": HOME.name, "OMP_NUM_THREADS": "1"}

import numpy as np  # noqa: E402
import torch  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from accelerate.state import AcceleratorState  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from textdiff import grammar  # noqa: E402
from textdiff.config import Data, Vocabulary  # noqa: E402
from textdiff.data import Corpus, collate, examples  # noqa: E402
from textdiff.lm import DiffusionLM, DiffusionLMConfig  # noqa: E402
from textdiff.vocab import train_tokenizer  # noqa: E402

SENTENCES = grammar.corpus(300, seed=0)
LENGTH = 20


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    AcceleratorState._reset_state(True)
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(True)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(SENTENCES, Vocabulary())


@pytest.fixture(scope="session")
def corpus(tokenizer: Tokenizer) -> Corpus:
    return Corpus.of(examples(SENTENCES, tokenizer, Data(length=LENGTH)))


@pytest.fixture(scope="session")
def new_model(tokenizer: Tokenizer, corpus: Corpus) -> Callable[..., DiffusionLM]:
    """`new_model(objective="eps", ...)`: a fresh model that knows the text's frequencies; the same weights at every call."""

    def new(**options: object) -> DiffusionLM:
        settings = {"embed_dim": 16, "width": 32, "depth": 1, "heads": 2} | options
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = DiffusionLM(DiffusionLMConfig(vocab_size=tokenizer.get_vocab_size(), length=LENGTH, **settings))
            for parameter in model.parameters():  # what starts at zero would hide mistakes
                parameter.data += 0.05 * torch.randn(parameter.shape)
        tokens, lengths = np.bincount(corpus.tokens, minlength=model.config.vocab_size), np.bincount(corpus.sizes, minlength=LENGTH + 1)
        model.describe_data(torch.from_numpy(tokens).float(), torch.from_numpy(lengths).float())
        return model

    return new


@pytest.fixture(scope="session")
def model(new_model: Callable[..., DiffusionLM]) -> DiffusionLM:
    """For reading only: as after training, it adds the noisy word's evidence in full, so that what it generates varies."""
    model = new_model().eval()
    model.prior_weight.fill_(1.0)
    return model


@pytest.fixture(scope="session")
def batch(corpus: Corpus) -> dict[str, torch.Tensor]:
    """Eight sentences of different lengths, as `forward` takes them."""
    numbers = np.arange(8)
    return collate([corpus[i] for i in numbers], numbers)
