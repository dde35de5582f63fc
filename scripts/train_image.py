"""Trains an image model: `accelerate launch scripts/train_image.py --config configs/image_digits.yaml`."""

from image.cli import main

if __name__ == "__main__":
    main("train")
