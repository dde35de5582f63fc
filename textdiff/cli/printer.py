"""The tasks of a text model, printed."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tokenizers import Tokenizer
from tqdm import tqdm

from textdiff.distributed import current_process
from textdiff.sampling import (
    SampleBatch,
    collect,
    gather_batches,
    sampling_precision,
    with_progress,
)
from textdiff.text.pipeline import TextTasks
from textdiff.text.requests import TextModel
from textdiff.text.sampling import generate
from textdiff.text.task import Task

Batches = Iterable[SampleBatch[list[int]]]


class TextPrinter(TextTasks[None]):
    """Prints the texts of a task to standard output, each as soon as it is done.

    Several processes divide the work, and the main process prints.

    Args:
        output: text (one text per line) or jsonl (one JSON object per line).
        show_steps: Whether the texts after every step are printed to standard error.
    """

    def __init__(
        self, model: TextModel, tokenizer: Tokenizer, output: str, show_steps: bool
    ) -> None:
        super().__init__(model, tokenizer)
        self.output, self.show_steps, self.process = output, show_steps, current_process()

    def _run(self, task: Task) -> None:
        model, process, config = self.model, self.process, task.sampling
        config = replace(config, precision=sampling_precision(model, config.precision, process))
        batches = generate(model, self.tokenizer, task.request, config, process)
        count = -(-len(task.request.ids) // (config.batch_size * process.world))
        words = self._shows_words(task)
        hide = self.show_steps or words or process.rank > 0
        gathered = gather_batches(with_progress(batches, count, hide=hide), process)
        if words:
            return self._print_words(task, gathered)
        shown = self._shown(gathered) if self.show_steps else gathered
        found = enumerate(collect(shown))
        texts: Iterator[str] = (task.decode(row, ids) for row, ids in found)
        if task.select:
            texts = iter(task.result([ids for _, ids in found]).texts)
        for row, text in enumerate(texts):
            if process.rank == 0:
                self._print(row, text, config.seed)

    def _shows_words(self, task: Task) -> bool:
        """Whether words are printed one by one: of a single text, if they settle one by one."""
        request, free = task.request, task.request.start[0] > 0
        one_by_one = request.decoding.order == "left-to-right"
        one_by_one |= request.mask.shape[1] > self.model.config.length
        one_by_one &= not (free[:-1] & ~free[1:]).any()
        alone = len(request.ids) == self.process.world == 1
        return alone and one_by_one and self.output == "text" and not self.show_steps

    def _print_words(self, task: Task, batches: Batches) -> None:
        """Prints the words of one text as soon as they do not change any more."""
        printed = 0
        for batch in batches:
            line = _in_one_line(task.decode(0, batch.samples[0][: batch.settled[0]]))
            # the last word may still grow
            end = len(line) if batch.is_final else max(printed, line.rfind(" "))
            print(line[printed:end], end="", flush=True)
            printed = end
        print(flush=True)

    def _shown(self, batches: Batches) -> Iterator[SampleBatch[list[int]]]:
        """Prints every batch to standard error and yields it."""
        for batch in batches:
            for row, ids in zip(batch.rows, batch.samples, strict=True):
                text = self.tokenizer.decode(ids)
                print(f"step {batch.step:3d}  sentence {row}: {text}", file=sys.stderr)
            yield batch

    def _print(self, row: int, text: str, seed: int) -> None:
        """Prints a text without breaking the progress bar."""
        entry = {"index": row, "seed": seed, "text": text}
        as_json = self.output == "jsonl"
        tqdm.write(json.dumps(entry, ensure_ascii=False) if as_json else _in_one_line(text))
        sys.stdout.flush()


def _in_one_line(text: str) -> str:
    return "\\n".join(text.splitlines())
