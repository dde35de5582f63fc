"""Trains a text model: `accelerate launch scripts/train_text.py --config configs/text_e2e.yaml`; the same as `textdiff train`."""

import sys

from textdiff.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
