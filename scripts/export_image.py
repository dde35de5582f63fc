"""Exports an image model to ONNX: `python scripts/export_image.py runs/digits`."""

from image.cli import main

if __name__ == "__main__":
    main("export")
