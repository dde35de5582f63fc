"""Loading of trained text models by name."""

from tokenizers import Tokenizer

from textdiff.config import UserError
from textdiff.hub import load_pretrained
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.model import DiffusionLM
from textdiff.text.requests import TextModel
from textdiff.text.tokenizer import load_tokenizer


def load_model(name: str) -> tuple[TextModel, Tokenizer]:
    """Loads a model, on this process's device, and its tokenizer.

    Args:
        name: A run folder, its model/ folder, or a model on the Hugging Face hub.
    """
    kinds: tuple[type[TextModel], ...] = (DiffusionLM, Autoregressive)
    model, source = load_pretrained(name, kinds, ("config.json", "tokenizer.json"))
    tokenizer = load_tokenizer(source)
    expected, found = model.config.vocab_size, tokenizer.get_vocab_size()
    if expected != found:
        tokens = f"a model of {expected} tokens, but its tokenizer.json has {found}"
        raise UserError(f"{name} is {tokens}")
    return model, tokenizer
