"""Metrics of images: a classifier, distances between sets of features, and nearest neighbors.

Each metric is a function of images. No single one says whether a model is good.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from image.model import scaled
from image.sources import Images
from textdiff.device import own_device
from textdiff.progress import ProgressBar

Pixels = UInt8[Tensor, "_ c h w"]
Features = Float[Tensor, "_ f"]
Probabilities = Float[Tensor, "n k"]


class Classifier(nn.Module):
    """A small convolutional network. Its last hidden layer, `features`, describes an image."""

    def __init__(self, channels: int, classes: int, width: int = 32) -> None:
        super().__init__()

        def stage(size_in: int, size: int) -> list[nn.Module]:
            first, second = (nn.Conv2d(each, size, 3, padding=1) for each in (size_in, size))
            layers = [first, nn.ReLU(), second, nn.ReLU(), nn.BatchNorm2d(size)]
            return [*layers, nn.MaxPool2d(2, ceil_mode=True)]

        stages = [*stage(channels, width), *stage(width, 2 * width)]
        convolutions = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.features = nn.Sequential(convolutions, nn.Linear(32 * width, 128), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(128, classes))

    def forward(self, pixels: Pixels) -> Float[Tensor, "n k"]:
        return self.head(self.features(scaled(pixels)))


def train_classifier(
    images: Images, *, examples: int = 120_000, batch_size: int = 128, seed: int = 0
) -> Classifier:
    """Trains a classifier of the images' classes, on this process's device.

    Args:
        examples: Number of training examples, drawn with replacement.
        seed: Seed of the initial weights and the examples.
    """
    assert images.labels is not None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        device, steps = own_device(), examples // batch_size
        classifier = Classifier(images.pixels.shape[1], len(images.classes)).to(device).train()
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=0.05)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
        for _ in ProgressBar(range(steps), "training a classifier", unit="step", leave=False):
            rows = torch.randint(len(images), (batch_size,))
            logits = classifier(images.pixels[rows].to(device))
            F.cross_entropy(logits, images.labels[rows].to(device)).backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    return classifier.eval()


@torch.no_grad()
def probabilities(classifier: Classifier, pixels: Pixels) -> Probabilities:
    """Probability of each class for each image, on the CPU."""
    device = next(classifier.parameters()).device
    return torch.cat([classifier(part.to(device)).softmax(-1).cpu() for part in pixels.split(500)])


@torch.no_grad()
def features(classifier: Classifier, pixels: Pixels) -> Features:
    """Last hidden layer of the classifier for each image, on the CPU."""
    device = next(classifier.parameters()).device
    parts = (scaled(part.to(device)) for part in pixels.split(500))
    return torch.cat([classifier.features(part).cpu() for part in parts])


def accuracy(classifier: Classifier, images: Images) -> float:
    """Share of images that are classified correctly."""
    assert images.labels is not None
    predicted = probabilities(classifier, images.pixels).argmax(-1)
    return float(predicted.eq(images.labels).float().mean())


def frechet_distance(a: Features, b: Features) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features, in float64.

    |mean difference|^2 + tr(A + B - 2 (A B)^(1/2)) with covariances A and B (arXiv:1706.08500,
    eq. 6).
    """
    a, b = a.double(), b.double()
    covariance_a, covariance_b = a.T.cov(), b.T.cov()
    root = torch.linalg.eigvals(covariance_a @ covariance_b).real.clamp(min=0).sqrt().sum()
    means = (a.mean(0) - b.mean(0)).square().sum()
    return float(means + covariance_a.trace() + covariance_b.trace() - 2 * root)


def precision_recall(real: Features, generated: Features, k: int = 3) -> tuple[float, float]:
    """Precision and recall of generated images (arXiv:1904.06991, eq. 1).

    Precision is the share of generated images that lie in the ball of a real one, up to its k-th
    nearest neighbor among the real ones. Recall is the same with the sets exchanged.
    """
    distance = torch.cdist(generated, real)
    radius_real, radius_generated = (_neighbor_distance(each, k) for each in (real, generated))
    precision = (distance <= radius_real).any(1).float().mean()
    recall = (radius_generated >= distance.T).any(1).float().mean()
    return float(precision), float(recall)


def _neighbor_distance(points: Features, k: int) -> Float[Tensor, " n"]:
    """Distance of each point to its k-th nearest neighbor in the set."""
    return torch.cdist(points, points).kthvalue(k + 1, dim=1).values


def nearest(pixels: Pixels, training: Pixels) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Distance of each image to its nearest training image, and that image's number.

    The distance is the root mean square over pixels in [0, 1].
    """
    x, y = (part.flatten(1).float() / 255 for part in (pixels, training))
    found = torch.cat([torch.cdist(part, y).argmin(1) for part in x.split(500)])
    # cdist's own distance to a copy is not quite 0
    return (x - y[found]).square().mean(1).sqrt(), found
