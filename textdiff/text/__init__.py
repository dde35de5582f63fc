"""Text models: data, tokenizer, networks, sampling and training."""
