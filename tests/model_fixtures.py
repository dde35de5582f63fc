"""Fixtures of all tests: a tiny text model and its data, on one thread."""

from collections.abc import Callable, Iterator
from pathlib import Path

# jaxtyping's hook compiles anew what our modules import, so large libraries are imported before
import beartype.claw  # noqa: F401
import datasets  # noqa: F401
import jsonargparse  # noqa: F401
import numpy as np
import pytest
import torch
import transformers.modeling_utils  # noqa: F401
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars
from local_hub import TOKEN, LocalHub, serving
from tokenizers import Tokenizer
from transformers import configuration_utils


def accept_kwargs(config_class: type, wrap=configuration_utils.wrap_init_to_accept_kwargs) -> type:
    """Gives configurations of transformers the signature that they have.

    jaxtyping would check calls against that of the wrapped `__init__`, which takes no kwargs.
    """
    del wrap(config_class).__init__.__wrapped__
    return config_class


configuration_utils.wrap_init_to_accept_kwargs = accept_kwargs

from textdiff.text import grammar  # noqa: E402
from textdiff.text.config import DataConfig, TokenizerConfig  # noqa: E402
from textdiff.text.dataset import Corpus, collate, examples  # noqa: E402
from textdiff.text.model import DiffusionLM, DiffusionLMConfig  # noqa: E402
from textdiff.text.pair_counts import pair_statistics  # noqa: E402
from textdiff.text.tokenizer import train_tokenizer  # noqa: E402

SENTENCES = grammar.corpus(300, seed=0)
LENGTH = 20


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine, two threads wait for each other longer than small tensors take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    """A new accelerator on the CPU."""
    AcceleratorState._reset_state(True)
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(True)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A word tokenizer of the built-in grammar."""
    return train_tokenizer(SENTENCES, TokenizerConfig())


@pytest.fixture(scope="session")
def corpus(tokenizer: Tokenizer) -> Corpus:
    """300 sentences of the built-in grammar."""
    return Corpus.of(examples(SENTENCES, tokenizer, DataConfig(length=LENGTH)))


@pytest.fixture(scope="session")
def new_model(tokenizer: Tokenizer, corpus: Corpus) -> Callable[..., DiffusionLM]:
    """`new_model(objective="eps", ...)`: a new model with the corpus's statistics.

    The weights are the same at every call.
    """

    def new(*, ends: bool = True, prior_contexts: int = 20, **options: object) -> DiffusionLM:
        counted = {"ends": ends, "contexts": prior_contexts}
        pairs = pair_statistics(corpus, tokenizer.get_vocab_size(), **counted)
        settings = {"embed_dim": 16, "width": 32, "depth": 1, "heads": 2} | options | pairs.sizes
        vocab_size = tokenizer.get_vocab_size()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = DiffusionLM(DiffusionLMConfig(vocab_size=vocab_size, length=LENGTH, **settings))
            for parameter in model.parameters():  # weights that start at 0 would hide mistakes
                parameter.data += 0.05 * torch.randn(parameter.shape)
        counts = np.bincount(corpus.tokens, minlength=vocab_size)
        lengths = np.bincount(corpus.sizes, minlength=LENGTH + 1)
        model.set_data_statistics(
            torch.from_numpy(counts).float(), torch.from_numpy(lengths).float(), pairs
        )
        return model

    return new


@pytest.fixture(scope="session")
def model(new_model: Callable[..., DiffusionLM]) -> DiffusionLM:
    """A model that tests must not change.

    As after training, the token log-likelihood has its full weight, so that samples vary.
    """
    model = new_model().eval()
    model.prior_weight.fill_(1.0)
    return model


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
def batch(corpus: Corpus) -> dict[str, torch.Tensor]:
    """Eight sentences of different lengths, as `forward` takes them."""
    indices = np.arange(8)
    return collate([corpus[i] for i in indices], indices)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub with an empty cache, which the hub's library uses instead of the real one."""
    disable_progress_bars()
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
