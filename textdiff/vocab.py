"""Tokenizers: trained on the user's text with the `tokenizers` library, or taken from elsewhere; saved as tokenizer.json.

Ids 0, 1, 2 of a trained one are [PAD], [UNK], [MASK]. Knows no model and no data set.
"""

import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from textdiff.checkpoint import write_whole
from textdiff.config import InputError, Vocabulary

log = logging.getLogger("textdiff")

PAD, UNK, MASK = "[PAD]", "[UNK]", "[MASK]"
SPECIAL: list[str | AddedToken] = [PAD, UNK, AddedToken(MASK, lstrip=True, special=True)]
WORDS = r"<\w+>|\d+(?:[.,]\d+)*|['’]?\w+(?:-\w+)*|[^\w\s]"  # tags, numbers, words and what follows an apostrophe, single marks
SPACED = r"^(?![.,;:!?)\]%'’…])"  # these attach to the word before them


def train_tokenizer(texts: Iterable[str], config: Vocabulary) -> Tokenizer:
    """A tokenizer of `config.kind` for this text, or the existing one that `config.name` names."""
    if config.name:
        return existing_tokenizer(config.name)
    tokenizer, trainer = TOKENIZERS[config.kind](config)
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() < 5:
        raise InputError(f"the training text has no words left for a vocabulary: none occurs {config.min_count} times; lower --tokenizer.min_count")
    return tokenizer


def existing_tokenizer(name: str) -> Tokenizer:
    """From a folder or file with a tokenizer.json, or the hub; what it lacks of [PAD], [UNK] and [MASK] is added."""
    path = Path(name) / "tokenizer.json" if Path(name).is_dir() else Path(name)
    try:
        tokenizer = Tokenizer.from_file(str(path)) if path.exists() else Tokenizer.from_pretrained(name)
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"no tokenizer at {name}: neither a tokenizer.json nor one on the hub ({error})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.add_special_tokens([token for token in SPECIAL if tokenizer.token_to_id(str(getattr(token, "content", token))) is None])
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids; words without a token are named in a warning."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    unknown = [text[start:end] for token, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True) if token == UNK]
    if unknown:
        log.warning("not in the model's vocabulary: %s", ", ".join(dict.fromkeys(unknown)))
    return list(encoding.ids)


def following(tokenizer: Tokenizer, before: list[int], ids: list[int]) -> str:
    """The text of `ids` right after that of `before`, with the space between them where there is one, even after an unknown word."""
    last = before[-1:]
    return tokenizer.decode(last + ids, skip_special_tokens=False)[len(tokenizer.decode(last, skip_special_tokens=False)) :]


def filled(tokenizer: Tokenizer, text: str, given: list[int], ids: list[int]) -> str:
    """`text` with each [MASK] replaced by what `ids` hold in its place; all else stays as it was typed."""
    first, *rest = re.split(r"\s*" + re.escape(MASK), text)
    mask_id = tokenizer.token_to_id(MASK)
    places = [i for i, token in enumerate(given) if token == mask_id]
    return first + "".join(following(tokenizer, ids[:i], ids[i : i + 1]) + after for i, after in zip(places, rest, strict=True))


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """tokenizer.json, and the two lines that let `transformers.AutoTokenizer` read it."""
    write_whole(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": PAD, "unk_token": UNK, "mask_token": MASK}
    write_whole(folder / "tokenizer_config.json", json.dumps(names, indent=2) + "\n")


def _word(config: Vocabulary) -> tuple[Tokenizer, trainers.Trainer]:
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNK))
    tokenizer.normalizer = _normalizer(config)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(Regex(SPACED), " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return tokenizer, trainers.WordLevelTrainer(vocab_size=config.size, min_frequency=config.min_count, special_tokens=SPECIAL, show_progress=False)


def _wordpiece(config: Vocabulary) -> tuple[Tokenizer, trainers.Trainer]:
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNK))
    tokenizer.normalizer = _normalizer(config)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return tokenizer, trainers.WordPieceTrainer(vocab_size=config.size, min_frequency=config.min_count, special_tokens=SPECIAL, show_progress=False)


def _bpe(config: Vocabulary) -> tuple[Tokenizer, trainers.Trainer]:
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, trainers.BpeTrainer(
        vocab_size=config.size,
        min_frequency=config.min_count,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )


def _normalizer(config: Vocabulary) -> normalizers.Normalizer:
    return normalizers.Sequence([normalizers.NFC()] + [normalizers.Lowercase()] * config.lowercase)


TOKENIZERS = {"word": _word, "wordpiece": _wordpiece, "bpe": _bpe}
