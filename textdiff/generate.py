"""Text from a trained model: a `Task` says what is given and what is wanted, `generate` runs the reverse process and yields drafts.

Sampling, rewriting, infilling and continuing differ only in the task: which words are known, and from which noise level one starts.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import torch
from jaxtyping import Bool, Int
from tokenizers import Tokenizer
from torch import Tensor

from textdiff.autoregressive import Autoregressive
from textdiff.config import InputError, Precision, Sampling
from textdiff.counter import sample_keys, sample_noise, uniform
from textdiff.device import autocast, choose_precision
from textdiff.diffusion.gaussian import Denoiser, Prediction, diffuse, from_x0
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.diffusion.wrappers import clamped, infilled, self_conditioned
from textdiff.lm import DiffusionLM, project
from textdiff.pretrained import load_pretrained
from textdiff.processes import ALONE, Place
from textdiff.vocab import MASK, PAD, UNK, existing_tokenizer


@dataclass(frozen=True)
class Task:
    """n sequences to be generated: `mask` is true on their positions, `known` where `ids` are given, and noise starts at `strength`
    of the schedule's time (1: pure noise, whatever the ids)."""

    ids: Int[Tensor, "n l"]
    mask: Bool[Tensor, "n l"]
    known: Bool[Tensor, "n l"]
    strength: float = 1.0


@dataclass(frozen=True)
class Draft:
    """The task's sequences `rows` as of `step` out of `steps`; the last step's are the result."""

    rows: list[int]
    step: int
    steps: int
    ids: Int[Tensor, "b l"]
    mask: Bool[Tensor, "b l"]

    def sentences(self) -> list[list[int]]:
        return [ids[mask].tolist() for ids, mask in zip(self.ids, self.mask, strict=True)]


def load(name: str) -> tuple[DiffusionLM | Autoregressive, Tokenizer]:
    """A model and its tokenizer from a run folder, its model/ folder, or the hub; on this process's device."""
    kinds: tuple[type[DiffusionLM | Autoregressive], ...] = (DiffusionLM, Autoregressive)
    model, source = load_pretrained(name, kinds, ("config.json", "tokenizer.json"))
    tokenizer = existing_tokenizer(source)
    if tokenizer.get_vocab_size() != model.config.vocab_size:
        raise InputError(f"{name} is a model of {model.config.vocab_size} tokens, but its tokenizer.json has {tokenizer.get_vocab_size()}")
    return model, tokenizer


def from_noise(model: DiffusionLM | Autoregressive, n: int, seed: int, length: int | None = None, at_least: int = 1) -> Task:
    """n sequences out of nothing, of `length` tokens or of lengths as frequent as in the training text."""
    longest = model.config.length
    if at_least > longest:
        raise InputError(f"the text leaves no room: it has {at_least - 1} tokens, and this model was trained for at most {longest}")
    if length is not None and not at_least <= length <= longest:
        raise InputError(f"--length must lie between {at_least} and {longest}, the longest this model was trained for, got {length}")
    if length is not None:
        lengths = torch.full((n,), length)
    elif isinstance(model, Autoregressive):
        lengths = torch.full((n,), longest)  # at most: it ends its sentences itself
    else:
        weight = model.lengths.cpu().double().clone()
        weight[:at_least] = 0
        weight = weight if weight.sum() > 0 else torch.arange(longest + 1).ge(at_least).double()
        drawn = uniform(sample_keys(seed, n), stream=0).double() * weight.sum()
        lengths = torch.searchsorted(weight.cumsum(0), drawn)
    mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    return Task(torch.zeros(mask.shape, dtype=torch.long), mask, torch.zeros_like(mask))


def rewriting(model: DiffusionLM | Autoregressive, ids: list[int], n: int, strength: float) -> Task:
    """n variations on a sentence of the same number of tokens: noised to `strength`, then resampled."""
    if not 0 <= strength <= 1:
        raise InputError(f"--strength must be between 0 (the text itself) and 1 (only its length is kept), got {strength}")
    given = _given(model, ids, n)
    return Task(given, torch.ones_like(given, dtype=torch.bool), torch.zeros_like(given, dtype=torch.bool), strength)


