"""Laws of tokenizers: training, loading, encoding, decoding and filling masks."""

import logging

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from textdiff.config import UserError
from textdiff.text import grammar
from textdiff.text.config import TokenizerConfig
from textdiff.text.tokenizer import (
    MASK,
    PAD,
    TOKENIZERS,
    UNK,
    decode_after,
    encode,
    fill_masks,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)

# words that the tests below use, whatever words the grammar has
SENTENCES = [
    "The food is good.",
    "the food is good, isn't it?",
    "is the king good, who sees the dog?",
    "the king, who saw the queens, sleeps.",
]
TEXTS = [*grammar.corpus(300, seed=0), *SENTENCES, *SENTENCES]
UNUSUAL = {
    "emoji": "a 👩‍👩‍👧‍👦 family 🏳️‍🌈!",
    "combining": "cafe\u0301 n\u0303 and\u200b zero\u200dwidth",
    "right to left": "שלום עולם, مرحبا بالعالم",
    "tabs and line breaks": "\ta\t\tb\r\n c\n",
    "spaces": "   leading,  double and trailing   ",
    "control": "\x01\x7f\u2028\ufeff\ufffd",
    "beyond the basic plane": "𝕬𝖇𝖈 𐍈",
    "code": "def f(x): return {'a': [x**2, None]}  # §",
    "empty": "",
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def trained(request) -> Tokenizer:
    return train_tokenizer(TEXTS, TokenizerConfig(kind=request.param, size=500))


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return train_tokenizer(TEXTS, TokenizerConfig(kind="word"))


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    """A tokenizer so small that most words are divided into pieces."""
    return train_tokenizer(TEXTS, TokenizerConfig(kind="wordpiece", size=60))


@pytest.fixture(scope="module")
def bytelevel() -> Tokenizer:
    return train_tokenizer(TEXTS, TokenizerConfig(kind="bpe", size=500))


@pytest.fixture
def foreign(tmp_path) -> str:
    """A folder with a tokenizer.json that has only [UNK], and pads and truncates."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(special_tokens=[UNK], show_progress=False)
    tokenizer.train_from_iterator(["a b c d"], trainer)
    tokenizer.enable_padding(length=9)
    tokenizer.enable_truncation(2)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return str(tmp_path)


def test_first_three_ids_are_special_tokens(trained):
    assert [trained.id_to_token(i) for i in range(3)] == [PAD, UNK, MASK]


def test_vocabulary_has_at_most_size_tokens(trained):
    assert 5 <= trained.get_vocab_size() <= 500


def test_words_of_the_training_text_have_tokens(trained):
    assert encode(trained, TEXTS[0])
    assert trained.token_to_id(UNK) not in encode(trained, TEXTS[0])


def test_words_and_punctuation_round_trip(trained):
    text = "is the food good, the king sleeps?"
    assert trained.decode(encode(trained, text)) == text


def test_words_round_trip_with_their_apostrophes(words):
    text = "the food is good, isn't it?"
    assert words.decode(encode(words, text)) == text


def test_word_tokenizer_lowercases_by_default(words):
    assert words.decode(encode(words, "The food is good.")) == "the food is good."


def test_case_is_kept_without_lowercase():
    tokenizer = train_tokenizer(TEXTS, TokenizerConfig(lowercase=False))
    assert tokenizer.decode(encode(tokenizer, "The food is good.")) == "The food is good."


@pytest.mark.parametrize("text", UNUSUAL.values(), ids=UNUSUAL)
def test_bpe_round_trips_any_text(bytelevel, text):
    assert bytelevel.decode(encode(bytelevel, text)) == text


def test_mask_is_one_token(trained):
    assert encode(trained, f"the {MASK} sleeps").count(trained.token_to_id(MASK)) == 1


def test_words_rarer_than_min_count_have_no_token():
    tokenizer = train_tokenizer(["often twice rare often twice"], TokenizerConfig(min_count=2))
    vocabulary = tokenizer.get_vocab()
    assert {"often", "twice"} <= vocabulary.keys()
    assert "rare" not in vocabulary


def test_text_without_frequent_words_is_refused():
    with pytest.raises(UserError, match="min_count"):
        train_tokenizer(["all different words"], TokenizerConfig(min_count=2))


def test_saved_tokenizer_gives_the_same_ids(trained, tmp_path):
    save_tokenizer(trained, tmp_path)
    for text in [*TEXTS[:20], *UNUSUAL.values(), f"the {MASK} sleeps"]:
        assert encode(load_tokenizer(str(tmp_path)), text) == encode(trained, text)


def test_transformers_loads_a_saved_tokenizer(trained, tmp_path):
    from transformers import AutoTokenizer

    save_tokenizer(trained, tmp_path)
    ids = AutoTokenizer.from_pretrained(tmp_path)(TEXTS[0])["input_ids"]
    assert ids == encode(trained, TEXTS[0])


def test_unknown_words_are_named_in_a_warning(words, caplog):
    with caplog.at_level(logging.WARNING, logger="textdiff"):
        encode(words, "the unicorn sees the Zebra and the unicorn.")
    (record,) = caplog.records
    assert record.getMessage() == "not in the model's vocabulary: unicorn, Zebra, and"


def test_words_with_tokens_give_no_warning(words, caplog):
    encode(words, "the food is good.")
    assert not caplog.records


def test_loading_adds_missing_special_tokens(foreign):
    tokenizer = load_tokenizer(foreign)
    assert [tokenizer.token_to_id(token) for token in (UNK, PAD, MASK)] == [0, 5, 6]


def test_loading_keeps_the_ids(foreign):
    before, after = Tokenizer.from_file(f"{foreign}/tokenizer.json"), load_tokenizer(foreign)
    assert before.get_vocab().items() <= after.get_vocab().items()


def test_loaded_tokenizer_neither_pads_nor_truncates(foreign):
    assert len(encode(load_tokenizer(foreign), "a b c d")) == 4


def test_name_option_may_be_a_tokenizer_file(foreign):
    config = TokenizerConfig(name=f"{foreign}/tokenizer.json")
    assert train_tokenizer([], config).get_vocab_size() == 7


@pytest.mark.parametrize("name", ["no/such-tokenizer", "/no/such/folder", "nothing"])
def test_missing_tokenizer_is_refused_by_name(name):
    with pytest.raises(UserError, match=name):
        load_tokenizer(name)


def test_invalid_tokenizer_file_is_refused_by_name(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=str(tmp_path)):
        load_tokenizer(str(tmp_path))


def fill(tokenizer: Tokenizer, text: str, *tokens: str) -> str:
    """`text` with its masks filled by these tokens, as infilling fills them."""
    given, mask_id = encode(tokenizer, text), tokenizer.token_to_id(MASK)
    new = map(tokenizer.token_to_id, tokens)
    ids = [next(new) if token == mask_id else token for token in given]
    return fill_masks(tokenizer, text, given, ids)


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("the [MASK] is good.", ["food"], "the food is good."),
        ("[MASK] food is good.", ["the"], "the food is good."),
        ("the food is [MASK].", ["good"], "the food is good."),
        ("the food is good[MASK]", ["."], "the food is good."),
        ("the [MASK] [MASK] good.", ["food", "is"], "the food is good."),
        ("the [MASK][MASK]  good.", ["food", "is"], "the food is  good."),
        ("[MASK]", ["food"], "food"),
        ("the[MASK]is good.", ["food"], "the food is good."),
    ],
)
def test_filled_masks_have_the_right_spaces(words, text, tokens, expected):
    assert fill(words, text, *tokens) == expected


def test_filling_keeps_the_typed_text(words):
    assert fill(words, "THE  [MASK]\tIS “Good” .\n", "food") == "THE food\tIS “Good” .\n"


def test_filled_word_after_unknown_word_has_a_space(words):
    assert fill(words, "the unicorn [MASK] good.", "is") == "the unicorn is good."


def test_bytes_fill_a_mask_exactly(bytelevel):
    assert fill(bytelevel, "The [MASK] is good.", "Ġthe") == "The the is good."


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_decode_after_completes_the_text(trained, cut):
    ids = encode(trained, "the king, who saw the queens, sleeps.")
    begin, end = ids[:cut], ids[cut:]
    assert trained.decode(begin) + decode_after(trained, begin, end) == trained.decode(ids)


@pytest.mark.parametrize(
    ("kind", "token"), [("word", "king"), ("bpe", "Ġking"), ("wordpiece", "king")]
)
def test_new_word_follows_after_a_space(kind, token):
    tokenizer = train_tokenizer(TEXTS, TokenizerConfig(kind=kind, size=2000))
    ids = [tokenizer.token_to_id(token)]
    assert decode_after(tokenizer, encode(tokenizer, "the"), ids) == " king"


def test_punctuation_follows_without_a_space(words):
    assert decode_after(words, encode(words, "the king"), encode(words, ".")) == "."


def test_piece_of_a_word_follows_without_space(pieces):
    first, second, *_ = encode(pieces, "queens")
    assert decode_after(pieces, [first], [second]) == pieces.id_to_token(second).removeprefix("##")
