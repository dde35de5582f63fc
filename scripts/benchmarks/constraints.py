"""Constrained samples: `python scripts/benchmarks/constraints.py --run RUN --reference RUN`.

It prints the share of samples that obey each constraint, with and without it, and their perplexity
divided by that of free samples, under an autoregressive model of the same kind of text.
"""

import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from textdiff import TextDiffusion
from textdiff.cli.parser import quiet_libraries, run_script
from textdiff.config import UserError
from textdiff.evaluation.reference_lm import ReferenceLM, perplexity
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.classifier import load_classifier
from textdiff.text.hub import load_model
from textdiff.text.task import TextOutput


class Constraint(NamedTuple):
    """Options of sampling, and whether a text obeys them, given its number of tokens."""

    options: dict[str, Any]
    obeys: Callable[[str, int], bool]


def constraints(
    run: str,
    reference: str,
    require: list[str] = ["riverside", "family friendly"],  # noqa: B006
    forbid: list[str] = ["pub", "cheap"],  # noqa: B006
    lengths: list[int] = [10, 20, 30],  # noqa: B006
    classifier: str | None = None,
    n: int = 200,
    steps: int = 16,
    order: str = "auto",
) -> None:
    """Print the figures.

    Args:
        run: Run folder of a diffusion model.
        reference: Run folder of an autoregressive model, for the perplexity.
        require: Phrases that must occur: each alone, and all with those of `forbid`.
        forbid: Phrases that must not occur.
        lengths: Numbers of tokens.
        classifier: Folder of a classifier, each of whose labels is a constraint. A text obeys if it
            has the name of the label.
        n: Samples of each constraint.
        steps: Steps of the sampler.
        order: Order in which words lose their noise.
    """
    quiet_libraries()
    pipe, (judge, words) = TextDiffusion.from_pretrained(run), load_model(reference)
    if not isinstance(judge, Autoregressive):
        raise UserError(f"{reference} is not an autoregressive model")

    def sample(**options: Any) -> tuple[TextOutput, float, float]:
        """Samples, their perplexity, and the seconds of processor time for 1,000 of them."""
        start = time.process_time()
        found = pipe.sample(n, steps=steps, order=order, seed=0, **options)
        seconds = time.process_time() - start
        texts = [tuple(words.encode(text).ids) for text in found.texts]
        return found, perplexity(ReferenceLM(judge), texts), 1000 * seconds / n

    labels = load_classifier(classifier, pipe.model).labels if classifier else []
    print_table(sample, cases(require, forbid, lengths, classifier, labels))


def print_table(
    sample: Callable[..., tuple[TextOutput, float, float]], constraints: dict[str, Constraint]
) -> None:
    """Prints a row for each constraint as soon as it is sampled."""
    free, free_value, seconds = sample()
    print(f"{'':28} free obey    obey  perplexity / free  seconds / 1,000  first text")
    print(f"{'free':68}{seconds:15.0f}  {free.texts[0]}", flush=True)
    for name, (options, obeys) in constraints.items():
        found, value, seconds = sample(**options)
        hits = (sum(map(obeys, each.texts, map(len, each.sequences))) for each in (free, found))
        line = "".join(f"{count / len(free.texts):8.1%}" for count in hits)
        line += f"{value / free_value:19.2f}{seconds:17.0f}"
        print(f"{name:29}{line}  {found.texts[0]}", flush=True)


def cases(
    require: list[str],
    forbid: list[str],
    lengths: list[int],
    classifier: str | None,
    labels: list[str],
) -> dict[str, Constraint]:
    """The constraints by their names."""

    def phrases(required: list[str], forbidden: list[str]) -> Constraint:
        options = {"require": required, "forbid": forbidden}
        return Constraint(
            options,
            lambda text, _: (
                all(has(text, each) for each in required)
                and not any(has(text, each) for each in forbidden)
            ),
        )

    def length(size: int) -> Constraint:
        return Constraint({"length": size}, lambda _, tokens: tokens == size)

    def label(name: str) -> Constraint:
        options = {"classifier": classifier, "label": name}
        return Constraint(options, lambda text, _: has(text, name))

    found = {f"require {each}": phrases([each], []) for each in require}
    found |= {f"forbid {each}": phrases([], [each]) for each in forbid}
    found |= {"all of these": phrases(require, forbid)} if len(found) > 1 else {}
    found |= {f"{size} tokens": length(size) for size in lengths}
    return found | {f"label {each}": label(each) for each in labels}


def has(text: str, phrase: str) -> bool:
    """Whether a phrase occurs, not within a word, in any case."""
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE) is not None


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_script(constraints)
