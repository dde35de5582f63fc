"""Texts longer than a model's sequences: a window that moves from left to right.

Words behind the window are given, as in a continuation, and words ahead of it are not there yet.
So a document is a series of requests of the model's own length.
"""

from collections.abc import Iterator

import torch

from textdiff.text.requests import Request

OVERLAP = 0.5  # share of a window that is given, except in the first


def windowed(request: Request, longest: int) -> Iterator[tuple[slice, Request]]:
    """Yields each window in which words are sampled, and the request for it.

    The words of a window must be written into `request.ids` before the next one is asked for.

    Args:
        longest: Number of tokens of a window.
    """
    length = request.mask.shape[1]
    step = longest - int(OVERLAP * longest)
    firsts = [*range(0, length - longest, step), max(0, length - longest)]
    position, moving = torch.arange(length), (request.mask & (request.start > 0)).any(0)
    done = 0
    for first in firsts:
        end = min(first + longest, length)
        if moving[done:end].any() or (end == length and not moving.any()):
            start = request.start.masked_fill(position < done, 0)
            window = slice(first, end)
            ids, mask = request.ids[:, window], request.mask[:, window]
            yield window, Request(ids, mask, start[:, window], request.decoding)
        done = end
