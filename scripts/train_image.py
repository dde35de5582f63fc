"""Trains an image model: `python scripts/train_image.py --config configs/image_digits.yaml`.

With several processes: `accelerate launch scripts/train_image.py --config FILE`.
"""

from image.cli import main

if __name__ == "__main__":
    main("train")
