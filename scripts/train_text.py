"""Trains a text model, as `textdiff train` does.

With several processes: `accelerate launch scripts/train_text.py --config configs/text_e2e.yaml`.
"""

import sys

from textdiff.cli.main import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
