"""Special tokens and marks in texts. This module imports nothing heavy."""

PAD, UNK, MASK = "[PAD]", "[UNK]", "[MASK]"
SEPARATOR = "[SEP]"  # between source and target
ANY_NUMBER = "[MASK*]"  # one or more tokens, in texts to infill; no token itself
