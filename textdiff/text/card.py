"""Facts about a text model for its model card."""

from collections.abc import Callable
from typing import Any

from tokenizers import Tokenizer

from textdiff.text.config import DataConfig, TextConfig
from textdiff.text.dataset import Corpus
from textdiff.text.files import has_validation_split
from textdiff.text.requests import TextModel
from textdiff.training.card import CardFacts

FAMILIES = {
    "diffusion": "A Gaussian diffusion language model: it generates text by removing noise from "
    "word embeddings",
    "autoregressive": "An autoregressive language model (GPT-2), the baseline of textdiff",
}
UNKNOWN_WORDS = "Words that have no token become `[UNK]`, and it never writes them."
LIMITS = (
    "It follows no instructions, and what it writes about the world is not checked.",
    "It may repeat training texts word for word. `textdiff evaluate` measures how often.",
)


def text_facts(
    config: TextConfig, model: TextModel, tokenizer: Tokenizer, training: int, held_out: Corpus
) -> CardFacts:
    """Facts for the card of a text model.

    Args:
        training: Number of training examples.
        held_out: Held-out examples.
    """
    data, weights, tokens = config.data, model.num_parameters(), tokenizer.get_vocab_size()
    source = _first_source(model, tokenizer, held_out)
    size = f"{weights:,} weights, {tokens:,} tokens, at most {data.length} tokens per text"
    return CardFacts(
        model=f"{FAMILIES[config.model.family]}. It has {size}.",
        task="text-generation",
        command="textdiff train",
        training="a stream of unknown size" if data.streaming else f"{training:,} examples",
        held_out=f"{len(held_out):,} examples",
        split=_split(data),
        usage=_usage(config, source),
        widget=_widget(source),
        limits=(*LIMITS, *([UNKNOWN_WORDS] if config.tokenizer.kind != "bpe" else [])),
    )


def _split(data: DataConfig) -> str:
    """The part of the training data that is held out without data.valid."""
    if data.train and has_validation_split(data.train):
        return "its validation split on the hub"
    return f"{data.valid_share:.0%} of it"


def _first_source(model: TextModel, tokenizer: Tokenizer, held_out: Corpus) -> str | None:
    """The source of the first held-out example; None without sources."""
    if not model.config.has_sources:
        return None
    ids = held_out[0].tolist()
    return str(tokenizer.decode(ids[: ids.index(model.config.separator)]))


def _usage(config: TextConfig, source: str | None) -> str:
    """Python code that uses the model."""
    if source is not None:
        tasks = [f"print(pipe.generate({source!r}, n=2).texts)"]
    elif config.model.family == "diffusion":
        tasks = ["print(pipe.rewrite(texts[0], strength=0.5, n=2).texts)"]
    else:
        tasks = ["print(pipe.complete(texts[0].split()[0], n=2).texts)"]
    if source is None:
        tasks = ["texts = pipe.sample(4, seed=0).texts", "print(texts)", *tasks]
    first = ["from textdiff import TextDiffusion", ""]
    return "\n".join([*first, 'pipe = TextDiffusion.from_pretrained("{name}")', *tasks])


def _widget(source: str | None) -> Callable[[list[str]], list[dict[str, Any]]]:
    """Function that makes an example for the hub's widget of samples of the model.

    Args:
        source: Source of the first sample.
    """

    def examples(samples: list[str]) -> list[dict[str, Any]]:
        sample = next(filter(None, samples), None)
        if sample is None:
            return []
        prompt = " ".join(sample.split()[:2]) if source is None else source
        return [{"text": prompt, "output": {"text": sample}}]

    return examples
