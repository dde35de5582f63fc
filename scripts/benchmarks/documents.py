"""Long documents: `python scripts/benchmarks/documents.py --run RUN --reference RUN`.

It prints how much generated documents repeat themselves, and whether they become worse towards
their end, beside held-out text of the same length.
"""

from itertools import chain
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from textdiff.cli.parser import quiet_libraries, run_script
from textdiff.config import SamplingConfig, UserError
from textdiff.evaluation.metrics import distinct
from textdiff.evaluation.reference_lm import ReferenceLM, perplexity
from textdiff.sampling import collect
from textdiff.table import table_lines
from textdiff.text import token_cache
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.decoding_config import DecodingConfig
from textdiff.text.hub import load_model
from textdiff.text.requests import sample_request
from textdiff.text.sampling import generate

END = 2  # blocks at each end of a document whose perplexity is measured


def documents(
    run: str,
    reference: str,
    n: int = 20,
    blocks: int = 10,
    steps: int = 32,
    decoding: DecodingConfig = DecodingConfig(),  # noqa: B008
) -> None:
    """Print the figures.

    Args:
        run: Run folder of a model trained with data.pack.
        reference: Run folder of an autoregressive model of the same tokens and block length.
        n: Number of documents.
        blocks: Length of a document, in blocks of data.length tokens.
        steps: Steps of the sampler in each window.
        decoding: Options of decoding.
    """
    quiet_libraries()
    model, tokenizer = load_model(run)
    judge, _ = load_model(reference)
    if not isinstance(judge, Autoregressive):
        raise UserError(f"{reference} is not an autoregressive model")
    size = model.config.length
    request = sample_request(model, n, 0, blocks * size, decoding)
    written = [*collect(generate(model, tokenizer, request, SamplingConfig(steps=steps)))]
    texts = {"held-out": held_out(run, n, blocks * size), "generated": written}
    print(f"{n} documents of {blocks * size:,} tokens, {steps} steps per window")
    figures = {name: measured(found, judge, size) for name, found in texts.items()}
    print(*table_lines(figures), sep="\n")


def held_out(run: str, n: int, length: int) -> list[list[int]]:
    """Stretches of the text that the run held out, spread evenly over it."""
    corpus = token_cache.load(sorted(Path(run, "tokens").glob("valid*"))[0])
    tokens = [*chain.from_iterable(corpus[i].tolist() for i in range(len(corpus)))]
    starts = np.linspace(0, len(tokens) - length, n).astype(int)
    return [tokens[start : start + length] for start in starts]


def measured(texts: list[list[int]], judge: Autoregressive, size: int) -> dict[str, float]:
    """Shares of distinct n-grams within a document, and perplexities of blocks."""
    variety = {k: mean(distinct([tuple(text)], k) for text in texts) for k in (1, 2, 4)}
    parts = [[tuple(text[i : i + size]) for i in range(0, len(text), size)] for text in texts]
    places = {"": slice(None), ", beginning": slice(END), ", end": slice(-END, None)}
    return {f"distinct_{k}": value for k, value in variety.items()} | {
        f"perplexity{place}": perplexity(ReferenceLM(judge), [*chain(*(p[cut] for p in parts))])
        for place, cut in places.items()
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_script(documents)
