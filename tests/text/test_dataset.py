"""Laws of examples, packing, and the corpus that holds them."""

import numpy as np
import pytest
from text_files import LINES, log_messages

from textdiff.config import UserError
from textdiff.text import dataset
from textdiff.text.config import DataConfig, TokenizerConfig
from textdiff.text.dataset import Corpus, collate, examples
from textdiff.text.tokenizer import train_tokenizer

# --- examples


def test_too_long_sentences_are_left_out_and_counted(tokenizer, caplog):
    texts = ["the king sleeps ."] * 3 + ["the king sees the queen and the dog ."] * 2
    assert len(list(examples(texts, tokenizer, DataConfig(length=5)))) == 3
    (message,) = log_messages(caplog)
    assert "2 of 5 examples" in message
    assert "data.length = 5" in message


def test_text_without_examples_is_refused(tokenizer):
    with pytest.raises(UserError, match=r"--data\.pack"):
        list(examples(LINES, tokenizer, DataConfig(length=2)))


# --- packing


@pytest.mark.parametrize("length", [2, 7, 64])
def test_packed_blocks_have_one_length(tokenizer, length):
    blocks = examples(LINES, tokenizer, DataConfig(length=length, pack=True))
    assert {len(block) for block in blocks} == {length}


@pytest.mark.parametrize("length", [2, 7, 64])
def test_packing_keeps_the_text_in_order(tokenizer, length):
    """Less than a block at the end is lost."""
    whole = [i for line in LINES for i in tokenizer.encode(line).ids]
    blocks = examples(LINES, tokenizer, DataConfig(length=length, pack=True))
    packed = [i for block in blocks for i in block]
    assert packed == whole[: len(packed)]
    assert len(whole) - len(packed) < length


def test_text_shorter_than_a_block_is_refused(tokenizer):
    with pytest.raises(UserError, match="does not fill one block"):
        list(examples(LINES[:2], tokenizer, DataConfig(length=1000, pack=True)))


def test_packed_lines_keep_their_line_ends():
    """Only a tokenizer of bytes has tokens for line ends."""
    tokenizer = train_tokenizer(["ab cd"], TokenizerConfig(kind="bpe", min_count=1))
    block = next(examples(["ab", "cd"] * 9, tokenizer, DataConfig(length=6, pack=True)))
    assert tokenizer.decode(block).startswith("ab\ncd")


# --- corpus


def lists(corpus: Corpus) -> list[list[int]]:
    return [ids.tolist() for ids in corpus]


def test_corpus_gives_back_its_examples():
    rows = [[1, 2, 3], [4], [], [5, 6]]
    assert lists(Corpus.of(rows)) == rows


def test_head_is_the_first_examples(corpus):
    assert lists(corpus.head(5)) == [corpus[i].tolist() for i in range(5)]


@pytest.mark.parametrize("size", [1, 7, 50, 10**6])
def test_pieces_add_up_to_the_corpus(size, corpus, monkeypatch):
    monkeypatch.setattr(dataset, "PIECE", size)
    assert [ids for piece in corpus.pieces() for ids in lists(piece)] == lists(corpus)


def test_collate_pads_to_the_longest_example():
    tensors = collate([np.array([5, 6, 7]), np.array([8])], np.array([3, 9]))
    assert tensors["ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert tensors["mask"].tolist() == [[True, True, True], [True, False, False]]
    assert tensors["index"].tolist() == [3, 9]
