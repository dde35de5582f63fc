"""The tasks of a text model, printed."""

import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tokenizers import Tokenizer

from textdiff.distributed import current_process
from textdiff.progress import ProgressBar
from textdiff.sampling import (
    SampleBatch,
    collect,
    gather_batches,
    sampling_precision,
    with_progress,
)
from textdiff.text.decoding import without_auto
from textdiff.text.requests import TextModel
from textdiff.text.sampling import generate
from textdiff.text.selection import similarity
from textdiff.text.task import Result, Task
from textdiff.text.tasks import TextTasks

COLUMNS = ("strength", "similarity", "score")  # of a table
Batches = Iterable[SampleBatch[list[int]]]


class TextPrinter(TextTasks[None]):
    """Prints the texts of a task to standard output, each as soon as it is done.

    Several processes divide the work, and the main process prints.

    Args:
        output: text (one text per line), table (with figures) or jsonl (one JSON object per line).
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
        with task.naming_texts():
            batches = generate(model, self.tokenizer, task.request, config, process)
        count = -(-len(task.request.ids) // (config.batch_size * process.world))
        words = self._shows_words(task)
        hide = self.show_steps or words or process.rank > 0
        gathered = gather_batches(with_progress(batches, count, hide=hide), process)
        if words:
            return self._print_words(task, gathered)
        shown = self._shown(gathered) if self.show_steps else gathered
        found = collect(shown)
        if process.rank > 0:
            return deque(found, maxlen=0).clear()
        for index, result in enumerate(task.results(found)):
            self._print(task, index, result)

    def _shows_words(self, task: Task) -> bool:
        """Whether words are printed one by one: of a single text, if they settle one by one."""
        request, free = task.request, task.request.start[0] > 0
        decoding = without_auto(self.model, request.decoding, task.sampling.sampler)
        one_by_one = decoding.order == "left-to-right"
        one_by_one |= request.mask.shape[1] > self.model.config.length
        one_by_one &= task.select is None and not (free[:-1] & ~free[1:]).any()
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

    def _print(self, task: Task, index: int, result: Result) -> None:
        """Prints a result without breaking the progress bar."""
        facts = task.facts_of(result.row)
        if "strength" in facts:
            facts["similarity"] = round(similarity(facts["source"], result.text), 4)
        if result.score is not None:
            facts["score"] = round(result.score, 4)
        if self.output == "jsonl":
            entry = {"index": index, "seed": task.sampling.seed, "text": result.text} | facts
            line = json.dumps(entry, ensure_ascii=False)
        else:
            line = _in_one_line(result.text)
        if self.output == "table":
            columns = {name: facts[name] for name in COLUMNS if name in facts}
            if index == 0:
                ProgressBar.write("".join(f"{name:>12}" for name in columns) + "  text")
            line = "".join(f"{value:12.3f}" for value in columns.values()) + "  " + line
        ProgressBar.write(line)
        sys.stdout.flush()


def _in_one_line(text: str) -> str:
    return "\\n".join(text.splitlines())
