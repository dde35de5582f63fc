"""The tasks of a trained text model, from the arguments of the user to requests and texts."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Generic, Literal, TypeVar

from tokenizers import Tokenizer

from textdiff.arguments import checked_arguments, from_arguments
from textdiff.config import SamplingConfig, UserError, check
from textdiff.text.autoregressive import ONLY_LEFT_TO_RIGHT, Autoregressive
from textdiff.text.control_config import phrases
from textdiff.text.decoding import resolve_decoding
from textdiff.text.decoding_config import DecodingConfig
from textdiff.text.free_lengths import choose_lengths
from textdiff.text.inputs import candidates, checked_strengths, checked_texts, for_each
from textdiff.text.requests import (
    Decoding,
    Request,
    TextModel,
    continue_request,
    infill_request,
    joined,
    refuse_sources,
    rewrite_request,
    sample_request,
)
from textdiff.text.selection import most_like_others, ranking
from textdiff.text.special_tokens import ANY_NUMBER
from textdiff.text.targets import need_sources, target_request
from textdiff.text.task import Task
from textdiff.text.tokenizer import (
    MASK,
    decode_after,
    decode_kept,
    encode,
    encode_known,
    fill_masks,
    tokens_of_words,
)

R = TypeVar("R")


class TextTasks(ABC, Generic[R]):
    """Tasks of a trained model. Subclasses say what becomes of a task.

    Further arguments of each task are the fields of `SamplingConfig` (steps, sampler, seed, ...)
    and of `DecodingConfig` (temperature, guidance_scale, order, require, forbid, ...). With `rank`,
    that many candidates are sampled for each text, and the best of all are kept, best first: those
    of the lowest -log p per token.

    Args:
        model: A diffusion model, or the autoregressive baseline, which can sample and complete.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: TextModel, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    @abstractmethod
    def _run(self, task: Task) -> R:
        """Does the task."""

    def _options(
        self, options: dict[str, Any], check_model: Callable[[TextModel], None] = refuse_sources
    ) -> tuple[SamplingConfig, Decoding]:
        """The options of sampling, and those of decoding for this model."""
        check_model(self.model)
        sampling, decoding = from_arguments(options, SamplingConfig, DecodingConfig)
        return sampling, resolve_decoding(self.model, decoding)

    @checked_arguments(SamplingConfig, DecodingConfig)
    def sample(
        self, n: int = 1, *, length: int | None = None, rank: int | None = None, **options: Any
    ) -> R:
        """Generates n texts from noise.

        Args:
            length: Tokens of each text. If None, drawn from the lengths of the training text.
            rank: Candidates for each text, if texts are ranked.
        """
        sampling, decoding = self._options(options)
        request = sample_request(self.model, candidates(n, rank), sampling.seed, length, decoding)
        select = ranking(self.model, request, n, rank, sampling)
        return self._run(Task(request, lambda _, ids: self.tokenizer.decode(ids), sampling, select))

    @checked_arguments(SamplingConfig, DecodingConfig)
    def rewrite(
        self,
        text: str | Sequence[str],
        *,
        strength: float | Sequence[float | int] = 0.5,
        protect: str | Sequence[str] = (),
        n: int = 1,
        rank: int | None = None,
        rank_by: Literal["fluency", "similarity"] = "fluency",
        **options: Any,
    ) -> R:
        """Adds noise to texts and resamples them: n variations of each.

        Args:
            strength: Amount of noise, from 0 (the text itself) to 1 (only its length is kept).
                Several strengths give n variations of each text at the first, then at the next.
            protect: Words or phrases that stay as they are, in a list or separated by commas.
            rank: Candidates for each variation, if those of a text and strength are ranked.
            rank_by: fluency ranks by nats per token, similarity by words in common with the text.
        """
        sampling, decoding = self._options(options)
        strengths, texts = checked_strengths(strength), checked_texts(text)
        size, words = candidates(n, rank), phrases(protect)
        check(all(words), "--protect", "words or phrases, separated by commas", protect)
        pairs = [*zip(texts, tokens_of_words(self.tokenizer, texts, words), strict=True)]
        groups = [(*pair, each) for pair in pairs for each in strengths]

        def requests(pair: tuple[str, list[bool]]) -> list[Request]:
            ids = encode_known(self.tokenizer, pair[0])
            noise = ([each * (not keep) for keep in pair[1]] for each in strengths)
            return [rewrite_request(self.model, ids, size, row, decoding) for row in noise]

        def decode(row: int, ids: list[int]) -> str:
            text, kept, strength = groups[row // size]
            return decode_kept(self.tokenizer, text, kept, ids) if strength else text

        request = joined([*chain(*for_each(pairs, requests))])
        similar = (lambda row: groups[row // size][0]) if rank_by == "similarity" else None
        select = ranking(self.model, request, n, rank, sampling, similar)
        return self._run(Task(request, decode, sampling, select, texts, strengths))

    @checked_arguments(SamplingConfig, DecodingConfig)
    def infill(
        self,
        text: str | Sequence[str],
        *,
        n: int = 1,
        longest: int = 8,
        rank: int | None = None,
        **options: Any,
    ) -> R:
        """Replaces each [MASK] of texts by one token, in n ways. Other words stay as they are.

        A [MASK*] stands for one or more tokens. Their number is drawn for each of the n texts from
        its probability given the other words (see `textdiff.text.free_lengths`).

        Args:
            longest: Largest number of tokens for which a [MASK*] stands.
            rank: Candidates for each of the n texts, if texts are ranked.
        """
        sampling, decoding = self._options(options)
        texts, size, model = checked_texts(text, mask=True), candidates(n, rank), self.model
        check(longest >= 1, "--longest", "at least 1", longest)
        if isinstance(model, Autoregressive):
            raise UserError(ONLY_LEFT_TO_RIGHT)

        def rows_of(numbered: tuple[int, str]) -> list[tuple[str, Request]]:
            i, each = numbered
            options = longest, sampling, decoding, i * size
            chosen = choose_lengths(model, self.tokenizer, each, size, *options)
            made = {masked: self._infill_request(masked, decoding) for masked in {*chosen}}
            return [(masked, made[masked]) for masked in chosen]

        rows, requests = zip(*chain(*for_each(enumerate(texts), rows_of)), strict=True)

        def decode(row: int, ids: list[int]) -> str:
            return fill_masks(self.tokenizer, rows[row], requests[row].ids[0].tolist(), ids)

        request = joined(requests)
        select = ranking(self.model, request, n, rank, sampling)
        for_each(texts, lambda each: encode(self.tokenizer, each.replace(ANY_NUMBER, MASK)))
        return self._run(Task(request, decode, sampling, select, texts))

    def _infill_request(self, masked: str, decoding: Decoding) -> Request:
        ids = self.tokenizer.encode(masked, add_special_tokens=False).ids
        mask_id = self.tokenizer.token_to_id(MASK)
        return infill_request(self.model, ids, 1, mask_id, decoding)

    @checked_arguments(SamplingConfig, DecodingConfig)
    def complete(
        self,
        text: str | Sequence[str],
        *,
        n: int = 1,
        length: int | None = None,
        rank: int | None = None,
        **options: Any,
    ) -> R:
        """Generates n texts that begin with each of the given ones.

        Args:
            length: Tokens of each text, its beginning included. If None, as in training.
            rank: Candidates for each of the n texts, if texts are ranked.
        """
        sampling, decoding = self._options(options)
        texts, size = [each.rstrip(" ") for each in checked_texts(text)], candidates(n, rank)
        seed = sampling.seed
        given = for_each(texts, lambda each: encode_known(self.tokenizer, each))

        def request_of(numbered: tuple[int, list[int]]) -> Request:
            i, ids = numbered
            return continue_request(self.model, ids, size, seed, length, decoding, i * size)

        def decode(row: int, ids: list[int]) -> str:
            before = given[row // size]
            return texts[row // size] + decode_after(self.tokenizer, before, ids[len(before) :])

        request = joined(for_each(enumerate(given), request_of))
        select = ranking(self.model, request, n, rank, sampling)
        return self._run(Task(request, decode, sampling, select, texts))

    @checked_arguments(SamplingConfig, DecodingConfig)
    def generate(
        self,
        source: str | Sequence[str],
        *,
        n: int = 1,
        length: int | None = None,
        mbr: int = 1,
        rank: int | None = None,
        **options: Any,
    ) -> R:
        """Generates n targets of each source, with a model that was trained on pairs.

        Args:
            length: Tokens of each target. If None, predicted from the source: the median for the
                first candidate, and lengths spread evenly over their distribution for others.
            mbr: Candidates for each target. The one that agrees best with the others is chosen:
                minimum Bayes risk with BLEU (Kumar & Byrne, 2004).
            rank: Candidates for each target, if those of a source are ranked.
        """
        check(mbr >= 1, "--mbr", "at least 1", mbr)
        check(mbr == 1 or rank is None, "--mbr", "left out with --rank", mbr)
        if length is not None and options.get("length_quantile") is not None:
            raise UserError("--length and --length_quantile are both given: leave one of them out")
        many, texts = candidates(n * mbr, rank), checked_texts(source, "--source")
        sampling, decoding = self._options(options, need_sources)
        given = for_each(texts, lambda each: encode_known(self.tokenizer, each), "--source")

        def request_of(ids: list[int]) -> Request:
            return target_request(self.model, ids, many, length, decoding)

        def decode(row: int, ids: list[int]) -> str:
            return self.tokenizer.decode(ids[len(given[row // many]) + 1 :])

        request = joined(for_each(given, request_of, "--source"))
        select = ranking(self.model, request, n, rank, sampling) or most_like_others(mbr)
        return self._run(Task(request, decode, sampling, select, texts, option="--source"))