def infilling(model: DiffusionLM | Autoregressive, ids: list[int], n: int, mask_id: int | None) -> Task:
    """n ways to fill the positions that hold `mask_id`. Raises InputError if there are none."""
    if mask_id not in ids:
        raise InputError(f"--text has no {MASK} to fill: write it once for each token that is wanted")
    given = _given(model, ids, n)
    return Task(given, torch.ones_like(given, dtype=torch.bool), given != mask_id)


def continuing(model: DiffusionLM | Autoregressive, ids: list[int], n: int, seed: int, length: int | None = None) -> Task:
    """n sentences that begin with `ids`."""
    task = from_noise(model, n, seed, length, at_least=len(ids) + 1)
    begins = torch.arange(task.ids.shape[1]) < len(ids)
    start = torch.zeros(task.ids.shape[1], dtype=torch.long)
    start[: len(ids)] = torch.tensor(ids, dtype=torch.long)
    return Task(start.expand_as(task.ids), task.mask, begins.expand_as(task.mask))


@torch.no_grad()
def generate(model: DiffusionLM | Autoregressive, tokenizer: Tokenizer, task: Task, options: Sampling, where: Place = ALONE) -> Iterator[Draft]:
    """Drafts of all sequences, or of this process's share, a batch after the other, a step after the other. Sequence i depends on (seed, i)
    and its task alone."""
    share = islice(_batches(task, options.batch_size), where.rank, None, where.world)
    temperature_and_guidance(model, options)
    if isinstance(model, Autoregressive):
        yield from _left_to_right(model, tokenizer, task, options, share)
        return
    device = model.device
    options = replace(options, precision=precision_for(model, options.precision))
    times = torch.linspace(task.strength, 0, max(1, math.ceil(options.steps * task.strength)) + 1, dtype=torch.float64)
    logsnrs = model.schedule()(times).float().unique_consecutive()
    steps = len(logsnrs) - 1
    banned = _banned(model, tokenizer)
    for rows in share:
        longest = int(task.mask[rows].sum(1).max())
        real = task.mask[rows, :longest]
        if steps == 0:  # no noise, no steps
            yield Draft(rows, 0, 0, task.ids[rows, :longest], real)
            continue
        ids, mask, known = (part.to(device) for part in (task.ids[rows, :longest], real, task.known[rows, :longest]))
        clean = model.vectors[ids]
        noise = sample_noise(sample_keys(options.seed, len(task.ids))[rows].to(device))
        start = logsnrs[:1].to(device).expand(len(ids))
        x = noise(clean) if task.strength == 1 else diffuse(clean, start, noise(clean))
        given = clean if task.known[rows].any() else None
        denoise = denoiser(model, given, known, mask, banned, options)
        for step in SAMPLERS[options.sampler](denoise, x, logsnrs, generator=noise):
            words = model.rounding(step.x0).masked_fill(banned, -torch.inf).argmax(-1)
            yield Draft(rows, step.index, steps, torch.where(known, ids, words).cpu(), real)


def precision_for(model: DiffusionLM | Autoregressive, asked: Precision) -> Literal["bf16", "no"]:
    """The precision to sample in, on the model's device."""
    return choose_precision(asked, model.device, model.config.width)


def temperature_and_guidance(model: DiffusionLM | Autoregressive, options: Sampling) -> tuple[float, float]:
    """The model's own where none is asked for. Raises InputError if what is asked for means nothing to it."""
    if isinstance(model, Autoregressive):
        if options.guidance is not None:
            raise InputError("--guidance needs a diffusion model, this one is autoregressive")
        return options.temperature or 1.0, 1.0
    if options.temperature is not None and model.config.objective != "ce":
        raise InputError(f"--temperature needs a model trained with objective ce, this one has {model.config.objective}")
    guidance = model.config.sampling_guidance if options.guidance is None else options.guidance
    return options.temperature or model.config.sampling_temperature, guidance


