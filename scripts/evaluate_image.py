"""Evaluates an image model: `python scripts/evaluate_image.py runs/digits --steps [10,50]`."""

from image.cli import main

if __name__ == "__main__":
    main("evaluate")
