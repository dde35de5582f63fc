"""Preparation of the tokenizer and the tokens of a run, by the main process for all others."""

from collections.abc import Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from tokenizers import Tokenizer

from textdiff.config import UserError
from textdiff.text import token_cache
from textdiff.text.config import TextConfig
from textdiff.text.dataset import STREAM_SAMPLE
from textdiff.text.sources import Texts, open_texts
from textdiff.text.tokenizer import SEP, load_tokenizer, train_tokenizer
from textdiff.training.run_dir import RunDir


def prepare_data(
    texts: Texts | None, config: TextConfig, run_dir: RunDir[TextConfig], accelerator: Accelerator
) -> tuple[Tokenizer, Path, Path]:
    """Prepares the tokenizer and the token caches of the training and validation texts.

    Args:
        texts: The texts; None on other processes than the main one.

    Raises:
        UserError: On all processes, if the main process finds an error in the text.
    """
    result: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            result = [_prepare(texts, config, run_dir)]
        except UserError as error:
            result = [error]
    (found,) = broadcast_object_list(result)
    if isinstance(found, UserError):
        raise found
    serialized, *paths = found
    tokenizer = Tokenizer.from_str(serialized)
    # this machine cannot read the disk of the main process
    if accelerator.is_local_main_process and not all(path.exists() for path in paths):
        _prepare(None, config, run_dir, tokenizer)
    accelerator.wait_for_everyone()
    return tokenizer, *paths


def _prepare(
    texts: Texts | None,
    config: TextConfig,
    run_dir: RunDir[TextConfig],
    tokenizer: Tokenizer | None = None,
) -> tuple[str, Path, Path]:
    """Serialized tokenizer and token caches.

    The text is never in memory as a whole. Only the beginning of a stream is prepared.
    """
    texts = texts or open_texts(config.data)
    training: Iterable[str] = texts.train()
    if config.data.streaming:
        training = [*islice(training, STREAM_SAMPLE)]
    with token_cache.all_cores():
        tokenizer = tokenizer or _tokenizer(training, config, run_dir)
        folder = run_dir.path / "tokens"
        prepare = partial(token_cache.prepare, folder, tokenizer=tokenizer, data=config.data)
        return tokenizer.to_str(), prepare("train", training), prepare("valid", texts.valid)


def _tokenizer(
    training: Iterable[str], config: TextConfig, run_dir: RunDir[TextConfig]
) -> Tokenizer:
    """Loads the tokenizer of a resumed run, or trains a new one."""
    model_dir = run_dir.path / "model"
    if run_dir.resume and (model_dir / "tokenizer.json").exists():
        return load_tokenizer(str(model_dir))
    special = [SEP] if config.data.source else []
    return train_tokenizer(training, config.tokenizer, special)
