"""Causal language models of transformers as reference models."""

import math
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from textdiff.config import UserError
from textdiff.evaluation.config import EvaluationConfig
from textdiff.evaluation.evaluate import evaluate
from textdiff.evaluation.reference_lm import PretrainedReferenceLM, perplexity
from textdiff.text import grammar
from textdiff.text.hub import load_model
from textdiff.text.tokenizer import UNK

QUICK = {"n": 20, "scored": 4, "ode": 2, "steps": 2, "baselines": []}
WORDS = sorted({word for sentence in grammar.corpus(200, seed=0) for word in sentence.split()})
VOCABULARY = ["<s>", "[UNK]", *WORDS]


@pytest.fixture(scope="module")
def uniform_lm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A GPT-2 of at most 32 tokens that gives all words the same probability."""
    folder = tmp_path_factory.mktemp("gpt")
    tokens = {word: i for i, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(tokens, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    special = {"bos_token": "<s>", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    size = {"n_positions": 32, "n_embd": 8, "n_layer": 1, "n_head": 1}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(VOCABULARY), **size))
    torch.nn.init.zeros_(model.transformer.wte.weight)
    model.save_pretrained(folder)
    return str(folder)


def test_any_causal_lm_can_be_reference(run: str, uniform_lm: str, tmp_path: Path) -> None:
    options = EvaluationConfig(**QUICK, reference_lm=uniform_lm, out=str(tmp_path))
    nats = evaluate(run, options)["reference_lm"]["held_out_nats_per_token"]
    assert nats == pytest.approx(math.log(len(VOCABULARY)), abs=1e-4)


def test_unknown_words_do_not_count(run: str, uniform_lm: str) -> None:
    """[UNK] has no text that another tokenizer could encode."""
    tokenizer = load_model(run)[1]
    unknown, the = tokenizer.token_to_id(UNK), tokenizer.token_to_id("the")
    sentences = [(the, unknown, the), (unknown,)]
    found = perplexity(PretrainedReferenceLM(uniform_lm, tokenizer), sentences)
    assert found == pytest.approx(len(VOCABULARY), rel=1e-4)


def test_too_long_sentence_is_refused(run: str, uniform_lm: str) -> None:
    tokenizer = load_model(run)[1]
    reference_lm = PretrainedReferenceLM(uniform_lm, tokenizer)
    with pytest.raises(UserError, match="takes at most 32 tokens"):
        reference_lm.nats([(tokenizer.token_to_id("the"),) * 32])


def test_missing_reference_model_is_named(run: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        evaluate(run, EvaluationConfig(**QUICK, reference_lm=str(tmp_path / "nowhere")))
