"""Tokenizers of the `tokenizers` library: training, loading, saving, encoding and decoding.

A trained tokenizer has the ids 0, 1, 2 for [PAD], [UNK], [MASK].
"""

import json
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from textdiff.config import UserError, shortened
from textdiff.text.config import TokenizerConfig
from textdiff.text.special_tokens import MASK, PAD, SEPARATOR, UNK
from textdiff.training.checkpoint import atomic_write

log = logging.getLogger("textdiff")

Special = list[str | AddedToken]
SPECIAL: Special = [PAD, UNK, AddedToken(MASK, lstrip=True, special=True)]
SEP = AddedToken(SEPARATOR, lstrip=True, rstrip=True, special=True)
# tags, numbers, words, parts after an apostrophe, single punctuation marks
WORDS = r"<\w+>|\d+(?:[.,]\d+)*|['’]?\w+(?:-\w+)*|[^\w\s]"
# tokens with a space before them: all but the marks that attach to the word before
SPACED = r"^(?![.,;:!?)\]%'’…])"


def train_tokenizer(
    texts: Iterable[str], config: TokenizerConfig, special: Sequence[AddedToken] = ()
) -> Tokenizer:
    """Trains a tokenizer, or loads `config.name`.

    Args:
        special: More special tokens.

    Raises:
        UserError: If no word is frequent enough for the vocabulary.
    """
    if config.name:
        tokenizer = load_tokenizer(config.name)
        tokenizer.add_special_tokens([*special])
        return tokenizer
    tokenizer, trainer = TOKENIZERS[config.kind](config, [*SPECIAL, *special])
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() < 5:
        rare = f"no word of the training text occurs {config.min_count} times"
        raise UserError(f"{rare}, so the vocabulary is empty: lower --tokenizer.min_count")
    return tokenizer


