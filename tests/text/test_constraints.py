"""Laws of forbidden and required phrases."""

import re

import pytest
import torch

from textdiff import TextDiffusion
from textdiff.config import UserError
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.text.config import TokenizerConfig
from textdiff.text.constraints import constraints_of
from textdiff.text.control import Control
from textdiff.text.tokenizer import MASK, train_tokenizer

SENTENCE = "the king sees a small girl ."
ORDERS = ("parallel", "left-to-right", "right-to-left", "random")
FORBID, REQUIRE = ["king", "small girl", "a"], ["queens", "the brave"]
HOT = {"steps": 4, "temperature": 3.0}


@pytest.fixture(scope="module")
def pipe(model, tokenizer):
    return TextDiffusion(model, tokenizer)


def has(text: str, phrase: str) -> bool:
    """Whether a text has a phrase, by its spelling."""
    return bool(re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE))


def check(texts: list[str], forbid=FORBID, require=REQUIRE) -> None:
    for text in texts:
        assert not [phrase for phrase in forbid if has(text, phrase)], text
        assert not [phrase for phrase in require if not has(text, phrase)], text


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("order", ORDERS)
def test_every_sampler_and_order_obeys(pipe, sampler, order):
    options = HOT | {"sampler": sampler, "order": order, "forbid": FORBID, "require": REQUIRE}
    check(pipe.sample(12, length=8, **options).texts)


@pytest.mark.parametrize("objective", ["x0", "eps", "ce"])
@pytest.mark.parametrize("prior", ["none", "unigram"])
def test_every_model_obeys(new_model, tokenizer, objective, prior):
    other = TextDiffusion(new_model(objective=objective, prior=prior).eval(), tokenizer)
    check(other.sample(12, length=8, steps=3, forbid=FORBID, require=REQUIRE).texts)


def test_free_samples_break_the_constraints(pipe):
    """Otherwise the tests above show nothing."""
    texts = pipe.sample(40, length=8, **HOT).texts
    for phrase in ("king", "a"):
        assert any(has(text, phrase) for text in texts)
    assert any(not has(text, "queens") for text in texts)


def test_every_task_obeys(pipe):
    """Given words never change."""
    options = HOT | {"n": 8, "forbid": FORBID, "require": REQUIRE}
    check(pipe.rewrite(SENTENCE, strength=0.6, **options).texts)
    protected = pipe.rewrite(SENTENCE, protect=["sees", "."], strength=1.0, **options).texts
    check(protected)
    assert all(text.split()[2] == "sees" for text in protected)
    filled = pipe.infill(f"the {MASK} {MASK} {MASK} sees {MASK} .", **options).texts
    check(filled)
    assert all(re.fullmatch(r"the \w+ \w+ \w+ sees \w+\s*\.", text) for text in filled)
    completed = pipe.complete("the boy", **options).texts
    check(completed)
    assert all(text.startswith("the boy") for text in completed)


def test_punctuation_is_found_beside_words(pipe):
    """A phrase that begins or ends with no letter may have one beside it."""
    found = pipe.sample(20, length=6, forbid=["."], require=["king"], **HOT).texts
    assert not any("." in text for text in found)
    assert all(has(text, "king") for text in found)
    kept = pipe.sample(20, length=6, require=["king ."], **HOT).texts
    assert all(re.search(r"king\s*\.", text) for text in kept)


def test_many_words_may_be_forbidden(pipe):
    words = [word for word in sorted(pipe.tokenizer.get_vocab()) if word.isalpha()]
    forbidden = [word for word in words if word not in ("the", "king", "sees", "dog")]
    found = pipe.sample(20, length=6, forbid=forbidden, require=["the king"], **HOT).texts
    check(found, forbidden, ["the king"])


def test_given_words_count(pipe):
    """A required phrase may be given, and forbidden ones may not arise around given words."""
    options = HOT | {"n": 12, "forbid": ["small girl"], "require": ["king"]}
    check(pipe.infill(f"the king sees a {MASK} girl .", **options).texts, ["small girl"], ["king"])


def test_constraints_without_effect_change_nothing(pipe, model):
    """Words and phrases of probability 0 are forbidden, and words that all texts have required."""
    free = pipe.sample(8, length=7, **HOT)
    absent = next(
        word
        for word in sorted(pipe.tokenizer.get_vocab())
        if word.isalpha() and not any(has(text, word) for text in free.texts)
    )
    token = pipe.tokenizer.token_to_id(absent)
    never, kept = model.head.bias[token].item(), model.head.bias
    with torch.no_grad():
        kept[token] = -1e4
        try:
            options = HOT | {"length": 7}
            plain = pipe.sample(8, **options)
            assert pipe.sample(8, forbid=[absent], **options) == plain
            assert pipe.sample(8, forbid=[f"the {absent}"], **options) == plain
        finally:
            kept[token] = never
    infilled = pipe.infill(f"the king sees {MASK} {MASK} .", n=6, **HOT)
    text = f"the king sees {MASK} {MASK} ."
    assert pipe.infill(text, n=6, require=["king", "the"], **HOT) == infilled


def test_constrained_samples_do_not_depend_on_batches(pipe):
    options = HOT | {"forbid": FORBID, "require": REQUIRE, "seed": 3}
    found = pipe.sample(7, **options)
    assert pipe.sample(7, batch_size=2, **options) == found
    *_, last = pipe.stream.sample(7, **options)
    assert last.texts == found.texts


