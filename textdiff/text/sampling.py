"""Sampling of text: `generate` runs the reverse process for a `Request`, batch after batch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer
from torch import Tensor

from textdiff.config import SamplingConfig, UserError
from textdiff.diffusion.samplers import LogSNRs, Noise
from textdiff.diffusion.schedules import Schedule, with_even_share
from textdiff.distributed import SINGLE_PROCESS, ProcessInfo
from textdiff.prng import noise_generator, sample_keys, uniform_generator
from textdiff.sampling import SampleBatch, resample, resample_grid, sampling_precision
from textdiff.text.autoregressive import ONLY_LEFT_TO_RIGHT, Autoregressive
from textdiff.text.control import Control, control_of
from textdiff.text.decoding import without_auto
from textdiff.text.denoiser import ALL, Uniforms, build_denoiser
from textdiff.text.documents import windowed
from textdiff.text.functional import source_words
from textdiff.text.orders import order_path
from textdiff.text.predictor import WordPredictor
from textdiff.text.requests import Request, TextModel

# Share of the time of a rewrite that is even in log SNR. An adaptive schedule alone leaves out the
# high ones, at which few words are in doubt, and even a strength near 0 would change words.
EVEN_SHARE = 0.1
FEW_FIRST = 1.5  # power of the grid that moves words in order; see docs/experiments.md
POOL = 16  # batches that are sorted by length together; more would delay the first results


def generate(
    model: TextModel,
    tokenizer: Tokenizer,
    request: Request,
    config: SamplingConfig,
    process: ProcessInfo = SINGLE_PROCESS,
    probabilities: bool = False,
) -> Iterator[SampleBatch[list[int]]]:
    """Yields the token ids of a batch after every step, for one batch after another.

    Sequence i depends only on the seed, on i and on its part of the request.

    Args:
        process: With several processes, each samples its part of the batches.
        probabilities: Whether batches of a diffusion model have the probabilities of their tokens.
    """
    control = control_of(model, tokenizer, request)
    return sample_batches(model, control, request, config, process, probabilities)


@torch.no_grad()
def sample_batches(
    model: TextModel,
    control: Control,
    request: Request,
    config: SamplingConfig,
    process: ProcessInfo = SINGLE_PROCESS,
    probabilities: bool = False,
) -> Iterator[SampleBatch[list[int]]]:
    """`generate` with a control that was made before, which needs no tokenizer."""
    batches = islice(_batches(model, request, config), process.rank, None, process.world)
    if isinstance(model, Autoregressive):
        yield from _generate_left_to_right(model, control.banned, request, config, batches)
        return
    options = sampling_precision(model, config.precision), config.sampler, probabilities
    reverse = partial(_reverse, model, *options)
    document = request.mask.shape[1] > model.config.length
    decoding = without_auto(model, request.decoding, config.sampler, document)
    request, keys = replace(request, decoding=decoding), sample_keys(config.seed, len(request.ids))
    drawn, fitted = decoding.x0 != "mean", model.schedule()
    for rows in batches:
        part, own_keys = request.part(rows), keys[rows].to(model.device)
        schedule = with_even_share(fitted, EVEN_SHARE) if part.rewrites.any() else fitted
        noise, uniforms = noise_generator(own_keys), uniform_generator(own_keys) if drawn else None
        log_snrs = partial(_log_snrs, schedule, steps=config.steps, keys=keys[rows])
        windows, certain = windowed(part, model.config.length), torch.ones(part.ids.shape)
        steps, before = sum(len(log_snrs(now)) - 1 for _, now in windows), 0
        for window, now in windowed(part, model.config.length):
            own = control.after_text() if window.start else control
            for step in reverse(own, now, log_snrs(now), noise, uniforms):
                part.ids[:, window], certain[:, window] = step.words, step.probabilities
                shown = part.mask & (part.given | (torch.arange(part.ids.shape[1]) < window.stop))
                samples, ready = _unpadded(part.ids, shown), (window.start + step.settled).tolist()
                kept = _unpadded(certain, shown) if probabilities else ()
                yield SampleBatch(rows, before + step.index, steps, samples, ready, kept)
            before += step.index


@dataclass(frozen=True)
class _TextStep:
    """Words after a step, their probabilities, and how many at the beginning are final."""

    index: int
    words: Int[Tensor, "b l"]
    probabilities: Float[Tensor, "b l"]
    settled: Int[Tensor, " b"]


def _reverse(
    model: WordPredictor,
    precision: str,
    sampler: str,
    with_probabilities: bool,
    control: Control,
    request: Request,
    logsnrs: LogSNRs,
    noise: Noise,
    uniforms: Uniforms | None,
) -> Iterator[_TextStep]:
    """Runs the reverse process in one window."""
    kept = request.given if len(logsnrs) > 1 else request.mask  # without noise, all tokens stay
    given, mask = request.ids.clone(), request.mask.to(model.device)
    x0 = model.words.embeddings[given.to(model.device)]
    never, control = control.never(request).to(model.device), control.to(model.device)
    moving = _moving(request, logsnrs.to(model.device))
    options = request.decoding, precision, uniforms, control.automaton
    predicted: list[Tensor] | None = [] if with_probabilities else None
    more = control.guide(mask), _dropped(model, request), predicted, moving
    denoise = build_denoiser(model, mask, never, *options, *more)
    for step in resample(denoise, x0, noise, logsnrs, strength=request.start, sampler=sampler):
        scores = model.words.rounding_logits(step.x0).masked_fill(never, -torch.inf)
        final = kept | (step.logsnr >= logsnrs[-1])
        words = torch.where(kept, given, control.words(scores, mask).cpu())
        certain = torch.ones(words.shape)
        if predicted:
            of_words = predicted[0].cpu().float().gather(-1, words.unsqueeze(-1)).squeeze(-1)
            certain = certain.where(kept, of_words)
        yield _TextStep(step.index, words, certain, final.cumprod(1).sum(1))


def _moving(request: Request, logsnrs: LogSNRs) -> Iterator[Bool[Tensor, "b l"] | None]:
    """Words that lose noise in each step, if draws distinguish them and not all do."""
    if request.decoding.x0 != "moving" or logsnrs.ndim == 1:
        return ALL
    return iter(logsnrs[1:] > logsnrs[:-1])


def _dropped(model: WordPredictor, request: Request) -> Bool[Tensor, "b l"] | None:
    """Words that the unconditional model of guidance does not see; None without such a model."""
    if not model.config.drops_sources:
        return None
    given = request.ids.where(request.given, -1)
    return source_words(given, model.config.separator).to(model.device)


def _log_snrs(schedule: Schedule, request: Request, steps: int, keys: Int[Tensor, " b"]) -> LogSNRs:
    """Log SNRs of the sampler: one per step if all words have the same, or one per word.

    Args:
        keys: Keys of the sequences, for random order.
    """
    decoding, strength = request.decoding, request.strength
    start = request.start[request.mask]
    if decoding.order == "parallel" and (start == start.max()).all():
        return resample_grid(schedule, steps, strength)
    order = decoding.order, decoding.window
    path = order_path(schedule, request.start, request.mask, keys, *order)
    power = 1.0 if decoding.order == "parallel" else FEW_FIRST
    return path.grid(math.ceil(steps * strength), power).unique_consecutive(dim=0)


def _generate_left_to_right(
    model: Autoregressive,
    banned: Bool[Tensor, " v"],
    request: Request,
    config: SamplingConfig,
    batches: Iterator[list[int]],
) -> Iterator[SampleBatch[list[int]]]:
    """Samples from left to right, one step per token.

    Raises:
        UserError: If known words are not at the beginning.
    """
    given = request.given.sum(1)
    scattered = request.given & (torch.arange(request.ids.shape[1]) >= given.unsqueeze(1))
    if scattered.any() or (request.start.where(request.mask, 0) % 1 > 0).any():
        raise UserError(ONLY_LEFT_TO_RIGHT)
    keys = sample_keys(config.seed, len(request.ids))
    for rows in batches:
        ids, beginning, device = request.part(rows).ids, int(given[rows[0]]), model.device
        length = ids.shape[1]
        sequences = model.generate_tokens(
            ids.to(device),
            beginning,
            keys[rows].to(device),
            temperature=request.decoding.temperature,
            banned=banned.to(device),
        )
        for step, ids in enumerate(sequences, beginning + 1):
            mask = (torch.arange(length) < step) & (ids != model.end)
            yield SampleBatch(rows, step, length + 1, _unpadded(ids, mask))
        yield SampleBatch(rows, length + 1, length + 1, _unpadded(ids, ids != model.end))


def _batches(model: TextModel, request: Request, config: SamplingConfig) -> Iterator[list[int]]:
    """Rows that are sampled together.

    Rows whose schedules, windows or beginnings differ are not, for their steps would be different.
    """
    alike = request.rewrites.long()
    if isinstance(model, Autoregressive):
        alike = request.given.sum(1)
    elif request.mask.shape[1] > model.config.length:
        moving = request.mask & (request.start > 0)
        kinds = torch.cat([request.mask, moving, request.rewrites.unsqueeze(1)], 1)
        alike = kinds.unique(dim=0, return_inverse=True)[1]
    for rows in _rows(request, config.batch_size):
        yield from _of_equal_numbers(rows, alike)


def _rows(request: Request, batch_size: int) -> Iterator[list[int]]:
    """Batches of rows of the same strength and of similar length, so that little is padding.

    Among rows of equal length, those with equally many given tokens are together.
    """
    lengths, strengths = request.mask.sum(1), request.start.where(request.mask, 0).amax(1)
    given = request.given.sum(1)
    for pool in torch.arange(len(lengths)).split(POOL * batch_size):
        order = pool[given[pool].argsort(stable=True)]
        order = order[lengths[order].argsort(stable=True)]
        for strength in strengths[pool].unique():
            same = order[strengths[order] == strength]
            yield from (rows.tolist() for rows in same.split(batch_size))


def _of_equal_numbers(rows: list[int], numbers: Tensor) -> Iterator[list[int]]:
    """The rows, divided into lists whose rows have equal numbers."""
    for number in numbers[rows].unique().tolist():
        yield [row for row in rows if numbers[row] == number]


def _unpadded(values: Tensor, mask: Tensor) -> list[list[Any]]:
    """The values at the real positions of each sequence."""
    return [row[real].tolist() for row, real in zip(values, mask, strict=True)]