def load_tokenizer(name: str) -> Tokenizer:
    """Loads a tokenizer and adds [PAD], [UNK] and [MASK] if they are missing.

    Args:
        name: A tokenizer.json, a folder with one, or a name on the hub.

    Raises:
        UserError: If there is no tokenizer.
    """
    path = Path(name) / "tokenizer.json" if Path(name).is_dir() else Path(name)
    try:
        if path.exists():
            tokenizer = Tokenizer.from_file(str(path))
        else:
            tokenizer = Tokenizer.from_pretrained(name)
    except Exception as error:  # the library raises bare Exception
        reason = f"neither a tokenizer.json nor one on the hub ({error})"
        raise UserError(f"no tokenizer at {name}: {reason}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    texts = [str(getattr(token, "content", token)) for token in SPECIAL]
    pairs = zip(texts, SPECIAL, strict=True)
    missing = [token for text, token in pairs if tokenizer.token_to_id(text) is None]
    tokenizer.add_special_tokens(missing)
    return tokenizer


def special_ids(tokenizer: Tokenizer) -> set[int]:
    """Ids of the special tokens, which no text has."""
    ids = map(tokenizer.token_to_id, (PAD, UNK, MASK, SEPARATOR))
    return {token for token in ids if token is not None}


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a text. A warning names the words without a token."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    tokens = zip(encoding.tokens, encoding.offsets, strict=True)
    unknown = [text[start:end] for token, (start, end) in tokens if token == UNK]
    if unknown:
        log.warning("not in the model's vocabulary: %s", ", ".join(dict.fromkeys(unknown)))
    return list(encoding.ids)


def encode_known(tokenizer: Tokenizer, text: str) -> list[int]:
    """`encode` of a text that must have a word with a token, or UserError."""
    if {*tokenizer.encode(text, add_special_tokens=False).tokens} == {UNK}:
        raise UserError(f"{shortened(repr(text))} has no word of the model's vocabulary")
    return encode(tokenizer, text)


def tokens_of_words(
    tokenizer: Tokenizer, texts: Sequence[str], words: Sequence[str]
) -> list[list[bool]]:
    """Whether each token of each text belongs to one of the words or phrases.

    Raises:
        UserError: If no text has one of them.
    """
    encodings = tokenizer.encode_batch([*texts], add_special_tokens=False)
    inside = [[False] * len(encoding) for encoding in encodings]
    for word in words:
        before, after = r"(?<!\w)" * in_word(word[0]), r"(?!\w)" * in_word(word[-1])
        pattern, found = re.compile(before + re.escape(word) + after, re.IGNORECASE), False
        for text, encoding, flags in zip(texts, encodings, inside, strict=True):
            for match in pattern.finditer(text):
                found = True
                for i, (start, end) in enumerate(encoding.offsets):
                    flags[i] |= start < match.end() and end > match.start()
        if not found:
            subject = "no text has" if len(texts) > 1 else "the text does not have"
            raise UserError(f"--protect: {subject} {word!r}")
    return inside


def in_word(character: str) -> bool:
    """Whether a character is a part of words: a letter, a digit or an underscore."""
    return character.isalnum() or character == "_"


def decode_kept(tokenizer: Tokenizer, text: str, kept: Sequence[bool], ids: list[int]) -> str:
    """Decodes tokens, some of which are those of a text; their unknown words are spelled alike."""
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    unknown = [
        text[start:end]
        for (start, end), token, keep in zip(offsets, ids, kept, strict=False)
        if keep and token == tokenizer.token_to_id(UNK)
    ]
    if not unknown:
        return tokenizer.decode(ids)
    spellings = iter(unknown)
    decoded = tokenizer.decode(ids, skip_special_tokens=False)
    return re.sub(re.escape(UNK), lambda _: next(spellings, UNK), decoded)


def decode_after(tokenizer: Tokenizer, before: list[int], ids: list[int]) -> str:
    """Decodes `ids` as the continuation of `before`, with a space in between where needed."""
    last = before[-1:]
    prefix = tokenizer.decode(last, skip_special_tokens=False)
    return tokenizer.decode(last + ids, skip_special_tokens=False)[len(prefix) :]


def fill_masks(tokenizer: Tokenizer, text: str, given: list[int], ids: list[int]) -> str:
    """Replaces each [MASK] of a text by its sampled word and keeps the rest as it was typed.

    Args:
        given: Token ids of `text`.
        ids: Token ids with the sampled words.
    """
    first, *rest = re.split(r"\s*" + re.escape(MASK), text)
    mask_id = tokenizer.token_to_id(MASK)
    positions = [i for i, token in enumerate(given) if token == mask_id]
    words = [decode_after(tokenizer, ids[:i], ids[i : i + 1]) for i in positions]
    following = [decode_after(tokenizer, ids[: i + 1], ids[i + 1 : i + 2]) for i in positions]
    for i, after in enumerate(rest):
        if after and in_word(after[0]) and following[i].startswith(" "):
            rest[i] = " " + after
    return first + "".join(word + after for word, after in zip(words, rest, strict=True))


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes tokenizer.json and the file with which `transformers.AutoTokenizer` can read it."""
    atomic_write(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    names = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "unk_token": UNK,
        "mask_token": MASK,
    }
    atomic_write(folder / "tokenizer_config.json", json.dumps(names, indent=2) + "\n")


def _word(config: TokenizerConfig, special: Special) -> tuple[Tokenizer, trainers.Trainer]:
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNK))
    tokenizer.normalizer = _normalizer(config)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(Regex(SPACED), " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer, trainers.WordLevelTrainer(
        vocab_size=config.size,
        min_frequency=config.min_count,
        special_tokens=special,
        show_progress=False,
    )


def _wordpiece(config: TokenizerConfig, special: Special) -> tuple[Tokenizer, trainers.Trainer]:
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNK))
    tokenizer.normalizer = _normalizer(config)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return tokenizer, trainers.WordPieceTrainer(
        vocab_size=config.size,
        min_frequency=config.min_count,
        special_tokens=special,
        show_progress=False,
    )


def _bpe(config: TokenizerConfig, special: Special) -> tuple[Tokenizer, trainers.Trainer]:
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, trainers.BpeTrainer(
        vocab_size=config.size,
        min_frequency=config.min_count,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=special,
        show_progress=False,
    )


def _normalizer(config: TokenizerConfig) -> normalizers.Normalizer:
    return normalizers.Sequence([normalizers.NFC()] + [normalizers.Lowercase()] * config.lowercase)


TOKENIZERS = {"word": _word, "wordpiece": _wordpiece, "bpe": _bpe}
