"""Tab of the forward process: a sentence at every level of noise, under any schedule."""

from collections.abc import Iterator
from functools import partial

import gradio as gr
import torch

from textdiff.demo import curve
from textdiff.demo.frames import PROBABILITIES, Frame, Word, connect, new_frames, paragraphs
from textdiff.demo.words import checked, text_input, unknown_words
from textdiff.diffusion.gaussian import diffuse
from textdiff.prng import noise_generator, sample_keys
from textdiff.text.model import DiffusionLM
from textdiff.text.pipeline import TextDiffusion
from textdiff.text.tokenizer import decode_after, encode


def noise_tab(pipe: TextDiffusion, example: str) -> None:
    """A sentence that becomes noise."""
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            text = text_input("Text", example)
            schedule, seed = curve.controls()
        with gr.Column(scale=2, min_width=320):
            frames = noise_frames(pipe, example, curve.OWN, 0)
            view = new_frames("noise", legend=PROBABILITIES, frames=frames, at=curve.POINTS // 4)

    triggers = [text.submit, text.blur, schedule.change, seed.change]
    connect(triggers, partial(noise_frames, pipe), [text, schedule, seed], view, at_once=True)


@torch.no_grad()
def noise_frames(pipe: TextDiffusion, text: str, schedule: str, seed: int) -> Iterator[Frame]:
    """The sentence at each time: x_t = alpha x0 + sigma eps, with the same eps at all times.

    Each word is the most probable one given its own noisy embedding, and its colour is its
    probability: Bayes' rule with the frequencies of words.
    """
    model, tokenizer = pipe.model, pipe.tokenizer
    assert isinstance(model, DiffusionLM)
    text = checked(text)
    ids, note = encode(tokenizer, text), unknown_words(tokenizer, text)
    longest = model.config.length
    if len(ids) > longest:
        ids, note = ids[:longest], f"The first {longest} of {len(ids)} tokens. {note}"
    logsnrs = curve.log_snrs(schedule, model.schedule())
    x0 = model.words.embeddings[torch.tensor(ids, device=model.device)].cpu()
    eps = noise_generator(sample_keys(seed, 1))(x0.unsqueeze(0)).expand(len(logsnrs), -1, -1)
    x_t = diffuse(x0.expand_as(eps), eps, logsnrs).to(model.device)
    likely = model.words.context_free_logits(x_t, logsnrs.to(model.device)).softmax(-1).max(-1)
    values, found = (each.tolist() for each in likely)

    def content(words: list[int], probabilities: list[float]) -> str:
        read = (decode_after(tokenizer, words[:k], [token]) for k, token in enumerate(words))
        return paragraphs([map(Word, read, probabilities)])

    yield from curve.noise_frames(map(content, found, values), logsnrs, note)
