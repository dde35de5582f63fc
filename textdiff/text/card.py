"""Facts about a text model for its model card."""

from collections.abc import Callable
from typing import Any

from tokenizers import Tokenizer

from textdiff.text.config import TextConfig
from textdiff.text.requests import TextModel
from textdiff.training.card import CardFacts
from textdiff.training.provenance import hub_datasets, public_name

TASK = "text-generation"
FAMILIES = {
    "diffusion": "A Gaussian diffusion language model: it generates text by removing noise from "
    "word embeddings",
    "autoregressive": "An autoregressive language model (GPT-2), the baseline of textdiff",
}
UNKNOWN_WORDS = "Words that have no token become `[UNK]`, and it never writes them."
LIMITS = (
    "The training data alone decide its language, its style, its opinions and its errors. Their "
    "biases and personal data may come back in its texts: nothing was filtered out.",
    "It follows no instructions, and what it writes about the world is not checked.",
    "It may repeat training texts word for word. `textdiff evaluate` measures how often.",
)


def text_facts(
    config: TextConfig, model: TextModel, tokenizer: Tokenizer, training: int, held_out: int
) -> CardFacts:
    """Facts for the card of a text model.

    Args:
        training: Number of training examples.
        held_out: Number of held-out examples.
    """
    data, vocab_size = config.data, tokenizer.get_vocab_size()
    source = public_name(data.train) if data.train else "sentences of textdiff's built-in grammar"
    count = f"{training:,} examples" if not data.streaming else "a stream, whose size is not known"
    share = f"{data.valid_share:.0%} of it, or its validation split on the hub"
    weights = sum(weight.numel() for weight in model.parameters())
    size = f"{weights:,} weights, {vocab_size:,} tokens, at most {data.length} tokens per text"
    return CardFacts(
        model=f"{FAMILIES[config.model.family]}. It has {size}.",
        task=TASK,
        command="textdiff train",
        data=(
            f"{source}: {count}",
            f"{public_name(data.valid) if data.valid else share}: {held_out:,} examples",
        ),
        datasets=hub_datasets(data.train, data.valid),
        usage=_usage(config),
        widget=_widget(config),
        limits=(*LIMITS, *([UNKNOWN_WORDS] if config.tokenizer.kind != "bpe" else [])),
    )


def _usage(config: TextConfig) -> str:
    """Python code that uses the model."""
    if config.data.source:
        source = f"a text like those of the column {config.data.source}"
        tasks = [f"print(pipe.generate({source!r}, n=2).texts)"]
    elif config.model.family == "diffusion":
        tasks = ["print(pipe.rewrite(texts[0], strength=0.5, n=2).texts)"]
    else:
        tasks = ["print(pipe.complete(texts[0].split()[0], n=2).texts)"]
    if not config.data.source:
        tasks = ["texts = pipe.sample(4, seed=0).texts", "print(texts)", *tasks]
    first = ["from textdiff import TextDiffusion", ""]
    return "\n".join([*first, 'pipe = TextDiffusion.from_pretrained("{name}")', *tasks])


def _widget(config: TextConfig) -> Callable[[list[str]], list[dict[str, Any]]]:
    """Function that makes an example for the hub's widget of samples of the model."""

    def examples(samples: list[str]) -> list[dict[str, Any]]:
        sample = next(filter(None, samples), None)
        if sample is None:
            return []
        prompt = config.data.source or " ".join(sample.split()[:2])
        return [{"text": prompt, "output": {"text": sample}}]

    return examples
