"""Generation of token ids with the signature of transformers: `model.generate(input_ids, ...)`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GenerationConfig
from transformers.modeling_outputs import ModelOutput

from textdiff.config import UserError, check
from textdiff.text.control import Control
from textdiff.text.generation_config import DiffusionGenerationConfig
from textdiff.text.inputs import for_each
from textdiff.text.lengths import writes_documents
from textdiff.text.predictor import WordPredictor
from textdiff.text.requests import Request, continue_request, joined, sample_request
from textdiff.text.sampling import sample_batches
from textdiff.text.targets import target_request
from textdiff.text.tokenizer import load_tokenizer

HUB_OPTIONS = (
    "cache_dir",
    "force_download",
    "proxies",
    "local_files_only",
    "token",
    "revision",
    "subfolder",
)


@runtime_checkable
class Streamer(Protocol):
    """The streamers of transformers. A streamer may also have `put_draft(value=...)`."""

    def put(self, value: Tensor) -> None: ...
    def end(self) -> None: ...


@dataclass
class DiffusionGenerationOutput(ModelOutput):
    """Output of `generate` with `return_dict_in_generate`.

    Args:
        sequences: The token ids, as `generate` returns them.
    """

    sequences: Int[Tensor, "n l"] | None = None  # ModelOutput requires a default


class GenerativePredictor(WordPredictor):
    """A `WordPredictor` that generates token ids as the models of transformers do.

    Attributes:
        generation_config: Default options of `generate`, saved and loaded with the model.

    Examples:
        >>> from transformers import AutoModel, AutoTokenizer
        >>> import textdiff
        >>> model = AutoModel.from_pretrained("runs/text/model")
        >>> tokenizer = AutoTokenizer.from_pretrained("runs/text/model")
        >>> prompts = tokenizer(["the king", "a"], padding=True, return_tensors="pt")
        >>> ids = model.generate(**prompts, max_new_tokens=4, num_return_sequences=2)
        >>> ids.shape
        torch.Size([4, 6])
        >>> tokenizer.batch_decode(ids, skip_special_tokens=True)[0].startswith("the king")
        True
    """

    generation_config_class = DiffusionGenerationConfig
    generation_config: DiffusionGenerationConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.generation_config = DiffusionGenerationConfig()

    @classmethod
    def can_generate(cls) -> bool:
        """Returns True, so that transformers saves and loads `generation_config`."""
        return True

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        streamer: Streamer | None = None,
        **kwargs: Any,
    ) -> Tensor | DiffusionGenerationOutput:
        """Generates sequences of tokens from noise, or completes prompts.

        The same seed gives the same tokens as the tasks of `TextDiffusion`: `sample` without
        prompts, `complete` with prompts, and `generate` with a model of pairs.

        Args:
            input_ids: Prompts, of shape (b, p). Sources, if the model was trained on pairs.
            attention_mask: 0 where prompts are padded, on either side.
            generation_config: Options that replace those of the model's `generation_config`.
            streamer: `put` gets the prompts, and at the end the new tokens. `put_draft`, if there
                is one, gets the new tokens after each step.
            kwargs: Options that replace those of `generation_config`.

        Returns:
            Token ids of shape (b * num_return_sequences, p + new tokens): the prompts as they were
            given, then the new tokens, then padding. Targets come without their sources.

        Raises:
            TypeError: If an option does not exist. The message names the nearest.
            UserError: If an option or a prompt is impossible for this model.
        """
        config = DiffusionGenerationConfig(**kwargs)
        for base in (generation_config, self.generation_config):
            config = config.over(base) if base else config
        sequences = self._sequences(input_ids, attention_mask, config, streamer).to(self.device)
        wrapped = config.return_dict_in_generate
        return DiffusionGenerationOutput(sequences) if wrapped else sequences

    def adjust_generation_fn(
        self, generation_config: GenerationConfig | None, *names: Any, **options: Any
    ) -> None:
        """Loads generation_config.json. transformers calls it in `from_pretrained`.

        Models that were saved without this file get the special tokens of their tokenizer.
        """
        name = names[-1]
        if name is not None:
            self.generation_config = _load_config(str(name), options)
        if generation_config is not None:
            given = DiffusionGenerationConfig().over(generation_config)
            self.generation_config = given.over(self.generation_config)

    def _sequences(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        config: DiffusionGenerationConfig,
        streamer: Streamer | None,
    ) -> Int[Tensor, "n l"]:
        """The sequences that `generate` returns, on the CPU."""
        alone = input_ids is None and attention_mask is not None
        check(not alone, "attention_mask", "given together with input_ids", "attention_mask alone")
        usable = input_ids is None or isinstance(input_ids, Tensor)
        check(usable, "input_ids", "a tensor", input_ids)
        prompts = torch.empty(1, 0, dtype=torch.long) if input_ids is None else input_ids.cpu()
        given = None if input_ids is None else self._unpadded(prompts, attention_mask, config)
        request, before = self._request(given, config)
        prompts = prompts.repeat_interleave(config.copies, 0)
        if streamer:
            streamer.put(prompts)
        put_draft = getattr(streamer, "put_draft", lambda value: None)
        for new in self._drafts(request, before, config):
            put_draft(value=new)
        if streamer:
            streamer.put(new)
            streamer.end()
        return new if self.config.has_sources else torch.cat([prompts, new], 1)

    def _drafts(
        self, request: Request, before: list[int], config: DiffusionGenerationConfig
    ) -> Iterator[Int[Tensor, "n l"]]:
        """Yields the new tokens of all sequences after every step."""
        longest = int((request.mask.sum(1) - torch.tensor(before)).max())
        new = torch.full((len(before), longest), config.padding)
        for batch in sample_batches(self, self._control(config), request, config.sampling):
            for row, ids in zip(batch.rows, batch.samples, strict=True):
                tokens = torch.tensor(ids[before[row] :], dtype=torch.long)
                new[row, : len(tokens)] = tokens
            yield new.clone()

    def _unpadded(
        self, ids: Tensor, mask: Tensor | None, config: DiffusionGenerationConfig
    ) -> list[list[int]]:
        """The tokens of each prompt, without padding."""
        vocab_size = self.config.vocab_size
        check(ids.ndim == 2, "input_ids", "a tensor of shape (b, p)", (*ids.shape,))
        mask = ids != config.padding if mask is None else mask.cpu().bool()
        check(mask.shape == ids.shape, "attention_mask", f"{(*ids.shape,)}", (*mask.shape,))
        prompts = [row[real].tolist() for row, real in zip(ids, mask, strict=True)]
        check(all(prompts) and bool(prompts), "input_ids", "prompts of at least one token", prompts)
        for token in {token for prompt in prompts for token in prompt}:
            check(0 <= token < vocab_size, "input_ids", f"between 0 and {vocab_size - 1}", token)
        return prompts

    def _request(
        self, prompts: list[list[int]] | None, config: DiffusionGenerationConfig
    ) -> tuple[Request, list[int]]:
        """The request of a task of `TextDiffusion`, and how many given tokens each row has."""
        n, count, decoding = config.copies, config.max_new_tokens, config.decoding
        sources, seed = self.config.has_sources, config.sampling.seed
        if prompts is None:
            if sources:
                raise UserError("this model generates targets from sources: give input_ids")
            self._check_count(count, 0)
            return sample_request(self, n, seed, count, decoding), [0] * n

        def request_of(numbered: tuple[int, list[int]]) -> Request:
            i, ids = numbered
            self._check_count(count, len(ids) + sources)
            if sources:
                return target_request(self, ids, n, count, decoding)
            length = count and count + len(ids)
            return continue_request(self, ids, n, seed, length, decoding, i * n)

        request = joined(for_each(enumerate(prompts), request_of, "input_ids"))
        return request, [len(ids) + sources for ids in prompts for _ in range(n)]

    def _check_count(self, count: int | None, before: int) -> None:
        """Raises UserError if there is no room for so many new tokens after the given ones."""
        room, free = self.config.length - before, writes_documents(self)
        rule = f"between 1 and {room} after {before} tokens"
        check(not count or free or room < 1 or count <= room, "max_new_tokens", rule, count)

    def _control(self, config: DiffusionGenerationConfig) -> Control:
        """The tokens that are never sampled."""
        banned = torch.zeros(self.config.vocab_size, dtype=torch.bool)
        for token in config.suppress_tokens or ():
            rule = f"below {len(banned)}, the size of the vocabulary"
            check(token < len(banned), "a token of suppress_tokens", rule, token)
            banned[token] = True
        return Control(banned)


def _load_config(name: str, options: dict[str, Any]) -> DiffusionGenerationConfig:
    """generation_config.json of a model, or its defaults if there is none.

    Raises:
        UserError: If the file cannot be used.
    """
    found = {key: options[key] for key in HUB_OPTIONS if key in options}
    try:
        return DiffusionGenerationConfig().over(
            DiffusionGenerationConfig.from_pretrained(name, **found)
        )
    except (TypeError, UserError) as error:
        raise UserError(f"{name}/generation_config.json: {error}") from error
    except OSError as error:
        if isinstance(error.__context__, json.JSONDecodeError | UnicodeDecodeError):
            raise UserError(f"{name}/generation_config.json is not valid JSON") from error
    try:
        return DiffusionGenerationConfig.of_tokenizer(load_tokenizer(name))
    except UserError:  # a model without a tokenizer
        return DiffusionGenerationConfig()
