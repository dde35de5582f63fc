import logging

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from textdiff import grammar
from textdiff.config import InputError, Vocabulary
from textdiff.vocab import MASK, PAD, TOKENIZERS, UNK, encode, existing_tokenizer, filled, following, save_tokenizer, train_tokenizer

OWN = ["The food is good.", "the food is good, isn't it?", "is the king good, who sees the dog?", "the king, who saw the queens, sleeps."]
TEXTS = [*grammar.corpus(300, seed=0), *OWN, *OWN]  # what is tested below does not hang on the grammar's words
NASTY = {
    "emoji": "a 👩‍👩‍👧‍👦 family 🏳️‍🌈!",
    "combining": "cafe\u0301 n\u0303 and\u200b zero\u200dwidth",
    "right to left": "שלום עולם, مرحبا بالعالم",
    "tabs and line breaks": "\ta\t\tb\r\n c\n",
    "spaces": "   leading,  double and trailing   ",
    "control": "\x01\x7f\u2028\ufeff\ufffd",
    "beyond the basic plane": "𝕬𝖇𝖈 𐍈",
    "code": "def f(x): return {'a': [x**2, None]}  # §",
    "nothing": "",
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def trained(request) -> Tokenizer:
    return train_tokenizer(TEXTS, Vocabulary(kind=request.param, size=500))


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return train_tokenizer(TEXTS, Vocabulary(kind="word"))


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    """So small that most words are in pieces."""
    return train_tokenizer(TEXTS, Vocabulary(kind="wordpiece", size=60))


@pytest.fixture(scope="module")
def bytelevel() -> Tokenizer:
    return train_tokenizer(TEXTS, Vocabulary(kind="bpe", size=500))


@pytest.fixture
def foreign(tmp_path) -> str:
    """Somebody else's tokenizer.json: it knows [UNK] alone, pads and truncates."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(["a b c d"], trainers.WordLevelTrainer(special_tokens=[UNK], show_progress=False))
    tokenizer.enable_padding(length=9)
    tokenizer.enable_truncation(2)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return str(tmp_path)


def test_ids_0_1_2_are_the_special_tokens(trained):
    assert [trained.id_to_token(i) for i in range(3)] == [PAD, UNK, MASK]


def test_every_kind_keeps_within_the_size_asked_for(trained):
    assert 5 <= trained.get_vocab_size() <= 500


def test_every_kind_knows_the_words_of_its_text(trained):
    assert encode(trained, TEXTS[0])
    assert trained.token_to_id(UNK) not in encode(trained, TEXTS[0])


def test_every_kind_round_trips_words_and_marks(trained):
    assert trained.decode(encode(trained, "is the food good, the king sleeps?")) == "is the food good, the king sleeps?"


def test_words_round_trip_with_their_apostrophes(words):
    assert words.decode(encode(words, "the food is good, isn't it?")) == "the food is good, isn't it?"


def test_words_round_trip_after_lower_casing(words):
    assert words.decode(encode(words, "The food is good.")) == "the food is good."


def test_case_is_kept_when_asked_for():
    tokenizer = train_tokenizer(TEXTS, Vocabulary(lowercase=False))
    assert tokenizer.decode(encode(tokenizer, "The food is good.")) == "The food is good."


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_bpe_round_trips_any_text_exactly(bytelevel, text):
    assert bytelevel.decode(encode(bytelevel, text)) == text


def test_a_mask_is_one_token_for_every_kind(trained):
    assert encode(trained, f"the {MASK} sleeps").count(trained.token_to_id(MASK)) == 1


def test_words_rarer_than_min_count_have_no_token():
    tokenizer = train_tokenizer(["often twice rare often twice"], Vocabulary(min_count=2))
    assert [tokenizer.token_to_id(word) is None for word in ("often", "twice", "rare")] == [False, False, True]


def test_a_text_without_a_frequent_word_is_refused_with_the_way_out():
    with pytest.raises(InputError, match="min_count"):
        train_tokenizer(["all different words"], Vocabulary(min_count=2))


def test_a_saved_tokenizer_gives_the_same_ids(trained, tmp_path):
    save_tokenizer(trained, tmp_path)
    for text in [*TEXTS[:20], *NASTY.values(), f"the {MASK} sleeps"]:
        assert encode(existing_tokenizer(str(tmp_path)), text) == encode(trained, text)


def test_a_saved_tokenizer_is_read_by_transformers(trained, tmp_path):
    from transformers import AutoTokenizer

    save_tokenizer(trained, tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(TEXTS[0])["input_ids"] == encode(trained, TEXTS[0])


def test_unknown_words_are_warned_of_by_name(words, caplog):
    with caplog.at_level(logging.WARNING, logger="textdiff"):
        encode(words, "the unicorn sees the Zebra and the unicorn.")
    assert [record.getMessage() for record in caplog.records] == ["not in the model's vocabulary: unicorn, Zebra, and"]


def test_known_words_are_not_warned_of(words, caplog):
    encode(words, "the food is good.")
    assert not caplog.records


def test_what_an_existing_tokenizer_lacks_is_added(foreign):
    tokenizer = existing_tokenizer(foreign)
    assert [tokenizer.token_to_id(token) for token in (UNK, PAD, MASK)] == [0, 5, 6]


def test_an_existing_tokenizer_keeps_its_ids(foreign):
    before, after = Tokenizer.from_file(f"{foreign}/tokenizer.json"), existing_tokenizer(foreign)
    assert before.get_vocab().items() <= after.get_vocab().items()


def test_an_existing_tokenizer_neither_pads_nor_truncates(foreign):
    assert len(encode(existing_tokenizer(foreign), "a b c d")) == 4


def test_an_existing_tokenizer_may_be_named_by_its_file(foreign):
    assert train_tokenizer([], Vocabulary(name=f"{foreign}/tokenizer.json")).get_vocab_size() == 7


@pytest.mark.parametrize("name", ["no/such-tokenizer", "/no/such/folder", "nothing"])
def test_a_tokenizer_that_is_nowhere_is_refused_by_name(name):
    with pytest.raises(InputError, match=name):
        existing_tokenizer(name)


def test_a_file_that_is_no_tokenizer_is_refused_by_name(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=str(tmp_path)):
        existing_tokenizer(str(tmp_path))


def fill(tokenizer: Tokenizer, text: str, *tokens: str) -> str:
    """`text` with its masks filled by these tokens, as infilling does it."""
    given = encode(tokenizer, text)
    new = iter(tokens)
    return filled(tokenizer, text, given, [tokenizer.token_to_id(next(new)) if i == tokenizer.token_to_id(MASK) else i for i in given])


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
    ],
)
def test_every_mask_is_filled_with_the_right_space(words, text, tokens, expected):
    assert fill(words, text, *tokens) == expected


def test_what_was_typed_is_left_as_it_was(words):
    assert fill(words, "THE  [MASK]\tIS “Good” .\n", "food") == "THE food\tIS “Good” .\n"


def test_a_word_that_fills_a_mask_after_an_unknown_word_has_its_space(words):
    assert fill(words, "the unicorn [MASK] good.", "is") == "the unicorn is good."


def test_bytes_fill_a_mask_as_they_are(bytelevel):
    assert fill(bytelevel, "The [MASK] is good.", "Ġthe") == "The the is good."


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_what_follows_a_part_of_a_text_completes_it(trained, cut):
    ids = encode(trained, "the king, who saw the queens, sleeps.")
    assert trained.decode(ids[:cut]) + following(trained, ids[:cut], ids[cut:]) == trained.decode(ids)


@pytest.mark.parametrize(("kind", "after"), [("word", "king"), ("bpe", "Ġking"), ("wordpiece", "king")])
def test_a_new_word_follows_after_a_space(kind, after):
    tokenizer = train_tokenizer(TEXTS, Vocabulary(kind=kind, size=2000))
    assert following(tokenizer, encode(tokenizer, "the"), [tokenizer.token_to_id(after)]) == " king"


def test_a_mark_follows_without_a_space(words):
    assert following(words, encode(words, "the king"), encode(words, ".")) == "."


def test_a_piece_of_a_word_follows_without_a_space(pieces):
    first, second, *_ = encode(pieces, "queens")
    assert following(pieces, [first], [second]) == pieces.id_to_token(second).removeprefix("##")
