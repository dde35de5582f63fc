"""Samples images: `python scripts/sample_image.py runs/digits --n 64 --out grid.png`."""

from image.cli import main

if __name__ == "__main__":
    main("sample")
