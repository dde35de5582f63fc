"""Text from text: a trained model and its tasks in Python, as results or step by step."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from textdiff.arguments import checked_arguments
from textdiff.config import UserError, check
from textdiff.hub import HubMixin
from textdiff.sampling import collect
from textdiff.text.hub import load_model
from textdiff.text.inputs import checked_texts, for_each
from textdiff.text.sampling import generate
from textdiff.text.sequence_likelihood import TextLikelihood, encode_whole, text_likelihood
from textdiff.text.task import Task, TextOutput
from textdiff.text.tasks import TextTasks
from textdiff.text.tokenizer import save_tokenizer


class TextStream(TextTasks[Iterator[TextOutput]]):
    """The tasks as iterators over the steps of the sampler, batch after batch."""

    def _run(self, task: Task) -> Iterator[TextOutput]:
        if task.select:
            finished = "candidates are compared when they are finished"
            raise UserError(f"rank and mbr must be left out of stream: {finished}")
        asked = task.request, task.sampling
        with task.naming_texts():
            batches = generate(self.model, self.tokenizer, *asked, probabilities=True)
        return map(task.after_step, batches)


class TextDiffusion(HubMixin, TextTasks[TextOutput]):
    """A trained text model: sample, rewrite, infill, complete, generate.

    In float32 the same seed gives the same texts, whatever the batch size is.

    Examples:
        >>> pipe = TextDiffusion.from_pretrained("runs/text")
        >>> len(pipe.sample(3, steps=8, seed=1).texts)
        3
        >>> pipe.rewrite("the king sees a dog .", strength=0.0).texts
        ['the king sees a dog .']
        >>> filled = pipe.infill("the [MASK] sees a dog .", n=2, steps=8)
        >>> [text.endswith(" sees a dog .") for text in filled.texts]
        [True, True]
        >>> pipe.complete("the king", steps=8).texts[0].startswith("the king")
        True
        >>> [step.step for step in pipe.stream.sample(1, steps=4)]
        [1, 2, 3, 4]
    """

    @classmethod
    @checked_arguments()
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, token: str | None = None
    ) -> "TextDiffusion":
        """Loads a model to this process's device.

        Args:
            name: A run folder, its model/ folder, or a model on the Hugging Face hub.
            revision: Branch, tag or commit of a model on the hub. If None, the main branch.
            token: Access token of the hub. If None, that of `hf auth login` or HF_TOKEN.
        """
        return cls(*load_model(str(name), revision, token))

    def save_pretrained(self, folder: str | Path) -> None:
        """Saves what `from_pretrained` loads into a folder, with the model card if there is one."""
        super().save_pretrained(folder)
        save_tokenizer(self.tokenizer, Path(folder))

    @property
    def stream(self) -> TextStream:
        """The same tasks, which yield the texts after every step."""
        return TextStream(self.model, self.tokenizer)

    def _run(self, task: Task) -> TextOutput:
        with task.naming_texts():
            batches = generate(self.model, self.tokenizer, task.request, task.sampling)
        return task.output(collect(batches))

    @checked_arguments()
    def log_likelihood(
        self,
        texts: str | Sequence[str],
        *,
        source: str | Sequence[str] | None = None,
        draws: int = 64,
        seed: int = 0,
    ) -> TextLikelihood:
        """-log p of each text and of its length in nats: exact, or an upper bound.

        It is exact for an autoregressive model. A diffusion model has a variational bound
        (arXiv:2006.11239, eq. 5), estimated without bias from random draws.

        Args:
            source: Source of each text, for a model that generates targets from sources.
            draws: Noise levels drawn for each text. Four times as many halve the standard error.
            seed: Seed of the draws.

        Raises:
            UserError: If a text is empty or longer than the model's sequences, or a source is
                missing or too much.

        Examples:
            >>> pipe = TextDiffusion.from_pretrained("runs/text")
            >>> pipe.log_likelihood(["the king sees a dog .", "a dog ."], draws=4).tokens
            [6, 3]
        """
        given = checked_texts(texts, "texts")
        sources = [None] * len(given) if source is None else checked_texts(source, "source")
        check(len(sources) == len(given), "source", f"{len(given)} texts", len(sources))
        check(0 <= seed < 2**63, "seed", "between 0 and 2^63 - 1", seed)

        def encoded(pair: tuple[str, str | None]) -> list[int]:
            return encode_whole(self.model, self.tokenizer, *pair)

        pairs = zip(given, sources, strict=True)
        return text_likelihood(self.model, for_each(pairs, encoded, "texts"), draws, seed)
