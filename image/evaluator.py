"""The metrics of each row of an image evaluation's table."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from image import metrics
from image.config import EvaluationConfig
from image.dots import judge
from image.metrics import Classifier, Features, Pixels
from image.sources import Images
from textdiff.config import UserError

log = logging.getLogger("textdiff")

MIN_IMAGES = 20  # fewer held-out images are too few to compare with
SEARCHED = 500  # images whose nearest training image is searched for

Extractor = Callable[[Pixels], Features]


@dataclass
class Evaluator:
    """Computes the metrics of images, real or sampled.

    Args:
        training: The training images.
        held_out: The held-out images.
        classifier: Classifier of the training images. None if they have no classes.
        extract: Extractor of the features that are compared. None if there is none.
        reference: Features of held-out images, with which as many of each row are compared.
        dots: Whether the images are the built-in dots, which have metrics of their own.
    """

    training: Images
    held_out: Images
    classifier: Classifier | None
    extract: Extractor | None
    reference: Features | None
    dots: bool

    def metrics_of(self, images: Images) -> dict[str, Any]:
        """All metrics of a row of images."""
        found = {"images": len(images)} | self._two_sample(images) | self._of_classes(images)
        if self.dots:
            found["single_dots"], found["uniform_p"] = judge(images.pixels)
        return found

    def nearest_training(self, images: Images) -> float:
        """Mean distance to the nearest training image, of the first images."""
        distance, _ = metrics.nearest(images.pixels[:SEARCHED], self.training.pixels)
        return float(distance.mean())

    def held_out_accuracy(self) -> float | None:
        """Accuracy of the classifier on the held-out images."""
        return None if self.classifier is None else metrics.accuracy(self.classifier, self.held_out)

    def _two_sample(self, images: Images) -> dict[str, Any]:
        """Comparison with as many held-out images, by features."""
        if self.extract is None or self.reference is None:
            return {}
        features = self.extract(images.pixels[: len(self.reference)])
        real = self.reference[: len(features)]
        precision, recall = metrics.precision_recall(real, features)
        return {
            "compared": len(features),
            "frechet_distance": metrics.frechet_distance(real, features),
            "precision": precision,
            "recall": recall,
        }

    def _of_classes(self, images: Images) -> dict[str, Any]:
        """Metrics by the classifier, and by one that is trained on these images."""
        if self.classifier is None:
            return {}
        confidence, predicted = metrics.probabilities(self.classifier, images.pixels).max(-1)
        counts = torch.bincount(predicted, minlength=len(images.classes))
        agreement = predicted.eq(torch.as_tensor(images.labels)).float().mean()
        examples = min(120_000, 100 * len(images))
        trained_on_images = metrics.train_classifier(images, examples=examples)
        return {
            "confidence": float(confidence.mean()),
            "class_balance": float(counts.max() / counts.min().clamp(min=1)),
            "agreement": float(agreement),
            "accuracy_score": metrics.accuracy(trained_on_images, self.held_out),
        }


def build_evaluator(
    training: Images, held_out: Images, options: EvaluationConfig, dots: bool
) -> Evaluator:
    """Trains the classifier and computes the features of the held-out images.

    Raises:
        UserError: If there are too few held-out images.
    """
    compared = held_out.pixels[: min(options.n, len(training))]
    if len(compared) < MIN_IMAGES:
        few = f"{len(compared)} held-out images are too few to compare with"
        way_out = "give --data, or train with more of them"
        raise UserError(f"{few}, {MIN_IMAGES} are needed: {way_out}")
    classifier = metrics.train_classifier(training) if training.labels is not None else None
    extract: Extractor | None = None
    if options.inception:
        extract = _inception()
    elif classifier:
        extract = partial(metrics.features, classifier)
    else:
        log.warning(
            "the images have no classes, so no classifier can be trained and no features compared: "
            "for photographs give --inception true"
        )
    reference = extract(compared) if extract else None
    return Evaluator(training, held_out, classifier, extract, reference, dots)


def _inception() -> Extractor:
    """Extractor of features of torch-fidelity's Inception network."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        missing = "--inception needs torch-fidelity: pip install 'textdiff[fidelity]'"
        raise UserError(missing) from error
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).eval()

    @torch.no_grad()
    def extract(pixels: Pixels) -> Features:
        return torch.cat([network(part.expand(-1, 3, -1, -1))[0] for part in pixels.split(50)])

    return extract