def test_drawn_lengths_have_room_for_phrases(pipe):
    check(pipe.sample(60, require=["the king sees a girl"], steps=1).texts, (), ["a girl"])


def test_options_may_be_texts_with_commas(pipe):
    """Spelling of the phrases in capitals means the same."""
    found = pipe.sample(4, length=7, forbid="King, small girl", require=" QUEENS ,the brave", **HOT)
    same = pipe.sample(4, length=7, forbid=["king", "small girl"], require=REQUIRE, **HOT)
    assert found == same


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forbid": ["girl"], "require": ["Girl"]}, "'girl' is in forbid and in require"),
        ({"forbid": ["girl"], "require": ["small girl"]}, "required phrase has a forbidden one"),
        ({"require": ["unicorn"]}, "require: 'unicorn' is not in the model's vocabulary"),
        ({"forbid": "king,"}, "forbid must be words or phrases, separated by commas, got ''"),
        ({"length": 3, "require": ["the king sees a"]}, "no text of length 3 has all required"),
        ({"require": "the,a,king,boy,boys,girl,sees,brave"}, "have too many phrases together"),
    ],
)
def test_contradictions_are_one_clear_line(pipe, options, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        pipe.sample(2, **{"steps": 2} | options)
    assert "\n" not in str(error.value)


def test_given_words_may_contradict(pipe):
    for message, call in {
        "forbid: 'king' is one of the words to keep": lambda: pipe.complete(
            "the king", forbid="king"
        ),
        "length 2 has all required phrases and the words to keep: change": lambda: pipe.infill(
            f"the {MASK}", require=["king", "girl"]
        ),
        "length 7 has the words to keep, and no forbidden phrase: change": lambda: pipe.rewrite(
            SENTENCE, protect=["small girl"], forbid="small girl"
        ),
    }.items():
        with pytest.raises(UserError, match=message):
            call()


def test_contradictions_name_one_of_several_texts(pipe):
    texts, options = ["the king sees .", "the boy ."], {"strength": [0.2, 1.0], "n": 3}
    short = r"^text \(number 2\): no text of length 3 has all required"
    with pytest.raises(UserError, match=short):
        pipe.rewrite(texts, require="the king sees a", **options)
    given = r"^text \(number 2\): forbid: 'boy' is one of the words to keep"
    with pytest.raises(UserError, match=given):
        pipe.rewrite(texts, protect="boy", forbid="boy", **options)


def test_a_window_may_begin_within_a_word():
    """The "a" of "chea", at the left edge of a window, is no word: the text before it decides."""
    tokenizer = train_tokenizer(["the cheap pub is a pub"] * 3, TokenizerConfig("bpe", size=300))
    size = tokenizer.get_vocab_size()
    control = Control(
        torch.zeros(size).bool(), constraints_of(tokenizer, size, ["a"], []).automaton
    )
    given = torch.ones(1, 3, dtype=torch.bool)
    for text, first, later in (("aĠp", False, True), ("Ġap", True, True), ("ĠaĠ", False, False)):
        words = torch.tensor([[tokenizer.token_to_id(character) for character in text]])
        for each, expected in ((control, first), (control.after_text(), later)):
            possible = each.automaton.accepts(words, given, control.banned, given)
            assert possible.item() == expected, text


@pytest.fixture
def pairs(new_model):
    """A model of pairs, with "." as the separator of source and target."""

    def model(tokenizer):
        found = new_model(separator=tokenizer.token_to_id(".")).eval()
        found.prior_weight.fill_(1.0)
        return TextDiffusion(found, tokenizer)

    return model


def test_contradictions_of_targets_count_no_source(pairs, tokenizer):
    message = "^no text of length 2 has all required phrases: change require or the length"
    with pytest.raises(UserError, match=message):
        pairs(tokenizer).generate("the girl sees", length=2, require="the king sees")


def test_targets_obey_whatever_their_sources_have(pairs, tokenizer):
    pipe = pairs(tokenizer)
    assert pipe.model.config.has_sources
    sources = ["the small girl sees queens", "a king near the brave girl"]
    found = pipe.generate(sources, n=20, forbid=FORBID, require=REQUIRE, **HOT)
    check(found.texts)
    assert len({len(ids) for ids in found.sequences}) > 2
    with pytest.raises(UserError, match="has all required phrases"):
        pipe.generate(sources, length=1, require=REQUIRE)
    with pytest.raises(UserError, match="classifier needs a model without sources"):
        pipe.generate(sources, classifier="folder", label="king")


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_pieces_of_words_are_read_as_characters(kind):
    """A word is found however the tokenizer divides it, and not within a longer one."""
    texts = ["the cheap food is cheaper", "a cheap pub", "she ate chea p"] * 3
    tokenizer = train_tokenizer(texts, TokenizerConfig(kind, size=300))
    size = tokenizer.get_vocab_size()
    found = constraints_of(tokenizer, size, ["cheap"], [])
    assert found.automaton
    cases = {"the cheap food": False, "Cheap".lower(): False, "cheaper food": True, "chea p": True}
    for text, allowed in cases.items():
        divided = [
            tokenizer.encode(text, add_special_tokens=False).ids,
            [tokenizer.token_to_id(c.replace(" ", "Ġ")) for c in text] if kind == "bpe" else None,
        ]
        for ids in filter(None, divided):
            words = torch.tensor([ids])
            given = torch.ones_like(words, dtype=torch.bool)
            possible = found.automaton.accepts(words, given, torch.zeros(size).bool(), given)
            assert possible.item() == allowed, (text, ids)