def finished(drafts: Iterable[Draft]) -> Iterator[list[int]]:
    """The results, in the task's order, each as soon as all before it are there."""
    waiting: dict[int, list[int]] = {}
    done = 0
    for draft in drafts:
        if draft.step == draft.steps:
            waiting |= zip(draft.rows, draft.sentences(), strict=True)
            while done in waiting:
                yield waiting.pop(done)
                done += 1


def _batches(task: Task, size: int, pool: int = 16) -> Iterator[list[int]]:
    """Rows of about one length together, so that little is computed on padding; sorted among `pool` batches, so that results come in good time."""
    lengths = task.mask.sum(1)
    for first in range(0, len(lengths), pool * size):
        order = first + lengths[first : first + pool * size].argsort(stable=True)
        yield from (rows.tolist() for rows in order.split(size))


def denoiser(model: DiffusionLM, given: Tensor | None, known: Tensor, mask: Tensor, banned: Tensor, options: Sampling) -> Denoiser:
    """The model as the core sees it: self-conditioned, its estimates kept where embeddings are; `known` vectors, if there are any, are `given`."""
    temperature, guidance = temperature_and_guidance(model, options)
    told = known if model.config.reveal else torch.zeros_like(known)  # a model not trained with known words sees them as noisy ones

    def network(x_t: Tensor, logsnr: Tensor, earlier: Tensor) -> Prediction:
        seen = x_t if given is None else torch.where(told.unsqueeze(-1), given, x_t)
        with autocast(x_t.device, options.precision):
            prediction, _ = model.predict(seen, logsnr, project(earlier), told, mask, temperature=temperature, guidance=guidance, banned=banned)
        return from_x0(x_t, logsnr, prediction.x0)

    def nearest(x0: Tensor) -> Tensor:
        return model.vectors[model.rounding(x0).masked_fill(banned, -torch.inf).argmax(-1)]

    denoise = clamped(self_conditioned(network), nearest if options.clamp else project)
    return denoise if given is None else infilled(denoise, given, known.unsqueeze(-1))


def _left_to_right(model: Autoregressive, tokenizer: Tokenizer, task: Task, options: Sampling, batches: Iterator[list[int]]) -> Iterator[Draft]:
    """A draft a token. Raises InputError where what is given is not the beginning."""
    beginning = int(task.known[0].sum())
    if task.strength < 1 or task.known[:, beginning:].any():
        raise InputError("an autoregressive model can sample and continue, not rewrite or infill")
    steps = task.ids.shape[1]
    for rows in batches:
        ids, keys = task.ids[rows].to(model.device), sample_keys(options.seed, len(task.ids))[rows].to(model.device)
        drafts = model.generate_tokens(
            ids, beginning, keys, temperature=temperature_and_guidance(model, options)[0], banned=_banned(model, tokenizer)
        )
        for step, ids in enumerate(drafts, beginning + 1):
            yield Draft(rows, step, steps + 1, ids, (torch.arange(steps) < step) & (ids != model.end))
        yield Draft(rows, steps + 1, steps + 1, ids, ids != model.end)


def _banned(model: DiffusionLM | Autoregressive, tokenizer: Tokenizer) -> Bool[Tensor, " v"]:
    """The tokens that are no words."""
    banned = torch.zeros(model.config.vocab_size, dtype=torch.bool, device=model.device)
    banned[[i for i in map(tokenizer.token_to_id, (PAD, UNK, MASK)) if i is not None]] = True
    return banned


def _given(model: DiffusionLM | Autoregressive, ids: list[int], n: int) -> Int[Tensor, "n l"]:
    if not 1 <= len(ids) <= model.config.length:
        raise InputError(f"the text must have 1 to {model.config.length} tokens for this model, got {len(ids)}")
    return torch.tensor(ids).expand(n, -1)
