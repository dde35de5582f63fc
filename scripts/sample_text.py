"""Prints sentences from a trained model: `python scripts/sample_text.py runs/e2e --n 8`; the same as `textdiff sample`."""

import sys

from textdiff.cli import main

if __name__ == "__main__":
    main(["sample", *sys.argv[1:]])
