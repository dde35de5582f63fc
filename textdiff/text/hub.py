"""Loading of trained text models by name."""

from tokenizers import Tokenizer

from textdiff.config import UserError
from textdiff.hub import load_pretrained
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.model import DiffusionLM
from textdiff.text.requests import TextModel
from textdiff.text.tokenizer import load_tokenizer


def load_model(
    name: str, revision: str | None = None, token: str | None = None
) -> tuple[TextModel, Tokenizer]:
    """Loads a model, on this process's device, and its tokenizer.

    Args:
        name: A run folder, its model/ folder, or a model on the Hugging Face hub.
        revision: Branch, tag or commit of a model on the hub. If None, the main branch.
        token: Access token of the hub. If None, that of `hf auth login` or HF_TOKEN.
    """
    kinds: tuple[type[TextModel], ...] = (DiffusionLM, Autoregressive)
    files = ("config.json", "tokenizer.json")
    model, source = load_pretrained(name, kinds, files, revision, token)
    tokenizer = load_tokenizer(source)
    expected, found = model.config.vocab_size, tokenizer.get_vocab_size()
    if expected != found:
        tokens = f"a model of {expected} tokens, but its tokenizer.json has {found}"
        raise UserError(f"{name} is {tokens}")
    return model, tokenizer
