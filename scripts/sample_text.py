"""Samples sentences, as `textdiff sample` does: `python scripts/sample_text.py runs/e2e --n 8`."""

import sys

from textdiff.cli.main import main

if __name__ == "__main__":
    main(["sample", *sys.argv[1:]])
